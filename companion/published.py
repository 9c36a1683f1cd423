"""What the paper and its released notebooks state, as data.

Every number carries its source, so that a table built from it can say where it stands. The paper:
S. A. A. J. M. Athukorala, "Addressing Overfitting in Medical Image Classification through Variance
Penalization: A Novel Approach", University of Sri Jayewardenepura, 2025.

>>> find("chest", "baseline", "accuracy", source=TABLES["chest"]).value
0.2984
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EXPERIMENTS = ("chest", "skin")

#: Where the paper prints the final numbers of an experiment.
TABLES = {"chest": "Tables I and II", "skin": "Tables III and IV"}
#: What ``model.evaluate()`` returned in the released notebooks: the metric itself.
RELEASED_LOG = "released log, evaluate()"
#: What the progress bar showed in them for the same models.
RELEASED_BAR = "released log, progress bar"

#: Split -> normal and pneumonia images of the chest data that the released notebook downloads.
CHEST_IMAGES = {"train": (1341, 3875), "val": (8, 8), "test": (234, 390)}

#: The setting of the penalized models.
VARIANCE_WEIGHT = 0.01
FEATURE_SAMPLING_RATIO = 0.2
#: Scale of the cross-entropy in the loss that is printed for each model.
LAMBDA = {"baseline": 1.0, "penalized": 0.5, "augmented": 1.0}

#: Classes of the skin data in the paper's order: by the full name of the lesion type.
SKIN_CLASSES = (
    "actinic keratosis",
    "basal cell carcinoma",
    "benign keratosis",
    "dermatofibroma",
    "melanocytic nevus",
    "melanoma",
    "vascular lesion",
)


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


#: (experiment, method, metric) -> what it is, and our column that holds the same.
_QUANTITIES = {
    ("chest", None, "accuracy"): ("accuracy, threshold 0.5", "accuracy"),
    ("skin", "baseline", "accuracy"): ("accuracy, most probable class", "accuracy"),
    ("skin", "penalized", "accuracy"): (
        "binary accuracy of the last of 7 columns",
        "last_column_accuracy",
    ),
    (None, "penalized", "loss"): (
        f"{LAMBDA['penalized']:g} \u00d7 cross-entropy + penalty",
        "cross_entropy",
    ),
    (None, None, "loss"): ("cross-entropy", "cross_entropy"),
    # Of one output: but for the thresholds, the AUROC; `companion.predictions` says what they do.
    ("chest", None, "auroc"): ("Keras AUC, 200 thresholds", "auroc"),
    ("skin", None, "auroc"): ("Keras AUC, 200 thresholds, micro average", "keras_auc"),
}
#: Models whose numbers in the tables the released log shows, digit for digit, as a progress bar.
_TRACED = {("chest", "augmented"), ("skin", "penalized")}


def _numbers(
    stated: Mapping[tuple[str, str, str], Mapping[str, tuple[float, ...]]],
) -> tuple[Number, ...]:
    """Numbers by experiment, split and source, and by model: accuracy, loss, and the AUC if any."""
    return tuple(
        Number(experiment, method, split, metric, value, source, *what)
        for (experiment, split, source), models in stated.items()
        for method, values in models.items()
        for metric, value in zip(("accuracy", "loss", "auroc"), values, strict=False)
        for what in [_what(experiment, source, method, metric)]
    )


def _what(experiment: str, source: str, method: str, metric: str) -> tuple[str, str, str]:
    """Definition, what it is judged by, and what is measured in the same way."""
    keys = [(place, each, metric) for each in (method, None) for place in (experiment, None)]
    definition, exact = next(_QUANTITIES[key] for key in keys if key in _QUANTITIES)
    if source == RELEASED_LOG:
        return definition, exact, ""
    definition = f"progress bar: unweighted mean of the running {definition}"
    exact = f"bar_{exact}"
    if source == RELEASED_BAR:
        return definition, exact, ""
    if (experiment, method) not in _TRACED:
        definition = f"probably {definition}"
    return definition, {"loss": "cross_entropy"}.get(metric, metric), exact


NUMBERS = _numbers(
    {
        ("chest", "test", TABLES["chest"]): {
            "baseline": (0.2984, 0.8814),
            "penalized": (0.7164, 0.3025),
            "augmented": (0.7099, 0.5667),
        },
        ("skin", "test", TABLES["skin"]): {
            "baseline": (0.6809, 0.8325),
            "penalized": (0.8571, 0.4167),
        },
        ("chest", "test", RELEASED_LOG): {
            "baseline": (0.8012820482, 0.5774989724, 0.9234659076),
            "penalized": (0.8076922894, 0.2574843466),
            "augmented": (0.7948718071, 0.4130483866, 0.8929377794),
        },
        ("chest", "train", RELEASED_LOG): {
            "baseline": (0.9645321965, 0.0939033926),
            "penalized": (0.9618481398, 0.0523028336),
        },
        ("chest", "val", RELEASED_LOG): {
            "baseline": (0.9375, 0.2078590989),
            "penalized": (0.9375, 0.1079025120),
        },
        ("skin", "test", RELEASED_LOG): {
            "baseline": (0.7032967210, 0.8068420887, 0.9447403550),
            "penalized": (0.8571429849, 0.4038826525),
        },
    }
)

#: What the progress bar of the released notebooks showed; kept apart, for it is no metric.
SHOWN = _numbers(
    {
        ("chest", "test", RELEASED_BAR): {
            "baseline": (0.6473, 0.9786, 0.6244),
            "penalized": (0.6596, 0.4346),
            "augmented": (0.7099, 0.5667, 0.6133),
        },
        ("chest", "train", RELEASED_BAR): {
            "baseline": (0.9630, 0.0896),
            "penalized": (0.9590, 0.0496),
        },
        ("skin", "test", RELEASED_BAR): {
            "baseline": (0.6803, 0.8324, 0.9414),
            "penalized": (0.8571, 0.4167),
        },
    }
)

SHIFTS: tuple[Shift, ...] = (
    Shift("chest", "baseline", "penalized", "accuracy", 41.8, TABLES["chest"]),
    Shift("chest", "baseline", "penalized", "loss", -65.70, TABLES["chest"]),
    Shift("chest", "augmented", "penalized", "accuracy", 0.65, TABLES["chest"]),
    Shift("chest", "augmented", "penalized", "loss", -46.62, TABLES["chest"]),
    Shift("skin", "baseline", "penalized", "accuracy", 17.62, TABLES["skin"]),
    Shift("skin", "baseline", "penalized", "loss", -49.96, TABLES["skin"]),
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
    if experiment not in EXPERIMENTS:
        raise ValueError(f"experiment is {experiment!r}; allowed are {', '.join(EXPERIMENTS)}")
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
