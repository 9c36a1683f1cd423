"""How many seeds a second do K networks give that train as one, against one after the other?

    python benchmarks/ensemble.py [--device cuda]

What counts is the whole of a fit: steps, validation, metrics, the choice of weights. The rows of
tiny images in batches of two leave little but the cost of launching a step, which is what bounds
small networks on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from harness import record, start

from varreg import VariancePenalizedLoss
from varreg.lab import models
from varreg.lab.datasets import Dataset, Subset
from varreg.lab.ensemble import fit_ensemble
from varreg.lab.timing import interleaved, ratio_interval
from varreg.lab.training import fit

MEMBERS = (1, 4, 16)


def noise(size: int, count: int) -> Dataset:
    """Images of noise with labels at random: the time does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)

    def subset(count: int) -> Subset:
        shape = (count, 1, size, size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return Subset(images, torch.arange(count) % 2)

    train, val = subset(count), subset(max(2, count // 8))
    name = ("noise", "binary", ("no", "yes"), size, "official")
    return Dataset(*name, train, val, val, "made in memory", "0" * 16)


def training(
    data: Dataset, model: str, members: int, batch_size: int, epochs: int, device: torch.device
) -> Callable[[], object]:
    """A fit of so many members at once; for 0 of one member by the plain loop."""
    networks, criteria = [], []
    for seed in range(max(1, members)):
        networks.append(models.build(model, in_channels=1, size=data.size, n_outputs=1))
        generator = torch.Generator().manual_seed(seed)
        criteria.append(VariancePenalizedLoss("binary", generator=generator))
    settings = {"epochs": epochs, "batch_size": batch_size, "device": device}
    if members == 0:
        return lambda: fit(networks[0], data, criteria[0], **settings)
    return lambda: fit_ensemble(networks, data, criteria, seeds=range(members), **settings)


def main() -> None:
    """Measure, print and record."""
    device = start(__doc__)
    on_cuda = device.type == "cuda"
    # On a GPU as many images as PneumoniaMNIST has, so that its cost of a start weighs as it does.
    cases = [(28, 4708, 128), (4, 64, 2)] if on_cuda else [(28, 256, 128), (4, 64, 2)]
    turns, epochs = (7, 3) if on_cuda else (3, 1)
    rows = []
    for size, count, batch_size in cases:
        data = noise(size, count)
        for model in ("paper_cnn", "small_cnn"):
            steps = {
                str(k): training(data, model, k, batch_size, epochs, device) for k in (0, *MEMBERS)
            }
            seconds = interleaved(steps, turns, warm_up=1, device=device)
            alone = seconds.pop("0")
            for members, own in zip(MEMBERS, seconds.values(), strict=True):
                gain, low, high = (members * end for end in ratio_interval(alone, own))
                rows.append(
                    {
                        "model": model,
                        "size": size,
                        "batch": batch_size,
                        "members": members,
                        "images_per_second_alone": round(count * epochs / median(alone)),
                        "images_per_second": round(count * epochs * members / median(own)),
                        "gain": gain,
                        "low": low,
                        "high": high,
                        "turns": turns,
                    }
                )
    note = (
        f"gain: seeds a second as one, against one after the other; whole fits of {epochs} epochs"
    )
    record("ensemble", rows, note, device)


if __name__ == "__main__":
    main()
