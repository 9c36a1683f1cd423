"""Test images of lesions that the training split shows too: what are they worth?

Seen and unseen test images differ in more than that: a lesion with several images is another kind
of lesion. So the same test images are judged by three models. One is trained on the whole
training split, one without the lesions of the test images, and one without as many other images of
the same classes. The last two learn from equally many images; only one of them has seen the
lesions that it is asked about.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from companion.probes import Measured
from companion.studies.grid import DATASETS, MODELS
from varreg.lab.datasets import Dataset, Subset
from varreg.lab.runs import RunSpec, load_data, train_run
from varreg.lab.training import predict

TRAINING = ("all images", "without the test lesions", "without as many others")


def settings() -> list[dict[str, object]]:
    """One unit a run: both networks, three training sets, five seeds."""
    return [
        {"model": model, "training": training, "seed": seed}
        for seed in range(5)
        for model in MODELS
        for training in TRAINING
    ]


def measure(
    model: str,
    training: str,
    seed: int,
    *,
    root: str | Path | None = None,
    device: str | None = None,
) -> Measured:
    """Train a baseline on the paper's split of HAM10000, which is by image, at 28 px.

    Args:
        model: Name of the network.
        training: One of :data:`TRAINING`.
        seed: Of the run, and of the choice of the images that are left out.
        root: Folder of the data.
        device: Default: CUDA if there is one.

    Returns:
        A row for each class and ``seen`` (whether the training split has another image of the
        lesion): ``images`` and how many of them were classified ``right``.
    """
    spec = RunSpec(
        study="leakage",
        method="baseline",
        model=model,
        seed=seed,
        **DATASETS["ham10000"] | {"split": "paper"},
    )
    data = load_data(spec, root)
    chosen = kept(data, training, seed)
    run = train_run(spec, root=root, device=device, data=_with_training(data, chosen))
    test = data.test
    right = predict(run.model, test.images, run.fit.scaling).argmax(1) == test.labels
    seen = torch.isin(test.groups, data.train.groups)
    details = []
    for label in range(data.n_outputs):
        for value in (False, True):
            mine = (test.labels == label) & (seen == value)
            details.append(
                {
                    "label": label,
                    "seen": int(value),
                    "images": int(mine.sum()),
                    "right": int(right[mine].sum()),
                }
            )
    row = {"dataset": spec.dataset, "size": spec.size, "split": spec.split}
    return Measured(data, row | {"training_images": len(chosen)}, details)


def kept(data: Dataset, training: str, seed: int) -> Tensor:
    """Rows of the training split that a model learns from, in ascending order.

    Args:
        data: With groups (lesions).
        training: One of :data:`TRAINING`.
        seed: Decides which other images are left out, class by class.

    Raises:
        ValueError: If there is no such training set.
    """
    if training not in TRAINING:
        raise ValueError(f"training is {training!r}; allowed are {', '.join(TRAINING)}")
    labels, lesion_in_test = data.train.labels, torch.isin(data.train.groups, data.test.groups)
    out = torch.zeros(len(labels), dtype=torch.bool)
    if training == TRAINING[1]:
        out = lesion_in_test
    elif training == TRAINING[2]:
        draw = torch.Generator().manual_seed(seed)
        for label in range(data.n_outputs):
            others = torch.nonzero((labels == label) & ~lesion_in_test).view(-1)
            count = int((lesion_in_test & (labels == label)).sum())
            out[others[torch.randperm(len(others), generator=draw)[:count]]] = True
    return torch.nonzero(~out).view(-1)


def _with_training(data: Dataset, rows: Tensor) -> Dataset:
    train = data.train
    subset = Subset(train.images.index_select(0, rows), train.labels[rows], train.groups[rows])
    return dataclasses.replace(data, train=subset)
