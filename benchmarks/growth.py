"""How does the cost grow with the batch, the features, the images and the sampling ratio?

    python benchmarks/growth.py [--device cuda]

The batch grows under a whole training step of the small CNN, the images under a whole epoch of
it; the features and the ratio under the bare penalty, forward and backward.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

import torch
from harness import record, start, training_step

from varreg.lab import datasets, models
from varreg.lab.timing import interleaved
from varreg.lab.training import fit
from varreg.loss import VariancePenalizedLoss
from varreg.variance import feature_variance

BATCHES = (32, 64, 128, 256, 512, 1024)
FEATURES = (10**3, 10**4, 10**5, 10**6, 10**7)
IMAGES = (1_000, 3_000, 10_000, 30_000, 100_000)
RATIOS = (0.01, 0.03, 0.1, 0.3, 1.0)
FEATURE_BATCH = 8  # so that ten million features and their gradient fit into memory
RATIO_FEATURES = 10**6


def main() -> None:
    """Measure the four and record them as one table."""
    device = start(__doc__)
    steps: dict[str, dict[float, Callable[[], object]]] = {
        "batch": {batch: training_step("small_cnn", 28, 1, batch, device) for batch in BATCHES},
        "features": {
            count: penalty(torch.randn(FEATURE_BATCH, count, device=device), 1.0)
            for count in FEATURES
        },
        "ratio": {
            ratio: penalty(torch.randn(FEATURE_BATCH, RATIO_FEATURES, device=device), ratio)
            for ratio in RATIOS
        },
        "images": {count: epoch(count, device) for count in IMAGES},
    }
    turns = {"batch": 9, "features": 9, "ratio": 15, "images": 1}
    rows = []
    for quantity, sizes in steps.items():
        warm_up = 0 if quantity == "images" else 2
        seconds = interleaved(sizes, turns[quantity], warm_up=warm_up, device=device)
        rows += [
            {"quantity": quantity, "value": value, "seconds": statistics.median(times)}
            for value, times in seconds.items()
        ]
    note = (
        "batch: a step of the small CNN at 28 pixels; images: an epoch of it in batches of 128; "
        f"features and ratio: the penalty on {FEATURE_BATCH} samples, forward and backward, the "
        f"ratio on {RATIO_FEATURES:,} features"
    )
    record("growth", rows, note, device)


def penalty(features: torch.Tensor, ratio: float) -> Callable[[], object]:
    """The penalty alone, forward and backward."""
    features.requires_grad_()
    return lambda: torch.autograd.grad(feature_variance(features, ratio, validate=False), features)


def epoch(images: int, device: torch.device) -> Callable[[], object]:
    """One epoch on so many drawn images, with the validation at its end."""
    drawn = datasets.load("phantom")
    index = torch.arange(images) % len(drawn.train)
    train = datasets.Subset(drawn.train.images[index], drawn.train.labels[index])
    data = dataclasses.replace(drawn, train=train)
    model = models.build("small_cnn", in_channels=1, size=28, n_outputs=1)
    criterion = VariancePenalizedLoss("binary", validate=False)
    return lambda: fit(model, data, criterion, epochs=1, device=device)


if __name__ == "__main__":
    main()
