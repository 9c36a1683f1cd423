"""Images with what is known of the patient: HAM10000 with age, sex and site.

The features are those of the image beside those of the table, as they enter the head. The penalty
is on all of them, or on those of the image alone.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from companion.probes import Measured, outcomes
from companion.studies import few_images
from companion.studies.few_images import DRAWS, settings
from varreg.lab.columns import SPLITS
from varreg.lab.datasets import Dataset, folders
from varreg.lab.models import SmallCNN
from varreg.lab.runs import Trained, criterion_of, load_data, settings_of
from varreg.lab.specs import RunSpec
from varreg.lab.training import Criterion, fit
from varreg.loss import PenalizedLoss
from varreg.variance import feature_variance

#: What the network sees, and the penalty: ``"fixed_images"`` is on the image features alone.
ARMS = (
    ("images", "none"),
    ("images", "fixed"),
    ("both", "none"),
    ("both", "fixed"),
    ("both", "fixed_images"),
    ("both", "self_setting"),
)
SETTINGS = [
    {"seed": seed, "inputs": inputs, "penalty": penalty}
    for seed in range(10)
    for inputs, penalty in ARMS
]
CENTURY, UNKNOWN_AGE = 100.0, 50.0  # years


class ImageAndTable(nn.Module):
    """The small network, with a layer for a row of numbers beside its features.

    The numbers come in every row of a fourth channel of the image, whose scaling they share: what
    trains knows images alone.

    Args:
        size: Height and width in pixels.
        columns: How many numbers an image has.
        n_outputs: Logits.
        width: Features that are made of the numbers.

    Example:
        >>> model = ImageAndTable(size=28, columns=20, n_outputs=7)
        >>> model(torch.zeros(2, 4, 28, 28)).shape
        torch.Size([2, 7])
    """

    def __init__(self, size: int, columns: int, n_outputs: int, width: int = 32) -> None:
        super().__init__()
        alone = SmallCNN(3, size, n_outputs)
        self.columns, self.image_features = columns, alone.head.in_features
        self.images = alone.features
        self.table = nn.Sequential(nn.Linear(columns, width), nn.ReLU())
        self.head = nn.Linear(self.image_features + width, n_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map images with their numbers ``(N, 4, size, size)`` to logits ``(N, n_outputs)``."""
        numbers = images[:, 3, 0, : self.columns]
        return self.head(torch.cat([self.images(images[:, :3]), self.table(numbers)], 1))


def coded(table: pd.DataFrame) -> pd.DataFrame:
    """Age, sex and site as numbers from 0 to 1, a column for each value of the last two.

    Ages are in centuries. One that is missing counts as 50 years, and a column says so.

    Args:
        table: With ``age`` (years, may be missing), ``sex`` and ``localization``.

    Example:
        >>> rows = {"age": [80.0, None], "sex": ["male", "unknown"], "localization": "face"}
        >>> coded(pd.DataFrame(rows)).to_numpy().tolist()
        [[0.8, 0.0, 1.0, 0.0, 1.0], [0.5, 1.0, 0.0, 1.0, 1.0]]
    """
    age = pd.DataFrame(
        {"age": table["age"].fillna(UNKNOWN_AGE) / CENTURY, "age_missing": table["age"].isna()}
    )
    kinds = pd.get_dummies(table[["sex", "localization"]])
    return pd.concat([age, kinds], axis=1).astype(float)


def with_numbers(data: Dataset, numbers: pd.DataFrame) -> Dataset:
    """The images with a fourth channel, whose rows all hold the numbers of each, times 255.

    Args:
        data: RGB images whose ``ids`` are known.
        numbers: A row an image by its id, from 0 to 1, at most as many as an image is wide.

    Raises:
        ValueError: If there are more numbers, or one is not from 0 to 1.
    """
    if numbers.shape[1] > data.size:
        raise ValueError(
            f"there are {numbers.shape[1]} numbers an image, and its rows hold {data.size}; give "
            "fewer columns, or larger images"
        )
    if not ((numbers >= 0) & (numbers <= 1)).all(axis=None):
        raise ValueError(
            f"numbers go from {numbers.min().min():g} to {numbers.max().max():g}; give them from "
            "0 to 1, none of them missing"
        )
    parts = {}
    for part in SPLITS:
        subset = getattr(data, part)
        rows = np.rint(255 * numbers.loc[list(subset.ids)].to_numpy()).astype(np.uint8)
        channel = torch.zeros(len(subset), 1, data.size, data.size, dtype=torch.uint8)
        channel[..., : rows.shape[1]] = torch.from_numpy(rows)[:, None, None]
        images = torch.cat([subset.images, channel], 1)
        parts[part] = dataclasses.replace(subset, images=images)
    return dataclasses.replace(data, **parts)


@cache
def table(root: str | Path | None) -> pd.DataFrame:
    """Age, sex and site of every image of HAM10000, by its id."""
    found = folders.find("ham10000", root)
    folder = found[0] if found else folders.download("ham10000")
    return pd.read_csv(folder / folders.METADATA, index_col="image_id")


def measure(inputs: str, penalty: str, seed: int, **where: str | Path | None) -> Measured:
    """Train on a quarter of the training images, in batches of a quarter: as many steps as on all.

    Args:
        inputs: ``"images"`` or ``"both"``.
        penalty: ``"none"``, ``"fixed"``, ``"fixed_images"`` or ``"self_setting"``.
        seed: Of the run; it also says which of five draws of the images.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        The outcomes, how many training images there are and how many of these have no age, and a
        row an epoch.
    """
    spec = settings(
        "multimodal",
        "ham10000",
        penalty.removesuffix("_images"),
        seed,
        train_share=0.25,
        draw=seed % DRAWS,
        batch_size=32,
    )
    data = load_data(spec, where.get("root"))
    known = table(where.get("root"))
    missing = known.loc[list(data.train.ids), "age"].isna().sum()
    torch.manual_seed(seed)
    if inputs == "both":
        numbers = coded(known)
        data = with_numbers(data, numbers)
        model = ImageAndTable(data.size, numbers.shape[1], data.n_outputs)
    else:
        model = SmallCNN(3, data.size, data.n_outputs)
    criterion = criterion_for(spec, data, model if penalty == "fixed_images" else None)
    how = settings_of(spec, spec.changes(data))
    found = fit(model, data, criterion, how, device=where.get("device"))
    row = {"dataset": data.name, "size": data.size, "split": data.split}
    row |= {"images": len(data.train), "without_age": int(missing)}
    row |= {"best_epoch": found.best_epoch} | outcomes(Trained(model, data, found))
    return Measured(data, row, found.history)


def criterion_for(spec: RunSpec, data: Dataset, only: ImageAndTable | None) -> Criterion:
    """The loss of a run; with the penalty on the image features of a network only, if there is one.

    They keep the weight that each has among all: the mean is over all of them.
    """
    if only is None:
        return criterion_of(spec, data)
    share = only.image_features / only.head.in_features

    def of_images(features: Tensor) -> Tensor:
        return share * feature_variance(features[:, : only.image_features], validate=False)

    weight = few_images.ARMS["fixed"]["variance_weight"]
    return PenalizedLoss(data.task, of_images, weight, validate=False)
