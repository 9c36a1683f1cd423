"""How strong each rival should be: the choice on validation, before the comparison ``rivals``.

The plan of both is the page *The plan of the comparison*. Every method has six strengths, evenly
spaced on a log scale over the range that its scale suggests, and *off*, its reference without it.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.specs import RunSpec
from varreg.loss import PUBLISHED

STUDY = "rivals_tuning"

SEEDS = range(1000, 1003)
"""Never used again."""

DATASETS = {
    "breastmnist": {"dataset": "breastmnist", "epochs": 60, "batch_size": 64},
    "pneumoniamnist": {"dataset": "pneumoniamnist", "epochs": 20},
    "ham10000": {"dataset": "ham10000", "split": "lesion", "epochs": 20},
    "phantom": {"dataset": "phantom", "epochs": 20},
    "adrenalmnist3d": {"dataset": "adrenalmnist3d", "epochs": 20, "batch_size": 32},
}
"""All at 28 px, standardized, Adam with a learning rate of 0.001."""


def _from(start: float, factor: float) -> tuple[float, ...]:
    return tuple(float(f"{start * factor**power:.3g}") for power in range(6))


CANDIDATES = {
    "tuned": _from(0.1, 5),
    "self_setting": _from(0.001, 3),
    "head_weighted": _from(0.02, 4),
    "head_weighted_self": _from(0.001, 3),
    "feature_l2": _from(0.1, 5),
    "within_class": _from(0.1, 5),
    "logit_variance": _from(0.003, 3),
    "logit_l2": _from(0.003, 3),
    "dropout": (0.1, 0.2, 0.35, 0.5, 0.65, 0.8),
    "label_smoothing": _from(0.0125, 2),
    "weight_decay": _from(0.01, 3),
    "mixup": _from(0.1, 2),
    "warmed_up": _from(0.001, 3),
    "target": _from(0.001, 4),
    "relative_within": _from(0.0003, 4),
    "excess": _from(0.1, 5),
    "head_weighted_within": _from(0.02, 4),
    "decov": _from(1e-6, 5),
    "variance_constancy": _from(0.01, 5),
    "vicreg": _from(0.01, 5),
    "center_loss": _from(1e-4, 5),
    "head_decay": _from(0.001, 4),
    "sharpness_aware": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    "averaged_weights": (0.9, 0.95, 0.98, 0.99, 0.995, 0.998),
    "learning_rate": (0.0001, 0.0002, 0.0005, 0.002, 0.005, 0.01),
    "view_variance": _from(0.1, 5),
    "logit_view_variance": _from(0.01, 3),
}
"""By method, the six strengths; shares and learning rates in the steps that they are given in."""

MAIN = tuple(CANDIDATES)[:11]
"""The methods that are also tried with augmentation, on all data sets and networks."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Methods that are compared with each other on one data set.

    Attributes:
        dataset: A key of :data:`DATASETS`.
        methods: Keys of :data:`CANDIDATES`.
        model: As of a run.
        augment: Whether all of them train with augmentation.
        train_share: Of the training images; below 1 each seed draws its own.
    """

    dataset: str
    methods: tuple[str, ...]
    model: str = "small_cnn"
    augment: bool = False
    train_share: float = 1.0


_ALL = tuple(CANDIDATES)

BLOCKS = (
    Block("breastmnist", _ALL),
    Block("breastmnist", MAIN, augment=True),
    Block("pneumoniamnist", MAIN),
    Block("pneumoniamnist", MAIN, augment=True),
    Block("ham10000", MAIN),
    Block("ham10000", MAIN, augment=True),
    Block("breastmnist", MAIN, model="small_cnn_norm"),
    Block("breastmnist", MAIN, model="small_cnn_wide"),
    Block("phantom", MAIN),
    Block("pneumoniamnist", MAIN, model="small_cnn_norm"),
    Block("pneumoniamnist", MAIN, model="small_cnn_wide"),
    Block("pneumoniamnist", _ALL[len(MAIN) :]),
    Block("ham10000", _ALL[len(MAIN) :]),
    # Not in the plan: added when all of the above but one were known.
    Block("phantom", _ALL[len(MAIN) :]),
    Block("phantom", MAIN, augment=True),
    Block("adrenalmnist3d", MAIN, model="small_cnn_half", train_share=0.25),
)
"""The most telling first."""


def reference(block: Block, method: str) -> str:
    """What a method of a block is compared with, and is when it is off."""
    other = METHODS[method].reference
    return "augmented" if block.augment and other == "baseline" else other


def tuned(study: str, block: Block, method: str, strength: float, seed: int) -> RunSpec:
    """A run of a method at a strength."""
    name = "variance_weight" if METHODS[method].weighted else "strength"
    given = _common(block, seed) | ({name: strength} if strength else {})
    augment = block.augment and not METHODS[method].augments
    return RunSpec(study=study, method=method, augment=augment, **given)


def published(study: str, block: Block, seed: int) -> RunSpec:
    """A run of the penalty in the paper's setting, sampling and ``lambda_`` included."""
    return RunSpec(study=study, method="penalized", **_common(block, seed), **PUBLISHED)


def _common(block: Block, seed: int) -> dict[str, Any]:
    """What all runs of a block with a seed have in common."""
    given = {"model": block.model, "seed": seed, **DATASETS[block.dataset]}
    if block.train_share < 1:
        given |= {"train_share": block.train_share, "draw": seed}
    return given


def block_specs(block: Block) -> list[RunSpec]:
    """The runs that choose the strengths of a block, seed by seed; what is off comes first."""
    off = [(name, 0.0) for name in dict.fromkeys(reference(block, m) for m in block.methods)]
    on = [(name, strength) for name in block.methods for strength in CANDIDATES[name]]
    return [
        tuned(STUDY, block, name, strength, seed)
        for tried in (off, on)
        for seed in SEEDS
        for name, strength in tried
    ]


def specs() -> list[RunSpec]:
    """List the runs, block by block."""
    return list(dict.fromkeys(spec for block in BLOCKS for spec in block_specs(block)))


def mean_scores(block: Block, results: str | None = None) -> pd.Series | None:
    """Mean validation cross-entropy over the seeds, by method and strength; 0 for what is off.

    ``None`` where one of the runs is not recorded yet.
    """
    path = Ledger(STUDY, results).runs_path
    runs = _rows(results, path, path.stat().st_mtime_ns if path.exists() else 0)
    wanted = [spec.key for spec in block_specs(block)]
    if runs.empty or not set(wanted) <= set(runs["key"]):
        return None
    mine = runs.set_index("key").loc[wanted]
    strength = mine[["variance_weight", "strength"]].max(axis=1)
    return mine["val_cross_entropy"].groupby([mine["method"], strength]).mean()


@lru_cache(maxsize=1)
def _rows(results: str | None, path: Path, changed: int) -> pd.DataFrame:
    """Every block asks for the same rows: they are read again where the file has changed."""
    return Ledger(STUDY, results).runs()


def chosen_strengths(block: Block, results: str | None = None) -> dict[str, float] | None:
    """The strength of each method with the lowest mean validation cross-entropy over the seeds.

    Args:
        block: Methods and where.
        results: Folder of the ledgers.

    Returns:
        By method. 0 where the reference, without the method, is as good or better. ``None`` where
        one of the runs is not recorded yet.
    """
    means = mean_scores(block, results)
    if means is None:
        return None
    found = {}
    for method in block.methods:
        candidates = {0.0: means[reference(block, method), 0.0], **means[method]}
        found[method] = min(candidates, key=candidates.get)
    return found
