"""What the paper and its released notebooks state, as data.

Every number carries its source, so that a table built from it can say where it stands. The paper:
S. A. A. J. M. Athukorala, "Addressing Overfitting in Medical Image Classification through Variance
Penalization: A Novel Approach", University of Sri Jayewardenepura, 2025.

>>> find("chest", "baseline", "accuracy", source=TABLES["chest"]).value
0.2984
"""

from __future__ import annotations

from dataclasses import dataclass

from companion import stated
from varreg.checks import check_choice
from varreg.loss import PUBLISHED

_STATED = stated("published")

EXPERIMENTS = ("chest", "skin")

#: Where the paper prints the final numbers of an experiment.
TABLES: dict[str, str] = _STATED["tables"]
#: What ``model.evaluate()`` returned in the released notebooks: the metric itself.
RELEASED_LOG = "released log, evaluate()"
#: What the progress bar showed in them for the same models.
RELEASED_BAR = "released log, progress bar"

#: Split -> normal and pneumonia images of the chest data that the released notebook downloads.
CHEST_IMAGES = {split: tuple(counts) for split, counts in _STATED["chest_images"].items()}

#: The setting of the penalized models.
VARIANCE_WEIGHT = PUBLISHED["variance_weight"]
FEATURE_SAMPLING_RATIO = PUBLISHED["feature_sampling_ratio"]
#: Scale of the cross-entropy in the loss that is printed for each model.
LAMBDA: dict[str, float] = _STATED["lambda"]

#: Classes of the skin data in the paper's order: by the full name of the lesion type.
SKIN_CLASSES = tuple(_STATED["skin_classes"])


@dataclass(frozen=True)
class Number:
    """One published number.

    Attributes:
        experiment: ``"chest"`` or ``"skin"``.
        method: ``"baseline"``, ``"penalized"`` or ``"augmented"``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        metric: ``"accuracy"``, ``"auroc"`` or ``"loss"`` (as printed: lambda times cross-entropy,
            plus the penalty).
        value: The number as printed.
        source: Where it stands.
        definition: What it is, in a few words: one name can stand for several quantities.
        column: What of ours it is judged by, as in a row of a ledger without the split. A number of
            the paper is judged as what the paper calls it, one of a log as what it is; a loss is
            divided by lambda first.
        same: What of ours is measured in the same way, where ``column`` is not.
    """

    experiment: str
    method: str
    split: str
    metric: str
    value: float
    source: str
    definition: str
    column: str
    same: str = ""

    @property
    def comparable(self) -> float:
        """The value on the scale of ours: a loss is divided by its lambda.

        What the result still has above the cross-entropy is the penalty, small at a weight of 0.01.
        """
        return self.value / LAMBDA[self.method] if self.metric == "loss" else self.value


@dataclass(frozen=True)
class Shift:
    """A difference between two models that the paper derives from its tables.

    Attributes:
        experiment: ``"chest"`` or ``"skin"``.
        reference: The model compared with.
        method: The model in question.
        metric: ``"accuracy"`` or ``"loss"``.
        value: ``method - reference``: accuracy in points, loss in percent of the reference.
        source: Where it stands.
    """

    experiment: str
    reference: str
    method: str
    metric: str
    value: float
    source: str

    @property
    def ends(self) -> tuple[Number, Number]:
        """The two numbers, the reference's first."""
        methods, where = (self.reference, self.method), {"source": TABLES[self.experiment]}
        return tuple(find(self.experiment, each, self.metric, **where) for each in methods)

    @property
    def comparable(self) -> float:
        """The change on one scale: each loss is divided by its lambda first."""
        if self.metric == "accuracy":
            return self.value
        old, new = (number.comparable for number in self.ends)
        return 100 * (new / old - 1)


#: Models whose numbers in the tables the released log shows, digit for digit, as a progress bar.
_TRACED = {("chest", "augmented"), ("skin", "penalized")}


def _what(experiment: str, source: str, method: str, metric: str) -> tuple[str, str, str]:
    """Definition, what it is judged by, and what is measured in the same way."""
    asked = {"experiment": experiment, "method": method, "metric": metric}
    found = next(
        each
        for each in _STATED["quantity"]
        if all(each.get(name, value) == value for name, value in asked.items())
    )
    definition, exact = found["definition"].format(lambda_=LAMBDA[method]), found["column"]
    if source == RELEASED_LOG:
        return definition, exact, ""
    definition = f"progress bar: unweighted mean of the running {definition}"
    exact = f"bar_{exact}"
    if source == RELEASED_BAR:
        return definition, exact, ""
    if (experiment, method) not in _TRACED:
        definition = f"probably {definition}"
    return definition, {"loss": "cross_entropy"}.get(metric, metric), exact


_EVERY = tuple(
    Number(experiment, method, entry["split"], metric, value, source, *what)
    for entry in _STATED["numbers"]
    for experiment, source in [(entry["experiment"], entry["source"])]
    for method in LAMBDA
    for metric, value in zip(("accuracy", "loss", "auroc"), entry.get(method, ()), strict=False)
    for what in [_what(experiment, source, method, metric)]
)
NUMBERS = tuple(number for number in _EVERY if number.source != RELEASED_BAR)
#: What the progress bar of the released notebooks showed; kept apart, for it is no metric.
SHOWN = tuple(number for number in _EVERY if number.source == RELEASED_BAR)

SHIFTS = tuple(
    Shift(where, each["reference"], each["method"], metric, each[metric], TABLES[where])
    for each in _STATED["shift"]
    for where in [each["experiment"]]
    for metric in ("accuracy", "loss")
)


def select(
    experiment: str, *, source: str | None = None, split: str = "test"
) -> tuple[Number, ...]:
    """Published numbers of one experiment, in the paper's order.

    Args:
        experiment: ``"chest"`` or ``"skin"``.
        source: One of :data:`TABLES`, :data:`RELEASED_LOG` or :data:`RELEASED_BAR`; default: the
            tables and the log.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ValueError: The experiment is unknown.

    Example:
        >>> [number.value for number in select("skin", source=TABLES["skin"])]
        [0.6809, 0.8325, 0.8571, 0.4167]
    """
    check_choice("experiment", experiment, EXPERIMENTS)
    return tuple(
        number
        for number in (SHOWN if source == RELEASED_BAR else NUMBERS)
        if number.experiment == experiment
        and number.split == split
        and source in (None, number.source)
    )


def find(experiment: str, method: str, metric: str, *, source: str, split: str = "test") -> Number:
    """One published number.

    Args:
        experiment: ``"chest"`` or ``"skin"``.
        method: ``"baseline"``, ``"penalized"`` or ``"augmented"``.
        metric: ``"accuracy"``, ``"auroc"`` or ``"loss"``.
        source: One of :data:`TABLES`, :data:`RELEASED_LOG` or :data:`RELEASED_BAR`.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ValueError: The source does not state it.

    Example:
        >>> find("skin", "penalized", "loss", source=TABLES["skin"]).comparable
        0.8334
    """
    for number in select(experiment, source=source, split=split):
        if (number.method, number.metric) == (method, metric):
            return number
    raise ValueError(
        f"{source!r} states no {split} {metric} of the {method} {experiment} model; see NUMBERS"
    )
