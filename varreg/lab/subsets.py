"""Fewer training images, and wrong labels: how a data set is made harder, repeatably.

Like the splits, both come from NumPy's frozen random stream alone: a draw is the same images and
the same labels on every machine.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from varreg.checks import Task, check_choice, check_integer, check_range
from varreg.lab.datasets.core import Dataset

#: Which labels are wrong: ``"random"``, any, and then any other class; ``"by_class"``, those of the
#: most frequent class, and then the next class, the first after the last.
WrongLabels = Literal["random", "by_class"]


def check_subset(train_share: float = 1.0, wrong_labels: float = 0.0, draw: int = 0) -> None:
    """Refuse shares and draws that there are not.

    Raises:
        ValueError: With what was given and what is allowed.
    """
    check_range("train_share", train_share, 1, ends="(]")
    check_range("wrong_labels", wrong_labels, 1, ends="[]")
    check_integer("draw", draw, 0, 2**32 - 1)


def nested_rows(labels: Tensor, share: float, draw: int = 0) -> np.ndarray:
    """Rows of a stratified share of a data set; a smaller share of the same draw is part of it.

    Each class keeps its share, rounded up, so that none is lost. Multi-label images are drawn
    whatever their labels.

    Args:
        labels: ``(N,)``, or ``(N, L)`` for multi-label tasks.
        share: In (0, 1].
        draw: Which of the possible draws, 0 or more.

    Returns:
        Row numbers in ascending order.

    Raises:
        ValueError: If ``share`` or ``draw`` is outside its range.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
        >>> half, all_ = nested_rows(labels, 0.5), nested_rows(labels, 1)
        >>> len(all_), torch.bincount(labels[half]).tolist()
        (10, [2, 3])
        >>> set(nested_rows(labels, 0.2)) < set(half)
        True
    """
    check_subset(train_share=share, draw=draw)
    random = np.random.RandomState(draw)
    classes = labels.numpy() if labels.ndim == 1 else np.zeros(len(labels), dtype=np.int64)
    kept = []
    for each in np.unique(classes):
        order = random.permutation(np.flatnonzero(classes == each))
        # 0.1 x 30 is 3.0000000000000004 in binary
        kept.append(order[: math.ceil(round(share * len(order), 9))])
    return np.sort(np.concatenate(kept))


def wrong_labels(
    labels: Tensor, share: float, task: Task, kind: WrongLabels = "random", draw: int = 0
) -> Tensor:
    """Labels of which a share is wrong; a smaller share of the same draw is part of it.

    Args:
        labels: ``(N,)``, or ``(N, L)`` of zeros and ones for multi-label tasks, where every one
            of the labels of an image counts as one.
        share: In [0, 1], of all labels, or by class of those of the most frequent class; as many
            as this, rounded, are wrong.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        kind: ``"random"``: any label, which becomes any other class alike; ``"by_class"``: labels
            of the most frequent class, which all become the next one (the first after the last),
            as where two diagnoses are taken for each other.
        draw: Which of the possible draws, 0 or more.

    Returns:
        A copy, as many and of the type as before.

    Raises:
        ValueError: If ``share``, ``kind`` or ``draw`` is not allowed, or there is a single class.

    Example:
        >>> labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
        >>> wrong = wrong_labels(labels, 0.4, "multiclass")
        >>> (wrong != labels).sum().item(), wrong.max().item()
        (4, 2)
    """
    check_subset(wrong_labels=share, draw=draw)
    check_choice("kind of the wrong labels", kind, get_args(WrongLabels))
    random = np.random.RandomState(draw)
    flat = labels.flatten().numpy().copy()
    classes = 2 if task != "multiclass" else int(flat.max()) + 1
    if classes < 2:
        raise ValueError("labels hold a single class; there is no other that could be wrong")
    places = random.permutation(len(flat))
    steps = random.randint(1, classes, len(flat))
    if kind == "by_class":
        steps[:] = 1
        places = places[flat[places] == np.bincount(flat.astype(int)).argmax()]
    places = places[: round(share * len(places))]
    flat[places] = (flat[places] + steps[places]) % classes
    return torch.from_numpy(flat).view_as(labels)


def fewer(data: Dataset, share: float, draw: int = 0) -> Dataset:
    """A data set with a share of its training images, see :func:`nested_rows`.

    Validation and test images stay as they are.
    """
    rows = torch.from_numpy(nested_rows(data.train.labels, share, draw))
    return dataclasses.replace(data, train=data.train.rows(rows))


def mislabelled(
    data: Dataset, share: float, kind: WrongLabels = "random", draw: int = 0
) -> Dataset:
    """A data set with wrong labels in training and validation, see :func:`wrong_labels`.

    The test labels stay right: they say what was learned in spite of the others.
    """
    changed = {}
    for part, subset in (("train", data.train), ("val", data.val)):
        labels = wrong_labels(subset.labels, share, data.task, kind, draw)
        changed[part] = dataclasses.replace(subset, labels=labels)
    return dataclasses.replace(data, train=changed["train"], val=changed["val"])
