"""Where paper, report and released notebooks disagree: every alternative, run.

Each starts from the released protocol at 28 px and changes one thing, for the baseline and for
the penalized model, with the same seeds for all. All of it is run with the learning rate of the
released notebooks and with that of the paper: with the first, the network hardly learns at this
size, so that nothing else could show what it does.
"""

from __future__ import annotations

import dataclasses

from companion.studies.chest_paper import KERAS
from varreg.lab.runs import RunSpec
from varreg.loss import PUBLISHED

SEEDS = range(5)
AS_RELEASED = "as released"
LEARNING_RATES = {"released": KERAS["learning_rate"], "paper": 1e-3}
"""The two learning rates that every alternative is run with."""


@dataclasses.dataclass(frozen=True)
class Alternative:
    """One reading of the protocol.

    Attributes:
        experiment: ``"chest"`` or ``"skin"``.
        topic: What the sources disagree about, or leave open.
        choice: What this alternative does, in few words.
        source: Who says so.
        settings: What it changes of the released protocol, by the fields of a
            :class:`~varreg.lab.runs.RunSpec`; a pair gives a value to the baseline and another to
            the penalized model.
    """

    experiment: str
    topic: str
    choice: str
    source: str
    settings: dict[str, object]


RELEASED = {
    "chest": {"dataset": "chest_xray", "patience": 5, "epochs": (25, 30)},
    "skin": {"dataset": "ham10000", "split": "paper", "patience": 2, "epochs": (10, 10)},
}

TEXT, NOTEBOOKS, OPEN = "paper or report", "released notebooks", "left open"

BOTH = (
    ("learning rate", "0.001", TEXT, {"learning_rate": LEARNING_RATES["paper"]}),
    ("early stopping", "patience 25", TEXT, {"patience": 25}),
    (
        "early stopping",
        "on the unscaled cross-entropy",
        OPEN,
        {"monitor": "cross_entropy"},
    ),
    ("preprocessing", "contrast enhanced", TEXT, {"equalize": True}),
    ("preprocessing", "standardized", OPEN, {"normalize": "standard"}),
    (
        "framework",
        "PyTorch's initial weights and epsilon",
        OPEN,
        {"init": "default", "adam_epsilon": 1e-8},
    ),
)

ALTERNATIVES = tuple(
    Alternative(experiment, topic, choice, source, settings)
    for experiment, alternatives in {
        "chest": (
            ("protocol", AS_RELEASED, NOTEBOOKS, {}),
            *BOTH,
            ("epochs", "25 baseline, 20 penalized", TEXT, {"epochs": (25, 20)}),
            ("epochs", "25 for both", OPEN, {"epochs": (25, 25)}),
            (
                "split",
                "PneumoniaMNIST's, 524 validation images",
                OPEN,
                {"dataset": "pneumoniamnist"},
            ),
        ),
        "skin": (
            ("protocol", AS_RELEASED, NOTEBOOKS, {}),
            *BOTH,
            ("epochs", "25", TEXT, {"epochs": (25, 25)}),
            ("depth", "a third pair of convolutions", TEXT, {"model": "paper_cnn_deep"}),
            ("split", "by lesion", OPEN, {"split": "lesion"}),
        ),
    }.items()
    for topic, choice, source, settings in alternatives
)
"""All alternatives; the released protocol itself is the first of each experiment."""


def keys(alternative: Alternative, rate: str = "released") -> list[str]:
    """Keys of the runs of one alternative; some belong to more than one.

    Args:
        alternative: One of :data:`ALTERNATIVES`.
        rate: Which of :data:`LEARNING_RATES` the rest of the protocol has.

    Returns:
        Empty for an alternative that is a learning rate itself, with the paper's.
    """
    return [spec.key for spec, *of in _runs() if of == [alternative, rate]]


def specs() -> list[RunSpec]:
    """List the runs, seed by seed."""
    return list(dict.fromkeys(spec for spec, _, _ in _runs()))


def _runs() -> list[tuple[RunSpec, Alternative, str]]:
    return [
        (_spec(alternative, rate, place, method, seed), alternative, rate)
        for seed in SEEDS
        for rate in LEARNING_RATES
        for alternative in ALTERNATIVES
        for place, method in enumerate(("baseline", "penalized"))
        if rate == "released" or "learning_rate" not in alternative.settings
    ]


def _spec(alternative: Alternative, rate: str, place: int, method: str, seed: int) -> RunSpec:
    settings = KERAS | {"size": 28, "learning_rate": LEARNING_RATES[rate]}
    settings |= RELEASED[alternative.experiment] | alternative.settings
    if method == "penalized":
        settings |= PUBLISHED
    own = {
        name: value[place] if isinstance(value, tuple) else value
        for name, value in settings.items()
    }
    return RunSpec(study="ambiguities", method=method, seed=seed, **own)
