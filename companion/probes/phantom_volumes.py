"""The penalty in three dimensions where the truth is known: volumes in the manner of the phantoms.

Soft tissue with a small round lesion in every volume, and a larger one in half of them, which is
the class. As in :mod:`varreg.lab.datasets.phantom` a marker goes with the class in the training
part and is drawn independently of it elsewhere.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from companion.probes import Measured, outcomes
from companion.studies import every
from companion.studies.beyond import COMPARED
from companion.studies.few_images import settings
from varreg.lab.datasets.cache import hash_bytes
from varreg.lab.datasets.core import Dataset, assemble
from varreg.lab.datasets.phantom import SPURIOUS
from varreg.lab.runs import train_run

SIZE = 16
COUNTS = {"train": 200, "val": 100, "test": 400}
SETTINGS = every(seed=range(10), method=COMPARED)


def draw(n: int, *, seed: int, spurious: float, size: int = SIZE) -> tuple[np.ndarray, ...]:
    """Draw volumes.

    Args:
        n: Number of volumes.
        seed: The same seed gives the same volumes (on another processor up to rounding).
        spurious: The marker of a volume is that of its class with this probability, else random.
        size: Edge in voxels.

    Returns:
        Volumes, uint8 ``(n, size, size, size)``; labels ``(n,)``, as many of each class as
        possible; and markers ``(n,)``, 0 in the near and 1 in the far corner.

    Example:
        >>> volumes, labels, markers = draw(100, seed=0, spurious=1.0)
        >>> volumes.shape, float(labels.mean()), bool((labels == markers).all())
        ((100, 16, 16, 16), 0.5, True)
    """
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % 2)
    anywhere = random.integers(0, 2, n)
    markers = np.where(random.random(n) < spurious, labels, anywhere)

    axes = np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij")
    centre = random.uniform(-0.45, 0.45, (3, n, 1, 1, 1))
    radius = np.where(labels, random.uniform(0.4, 0.6, n), random.uniform(0.15, 0.3, n))
    reach = np.sqrt(sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)))
    lesion = 1 / (1 + np.exp(8 * (reach / radius[:, None, None, None] - 1)))
    brightness = random.uniform(0.25, 0.4, (n, 1, 1, 1))

    noise = random.standard_normal((n, *(size,) * 3))
    tissue = gaussian_filter(noise, (0, 1.5, 1.5, 1.5))
    picture = 0.4 + 0.1 * tissue / tissue.std() + 0.05 * noise + brightness * lesion
    corner = np.where(markers, size - 3, 0)
    for volume, at in zip(picture, corner, strict=True):
        volume[at : at + 3, :3, :3] = 0.9
    return np.clip(255 * picture + 0.5, 0, 255).astype(np.uint8), labels, markers


@cache
def load() -> Dataset:
    """The three parts, the same for every unit."""
    parts = [
        draw(count, seed=seed, spurious=SPURIOUS[part])
        for seed, (part, count) in enumerate(COUNTS.items())
    ]
    volumes = np.concatenate([part[0] for part in parts])
    return assemble(
        name="phantom_volumes",
        task="binary",
        class_names=("small lesion", "large lesion"),
        size=SIZE,
        split="official",
        images=torch.from_numpy(volumes).unsqueeze(1),
        labels=np.concatenate([part[1] for part in parts]),
        counts=tuple(COUNTS.values()),
        source="drawn by companion.probes.phantom_volumes",
        images_sha256=hash_bytes(volumes),
    )


def measure(method: str, seed: int, **where: str | Path | None) -> Measured:
    """Train the small network in three dimensions, 15 epochs.

    Args:
        method: A key of :data:`companion.studies.few_images.ARMS`.
        seed: Of the run.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        The outcomes, and a row an epoch.
    """
    data = load()
    spec = settings("phantom_volumes", "phantom", method, seed, size=SIZE, batch_size=32, epochs=15)
    run = train_run(spec, data=data, **where)
    head = {"dataset": data.name, "size": data.size, "best_epoch": run.fit.best_epoch}
    return Measured(data, head | outcomes(run), run.fit.history)
