"""What the draw of features does to the gradient, and what it saves.

The model is trained for some epochs without a penalty. Then, at fixed weights and a fixed batch,
the gradient of the penalty with a drawn share of the features is held against the one with all:
drawn at random as in the released notebooks, and as a comb as this package draws.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.probes import Measured
from companion.studies import every
from companion.studies.grid import DATASETS, MODELS
from varreg.features import FeatureTap
from varreg.lab.runs import train_run
from varreg.lab.specs import RunSpec
from varreg.lab.timing import interleaved
from varreg.lab.training import batches
from varreg.penalties import released_variance
from varreg.variance import feature_variance

#: One unit a trained model: both networks, three seeds.
SETTINGS = every(seed=range(3), model=MODELS)
RATIOS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DRAWS, BATCHES, STEP_TURNS = 40, 4, 60
Variance = Callable[..., Tensor]
# The names of noise, bias and spread, and of the time of a step, for each recipe.
RECIPES: dict[Variance, tuple[str, str, str, str]] = {
    released_variance: ("gradient_noise", "bias", "penalty_sd", "step_ratio"),
    feature_variance: ("comb_noise", "comb_bias", "comb_sd", "comb_step_ratio"),
}


def measure(model: str, seed: int, **where: str | Path | None) -> Measured:
    """Train on PneumoniaMNIST, then measure noise and time for each ratio.

    Args:
        model: Name of the network.
        seed: Of the run, the batches and the draws.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        A row a ratio (0: no penalty at all). Of the released recipe: ``features``, ``drawn``;
        ``gradient_noise``, E ||g_r - g||^2 / ||g||^2 over draws with g from all features;
        ``bias``, the distance of the mean g_r from g in units of its standard error (about 1
        where there is none); ``penalty_sd``, relative; ``step_ratio``, median time of a training
        step over that without a penalty. ``comb_noise``, ``comb_bias``, ``comb_sd`` and
        ``comb_step_ratio`` are the same of this package's penalty. ``batch_noise`` is the
        gradient noise of the cross-entropy over batches, for scale.
    """
    settings = DATASETS["pneumoniamnist"] | {"epochs": 5}
    spec = RunSpec(study="sampling", method="baseline", model=model, seed=seed, **settings)
    run = train_run(spec, **where)
    network, device = run.model.train(), next(run.model.parameters()).device
    draw = torch.Generator().manual_seed(seed)
    shuffled = list(batches(len(run.data.train), spec.batch_size, draw))
    chosen = [batch for batch in shuffled if len(batch) == len(shuffled[0])]
    images = [run.fit.scaling(run.data.train.images[index].to(device)) for index in chosen]
    labels = [run.data.train.labels[index].to(device).float() for index in chosen]
    weights = [value for name, value in network.named_parameters() if not name.startswith("head")]

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]).double()

    with FeatureTap(network) as tap:
        plain = [
            gradient(F.binary_cross_entropy_with_logits(network(x).view(-1), y))
            for x, y in zip(images, labels, strict=True)
        ]
        batch_noise = _noise(torch.stack(plain), torch.stack(plain).mean(0))

        def penalty(batch: Tensor, variance: Variance, ratio: float) -> tuple[float, Tensor]:
            network(batch)
            value = variance(tap.take(), ratio, generator=draw)
            return value.item(), gradient(value)

        network(images[0])
        count = tap.take().flatten(1).shape[1]
        details = []
        for ratio in RATIOS:
            row = {"ratio": ratio, "features": count, "drawn": int(ratio * count)}
            for variance, (*names, _) in RECIPES.items():
                found = [_against_all(penalty, x, variance, ratio) for x in images[:BATCHES]]
                row |= dict(zip(names, map(statistics.mean, zip(*found, strict=True)), strict=True))
            details.append(row | {"batch_noise": batch_noise})
        medians = _step_times(network, tap, images[0], labels[0], draw)
    without = medians.pop(None)
    nothing = dict.fromkeys(details[0], 0.0) | {"features": count, "batch_noise": batch_noise}
    details.insert(0, nothing)
    for row in details:
        for variance, (*_, name) in RECIPES.items():
            row[name] = medians.get((variance, row["ratio"]), without) / without
    row = {"dataset": spec.dataset, "size": spec.size, "batch_size": spec.batch_size}
    return Measured(run.data, row | {"step_seconds": without}, details)


def _noise(vectors: Tensor, target: Tensor) -> float:
    return float((vectors - target).square().sum(1).mean() / target.square().sum())


def _against_all(
    penalty: Callable[[Tensor, Variance, float], tuple[float, Tensor]],
    batch: Tensor,
    variance: Variance,
    ratio: float,
) -> tuple[float, float, float]:
    """Noise and bias of the gradient and spread of the penalty over draws, on one batch."""
    whole, target = penalty(batch, variance, 1.0)
    values, gradients = zip(*(penalty(batch, variance, ratio) for _ in range(DRAWS)), strict=True)
    drawn = torch.stack(gradients)
    error = _noise(drawn, drawn.mean(0)) * drawn.mean(0).square().sum() / (DRAWS - 1)
    off = (drawn.mean(0) - target).square().sum()
    bias = float((off / error).sqrt()) if error > 1e-9 * off + 1e-30 else 0.0
    return _noise(drawn, target), bias, statistics.pstdev(values) / whole


def _step_times(
    network: nn.Module, tap: FeatureTap, images: Tensor, labels: Tensor, draw: torch.Generator
) -> dict[tuple[Variance, float] | None, float]:
    """Median seconds of a step for each recipe and ratio, None without; they take turns."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6, fused=True)

    def step(variance: Variance | None, ratio: float) -> None:
        loss = F.binary_cross_entropy_with_logits(network(images).view(-1), labels)
        features = tap.take()
        if variance is not None:
            loss = torch.add(loss, variance(features, ratio, generator=draw), alpha=0.01)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    steps = {None: partial(step, None, 1.0)}
    for variance, ratio in product(RECIPES, RATIOS):
        steps[variance, ratio] = partial(step, variance, ratio)
    times = interleaved(steps, STEP_TURNS, warm_up=5, device=images.device)
    return {name: statistics.median(found) for name, found in times.items()}
