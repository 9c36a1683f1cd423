"""A network without edges: images as they are, and with their blocks shuffled.

All kernels of the paper's network are 1x1, and its two poolings look at 4 x 4 pixels. Shuffling
the 4 x 4 blocks of every image, in the same way for all, leaves it as much to learn from; a
network of 3x3 kernels loses what spans two blocks.
"""

from companion.studies import every
from companion.studies.grid import DATASETS, MODELS
from varreg.lab.specs import RunSpec

SEEDS = range(10)


def specs() -> list[RunSpec]:
    """List the runs, seed by seed; images as they are and shuffled have the same seeds."""
    return [
        RunSpec(study="edges", method="baseline", **each, **DATASETS["pneumoniamnist"])
        for each in every(seed=SEEDS, model=MODELS, shuffle_blocks=(False, True))
    ]
