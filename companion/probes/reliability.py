"""How far the confidence of a trained network can be trusted, on images like and unlike its own.

The networks are those that ``few_images`` records with all training images, and ``rivals`` for
BreastMNIST. What each says about each image is kept, so that curves and thresholds can be drawn
without the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from companion.probes import Measured, answers
from companion.studies import every, few_images
from varreg.checks import Task
from varreg.lab.calibration import fit_temperature
from varreg.lab.corruptions import CORRUPTIONS, corrupt
from varreg.lab.datasets import Dataset, Subset
from varreg.lab.metrics import (
    accuracy,
    auroc,
    brier,
    confidence_bins,
    cross_entropy,
    expected_calibration_error,
    reliability_metrics,
)
from varreg.lab.predictions import Predictions
from varreg.lab.runs import train_run
from varreg.lab.specs import RunSpec
from varreg.lab.training import predict

COMPARED = ("none", "fixed", "self_setting", "feature_l2", "augmented", "augmented_feature_l2")
SEVERITIES = (1, 3, 5)
#: One unit a network.
SETTINGS = every(dataset=("breastmnist", "pneumoniamnist"), seed=range(10), method=COMPARED)


def spec(dataset: str, seed: int, method: str) -> RunSpec:
    """The run that a unit trains once more; ``method`` is a name in ``few_images``."""
    return few_images.settings(few_images.STUDY, dataset, method, seed)


def measure(dataset: str, seed: int, method: str, **where: str | Path | None) -> Measured:
    """Train one network and ask it about its own images, others, and worse ones.

    Args:
        dataset: Name of the data set, of two classes.
        seed: Of the run.
        method: One of :data:`COMPARED`.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        The ``temperature`` of the validation images, and a row a ``condition`` (``"val"``,
        ``"test"``, or a corruption of the test images) and ``severity`` (0: as they are):
        ``accuracy``, ``auroc``, ``aurc``, ``augrc``, which a temperature does not change with two
        classes; ``cross_entropy``, ``ece``, ``brier`` and the mean ``confidence``, and the same
        ``scaled_`` by the temperature; and the logits as
        :class:`varreg.lab.predictions.Predictions` has them as text.
    """
    wanted = spec(dataset, seed, method)
    run = train_run(wanted, **where)
    task = run.data.task
    logits, labels = answers(run, "val")
    temperature = fit_temperature(logits, labels, task)
    details = []
    for condition, severity, subset in conditions(run.data):
        logits = predict(run.model, subset.images, run.fit.scaling)
        areas = reliability_metrics(logits, subset.labels, task)
        row: dict[str, object] = {
            "condition": condition,
            "severity": severity,
            "accuracy": accuracy(logits, subset.labels, task),
            "auroc": auroc(logits, subset.labels, task),
            "aurc": areas["aurc"],
            "augrc": areas["augrc"],
        }
        for head, divisor in (("", 1.0), ("scaled_", temperature)):
            found = _trust(logits.double() / divisor, subset.labels, task)
            row |= {head + name: value for name, value in found.items()}
        said = Predictions(logits.reshape(len(logits), -1).numpy(), range(len(logits)))
        details.append(row | {"logits": said.to_text()})
    row = {"model": wanted.model, "size": wanted.size, "split": wanted.split}
    return Measured(run.data, row | {"temperature": temperature}, details)


def conditions(data: Dataset) -> Iterator[tuple[str, int, Subset]]:
    """Validation images, test images, and these in every corruption and severity."""
    yield "val", 0, data.val
    yield "test", 0, data.test
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            yield (
                name,
                severity,
                Subset(corrupt(data.test.images, name, severity), data.test.labels),
            )


def _trust(logits: Tensor, labels: Tensor, task: Task) -> dict[str, float]:
    """What depends on how sure the model is, and not only on the order."""
    return {
        "cross_entropy": cross_entropy(logits, labels, task),
        "ece": expected_calibration_error(logits, labels, task),
        "brier": brier(logits, labels, task),
        "confidence": float(confidence_bins(logits, labels, task, 1)[0].mean()),
    }
