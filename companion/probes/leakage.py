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

from companion.probes import Measured, answers
from companion.studies import every
from companion.studies.grid import DATASETS, MODELS
from varreg.checks import check_choice
from varreg.lab.datasets import Dataset
from varreg.lab.runs import load_data, train_run
from varreg.lab.specs import RunSpec

TRAINING = ("all images", "without the test lesions", "without as many others")
#: One unit a run: both networks, three training sets, five seeds.
SETTINGS = every(seed=range(5), model=MODELS, training=TRAINING)


def measure(model: str, training: str, seed: int, **where: str | Path | None) -> Measured:
    """Train a baseline on the paper's split of HAM10000, which is by image, at 28 px.

    Args:
        model: Name of the network.
        training: One of :data:`TRAINING`.
        seed: Of the run, and of the choice of the images that are left out.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        A row for each class and ``seen`` (whether the training split has another image of the
        lesion): ``images`` and how many of them were classified ``right``.
    """
    settings = DATASETS["ham10000"] | {"split": "paper"}
    spec = RunSpec(study="leakage", method="baseline", model=model, seed=seed, **settings)
    data = load_data(spec, where.get("root"))
    chosen = kept(data, training, seed)
    learned = dataclasses.replace(data, train=data.train.rows(chosen))
    run = train_run(spec, **where, data=learned)
    logits, labels = answers(run, "test")
    seen = torch.isin(data.test.groups, data.train.groups)
    details = every(label=range(data.n_outputs), seen=(0, 1))
    for row in details:
        mine = (labels == row["label"]) & (seen == row["seen"])
        right = logits.argmax(1)[mine] == row["label"]
        row |= {"images": int(mine.sum()), "right": int(right.sum())}
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
    check_choice("training", training, TRAINING)
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
