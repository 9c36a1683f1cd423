"""Chest images at 28 px: the sound version of Tables I and II, with paired seeds."""

from companion.studies.grid import DATASETS, MODELS, best_weight_above_zero
from varreg.lab.runs import RunSpec
from varreg.loss import PUBLISHED

SEEDS = range(20)


def specs() -> list[RunSpec]:
    """List the runs, seed by seed; every method has the same seeds.

    The weight of the method ``"tuned"`` is the best above zero.
    """
    methods = {
        model: {
            "baseline": {},
            "penalized": PUBLISHED,
            "tuned": {"variance_weight": best_weight_above_zero("pneumoniamnist", model)},
            "augmented": {},
        }
        for model in MODELS
    }
    return [
        RunSpec(
            study="chest",
            method=method,
            model=model,
            seed=seed,
            **DATASETS["pneumoniamnist"],
            **settings,
        )
        for seed in SEEDS
        for model in MODELS
        for method, settings in methods[model].items()
    ]
