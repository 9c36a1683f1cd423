"""Chest images at 28 px: the sound version of Tables I and II, with paired seeds."""

from companion.studies import every
from companion.studies.grid import DATASETS, MODELS, paired_methods
from varreg.lab.specs import RunSpec

SEEDS = range(20)


def specs() -> list[RunSpec]:
    """List the runs, seed by seed; every method has the same seeds.

    The weight of the method ``"tuned"`` is the best above zero.
    """
    methods = {
        model: paired_methods("pneumoniamnist", model) | {"augmented": {}} for model in MODELS
    }
    return [
        RunSpec(study="chest", method=method, **each, **DATASETS["pneumoniamnist"], **settings)
        for each in every(seed=SEEDS, model=MODELS)
        for method, settings in methods[each["model"]].items()
    ]
