"""Does it help when training goes on for four times as long? Main methods on BreastMNIST.

With a penalty that helps, the best epoch is among the last ones; without, it is in the middle.
"""

from __future__ import annotations

from companion.studies import every
from companion.studies.few_images import settings
from companion.studies.rivals_tuning import DATASETS
from varreg.lab.specs import RunSpec

STUDY = "longer"
SEEDS = range(10)
COMPARED = ("none", "fixed", "self_setting", "feature_l2", "augmented")
EPOCHS = (DATASETS["breastmnist"]["epochs"], 4 * DATASETS["breastmnist"]["epochs"])


def specs() -> list[RunSpec]:
    """List the runs, seed by seed."""
    return [
        settings(STUDY, "breastmnist", **each)
        for each in every(seed=SEEDS, epochs=EPOCHS, name=COMPARED)
    ]
