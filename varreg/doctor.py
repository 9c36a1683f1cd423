"""What this machine has: versions, device, data and recorded results."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

import varreg
from varreg import datasets
from varreg.ledger import Ledger, default_results
from varreg.machine import device_name
from varreg.probes import PROBES, units
from varreg.runs import MissingRunsError
from varreg.studies import STUDIES, specs
from varreg.training import default_device

__all__ = ["report", "status"]

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "medmnist", "monai", "pooch")
EXTRAS = ("jupyter-book", "papermill", "nbval", "seaborn", "tensorboard")


def report(root: str | None = None) -> str:
    """Describe versions, device and which data are found.

    Args:
        root: Folder of the data, see :func:`varreg.datasets.load`.

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


def status() -> str:
    """Say how many runs of each study and units of each probe are recorded, and how long they took.

    The ledgers are those in :func:`varreg.ledger.default_results`.

    Example:
        >>> [line.partition(":")[0] for line in status().splitlines()]
        ['chest_paper', 'chest', 'skin_paper', 'skin', 'grid', 'edges', 'inert_lambda',
         'ambiguities', 'predictions', 'carried', 'norms', 'sampling', 'leakage', 'thresholds',
         'temperature']
    """
    lines = []
    for study in (*STUDIES, *PROBES):
        runs = Ledger(study).runs()
        try:
            jobs = units(study) if study in PROBES else specs(study)
        except MissingRunsError as error:
            lines.append(f"{study}: waits for another study ({error})")
            continue
        keys = {job.key for job in jobs}
        done = 0 if runs.empty else len(keys & set(runs["key"]))
        line = f"{study}: {done} of {len(keys)} runs recorded"
        if done:
            hours = runs["seconds"].sum() / 3600
            line += f", {hours:.2f} hours of training on {', '.join(sorted(set(runs['device'])))}"
        lines.append(line)
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
