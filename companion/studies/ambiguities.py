"""Where paper, report and released notebooks disagree: every alternative, run.

Each starts from the released protocol at 28 px and changes one thing, for the baseline and for
the penalized model, with the same seeds for all. All of it is run with the learning rate of the
released notebooks and with that of the paper: with the first, the network hardly learns at this
size, so that nothing else could show what it does.
"""

from __future__ import annotations

import dataclasses

from companion import stated
from companion.studies import chest_paper, skin_paper
from varreg.lab.specs import RunSpec

PROTOCOLS = {"chest": chest_paper, "skin": skin_paper}
SEEDS = range(5)
AS_RELEASED = "as released"
LEARNING_RATES = {"released": chest_paper.KERAS["learning_rate"], "paper": 1e-3}
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
            :class:`~varreg.lab.specs.RunSpec`; a pair gives a value to the baseline and another to
            the penalized model.
    """

    experiment: str
    topic: str
    choice: str
    source: str
    settings: dict[str, object]


ALTERNATIVES = tuple(
    Alternative(experiment, *(entry[name] for name in ("topic", "choice", "source", "settings")))
    for experiment in PROTOCOLS
    for entry in stated("studies/ambiguities")["alternative"]
    if experiment in entry["experiments"]
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
    released = PROTOCOLS[alternative.experiment]
    settings = released.RELEASED | released.ARMS[method]
    settings |= {"size": 28, "learning_rate": LEARNING_RATES[rate]}
    for name, value in alternative.settings.items():
        settings[name] = value[place] if isinstance(value, list) else value
    return RunSpec(study="ambiguities", method=method, seed=seed, **settings)
