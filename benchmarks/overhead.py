"""How much longer is a training step with a feature penalty, and how much more memory does it need?

    python benchmarks/overhead.py [--device cuda]

A step is forward, loss, backward and optimizer. The steps take turns in one process; the ratio is
to the same step with the same cross-entropy and no penalty. A second step without a penalty shows
what the ratio is worth.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from harness import record, start, without_log
from peers import one_pass_variance, torch_variance
from torch import Tensor

from varreg.features import FeatureTap
from varreg.lab import models
from varreg.lab.timing import interleaved, ratio_interval
from varreg.loss import VariancePenalizedLoss
from varreg.penalties import (
    center_loss,
    decov,
    released_variance,
    variance_constancy,
    vicreg_variance,
)

SETTINGS = {  # model: pixels, channels, batch, turns
    "small_cnn": (28, 1, 128, 800),
    "resnet18": (64, 3, 32, 7),
    "paper_cnn": (224, 3, 32, 40),
}
ON_CUDA = SETTINGS | {"resnet18": (224, 3, 64, 100), "paper_cnn": (224, 3, 32, 200)}
WEIGHT = 0.01
NONE, AGAIN = "no penalty", "no penalty, again"

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    """Measure time and memory of every penalty on every network."""
    device = start(__doc__)
    rows = []
    for name, (size, channels, batch, turns) in (
        ON_CUDA if device.type == "cuda" else SETTINGS
    ).items():
        rows += measure(name, size, channels, batch, turns, device)
    note = "Adam, float32" if device.type == "cpu" else "Adam, bfloat16 autocast"
    record("overhead", rows, f"{note}, channels_last, binary task", device)


def losses(device: torch.device, n_features: int) -> dict[str, Loss]:
    """What a step minimizes, by the name of its penalty."""
    draw = torch.Generator().manual_seed(0)
    ours = {
        ratio: VariancePenalizedLoss(
            "binary", WEIGHT, ratio, 1.0, generator=draw, validate=device.type == "cpu"
        )
        for ratio in (1.0, 0.2)
    }
    centers = torch.zeros(2, n_features, device=device)
    penalties: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "kernel of 0.2.0, all features": lambda f, y: one_pass_variance(f),
        "released recipe, all features": lambda f, y: released_variance(f, 1.0),
        "released recipe, ratio 0.2": lambda f, y: released_variance(f, 0.2),
        "torch.var, all features": lambda f, y: torch_variance(f, 1.0),
        "torch.var, ratio 0.2": lambda f, y: torch_variance(f, 0.2),
        "VICReg variance": lambda f, y: vicreg_variance(f, validate=device.type == "cpu"),
        "DeCov": lambda f, y: decov(f, validate=device.type == "cpu"),
        "VCL": lambda f, y: variance_constancy(f, validate=device.type == "cpu"),
        "center loss": lambda f, y: center_loss(f, y, centers, validate=device.type == "cpu"),
    }

    def cross_entropy(logits: Tensor, target: Tensor, features: Tensor) -> Tensor:
        return ours[1.0].cross_entropy(logits, target)

    def added(penalty: Callable[[Tensor, Tensor], Tensor]) -> Loss:
        return lambda logits, target, features: torch.add(
            cross_entropy(logits, target, features), penalty(features, target), alpha=WEIGHT
        )

    return {
        NONE: cross_entropy,
        "varreg, all features": lambda *batch: ours[1.0](*batch).total,
        "varreg, ratio 0.2": lambda *batch: ours[0.2](*batch).total,
        AGAIN: cross_entropy,
        **{name: added(penalty) for name, penalty in penalties.items()},
    }


def measure(
    name: str, size: int, channels: int, batch: int, turns: int, device: torch.device
) -> list[dict[str, object]]:
    """One row a penalty."""
    torch.manual_seed(0)
    model = models.build(name, in_channels=channels, size=size, n_outputs=1).to(device)
    model.to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, channels, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    target = torch.randint(2, (batch,), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)

    with FeatureTap(model) as tap:
        model(images)
        n_features = tap.take().flatten(1).shape[1]

        def step(loss: Loss) -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(images)
                total = loss(logits.float(), target, tap.take())
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()

        steps = {
            label: lambda loss=loss: step(loss)
            for label, loss in losses(device, n_features).items()
        }
        seconds = interleaved(steps, turns, device=device)
        peak_memory(steps[NONE], device)  # the first one finds gradients of the step before
        peaks = {label: peak_memory(call, device) for label, call in steps.items()}
    rows = []
    for label, times in seconds.items():
        ratio, low, high = ratio_interval(times, seconds[NONE])
        rows.append(
            {
                "model": name,
                "pixels": size,
                "batch": batch,
                "features": n_features,
                "penalty": label,
                "step_ms": 1e3 * statistics.median(times),
                "ratio": ratio,
                "low": low,
                "high": high,
                "turns": turns,
                "peak_mb": peaks[label] / 1e6,
                "peak_ratio": peaks[label] / peaks[NONE],
            }
        )
    return rows


def peak_memory(step: Callable[[], None], device: torch.device) -> int:
    """Most bytes that tensors hold at one time during a step, beyond what they hold before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with without_log(), torch.profiler.profile(profile_memory=True) as profiler:
        step()
    # Every allocation and release, in their order, stands in the trace and nowhere else.
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]"]
    return max(accumulate(change for _, change in sorted(changes)))


if __name__ == "__main__":
    main()
