"""What a loaded data set is, and how it can fail to load."""

from __future__ import annotations

import hashlib
import os
import stat
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from varreg.checks import Task


class DatasetError(ValueError):
    """Base of everything that can go wrong while a data set is loaded."""


class UnknownDatasetError(DatasetError):
    """No data set, size or split of that name."""


class DatasetNotFoundError(DatasetError):
    """The data set exists, but not in any folder that was looked at."""


class DownloadError(DatasetNotFoundError):
    """The download did not bring the file that was asked for."""


class CorruptDatasetError(DatasetError):
    """The files are there, but they do not hold what they should."""


@contextmanager
def reading(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read into one error with file, cause and remedy.

    Libraries that read damaged files raise what they like, and more kinds than anyone has listed.
    Whatever reads a file from outside does so in here.

    Args:
        path: the file, or the folder of the files that are read.
        what: what the file then is not, or cannot do.
        remedy: what to do.

    Raises:
        CorruptDatasetError: For every exception, if it is not a :class:`DatasetError` already.

    Example:
        >>> with reading("a.png", "is no image", "replace it"):
        ...     {}["IHDR"]
        Traceback (most recent call last):
        ...
        varreg.lab.datasets.core.CorruptDatasetError: a.png is no image (KeyError: 'IHDR'); replace
        it
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.errno:  # from the system, not from a decoder
            path, what, cause = error.filename or path, "cannot be read", error.strerror or cause
            remedy = f"make it readable, fetch what it points to if it is a link, or {remedy}"
        cause = textwrap.shorten(cause, 200, placeholder=" ...")
        raise CorruptDatasetError(f"{path} {what} ({cause}); {remedy}") from error


def open_file(path: str | Path) -> BufferedReader:
    """Opens a file for reading; a pipe or a device, which may block for ever, is refused.

    Raises:
        CorruptDatasetError: If it is something else than a file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise CorruptDatasetError(
            f"{path} is not a file, but a folder, a pipe or a device; move it elsewhere"
        )
    return open(path, "rb")


@dataclass(frozen=True)
class Subset:
    """One of the three parts of a data set: train, val or test.

    Attributes:
        images: ``uint8``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``. Possibly an expanded view (grey
            images shown as RGB) or memory-mapped, and channels-last in memory: use ``reshape``, not
            ``view``.
        labels: ``int64``, ``(N,)``, for binary and multiclass tasks; ``float32``, ``(N, L)``, of
            zeros and ones for multilabel tasks.
        groups: ``int64``, ``(N,)``: images with the same number show the same lesion, across all
            subsets of the data set. ``None`` where this is not known.
        ids: names of the images, in their order; ``None`` where they have none.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor | None = None
    ids: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DatasetError(
                f"a subset needs one label an image, got {len(self.images)} images "
                f"and {len(self.labels)} labels"
            )
        if len(self.images) == 0:
            raise DatasetError("a subset needs at least one image, got none")

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, rows: Tensor) -> Subset:
        """The images with these numbers, in this order, and all that is known of them."""
        return Subset(
            self.images.index_select(0, rows),
            self.labels[rows],
            None if self.groups is None else self.groups[rows],
            None if self.ids is None else tuple(self.ids[row] for row in rows.tolist()),
        )


@dataclass(frozen=True)
class Dataset:
    """A data set with its splits, its class names and where it came from.

    Attributes:
        name: the name that :func:`varreg.lab.datasets.load` knows it by.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        class_names: one name a class, in the order of the labels.
        size: height, width (and depth) of the images, in pixels.
        split: which of the known ways to split this is, such as ``"official"``.
        train: the images to learn from.
        val: the images to choose by.
        test: the images to report on.
        source: where it came from, in words.
        sha256: first 16 hexadecimal digits of a hash of all images and labels in order.
    """

    name: str
    task: Task
    class_names: tuple[str, ...]
    size: int
    split: str
    train: Subset
    val: Subset
    test: Subset
    source: str
    sha256: str

    @property
    def channels(self) -> int:
        """Number of colour channels: 1 or 3."""
        return self.train.images.shape[1]

    @property
    def spatial_dims(self) -> int:
        """2 for images, 3 for volumes."""
        return self.train.images.ndim - 2

    @property
    def n_outputs(self) -> int:
        """Number of logits that a model needs: 1 for a binary task, else one a class."""
        return 1 if self.task == "binary" else len(self.class_names)


def as_stored(images: Tensor) -> Tensor:
    """Images as they lie in memory or on disk, channels last: ``(N, ..., C)``, a view.

    Grey images that are shown in colour, as a view that repeats their channel, have one again.
    """
    repeated = images.stride(1) == 0
    return (images[:, :1] if repeated else images).movedim(1, -1)


def content_hash(images_sha256: str, labels: np.ndarray, counts: Sequence[int]) -> str:
    """Hashes what a model gets to see, so that a recorded result says what it was made from.

    Args:
        images_sha256: hash of the bytes of all images, in the order train, val, test.
        labels: labels in the same order, any integer type.
        counts: number of images in train, val and test.

    Returns:
        The first 16 hexadecimal digits of a SHA-256.

    Example:
        >>> content_hash("00", np.array([0, 1, 1]), (1, 1, 1))
        'e58606393a01db4e'
    """
    digest = hashlib.sha256(images_sha256.encode())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    digest.update(repr(tuple(int(count) for count in counts)).encode())
    return digest.hexdigest()[:16]


def assemble(
    *,
    name: str,
    task: Task,
    class_names: tuple[str, ...],
    size: int,
    split: str,
    images: Tensor,
    labels: np.ndarray,
    counts: Sequence[int],
    source: str,
    images_sha256: str,
    groups: np.ndarray | None = None,
    ids: Sequence[str] | None = None,
) -> Dataset:
    """Cuts what stands in the order train, val, test into a ``Dataset``.

    Args:
        name: see :class:`Dataset`, also for the other arguments that are not explained here.
        task: decides the type of the labels.
        class_names: one name a class.
        size: pixels along an edge.
        split: name of the split.
        images: ``uint8``, ``(N, C, ...)``.
        labels: integers, ``(N,)`` or ``(N, L)``.
        counts: number of images in train, val and test.
        source: where the images came from, in words.
        images_sha256: hash of the bytes of all images, in this order.
        groups: integers, ``(N,)``.
        ids: names of the images.

    Raises:
        DatasetError: If one of the three parts is empty.
    """
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        if count == 0:
            raise DatasetError(f"the {part} part of {name} (split {split}) holds no image")
    target = torch.from_numpy(labels.astype(np.float32 if task == "multilabel" else np.int64))
    lesion = None if groups is None else torch.from_numpy(groups.astype(np.int64))
    train, val, test = (
        Subset(
            images[start:end],
            target[start:end],
            None if lesion is None else lesion[start:end],
            None if ids is None else tuple(ids[start:end]),
        )
        for start, end in pairwise([0, *accumulate(counts)])
    )
    sha256 = content_hash(images_sha256, labels, counts)
    return Dataset(name, task, class_names, size, split, train, val, test, source, sha256)
