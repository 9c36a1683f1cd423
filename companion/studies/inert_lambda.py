"""Is lambda a parameter of its own? Runs that hold variance_weight / lambda and change lambda.

A factor on the whole loss is a factor on every gradient. Adam divides it out, but for its
epsilon; plain gradient descent does not, and neither does a weight decay that is added to the
gradient.
"""

from companion.studies.grid import DATASETS
from varreg.lab.specs import RunSpec

SEEDS = range(3)
LAMBDAS = (0.25, 1.0, 4.0)
RATIO = 1.0
"""variance_weight / lambda: large enough for the penalty to matter."""

FAMILIES = {
    "Adam": {},
    "Adam, epsilon 0.001": {"adam_epsilon": 1e-3},
    "Adam, weight decay in the gradient": {"weight_decay": 0.01},
    "AdamW, weight decay apart": {"optimizer": "adamw", "weight_decay": 0.01},
    "gradient descent": {"optimizer": "sgd", "learning_rate": 0.05},
}
"""Name of an optimizer -> its settings."""


def specs() -> list[RunSpec]:
    """List the runs, seed by seed."""
    settings = DATASETS["pneumoniamnist"] | {"epochs": 8, "model": "small_cnn"}
    settings |= {"study": "inert_lambda", "method": "penalized"}
    return [
        RunSpec(seed=seed, lambda_=each, variance_weight=RATIO * each, **settings, **optimizer)
        for seed in SEEDS
        for optimizer in FAMILIES.values()
        for each in LAMBDAS
    ]
