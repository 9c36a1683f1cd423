"""The MedMNIST collection, 2D and 3D, in all its sizes.

References:
    J. Yang et al., MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image
    classification, Scientific Data 10, 41 (2023), https://doi.org/10.1038/s41597-022-01721-8.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import torch

from varreg.checks import Task
from varreg.lab.datasets.cache import cache_dir, cached_files
from varreg.lab.datasets.core import (
    CorruptDatasetError,
    Dataset,
    DatasetError,
    DatasetNotFoundError,
    DownloadError,
    UnknownDatasetError,
    assemble,
    open_file,
    reading,
)
from varreg.lab.datasets.places import data_roots

PARTS = ("train", "val", "test")
TASKS: dict[str, Task] = {
    "binary-class": "binary",
    "multi-class": "multiclass",
    "ordinal-regression": "multiclass",
    "multi-label, binary-class": "multilabel",
}
RETRIES = 3
TIMEOUT = 60  # seconds without a byte
CHUNK = 2**20  # bytes


@cache
def info() -> dict[str, dict[str, Any]]:
    """MedMNIST's own table of its data sets, ``medmnist.INFO``.

    Only that one module of the package is run: importing the package itself also imports
    scikit-image and more, which takes seconds.

    Raises:
        DatasetError: If the package is not installed.
    """
    package = importlib.util.find_spec("medmnist")
    if package is None or package.origin is None:
        raise DatasetError("the list of MedMNIST's data needs medmnist: pip install medmnist")
    spec = importlib.util.spec_from_file_location(
        "medmnist_info", Path(package.origin).with_name("info.py")
    )
    assert spec is not None
    assert spec.loader is not None  # as of every .py file
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when it cannot make a folder in the home folder
        spec.loader.exec_module(module)
    table: dict[str, dict[str, Any]] = module.INFO
    return table


def sizes(name: str) -> tuple[int, ...]:
    """The sizes that MedMNIST publishes of a data set, in pixels.

    Example:
        >>> sizes("pneumoniamnist"), sizes("nodulemnist3d")
        ((28, 64, 128, 224), (28, 64))
    """
    return tuple(size for size in (28, 64, 128, 224) if f"MD5{_suffix(size)}" in info()[name])


def task(name: str) -> Task:
    """The kind of task; grades (ordinal regression) count as classes.

    Example:
        >>> task("chestmnist"), task("retinamnist")
        ('multilabel', 'multiclass')
    """
    return TASKS[info()[name]["task"]]


def md5(name: str, size: int) -> str:
    """The MD5 that MedMNIST publishes for a file, as hexadecimal digits."""
    published: str = info()[name][f"MD5{_suffix(size)}"]
    return published


def file_name(name: str, size: int) -> str:
    """The file's name as MedMNIST publishes it.

    Example:
        >>> file_name("dermamnist", 28), file_name("dermamnist", 64)
        ('dermamnist.npz', 'dermamnist_64.npz')

    Raises:
        UnknownDatasetError: If it is not published in that size.
    """
    if size not in sizes(name):
        raise UnknownDatasetError(
            f"{name} comes in the sizes {', '.join(map(str, sizes(name)))}, not in {size!r}"
        )
    return f"{name}{_suffix(size)}.npz"


def find(name: str, size: int, root: str | Path | None = None) -> tuple[Path, str] | None:
    """Looks for the file in the data folders and in ``medmnist`` folders in them.

    Returns:
        The file and the words for the folder it was found in, or None.
    """
    for words, folder in data_roots(root).items():
        for path in (folder / "medmnist" / file_name(name, size), folder / file_name(name, size)):
            if os.path.lexists(path):  # a broken link is named when it is read
                return path, words
    return None


def download(name: str, size: int) -> Path:
    """Downloads the file into the cache folder, from MedMNIST's own address.

    It appears there only when it is complete and its MD5 is the published one.

    Returns:
        The downloaded file.

    Raises:
        DownloadError: If that fails, after some more attempts.
    """
    import pooch
    from tqdm.auto import tqdm

    file, folder = file_name(name, size), cache_dir() / "medmnist"
    url = info()[name][f"url{_suffix(size)}"]
    shelf = pooch.create(
        path=folder,
        base_url="",
        registry={file: f"md5:{md5(name, size)}"},
        urls={file: url},
        retry_if_failed=RETRIES,
    )
    # pooch sets the total; without one, a tqdm bar has no truth value.
    with tqdm(desc=file, total=1, unit="B", unit_scale=True, disable=None) as bar:
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK, timeout=TIMEOUT)
        try:
            return Path(shelf.fetch(file, downloader=downloader))
        except (OSError, ValueError) as error:  # the errors of requests are OSErrors
            raise DownloadError(
                f"could not download {file} from {url} in {RETRIES + 1} attempts: {error}; "
                f"check the network, or get the file by other means and put it into {folder} "
                "or into the folder that VARREG_DATA names"
            ) from error


def load(name: str, size: int, root: str | Path | None, may_download: bool) -> Dataset:
    """Loads one MedMNIST data set; see :func:`varreg.lab.datasets.load`."""
    found = find(name, size, root)
    if found is None and may_download:
        found = download(name, size), "MedMNIST's download"
    if found is None:
        folders = ", ".join(str(folder) for folder in data_roots(root).values())
        raise DatasetNotFoundError(
            f"{file_name(name, size)} is in none of the data folders ({folders}); put it into one "
            f"of them, or download it: python -m varreg data fetch {name} --size {size}"
        )
    path, words = found
    archive = _Archive(path, name, size)
    labels = archive.labels()
    counts = tuple(len(labels[part]) for part in PARTS)
    colour = info()[name]["n_channels"] == 3
    shape = (sum(counts), *(size,) * (3 if name.endswith("3d") else 2), *(3,) * colour)

    def fill(array: np.ndarray, done: int) -> Generator[int, None, None]:
        if done:
            return
        start = 0
        for part, count in zip(PARTS, counts, strict=True):
            archive.read_images(part, array[start : start + count])
            start += count
        yield 1

    images, images_sha256 = cached_files(f"{name}-{size}-official", [path], shape, fill)
    stacked = np.concatenate([labels[part] for part in PARTS])
    # 3D sets and grey 2D sets have no channel axis in the file; in colour it stands last.
    tensor, names = torch.from_numpy(images), info()[name]["label"]
    return assemble(
        name=name,
        task=task(name),
        class_names=tuple(names[str(label)] for label in range(len(names))),
        size=size,
        split="official",
        images=tensor.movedim(-1, 1) if colour else tensor.unsqueeze(1),
        labels=stacked if task(name) == "multilabel" else stacked[:, 0],
        counts=counts,
        source=f"{path.name} in MedMNIST's format, from {words}",
        images_sha256=images_sha256,
    )


def _suffix(size: int) -> str:
    return "" if size == 28 else f"_{size}"


class _Archive:
    """An .npz file of MedMNIST, which may have been unpacked and packed again by other programs.

    Args:
        path: the file.
        name: the data set.
        size: pixels along an edge.

    Raises:
        CorruptDatasetError: If it is no zip file, or lacks an array or has it twice.
    """

    def __init__(self, path: Path, name: str, size: int) -> None:
        self.path, self.name = path, name
        fetch = f"fetch it again with `python -m varreg data fetch {name} --size {size}`"
        if path.is_relative_to(cache_dir()):
            self.remedy = f"delete this download and {fetch}"
        else:
            self.remedy = (
                f"only MedMNIST's own arrays have this name. Move the file elsewhere and {fetch}; "
                "images of your own can be put into a varreg.lab.datasets.Dataset"
            )
        with self._reading("is not a complete .npz file") as archive:
            members = [PurePosixPath(member) for member in archive.namelist()]
        # Programs that pack a folder put its name before those of the arrays.
        arrays = [member for member in members if member.suffix == ".npy"]
        counts = Counter(member.stem for member in arrays)
        wanted = [f"{part}_{kind}" for kind in ("images", "labels") for part in PARTS]
        if missing := [key for key in wanted if not counts[key]]:
            raise self._corrupt(f"lacks {', '.join(missing)}, which every MedMNIST file has")
        if twice := [key for key in wanted if counts[key] > 1]:
            raise self._corrupt(f"holds {', '.join(twice)} more than once")
        self.members = {member.stem: str(member) for member in arrays}

    def labels(self) -> dict[str, np.ndarray]:
        """The checked labels of each part, ``(N, 1)`` or, for multilabel tasks, ``(N, L)``."""
        n_classes = len(info()[self.name]["label"])
        width, top = (n_classes, 1) if task(self.name) == "multilabel" else (1, n_classes - 1)
        labels = {}
        for part in PARTS:
            key = f"{part}_labels"
            expected = (info()[self.name]["n_samples"][part], width)
            with self._array(key) as (stream, shape, fortran_order, dtype):
                # Before there is any memory for them: a header may claim what it likes.
                if shape != expected:
                    raise self._corrupt(f"holds {key} of shape {shape}, {self.name} has {expected}")
                if dtype.kind not in "ui":
                    raise self._corrupt(f"holds {key} of type {dtype}, labels are integers")
                values = np.empty(shape, dtype, order="F" if fortran_order else "C")
                _fill(values.T if fortran_order else values, stream)
            if values.min() < 0 or values.max() > top:
                raise self._corrupt(
                    f"holds {key} from {values.min()} to {values.max()}, allowed are 0 to {top}"
                )
            labels[part] = values
        return labels

    def read_images(self, part: str, into: np.ndarray) -> None:
        """Reads the images of a part piece by piece: they need not fit into memory."""
        key = f"{part}_images"
        with self._array(key) as (stream, shape, fortran_order, dtype):
            if (shape, dtype, fortran_order) != (into.shape, into.dtype, False):
                order = " in Fortran's order" if fortran_order else ""
                raise self._corrupt(
                    f"holds {key} of shape {shape} and type {dtype}{order}, "
                    f"expected are {into.shape} and {into.dtype}"
                )
            _fill(into, stream)

    def _corrupt(self, what: str) -> CorruptDatasetError:
        return CorruptDatasetError(f"{self.path} {what}; {self.remedy}")

    @contextmanager
    def _reading(self, what: str) -> Iterator[zipfile.ZipFile]:
        with (
            reading(self.path, what, self.remedy),
            open_file(self.path) as file,
            zipfile.ZipFile(file) as archive,
        ):
            yield archive

    @contextmanager
    def _array(
        self, key: str
    ) -> Iterator[tuple[zipfile.ZipExtFile, tuple[int, ...], bool, np.dtype]]:
        """The stream of an array behind its header, and what the header says."""
        with (
            self._reading(f"cannot be read at {key}") as archive,
            archive.open(self.members[key]) as stream,
        ):
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            yield cast("zipfile.ZipExtFile", stream), *read_header(stream)


def _fill(array: np.ndarray, stream: zipfile.ZipExtFile) -> None:
    rest = array.data.cast("B")
    while len(rest) and (n_bytes := stream.readinto(rest[:CHUNK])):
        rest = rest[n_bytes:]
    if len(rest) or stream.read(1):  # reading to the end also checks the checksum
        raise ValueError("it is shorter or longer than its header says")
