"""Tables I and II: the protocol of the released chest notebook, at 224 px.

Faithful in its details too: Keras's initial weights and Adam epsilon, division by 255, and
early stopping on the total loss over the 16 validation images.
"""

from varreg.lab.specs import RunSpec
from varreg.loss import PUBLISHED

SEEDS = range(10)

KERAS = {
    "model": "paper_cnn",
    "size": 224,
    "learning_rate": 1e-4,
    "batch_size": 32,
    "adam_epsilon": 1e-7,
    "monitor": "total",
    "normalize": "unit",
    "init": "glorot",
}
"""What both released notebooks share, Keras's defaults among it."""

RELEASED = KERAS | {"dataset": "chest_xray", "patience": 5}
ARMS = {
    "baseline": {"epochs": 25},
    "penalized": {"epochs": 30, **PUBLISHED},
    "augmented": {"epochs": 30},
}


def specs() -> list[RunSpec]:
    """List the runs, seed by seed."""
    return [
        RunSpec(study="chest_paper", method=method, seed=seed, **RELEASED, **settings)
        for seed in SEEDS
        for method, settings in ARMS.items()
    ]
