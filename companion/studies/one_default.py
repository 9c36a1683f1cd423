"""One default for all: each method at one strength on four data sets, alone and with augmentation.

The strength is the one with the lowest mean validation cross-entropy over these data sets in
``rivals_tuning``, each less its reference, without augmentation; see the page *The plan of the
comparison*.
"""

from __future__ import annotations

from companion.studies.rivals_tuning import Block, reference, tuned
from varreg.lab.specs import RunSpec

STUDY = "one_default"
SEEDS = range(2000, 2010)
"""Used by no other study."""

STRENGTHS = {"tuned": 2.5, "self_setting": 0.027, "within_class": 2.5, "feature_l2": 0.5}

BLOCKS = tuple(
    Block(dataset, tuple(STRENGTHS), augment=augment)
    for dataset in ("breastmnist", "pneumoniamnist", "ham10000", "phantom")
    for augment in (False, True)
)


def block_specs(block: Block) -> list[RunSpec]:
    """The runs of a block, seed by seed, the reference first."""
    settings = {reference(block, "baseline"): 0.0} | STRENGTHS
    return [
        tuned(STUDY, block, name, strength, seed)
        for seed in SEEDS
        for name, strength in settings.items()
    ]


def specs() -> list[RunSpec]:
    """List the runs, block by block."""
    return [spec for block in BLOCKS for spec in block_specs(block)]
