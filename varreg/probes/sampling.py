"""What the random draw of features does to the gradient, and what it saves.

The model is trained for some epochs without a penalty. Then, at fixed weights and a fixed batch,
the gradient of the penalty with a drawn share of the features is held against the one with all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varreg.features import FeatureTap
from varreg.loss import VariancePenalizedLoss, feature_variance
from varreg.probes import Measured
from varreg.runs import RunSpec, train_run
from varreg.studies.grid import DATASETS, MODELS
from varreg.training import batches

__all__ = ["measure", "settings"]

RATIOS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DRAWS, BATCHES, STEPS = 40, 4, 60


def settings() -> list[dict[str, object]]:
    """One unit a trained model: both networks, three seeds."""
    return [{"model": model, "seed": seed} for seed in range(3) for model in MODELS]


def measure(
    model: str, seed: int, *, root: str | Path | None = None, device: str | None = None
) -> Measured:
    """Train on PneumoniaMNIST, then measure noise and time for each ratio.

    Args:
        model: Name of the network.
        seed: Of the run, the batches and the draws.
        root: Folder of the data.
        device: Default: CUDA if there is one.

    Returns:
        A row a ratio (0: no penalty at all): ``features``, ``drawn``; ``gradient_noise``,
        E ||g_r - g||^2 / ||g||^2 over draws with g from all features; ``bias``, the distance of
        the mean g_r from g in units of its standard error (about 1 where there is none);
        ``penalty_sd``, relative; ``batch_noise``, the gradient noise of the cross-entropy over
        batches, for scale; ``step_ratio``, median time of a training step over that without.
    """
    spec = RunSpec(
        study="sampling",
        method="baseline",
        model=model,
        seed=seed,
        **DATASETS["pneumoniamnist"] | {"epochs": 5},
    )
    run = train_run(spec, root=root, device=device)
    network, where = run.model.train(), next(run.model.parameters()).device
    draw = torch.Generator().manual_seed(seed)
    shuffled = list(batches(len(run.data.train), spec.batch_size, draw))
    chosen = [batch for batch in shuffled if len(batch) == len(shuffled[0])]
    images = [run.fit.scaling(run.data.train.images[index].to(where)) for index in chosen]
    labels = [run.data.train.labels[index].to(where).float() for index in chosen]
    weights = [value for name, value in network.named_parameters() if not name.startswith("head")]

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]).double()

    with FeatureTap(network) as tap:
        plain = [
            gradient(F.binary_cross_entropy_with_logits(network(x).view(-1), y))
            for x, y in zip(images, labels, strict=True)
        ]
        batch_noise = _noise(torch.stack(plain), torch.stack(plain).mean(0))

        def penalty(batch: Tensor, ratio: float) -> tuple[float, Tensor, int]:
            network(batch)
            features = tap.take()
            value = feature_variance(features, ratio, generator=draw)
            return value.item(), gradient(value), features.flatten(1).shape[1]

        details = []
        for ratio in RATIOS:
            noises, biases, spreads = [], [], []
            for batch in images[:BATCHES]:
                whole, target, count = penalty(batch, 1.0)
                found = [penalty(batch, ratio) for _ in range(DRAWS)]
                drawn = torch.stack([each for _, each, _ in found])
                noises.append(_noise(drawn, target))
                error = _noise(drawn, drawn.mean(0)) * drawn.mean(0).square().sum() / (DRAWS - 1)
                off = (drawn.mean(0) - target).square().sum()
                biases.append(float((off / error).sqrt()) if error > 1e-9 * off + 1e-30 else 0.0)
                spreads.append(statistics.pstdev(value for value, _, _ in found) / whole)
            details.append(
                {
                    "ratio": ratio,
                    "features": count,
                    "drawn": max(1, round(ratio * count)),
                    "gradient_noise": statistics.mean(noises),
                    "bias": statistics.mean(biases),
                    "penalty_sd": statistics.mean(spreads),
                    "batch_noise": batch_noise,
                }
            )
        medians = _step_times(network, tap, images[0], labels[0], draw)
    without = medians.pop(0.0)
    nothing = {"ratio": 0.0, "features": count, "drawn": 0, "batch_noise": batch_noise}
    nothing |= {"gradient_noise": 0.0, "bias": 0.0, "penalty_sd": 0.0}
    details.insert(0, nothing)
    for row in details:
        row["step_ratio"] = medians.get(row["ratio"], without) / without
    row = {"dataset": spec.dataset, "size": spec.size, "batch_size": spec.batch_size}
    return Measured(run.data, row | {"step_seconds": without}, details)


def _noise(vectors: Tensor, target: Tensor) -> float:
    return float((vectors - target).square().sum(1).mean() / target.square().sum())


def _step_times(
    network: nn.Module, tap: FeatureTap, images: Tensor, labels: Tensor, draw: torch.Generator
) -> dict[float, float]:
    """Median seconds of a step for each ratio, 0 without any penalty; the steps take turns."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6, fused=True)

    def step(loss_of: Callable[[Tensor], Tensor]) -> float:
        start = time.perf_counter()
        loss = loss_of(network(images).view(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def plain(logits: Tensor) -> Tensor:
        tap.take()
        return F.binary_cross_entropy_with_logits(logits, labels)

    def penalized(ratio: float) -> Callable[[Tensor], Tensor]:
        criterion = VariancePenalizedLoss("binary", 0.01, ratio, 1.0, generator=draw)
        return lambda logits: criterion(logits, labels, tap.take()).total

    losses = {0.0: plain} | {ratio: penalized(ratio) for ratio in RATIOS}
    times = {ratio: [] for ratio in losses}
    for turn in range(STEPS + 5):
        for ratio, loss_of in losses.items():
            seconds = step(loss_of)
            if turn >= 5:  # the first turns warm up
                times[ratio].append(seconds)
    return {ratio: statistics.median(found) for ratio, found in times.items()}
