"""What one number, fitted on validation data, does to the baseline: temperature scaling.

Where a penalty lowers the cross-entropy and leaves accuracy and AUROC as they were, it changes how
sure a model is and not what it says. Dividing the logits by a temperature does just that, and
needs no training.
"""

from __future__ import annotations

from pathlib import Path

from companion import studies
from companion.probes import Measured, answers
from companion.studies import every
from companion.studies.grid import MODELS
from varreg.lab.calibration import fit_temperature
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import train_run

METRICS = ("cross_entropy", "ece", "accuracy", "auroc")
#: One unit a run: the baseline of both studies and both networks, ten seeds.
SETTINGS = every(seed=range(10), source=("chest", "skin"), model=MODELS)


def measure(source: str, model: str, seed: int, **where: str | Path | None) -> Measured:
    """Train one baseline once more and divide its logits by a temperature.

    Args:
        source: ``"chest"`` or ``"skin"``, the study that the run is from; skin by lesion.
        model: Name of the network.
        seed: Of the run.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        The ``temperature`` of the validation images, and a row for each split and
        ``temperature_used`` (1: as trained): ``cross_entropy``, ``ece``, ``accuracy``, ``auroc``.
    """
    split = "lesion" if source == "skin" else None
    (spec,) = studies.specs(source, model=model, method="baseline", seed=seed, split=split)
    run = train_run(spec, **where)
    said = {part: answers(run, part) for part in ("val", "test")}
    logits, labels = said["val"]
    temperature = fit_temperature(logits.double(), labels, run.data.task)
    details = []
    for part, (logits, labels) in said.items():
        for used in (1.0, temperature):
            found = classification_metrics(logits.double() / used, labels, run.data.task)
            row = {"part": part, "temperature_used": used}
            details.append(row | {name: found[name] for name in METRICS})
    row = {"dataset": spec.dataset, "size": spec.size, "split": spec.split}
    return Measured(run.data, row | {"temperature": temperature}, details)
