"""Tables III and IV: the protocol of the released skin notebook, at 224 px.

The images are split one by one, as the notebook does, so that a lesion can be on both sides.
"""

from companion.studies.chest_paper import KERAS
from varreg.lab.specs import RunSpec
from varreg.loss import PUBLISHED

SEEDS = range(10)
RELEASED = KERAS | {"dataset": "ham10000", "split": "paper", "epochs": 10, "patience": 2}
ARMS = {"baseline": {}, "penalized": PUBLISHED}


def specs() -> list[RunSpec]:
    """List the runs, seed by seed."""
    return [
        RunSpec(study="skin_paper", method=method, seed=seed, **RELEASED, **settings)
        for seed in SEEDS
        for method, settings in ARMS.items()
    ]
