"""The MedMNIST collection, 2D and 3D, in all its sizes.

References:
    J. Yang et al., MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image
    classification, Scientific Data 10, 41 (2023), https://doi.org/10.1038/s41597-022-01721-8.
"""

from __future__ import annotations

import importlib.util
import warnings
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from varreg.datasets.cache import cache_dir, cached_array
from varreg.datasets.core import (
    CorruptDatasetError,
    Dataset,
    DatasetError,
    DatasetNotFoundError,
    DownloadError,
    Task,
    UnknownDatasetError,
    assemble,
)
from varreg.datasets.places import data_roots

__all__ = ["download", "file_name", "find", "info", "load", "md5", "sizes", "task"]

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
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when it cannot make a folder in the home folder
        spec.loader.exec_module(module)
    return module.INFO


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
    return info()[name][f"MD5{_suffix(size)}"]


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
            if path.is_file():
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
    """Loads one MedMNIST data set; see :func:`varreg.datasets.load`."""
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
    labels = _read_labels(path, name)
    counts = tuple(len(labels[part]) for part in PARTS)
    shape = _image_shape(name, size)

    def fill(array: np.ndarray) -> None:
        start = 0
        for part, count in zip(PARTS, counts, strict=True):
            _read_member(path, f"{part}_images", array[start : start + count])
            start += count

    images, images_sha256 = cached_array(
        f"{name}-{size}-official", [path], (sum(counts), *shape), fill
    )
    stacked = np.concatenate([labels[part] for part in PARTS])
    # 3D sets and grey 2D sets have no channel axis in the file; in colour it stands last.
    tensor = torch.from_numpy(images)
    return assemble(
        name=name,
        task=task(name),
        class_names=_class_names(name),
        size=size,
        split="official",
        images=tensor.movedim(-1, 1) if info()[name]["n_channels"] == 3 else tensor.unsqueeze(1),
        labels=stacked if task(name) == "multilabel" else stacked[:, 0],
        counts=counts,
        source=f"{path.name} in MedMNIST's format, from {words}",
        images_sha256=images_sha256,
    )


def _suffix(size: int) -> str:
    return "" if size == 28 else f"_{size}"


def _class_names(name: str) -> tuple[str, ...]:
    names = info()[name]["label"]
    return tuple(names[str(label)] for label in range(len(names)))


def _image_shape(name: str, size: int) -> tuple[int, ...]:
    if name.endswith("3d"):
        return size, size, size
    return (size, size, 3) if info()[name]["n_channels"] == 3 else (size, size)


def _corrupt(path: Path, what: str) -> CorruptDatasetError:
    return CorruptDatasetError(
        f"{path} {what}; delete the file and fetch it again with `python -m varreg data fetch`"
    )


def _read_labels(path: Path, name: str) -> dict[str, np.ndarray]:
    """The checked labels of each part, ``(N, 1)`` or, for multilabel tasks, ``(N, L)``."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(member).stem for member in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise _corrupt(path, f"is not a complete .npz file ({error})") from error
    wanted = {f"{part}_{kind}" for part in PARTS for kind in ("images", "labels")}
    if missing := sorted(wanted - members):
        raise _corrupt(path, f"lacks {', '.join(missing)}, which every MedMNIST file has")

    n_classes = len(info()[name]["label"])
    width, top = (n_classes, 1) if task(name) == "multilabel" else (1, n_classes - 1)
    labels = {}
    for part in PARTS:
        key = f"{part}_labels"
        labels[part] = values = _read_member(path, key)
        expected = (info()[name]["n_samples"][part], width)
        if values.shape != expected:
            raise _corrupt(path, f"holds {key} of shape {values.shape}, {name} has {expected}")
        if values.dtype.kind not in "ui":
            raise _corrupt(path, f"holds {key} of type {values.dtype}, labels are integers")
        if values.min() < 0 or values.max() > top:
            raise _corrupt(
                path, f"holds {key} from {values.min()} to {values.max()}, allowed are 0 to {top}"
            )
    return labels


def _read_member(path: Path, key: str, into: np.ndarray | None = None) -> np.ndarray:
    """Reads one array of an .npz file.

    Args:
        path: the file.
        key: the array's name.
        into: where to write it, piece by piece, so that it need not fit into memory; the array in
            the file must have its shape and type.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            if into is None:
                return np.lib.format.read_array(stream, allow_pickle=False)
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran_order, dtype = read_header(stream)
            if (shape, dtype, fortran_order) != (into.shape, into.dtype, False):
                raise CorruptDatasetError(
                    f"holds {key} of shape {shape} and type {dtype}, "
                    f"expected are {into.shape} and {into.dtype}"
                )
            rest = memoryview(into).cast("B")
            while len(rest) and (n_bytes := stream.readinto(rest[:CHUNK])):
                rest = rest[n_bytes:]
            if len(rest) or stream.read(1):  # reading to the end also checks the checksum
                raise ValueError("it is shorter or longer than its header says")
            return into
    except CorruptDatasetError as error:
        raise _corrupt(path, str(error)) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _corrupt(path, f"cannot be read at {key} ({error})") from error
