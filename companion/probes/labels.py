"""The labels of the validation and test images, to read recorded predictions by without the images.

The order is that of the recorded predictions.
"""

from __future__ import annotations

from pathlib import Path

from companion.probes import Measured
from varreg.lab import datasets

PARTS = ("val", "test")


#: One unit a data set and split of it, of those that studies record predictions of at 28 px.
SETTINGS = [
    {"dataset": "pneumoniamnist", "split": "official"},
    {"dataset": "ham10000", "split": "lesion"},
    {"dataset": "ham10000", "split": "paper"},
    {"dataset": "breastmnist", "split": "official"},
    {"dataset": "phantom", "split": "official"},
    {"dataset": "adrenalmnist3d", "split": "official"},
]


def measure(dataset: str, split: str, **where: str | Path | None) -> Measured:
    """Read the labels.

    Args:
        dataset: Name of a data set with one label an image.
        split: Which split of it.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        The ``task``, and a row for each image: ``part``, ``position`` (from 0) and ``label``.
    """
    data = datasets.load(dataset, size=28, split=split, root=where.get("root"))
    details = [
        {"part": part, "position": position, "label": int(label)}
        for part in PARTS
        for position, label in enumerate(getattr(data, part).labels.flatten())
    ]
    return Measured(data, {"size": 28, "task": data.task}, details)
