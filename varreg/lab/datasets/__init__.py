"""Data sets, ready to train on: ``load(name, size=..., root=...)``.

Every MedMNIST data set in 2D and 3D, the paper's two data sets (``chest_xray``, ``ham10000``) and
two that the package draws itself (``phantom``, ``phantom7``) come as ``uint8`` tensors with labels,
class names, splits and a hash that says exactly what was loaded.
"""

from __future__ import annotations

from varreg.lab.datasets.catalogue import Entry, catalogue, check, fetch
from varreg.lab.datasets.core import (
    CorruptDatasetError,
    Dataset,
    DatasetError,
    DatasetNotFoundError,
    DownloadError,
    Subset,
    UnknownDatasetError,
)
from varreg.lab.datasets.registry import load, names, splits

__all__ = [
    "CorruptDatasetError",
    "Dataset",
    "DatasetError",
    "DatasetNotFoundError",
    "DownloadError",
    "Entry",
    "Subset",
    "UnknownDatasetError",
    "catalogue",
    "check",
    "fetch",
    "load",
    "names",
    "splits",
]
