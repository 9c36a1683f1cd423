"""The released grid search, with weights carried from setting to setting and with fresh ones.

The released notebook builds the model once and recompiles it for every combination, so that each
starts from the weights that the one before it left. Everything else is as there, at 28 px, with a
validation set that is large enough to draw many sets of 16 images from it.
"""

from __future__ import annotations

from pathlib import Path

from companion.probes import Measured, answers
from companion.probes.bits import pack
from companion.studies import every
from companion.studies.chest_paper import KERAS
from companion.studies.grid import PAPER_GRID
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import train_run
from varreg.lab.specs import RunSpec

NAMES = ("feature_sampling_ratio", "lambda_", "variance_weight")
ORDER = every(**{name: PAPER_GRID[name] for name in NAMES})
"""The 12 combinations in the order in which the released notebook tries them."""

#: One unit a whole search: three seeds, each with fresh and with carried-over weights.
SETTINGS = every(seed=range(3), mode=("fresh", "carried"))
SEARCH = KERAS | {"size": 28, "learning_rate": 1e-3, "epochs": 20, "patience": 5}


def measure(mode: str, seed: int, **where: str | Path | None) -> Measured:
    """Go through the 12 combinations once.

    Args:
        mode: ``"fresh"`` or ``"carried"``: what every combination but the first starts from.
        seed: Of the search; every combination has a seed of its own that follows from it.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

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
        run = train_run(spec, **where, model=model)
        row = {"place": place, **combination, "epochs_run": len(run.fit.history)}
        for part in ("val", "test"):
            logits, labels = answers(run, part)
            metrics = classification_metrics(logits, labels, "binary")
            row |= {f"{part}_{name}": metrics[name] for name in ("accuracy", "cross_entropy")}
            if part == "val":
                row["val_right"] = pack((logits.view(-1) > 0) == labels.bool())
        details.append(row)
    labels = run.data.val.labels
    return Measured(run.data, {"val_labels": pack(labels), "val_images": len(labels)}, details)
