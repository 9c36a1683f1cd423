"""What the paper and its released notebooks state, as data.

Every number carries its source, so that a table built from it can say where it stands. The paper:
S. A. A. J. M. Athukorala, "Addressing Overfitting in Medical Image Classification through Variance
Penalization: A Novel Approach", University of Sri Jayewardenepura, 2025.

>>> find("chest", "baseline", "accuracy", source=TABLES["chest"]).value
0.2984
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "EXPERIMENTS",
    "FEATURE_SAMPLING_RATIO",
    "LAMBDA",
    "NUMBERS",
    "PROTOCOL",
    "RELEASED_LOG",
    "SHIFTS",
    "SKIN_CLASSES",
    "TABLES",
    "VARIANCE_WEIGHT",
    "Number",
    "Shift",
    "find",
    "progress_bar",
    "select",
]

EXPERIMENTS = ("chest", "skin")

#: Where the paper prints the final numbers of an experiment.
TABLES = {"chest": "Tables I and II", "skin": "Tables III and IV"}
#: What ``model.evaluate()`` returned in the released notebooks: the metric itself.
RELEASED_LOG = "released log, evaluate()"

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
    """

    experiment: str
    method: str
    split: str
    metric: str
    value: float
    source: str

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


def _numbers(experiment: str, split: str, source: str, rows: dict) -> tuple[Number, ...]:
    return tuple(
        Number(experiment, method, split, metric, value, source)
        for method, values in rows.items()
        for metric, value in values.items()
    )


NUMBERS: tuple[Number, ...] = (
    *_numbers(
        "chest",
        "test",
        TABLES["chest"],
        {
            "baseline": {"accuracy": 0.2984, "loss": 0.8814},
            "penalized": {"accuracy": 0.7164, "loss": 0.3025},
            "augmented": {"accuracy": 0.7099, "loss": 0.5667},
        },
    ),
    *_numbers(
        "skin",
        "test",
        TABLES["skin"],
        {
            "baseline": {"accuracy": 0.6809, "loss": 0.8325},
            "penalized": {"accuracy": 0.8571, "loss": 0.4167},
        },
    ),
    *_numbers(
        "chest",
        "test",
        RELEASED_LOG,
        {
            "baseline": {
                "accuracy": 0.8012820482,
                "loss": 0.5774989724,
                "auroc": 0.9234659076,
            },
            "penalized": {"accuracy": 0.8076922894, "loss": 0.2574843466},
            "augmented": {
                "accuracy": 0.7948718071,
                "loss": 0.4130483866,
                "auroc": 0.8929377794,
            },
        },
    ),
    *_numbers(
        "chest",
        "train",
        RELEASED_LOG,
        {
            "baseline": {"accuracy": 0.9645321965, "loss": 0.0939033926},
            "penalized": {"accuracy": 0.9618481398, "loss": 0.0523028336},
        },
    ),
    *_numbers(
        "chest",
        "val",
        RELEASED_LOG,
        {
            "baseline": {"accuracy": 0.9375, "loss": 0.2078590989},
            "penalized": {"accuracy": 0.9375, "loss": 0.1079025120},
        },
    ),
    *_numbers(
        "skin",
        "test",
        RELEASED_LOG,
        {
            "baseline": {
                "accuracy": 0.7032967210,
                "loss": 0.8068420887,
                "auroc": 0.9447403550,
            },
            "penalized": {"accuracy": 0.8571429849, "loss": 0.4038826525},
        },
    ),
)

SHIFTS: tuple[Shift, ...] = (
    Shift("chest", "baseline", "penalized", "accuracy", 41.8, TABLES["chest"]),
    Shift("chest", "baseline", "penalized", "loss", -65.70, TABLES["chest"]),
    Shift("chest", "augmented", "penalized", "accuracy", 0.65, TABLES["chest"]),
    Shift("chest", "augmented", "penalized", "loss", -46.62, TABLES["chest"]),
    Shift("skin", "baseline", "penalized", "accuracy", 17.62, TABLES["skin"]),
    Shift("skin", "baseline", "penalized", "loss", -49.96, TABLES["skin"]),
)

#: Topic -> (paper and report, released notebooks).
PROTOCOL: dict[str, tuple[str, str]] = {
    "optimizer": ("Adam, learning rate 0.001", "Adam, learning rate 0.0001"),
    "batch": ("not stated", "32"),
    "early stopping": (
        "patience 25 on validation loss",
        "patience 5 (chest), 2 (skin) on the total validation loss, best weights restored",
    ),
    "epochs, chest": (
        "25 baseline, 20 penalized, 25 augmented",
        "25 baseline, 30 penalized, 30 augmented",
    ),
    "epochs, skin": ("25", "10"),
    "penalized setting": (
        "best of the grid search",
        "variance_weight 0.01, feature_sampling_ratio 0.2, lambda 0.5",
    ),
    "augmentation": ("zoom and translation of 10 %", "the same"),
    "preprocessing": (
        "resize, normalize, contrast enhancement",
        "resize to 224 pixels, divide by 255",
    ),
    "seeds": ("not stated", "one: 42"),
}


def select(
    experiment: str, *, source: str | None = None, split: str = "test"
) -> tuple[Number, ...]:
    """Published numbers of one experiment, in the paper's order.

    Args:
        experiment: ``"chest"`` or ``"skin"``.
        source: One of :data:`TABLES` or :data:`RELEASED_LOG`; default: all sources.
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
        for number in NUMBERS
        if number.experiment == experiment
        and number.split == split
        and source in (None, number.source)
    )


def progress_bar(scores: Sequence[float], batch_size: int = 32) -> float:
    """What Keras 3's progress bar shows at the end of an evaluation.

    It is the unweighted mean, over the batches so far, of the running metric. Where the samples
    come sorted by class, that is far from the metric itself.

    Args:
        scores: One number a sample in the order of evaluation, such as 1 for right, 0 for wrong.
        batch_size: Samples a batch.

    Raises:
        ValueError: No score, or a batch size below 1.

    Example:
        A model that calls each of the 624 chest test images pneumonia; the 234 normal ones come
        first.

        >>> round(progress_bar([0] * 234 + [1] * 390), 4)
        0.2821
    """
    if len(scores) == 0 or batch_size < 1:
        raise ValueError(
            f"{len(scores)} scores in batches of {batch_size}: give one or more of each"
        )
    stops = range(batch_size, len(scores) + batch_size, batch_size)
    running = [sum(scores[:stop]) / min(stop, len(scores)) for stop in stops]
    return sum(running) / len(running)


def find(experiment: str, method: str, metric: str, *, source: str, split: str = "test") -> Number:
    """One published number.

    Args:
        experiment: ``"chest"`` or ``"skin"``.
        method: ``"baseline"``, ``"penalized"`` or ``"augmented"``.
        metric: ``"accuracy"``, ``"auroc"`` or ``"loss"``.
        source: One of :data:`TABLES` or :data:`RELEASED_LOG`.
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
