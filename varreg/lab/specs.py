"""One training run, written down: everything that decides it, and its name in the ledger."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import cast, get_args

from varreg.checks import check_choice, check_penalty, check_range
from varreg.lab import datasets, models
from varreg.lab.methods import METHODS, Changes
from varreg.lab.subsets import WrongLabels, check_subset
from varreg.lab.training import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSpec(Settings):
    """Everything that decides one training run.

    The other attributes are those of :class:`varreg.lab.training.Settings`; the seed also decides
    initial weights and the draw of features.

    Attributes:
        study: Folder of the ledger that records it.
        dataset: A name that :func:`varreg.lab.datasets.load` knows.
        method: One of :data:`varreg.lab.methods.METHODS`.
        model: One of :data:`varreg.lab.models.MODELS`.
        size: Height and width in pixels.
        split: Which split of the data set; ``None`` for its default.
        variance_weight: Of the penalty, 0 or more.
        feature_sampling_ratio: Share of features drawn at each step, in (0, 1].
        lambda_: Scale of the cross-entropy.
        init: ``"default"`` or ``"glorot"`` (Keras's initial weights).
        equalize: Enhance the contrast of every image, see :func:`varreg.lab.augment.equalize`.
        shuffle_blocks: Shuffle the 4 x 4 blocks of every image in the same way, see
            :func:`varreg.lab.augment.shuffle_blocks`.
        strength: Of the method, for one that has a strength: what it is says the method's entry.
        train_share: Of the training images, in (0, 1], see :func:`varreg.lab.subsets.nested_rows`.
        wrong_labels: Share of the training and validation labels, in [0, 1], see
            :func:`varreg.lab.subsets.wrong_labels`.
        wrong_kind: Which labels those are: ``"random"`` or ``"by_class"``.
        draw: Which draw of these images and of these labels, 0 or more.

    Raises:
        ValueError: If a value is not allowed, method, weight and strength contradict each other,
            or ``wrong_kind`` or ``draw`` says how what is not done is done.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> spec.key == dataclasses.replace(spec, seed=1).key
        False
    """

    study: str
    dataset: str
    method: str
    seed: int = dataclasses.field()  # no default: every run names its seed
    model: str = "small_cnn"
    size: int = 28
    split: str | None = None
    variance_weight: float = 0.0
    feature_sampling_ratio: float = 1.0
    lambda_: float = 1.0
    init: str = "default"
    equalize: bool = False
    shuffle_blocks: bool = False
    strength: float = 0.0
    train_share: float = 1.0
    wrong_labels: float = 0.0
    wrong_kind: str = "random"
    draw: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, METHODS)
        if self.split not in (None, *datasets.splits(self.dataset)):
            raise ValueError(
                f"split of {self.dataset} is {self.split!r}; allowed are "
                f"{', '.join(datasets.splits(self.dataset))}, or None for the first"
            )
        check_choice("model", self.model, models.MODELS)
        check_choice("init", self.init, get_args(models.Init))
        check_choice("wrong_kind", self.wrong_kind, get_args(WrongLabels))
        check_penalty(self.variance_weight, self.feature_sampling_ratio, self.lambda_)
        check_range("strength", self.strength)
        check_subset(self.train_share, self.wrong_labels, self.draw)
        if self.draw and self.train_share == 1 and self.wrong_labels == 0:
            raise ValueError(f"draw={self.draw} of nothing: all images, with the labels they have")
        if self.wrong_kind != "random" and self.wrong_labels == 0:
            raise ValueError(
                f"wrong_kind={self.wrong_kind!r} with wrong_labels=0; no label is wrong"
            )
        method = METHODS[self.method]
        for name, needed in {
            "variance_weight": method.weighted,
            "strength": bool(method.strength),
        }.items():
            if (getattr(self, name) > 0) != needed:
                allowed = f"positive, say {method.default:g}," if needed else "0"
                raise ValueError(
                    f"method {self.method!r} with {name}={getattr(self, name)}; it is {allowed} "
                    "for this method"
                )
        if method.augments:
            object.__setattr__(self, "augment", True)
        elif self.augment and self.method == "baseline":
            raise ValueError("augment=True alone is the method 'augmented'; name that")

    @property
    def key(self) -> str:
        """Name of the run in the ledger: 12 hexadecimal digits of a hash of the fields.

        Fields at their defaults do not count, so that a field added later leaves the keys of
        recorded runs as they are. Nor does what the method implies.
        """
        return _key(vars(self), type(self))

    def changes(self, data: datasets.Dataset) -> Changes:
        """What the method changes of the training."""
        return METHODS[self.method].changes(self.strength, data)


#: Names and types of the settings of a run, in the order of the tables.
SETTINGS: dict[str, str] = {
    name: str(kind) for name, kind in (RunSpec.__annotations__ | Settings.__annotations__).items()
}


def _key(settings: Mapping[str, object], kind: type[RunSpec] = RunSpec) -> str:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    method = METHODS.get(str(settings["method"]))
    if method is not None and method.augments:
        defaults["augment"] = True
    return digest({name: value for name, value in settings.items() if value != defaults[name]})


def key_of_row(row: Mapping[str, str]) -> str:
    """The key that belongs to the settings in a recorded row.

    A setting that the row does not have, or has empty, is at its default: it came later.

    Raises:
        ValueError: If a setting cannot be read.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> row = {name: str(value) for name, value in dataclasses.asdict(spec).items() if value}
        >>> key_of_row(row | {"seed": "0"}) == spec.key
        True
    """
    given = {}
    for field in dataclasses.fields(RunSpec):
        if text := row.get(field.name, ""):
            given[field.name] = _parsed(field.name, text, cast("str", field.type))
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"its {field.name} is missing")
    return _key(given)


def _parsed(name: str, text: str, kind: str) -> object:
    try:
        match kind.split(" | ")[0]:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return {"True": True, "False": False}[text]
    except (ValueError, KeyError):
        raise ValueError(f"its {name} is {text!r}, which is no {kind}") from None
    return text


def digest(value: object) -> str:
    """Name of a run or unit in the ledger: 12 hexadecimal digits of a hash of its settings.

    Args:
        value: What JSON can hold; the order of the names in a mapping does not count.

    Example:
        >>> digest({"seed": 0, "size": 28}) == digest({"size": 28, "seed": 0})
        True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
