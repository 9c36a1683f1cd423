"""Does it help where labels are wrong, in training and validation alike? The test set is clean.

Methods and strengths are those of ``few_images``.
"""

from __future__ import annotations

from companion.studies.few_images import ARMS, settings
from varreg.lab.specs import RunSpec

STUDY = "wrong_labels"
SEEDS = range(10)
SHARES = (0.1, 0.2, 0.4)
"""Of all labels, or by class of those of the most frequent class."""


def specs() -> list[RunSpec]:
    """List the runs: data set by data set, seed by seed; each seed has labels of its own."""
    levels = [{}] + [
        {"wrong_labels": share, "wrong_kind": kind}
        for kind in ("random", "by_class")
        for share in SHARES
    ]
    return [
        settings(STUDY, dataset, name, seed, draw=seed if level else 0, **level)
        for dataset in ("breastmnist", "pneumoniamnist")
        for seed in SEEDS
        for level in levels
        for name in ARMS
    ]
