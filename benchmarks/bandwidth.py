"""How close is the bare penalty, forward and backward, to the speed at which memory is copied?

    python benchmarks/bandwidth.py [--device cuda]

The fewest bytes that it can move are those of the features, three times: read forward, read
backward, and the gradient written. Copying a tensor of the same size moves two of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from harness import record, start
from peers import torch_variance

from varreg.lab.timing import interleaved
from varreg.penalties import released_variance
from varreg.variance import feature_variance

BATCH = 64
MEGABYTES = (1, 10, 100, 400)
ON_CUDA = (*MEGABYTES, 2000)


def main() -> None:
    """Measure every size in turn with a copy of it."""
    device = start(__doc__)
    rows = []
    for megabytes in ON_CUDA if device.type == "cuda" else MEGABYTES:
        count = int(megabytes * 1e6 / (4 * BATCH))
        features = torch.randn(BATCH, count, device=device, requires_grad=True)
        target = torch.empty_like(features)

        def gradient(penalty: Callable[..., torch.Tensor], features: torch.Tensor = features):
            torch.autograd.grad(penalty(features), features)

        steps = {
            "copy": lambda target=target, features=features: target.copy_(features.detach()),
            "varreg": lambda: gradient(lambda x: feature_variance(x, validate=False)),
            "varreg, ratio 0.2": lambda: gradient(
                lambda x: feature_variance(x, 0.2, validate=False)
            ),
            "torch.var": lambda: gradient(lambda x: torch_variance(x, 1.0)),
            "released recipe": lambda: gradient(lambda x: released_variance(x, 1.0)),
        }
        turns = 5 if megabytes > 200 else 15
        seconds = interleaved(steps, turns, warm_up=2, device=device)
        size = features.numel() * features.element_size()
        bandwidth = 2 * size / statistics.median(seconds.pop("copy"))
        for penalty, times in seconds.items():
            reached = 3 * size / statistics.median(times)
            rows.append(
                {
                    "megabytes": megabytes,
                    "batch": BATCH,
                    "features": count,
                    "penalty": penalty,
                    "copy_gb_a_second": bandwidth / 1e9,
                    "gb_a_second": reached / 1e9,
                    "share_of_copy": reached / bandwidth,
                }
            )
    record("bandwidth", rows, "float32; fewest bytes: three times the features", device)


if __name__ == "__main__":
    main()
