"""What this machine has: versions, device and data."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

import varreg
from varreg.lab import datasets
from varreg.lab.ledger import default_results
from varreg.lab.machine import device_name
from varreg.lab.training import default_device

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "medmnist", "monai", "pooch")
EXTRAS = ("jupyter-book", "papermill", "nbval", "seaborn", "tensorboard")


def report(root: str | None = None) -> str:
    """Describe versions, device and which data are found.

    Args:
        root: Folder of the data, see :func:`varreg.lab.datasets.load`.

    Example:
        >>> report().splitlines()[0].startswith("varreg ")
        True
    """
    lines = [f"varreg {varreg.__version__}, Python {platform.python_version()}"]
    lines += [f"  {name} {_version(name)}" for name in PACKAGES + EXTRAS]
    device = default_device()
    lines += [
        f"device: {device.type}, {device_name(device)}, {torch.get_num_threads()} threads",
        f"results: {default_results()}",
        "data:",
    ]
    found = [entry for entry in datasets.catalogue(root) if entry.found]
    lines += [f"  {entry.name}: {entry.state}" for entry in found]
    lines.append("  every other one: python -m varreg data list")
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
