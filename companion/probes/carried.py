"""The released grid search, with weights carried from setting to setting and with fresh ones.

The released notebook builds the model once and recompiles it for every combination, so that each
starts from the weights that the one before it left. Everything else is as there, at 28 px, with a
validation set that is large enough to draw many sets of 16 images from it.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

from companion.probes import Measured
from companion.probes.bits import pack
from companion.studies.chest_paper import KERAS
from companion.studies.grid import PAPER_GRID
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import RunSpec, train_run
from varreg.lab.training import predict

NAMES = ("feature_sampling_ratio", "lambda_", "variance_weight")
ORDER = tuple(
    dict(zip(NAMES, values, strict=True))
    for values in product(*(PAPER_GRID[name] for name in NAMES))
)
"""The 12 combinations in the order in which the released notebook tries them."""

SEARCH = KERAS | {"size": 28, "learning_rate": 1e-3, "epochs": 20, "patience": 5}


def settings() -> list[dict[str, object]]:
    """One unit a whole search: three seeds, each with fresh and with carried-over weights."""
    return [{"mode": mode, "seed": seed} for seed in range(3) for mode in ("fresh", "carried")]


def measure(
    mode: str, seed: int, *, root: str | Path | None = None, device: str | None = None
) -> Measured:
    """Go through the 12 combinations once.

    Args:
        mode: ``"fresh"`` or ``"carried"``: what every combination but the first starts from.
        seed: Of the search; every combination has a seed of its own that follows from it.
        root: Folder of the data.
        device: Default: CUDA if there is one.

    Returns:
        A row a combination; ``val_right`` says for each validation image whether it was
        classified correctly, see :mod:`companion.probes.bits`.
    """
    run, details = None, []
    for place, combination in enumerate(ORDER, 1):
        spec = RunSpec(
            study="carried",
            dataset="pneumoniamnist",
            method="penalized",
            seed=1000 * seed + place,
            **SEARCH,
            **combination,
        )
        model = run.model if run is not None and mode == "carried" else None
        run = train_run(spec, root=root, device=device, model=model)
        row = {"place": place, **combination, "epochs_run": len(run.fit.history)}
        for part in ("val", "test"):
            subset = getattr(run.data, part)
            logits = predict(run.model, subset.images, run.fit.scaling)
            metrics = classification_metrics(logits, subset.labels, "binary")
            row |= {f"{part}_{name}": metrics[name] for name in ("accuracy", "cross_entropy")}
            if part == "val":
                right = (logits.view(-1) > 0) == subset.labels.bool()
                row["val_right"] = pack(right.numpy())
        details.append(row)
    labels = run.data.val.labels
    return Measured(
        run.data, {"val_labels": pack(labels.numpy()), "val_images": len(labels)}, details
    )
