"""What the penalty can act on behind batch normalization: the scales, or more?

Batch normalization gives each channel a variance of 1 over images and positions, and then a scale
of its own. A penalty that only turns the scales down leaves the normalized values as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from companion.probes import Measured
from companion.probes.inside import ARMS
from companion.probes.norms import sizes
from companion.studies import every
from companion.studies.rivals_tuning import DATASETS
from varreg.features import FeatureTap
from varreg.lab.runs import load_data, train_run
from varreg.lab.specs import RunSpec
from varreg.lab.statistics import mean_interval
from varreg.lab.training import Scaling

EPOCHS = 20
NETWORKS: dict[str, tuple[str, ...]] = {
    "small_cnn": (),
    "small_cnn_norm": ("features.5",),
    "small_resnet": ("layer4.0.bn2", "layer4.0.downsample.1"),
}
"""Network -> the normalizations whose outputs make its features, with nothing learnt between."""

#: One unit a run: the penalty at its fixed weight, and none.
SETTINGS = every(seed=range(5), model=NETWORKS, method=("none", "fixed"))


def measure(model: str, method: str, seed: int, **where: str | Path | None) -> Measured:
    """Train on BreastMNIST and look at the training images after every epoch.

    Args:
        model: One of :data:`NETWORKS`.
        method: One of :data:`companion.probes.inside.ARMS`.
        seed: Of the run.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        A row an epoch, from 0: the sizes of :func:`companion.probes.norms.sizes` and those of
        :func:`normalized`.
    """
    settings = DATASETS["breastmnist"] | ARMS[method] | {"epochs": EPOCHS}
    spec = RunSpec(study="scales", seed=seed, model=model, **settings)
    data = load_data(spec, where.get("root"))
    seen = Scaling.of(data.train.images, spec.normalize)(data.train.images)
    details: list[dict[str, object]] = []

    def look(epoch: int, network: nn.Module) -> None:
        found = sizes(network, seen)[0] | normalized(network, seen, NETWORKS[model])
        details.append({"epoch": epoch, **found})

    train_run(spec, **where, on_epoch=look)
    return Measured(data, {"dataset": spec.dataset, "size": spec.size}, details)


@torch.inference_mode()
def normalized(network: nn.Module, images: Tensor, layers: tuple[str, ...]) -> dict[str, float]:
    """Scales of batch normalizations, and how the values before them vary.

    Args:
        network: In eval mode.
        images: A batch as it takes them.
        layers: Names of the normalizations.

    Returns:
        ``scale_rms``, of the scales of all these layers; and ``normalized_variance``: with every
        channel normalized over these images and all positions, the variance over the images at a
        position, as a mean over positions, channels and layers. It lies in [0, 1]: the rest is
        variance between the positions. Empty without a layer.
    """
    if not layers:
        return {}
    with FeatureTap(network, list(layers)) as tap:
        network(images.to(next(network.parameters()).device))
        before = tap.take()
    shares = []
    for values in before.values():
        values = values.double()
        over_images = values.var(0, correction=0).flatten(1).mean(1)
        over_all = values.var((0, 2, 3), correction=0)
        shares.append((over_images / over_all)[over_all > 0])
    scales = torch.cat([network.get_submodule(name).weight for name in layers])
    return {
        "scale_rms": scales.square().mean().sqrt().item(),
        "normalized_variance": torch.cat(shares).mean().item(),
    }


def parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Part the effect of the penalty on the feature variance, network by network.

    The variance is the square of the scales times the rest, in a network with normalization.

    Args:
        rows: Details of the probe with their settings; the last epoch counts.

    Returns:
        A row a network, in the order of :data:`NETWORKS`: ``model`` and, as
        :class:`~varreg.lab.statistics.Interval` of the natural logarithm of the factor against the
        same seed without the penalty: ``variance``; ``scales``, the mean square of the scales, and
        ``rest``, the variance over it (``None`` without normalization); ``normalized``, the
        variance of the normalized values; ``shape``, the variance over the mean square of the
        features; and ``head``, the squared norm of the head.
    """
    last = rows[rows["epoch"] == rows["epoch"].max()]
    logs = last[["model", "method", "seed"]].assign(
        variance=np.log(last["feature_variance"]),
        scales=2 * np.log(last["scale_rms"]),
        rest=np.log(last["feature_variance"]) - 2 * np.log(last["scale_rms"]),
        normalized=np.log(last["normalized_variance"]),
        shape=np.log(last["relative_variance"]),
        head=2 * np.log(last["head_norm"]),
    )
    names, found = list(logs.columns[3:]), []
    for model in NETWORKS:
        mine = logs[logs["model"] == model].set_index("seed")
        changes = (
            mine.loc[mine["method"] == "fixed", names] - mine.loc[mine["method"] == "none", names]
        )
        found.append(
            {"model": model}
            | {
                name: None if changes[name].isna().all() else mean_interval(changes[name].dropna())
                for name in names
            }
        )
    return pd.DataFrame(found)
