"""One name for every data set, and one function that loads them all."""

from __future__ import annotations

import numbers
from pathlib import Path

from varreg.lab.datasets import folders, medmnist, phantom
from varreg.lab.datasets.core import Dataset, UnknownDatasetError


def names() -> tuple[str, ...]:
    """The names that :func:`load` knows.

    Example:
        >>> names()[:4]
        ('phantom', 'phantom7', 'chest_xray', 'ham10000')
    """
    return (*phantom.KINDS, *folders.SPLITS, *medmnist.info())


def splits(name: str) -> tuple[str, ...]:
    """The ways in which a data set can be split, the default first.

    Raises:
        UnknownDatasetError: If there is no data set of that name.

    Example:
        >>> splits("ham10000"), splits("bloodmnist")
        (('paper', 'lesion'), ('official',))
    """
    if name not in names():
        raise UnknownDatasetError(
            f"there is no data set {name!r}; allowed are {', '.join(names())}"
        )
    return folders.SPLITS.get(name, ("official",))


def load(
    name: str,
    *,
    size: int = 28,
    split: str | None = None,
    root: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    """Loads a data set.

    It is looked for in ``root``, in the folder that the environment variable ``VARREG_DATA`` names
    and in the cache folder (``VARREG_CACHE``, else the system's). MedMNIST files that are in none
    of them are downloaded. What was decoded once is read from the cache folder, memory-mapped,
    until the files change.

    Args:
        name: a MedMNIST flag (such as ``"pneumoniamnist"``), ``"chest_xray"``, ``"ham10000"``,
            ``"phantom"`` (binary, grey) or ``"phantom7"`` (seven classes, RGB).
        size: pixels along an edge. MedMNIST: 28, 64, 128 or 224 (3D: 28 or 64); folders: any from
            8; phantoms: any from 16.
        split: ``"paper"`` or ``"lesion"`` for ``ham10000``, ``"official"`` for the others; None is
            the first of these.
        root: a folder to look into first, in the layout that the page on data describes.
        download: whether files that are not there may be fetched.

    Returns:
        The data set; its images may be memory-mapped, so it may be larger than memory.

    Raises:
        UnknownDatasetError: If there is no such name, size or split.
        DatasetNotFoundError: If the data set is in none of the folders (and cannot be fetched).
        DownloadError: If the file could not be fetched.
        CorruptDatasetError: If a file is not what it should be.

    Example:
        >>> data = load("phantom")
        >>> data.train.images.shape, data.task, data.n_outputs
        (torch.Size([1200, 1, 28, 28]), 'binary', 1)
    """
    allowed = splits(name)
    if split not in (None, *allowed):
        raise UnknownDatasetError(
            f"{name} has no split {split!r}; allowed are {', '.join(allowed)}"
        )
    if isinstance(size, bool) or not isinstance(size, numbers.Integral):
        raise UnknownDatasetError(f"size is {size!r}; it must be a whole number of pixels")
    size = int(size)
    if name in phantom.KINDS:
        return phantom.load(name, size)
    if name in folders.SPLITS:
        return folders.load(name, size, split or allowed[0], root, download)
    return medmnist.load(name, size, root, download)
