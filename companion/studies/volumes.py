"""The main methods on volumes, AdrenalMNIST3D, each at the strength that other data sets chose.

Nothing is tuned here: a strength is the ``default`` of its method, which validation images of the
other data sets chose; see the page *The plan of the comparison*.
"""

from __future__ import annotations

from companion.studies.rivals_tuning import MAIN, Block, published, reference, tuned
from varreg.lab.methods import METHODS
from varreg.lab.specs import RunSpec

STUDY = "volumes"
SEEDS = range(3000, 3020)
"""Used by no other study. Each draws a quarter of the training volumes of its own."""

STRENGTHS = {name: METHODS[name].default for name in MAIN}

BLOCK = Block("adrenalmnist3d", MAIN, model="small_cnn_half", train_share=0.25)


def specs() -> list[RunSpec]:
    """List the runs, seed by seed, the reference and the published setting first."""
    settings = {reference(BLOCK, "tuned"): 0.0} | STRENGTHS
    return [
        spec
        for seed in SEEDS
        for spec in (
            published(STUDY, BLOCK, seed),
            *(tuned(STUDY, BLOCK, name, strength, seed) for name, strength in settings.items()),
        )
    ]
