"""How far are the networks from what this machine can do, and what bounds them?

    python benchmarks/roofline.py [--device cuda]

The roof is the lower of two lines: the measured speed of a large matrix product, and the measured
speed of copying memory times the operations for each byte. Operations are those of convolutions
and linear layers. Bytes are the inputs and outputs of every operator: what has to be moved when
no two of them are fused and nothing stays in a cache.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from harness import record, start, training_step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from varreg.lab.timing import interleaved

SETTINGS = {"paper_cnn": (224, 3, 32), "small_cnn": (28, 1, 128)}
EDGE = {"cpu": 2048, "cuda": 8192}  # of the matrices
COPIED = 2**26  # values


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: dict | None = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        if not operator.is_view:
            given = [*args, *(kwargs or {}).values(), result]
            tensors = torch.utils._pytree.tree_leaves(given)
            # What an operator changes in place stands on both sides: it is read and written.
            self.bytes += sum(each.nbytes for each in tensors if isinstance(each, Tensor))
        return result


def main() -> None:
    """Measure the roof and where both networks stand under it."""
    device = start(__doc__)
    peak, bandwidth = roof(device)
    rows = []
    for name, (size, channels, batch) in SETTINGS.items():
        step = training_step(name, size, channels, batch, device)
        step()
        with FlopCounterMode(display=False) as flops, Traffic() as traffic:
            step()
        seconds = statistics.median(interleaved({"step": step}, 15, device=device)["step"])
        intensity = flops.get_total_flops() / traffic.bytes
        bound = min(peak, intensity * bandwidth)
        reached = flops.get_total_flops() / seconds
        rows.append(
            {
                "model": name,
                "pixels": size,
                "batch": batch,
                "step_ms": 1e3 * seconds,
                "gflop": flops.get_total_flops() / 1e9,
                "gigabytes": traffic.bytes / 1e9,
                "flop_a_byte": intensity,
                "gflop_a_second": reached / 1e9,
                "gb_a_second": traffic.bytes / seconds / 1e9,
                "peak_gflop_a_second": peak / 1e9,
                "copy_gb_a_second": bandwidth / 1e9,
                "share_of_roof": reached / bound,
                "share_of_peak": reached / peak,
                "bound_by": "arithmetic" if bound == peak else "memory",
            }
        )
    record("roofline", rows, "float32; a step with the penalty, without validation", device)


def roof(device: torch.device) -> tuple[float, float]:
    """Operations a second of a matrix product, and bytes a second of a copy."""
    edge = EDGE[device.type]
    left, right = torch.randn(2, edge, edge, device=device)
    source = torch.randn(COPIED, device=device)
    target = torch.empty_like(source)
    steps = {"product": lambda: left @ right, "copy": lambda: target.copy_(source)}
    seconds = interleaved(steps, 9, device=device)
    return (
        2 * edge**3 / statistics.median(seconds["product"]),
        2 * source.nbytes / statistics.median(seconds["copy"]),
    )


if __name__ == "__main__":
    main()
