"""Skin images at 28 px: the sound version of Tables III and IV, with paired seeds."""

from companion.studies import every
from companion.studies.grid import DATASETS, MODELS, paired_methods
from varreg.lab.specs import RunSpec

SEEDS = range(20)
SPLITS = ("paper", "lesion")


def specs() -> list[RunSpec]:
    """List the runs, seed by seed; every method has the same seeds.

    The weight, the best above zero, is chosen on the split by lesion and used for both.
    """
    methods = {model: paired_methods("ham10000", model) for model in MODELS}
    return [
        RunSpec(study="skin", method=method, **DATASETS["ham10000"] | each, **settings)
        for each in every(seed=SEEDS, model=MODELS, split=SPLITS)
        for method, settings in methods[each["model"]].items()
    ]
