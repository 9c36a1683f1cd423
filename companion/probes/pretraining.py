"""Features that are learned without labels, and then with the penalty.

VICReg's objective on two views of an image pulls the views together, decorrelates the features,
and pushes up the variance of each: what the penalty pushes down. Here all three act on the very
features that enter the head; VICReg has further layers between.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.probes import Measured, outcomes
from companion.studies.few_images import DRAWS, epochs, settings
from companion.studies.rivals_tuning import DATASETS
from varreg.lab.augment import zoom_and_shift
from varreg.lab.datasets import Dataset
from varreg.lab.runs import initial_model, load_data, train_run
from varreg.lab.specs import RunSpec
from varreg.lab.training import Scaling, as_device, batches, in_blocks, streams
from varreg.penalties import decov, vicreg_variance

SETTINGS = [{"seed": seed} for seed in range(10)]
COMPARED = ("none", "fixed", "self_setting")
SHARE = 0.1
EPOCHS = 10
#: Of invariance, variance and covariance, as published.
WEIGHTS = (25.0, 25.0, 1.0)


def supervised(name: str, seed: int) -> RunSpec:
    """The run with labels: that of ``few_images``, which starts from random weights."""
    return settings(
        "few_images",
        "pneumoniamnist",
        name,
        seed,
        train_share=SHARE,
        draw=seed % DRAWS,
        epochs=epochs(DATASETS["pneumoniamnist"]["epochs"], SHARE),
    )


def objective(first: Tensor, second: Tensor) -> Tensor:
    """VICReg's loss of the features of two views, ``(N, F)`` each.

    Source:
        Bardes, Ponce and LeCun (ICLR 2022), "VICReg: Variance-Invariance-Covariance
        Regularization for Self-Supervised Learning".

    Example:
        >>> far_apart = torch.tensor([[3.0], [-3.0]])
        >>> objective(far_apart, far_apart)  # one view as the other, deviations above 1
        tensor(0.)
    """
    count, width = first.shape
    # Unbiased, and of ordered pairs; DeCov is half of that, and divides by N.
    unbiased = 2 * (count / (count - 1)) ** 2 / width
    parts = (
        F.mse_loss(first, second),
        (vicreg_variance(first, validate=False) + vicreg_variance(second, validate=False)) / 2,
        unbiased * (decov(first, validate=False) + decov(second, validate=False)),
    )
    return sum(weight * part for weight, part in zip(WEIGHTS, parts, strict=True))


def pretrain(
    features: nn.Module, images: Tensor, scaling: Scaling, seed: int, *, most: int = EPOCHS
) -> list[float]:
    """Train a network on images without labels, in place.

    Args:
        features: Maps ``(N, C, H, W)`` to ``(N, F)``.
        images: uint8 ``(N, C, H, W)``.
        scaling: Of the images.
        seed: Of the order of the images and of their views.
        most: Epochs, of batches of 128, with Adam at 0.001.

    Returns:
        The mean loss of each epoch.
    """
    order, jitter = streams(seed)
    optimizer = torch.optim.Adam(features.parameters(), lr=1e-3)
    device = next(features.parameters()).device
    means = []
    features.train()
    for _ in range(most):
        losses = []
        for chosen in batches(len(images), 128, order):
            batch = scaling(images[chosen].to(device))
            views = (zoom_and_shift(batch, generator=jitter) for _ in range(2))
            loss = objective(*(features(view) for view in views))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return means


def variance(features: nn.Module, data: Dataset, scaling: Scaling) -> float:
    """Mean variance of the features over the validation images."""
    device = next(features.parameters()).device
    found = in_blocks(lambda block: features(scaling(block)), data.val.images, device)
    return found.double().var(0, correction=0).mean().item()


def measure(seed: int, **where: str | Path | None) -> Measured:
    """Pre-train once, and go on from there with each of the penalties.

    Args:
        seed: Of all; it also says which of five draws of the images has labels.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        The loss of the first and of the last epoch without labels and the feature variance before
        and after them; and a row a penalty: outcomes, ``feature_variance`` and ``best_epoch``.
    """
    every = load_data(supervised("none", seed), where.get("root"))
    whole = load_data(
        settings("pretraining", "pneumoniamnist", "none", seed), where.get("root")
    ).train.images
    scaling = Scaling.of(whole)
    start = initial_model(supervised("none", seed), every).to(as_device(where.get("device")))
    row: dict[str, object] = {"dataset": every.name, "size": every.size}
    row["variance_random"] = variance(start.features, every, scaling)
    means = pretrain(start.features, whole, scaling, seed)
    row |= {"loss_first": means[0], "loss_last": means[-1]}
    row["variance_pretrained"] = variance(start.features, every, scaling)

    details = []
    for name in COMPARED:
        spec = supervised(name, seed)
        model = initial_model(spec, every)
        model.load_state_dict(start.state_dict())
        run = train_run(spec, data=every, model=model, **where)
        found = {"method": name, "strength": spec.strength or spec.variance_weight}
        found |= {"best_epoch": run.fit.best_epoch} | outcomes(run)
        found["feature_variance"] = variance(run.model.features, every, run.fit.scaling)
        details.append(found)
    return Measured(every, row, details)
