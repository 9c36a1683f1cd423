"""What one number, fitted on validation data, does to the baseline: temperature scaling.

Where a penalty lowers the cross-entropy and leaves accuracy and AUROC as they were, it changes how
sure a model is and not what it says. Dividing the logits by a temperature does just that, and
needs no training.
"""

from __future__ import annotations

from pathlib import Path

from companion import studies
from companion.probes import Measured
from companion.studies.grid import MODELS
from varreg.lab.calibration import fit_temperature
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import train_run
from varreg.lab.training import predict

PARTS = ("val", "test")
METRICS = ("cross_entropy", "ece", "accuracy", "auroc")


def settings() -> list[dict[str, object]]:
    """One unit a run: the baseline of both studies and both networks, ten seeds."""
    return [
        {"source": source, "model": model, "seed": seed}
        for seed in range(10)
        for source in ("chest", "skin")
        for model in MODELS
    ]


def measure(
    source: str,
    model: str,
    seed: int,
    *,
    root: str | Path | None = None,
    device: str | None = None,
) -> Measured:
    """Train one baseline once more and divide its logits by a temperature.

    Args:
        source: ``"chest"`` or ``"skin"``, the study that the run is from; skin by lesion.
        model: Name of the network.
        seed: Of the run.
        root: Folder of the data.
        device: Default: CUDA if there is one.

    Returns:
        The ``temperature`` of the validation images, and a row for each split and
        ``temperature_used`` (1: as trained): ``cross_entropy``, ``ece``, ``accuracy``, ``auroc``.
    """
    (spec,) = (
        spec
        for spec in studies.specs(source)
        if (spec.model, spec.method, spec.seed) == (model, "baseline", seed)
        and spec.split in (None, "lesion")
    )
    run = train_run(spec, root=root, device=device)
    subsets = {part: getattr(run.data, part) for part in PARTS}
    logits = {
        part: predict(run.model, subset.images, run.fit.scaling).double()
        for part, subset in subsets.items()
    }
    task = run.data.task
    temperature = fit_temperature(logits["val"], subsets["val"].labels, task)
    details = []
    for part, subset in subsets.items():
        for used in (1.0, temperature):
            found = classification_metrics(logits[part] / used, subset.labels, task)
            row = {"part": part, "temperature_used": used}
            details.append(row | {name: found[name] for name in METRICS})
    row = {"dataset": spec.dataset, "size": spec.size, "split": spec.split}
    return Measured(run.data, row | {"temperature": temperature}, details)
