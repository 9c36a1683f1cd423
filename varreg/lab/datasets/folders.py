"""The paper's own data: folders of JPEG files, in the layout that Kaggle gives them.

References:
    D. S. Kermany et al., Identifying medical diagnoses and treatable diseases by image-based deep
    learning, Cell 172, 1122 (2018), https://doi.org/10.1016/j.cell.2018.02.010.
    P. Tschandl et al., The HAM10000 dataset, a large collection of multi-source dermatoscopic
    images of common pigmented skin lesions, Scientific Data 5, 180161 (2018),
    https://doi.org/10.1038/sdata.2018.161.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import io
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import torch

from varreg.lab.datasets.cache import cached_files
from varreg.lab.datasets.core import (
    CorruptDatasetError,
    Dataset,
    DatasetNotFoundError,
    DownloadError,
    UnknownDatasetError,
    assemble,
    open_file,
    reading,
)
from varreg.lab.datasets.images import open_image
from varreg.lab.datasets.places import data_roots
from varreg.lab.datasets.splits import split_by_group, split_by_row

CHEST_CLASSES = ("NORMAL", "PNEUMONIA")
# In alphabetical order of the full name, as the paper codes them.
SKIN_CLASSES = {
    "akiec": "Actinic keratoses",
    "bcc": "Basal cell carcinoma",
    "bkl": "Benign keratosis-like lesions",
    "df": "Dermatofibroma",
    "nv": "Melanocytic nevi",
    "mel": "Melanoma",
    "vasc": "Vascular lesions",
}
METADATA = "HAM10000_metadata.csv"
COLUMNS = ("lesion_id", "image_id", "dx")
# Of these columns as published, one line a row, with commas.
ROWS_SHA256 = "cd06aeaf0fa0c070135a3f9abf20277f883ec829980e4196f5653bf7cc70ce65"
SUFFIXES = {".jpeg", ".jpg", ".png"}
MIN_SIZE = 8  # pixels
CHUNK = 64  # files that a thread decodes at a time
SMALL = 4096  # bytes; see benchmarks/larger_than_memory.py
# What tells each folder, and where Kaggle has it.
LANDMARK = {"chest_xray": "train", "ham10000": METADATA}
KAGGLE = {
    "chest_xray": "paultimothymooney/chest-xray-pneumonia",
    "ham10000": "kmader/skin-cancer-mnist-ham10000",
}
N_ROWS = 10_015
N_IMAGES = {"chest_xray": (5216, 16, 624), "ham10000": (N_ROWS,)}  # as published
LAYOUT = {
    "chest_xray": "train, val and test, each with NORMAL and PNEUMONIA folders of .jpeg files",
    "ham10000": f"{METADATA} and folders of .jpg files beside it",
}
SPLITS = {"chest_xray": ("official",), "ham10000": ("paper", "lesion")}


def find(name: str, root: str | Path | None = None) -> tuple[Path, str] | None:
    """Looks for the folder in the data folders.

    Returns:
        The folder and the words for the data folder it was found in, or None.

    Raises:
        CorruptDatasetError: If there is a folder of that name in another layout.
    """
    for words, folder in data_roots(root).items():
        if (found := _find_below(name, folder)) is not None:
            return found, words
    return None


def download(name: str) -> Path:
    """Has Kaggle's own package fetch the folder, where that is installed.

    Returns:
        The folder that holds the data.

    Raises:
        DatasetNotFoundError: If the package ``kagglehub`` is not installed.
        DownloadError: If it could not fetch the data, or brought something else.
    """
    if importlib.util.find_spec("kagglehub") is None:
        raise _not_found(name)
    import kagglehub

    try:
        fetched = Path(kagglehub.dataset_download(KAGGLE[name]))
    except Exception as error:  # its errors have no common base
        raise DownloadError(
            f"kagglehub could not fetch {KAGGLE[name]}: {error}; check the network and the account "
            f"on Kaggle, or put a folder {name} into the folder that VARREG_DATA names"
        ) from error
    folder = _find_below(name, fetched)
    if folder is None:
        raise DownloadError(
            f"kagglehub brought {fetched}, which does not hold {LAYOUT[name]}; "
            f"put a folder {name} that does into the folder that VARREG_DATA names"
        )
    return folder


def load(name: str, size: int, split: str, root: str | Path | None, may_download: bool) -> Dataset:
    """Loads ``chest_xray`` or ``ham10000``; see :func:`varreg.lab.datasets.load`."""
    if size < MIN_SIZE:
        raise UnknownDatasetError(f"{name} comes in any size from {MIN_SIZE} pixels, not in {size}")
    found = find(name, root)
    if found is None and may_download:
        found = download(name), "Kaggle's download"
    if found is None:
        raise _not_found(name, root)
    folder, words = found
    copies: dict[str, str] = {}
    if name == "chest_xray":
        files, labels, counts = _chest_files(folder)
        groups, class_names = None, tuple(map(str.lower, CHEST_CLASSES))
    else:
        files, copies, labels, groups, counts = _skin_files(folder, split)
        class_names = tuple(SKIN_CLASSES.values())

    # Radiographs are stored once and shown as RGB, which is how Keras reads them.
    channels = 1 if name == "chest_xray" else 3
    shape = (len(files), size, size, channels)

    def fill(array: np.ndarray, done: int) -> Generator[int, None, None]:
        yield from _decode_all(files, array, done, name)
        for count, (path, first) in enumerate(copies.items(), len(files) + 1):
            _require_equal(path, first)
            yield count

    images, images_sha256 = cached_files(
        f"{name}-{size}-{split}",
        [*files, *copies],
        shape,
        fill,
    )
    return assemble(
        name=name,
        task="binary" if len(class_names) == 2 else "multiclass",
        class_names=class_names,
        size=size,
        split=split,
        images=torch.from_numpy(images).movedim(-1, 1).expand(-1, 3, -1, -1),
        labels=labels,
        counts=counts,
        source=f"{len(files):,} files in Kaggle's layout, from {words}",
        images_sha256=images_sha256,
        groups=groups,
        ids=[Path(file).stem for file in files],
    )


def _find_below(name: str, folder: Path) -> Path | None:
    for candidate in (folder / name, folder / name / name, folder):
        if os.path.lexists(candidate / LANDMARK[name]):  # a broken link is named when it is read
            return candidate
    if os.path.isdir(folder / name):
        raise CorruptDatasetError(
            f"{folder / name} holds no {LANDMARK[name]}; it must hold {LAYOUT[name]}"
        )
    return None


def _not_found(name: str, root: str | Path | None = None) -> DatasetNotFoundError:
    folders = ", ".join(str(folder / name) for folder in data_roots(root).values())
    return DatasetNotFoundError(
        f"{name} is in none of the data folders ({folders}); one of them must hold "
        f"{LAYOUT[name]}. Get it from https://www.kaggle.com/datasets/{KAGGLE[name]}, "
        "or `pip install kagglehub` to have it fetched"
    )


def _images_in(folder: Path) -> list[str]:
    """The image files of a folder, sorted; hidden files are passed over.

    Strings, because there may be very many of them, and they take less memory than paths.
    """
    with reading(folder, "cannot be searched", "replace it with an intact copy"):
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    for name in names:
        if os.path.splitext(name)[1].lower() not in SUFFIXES:
            raise CorruptDatasetError(
                f"{folder / name} is not an image file; only {', '.join(sorted(SUFFIXES))} may "
                "stand there: move it elsewhere"
            )
    return [os.path.join(folder, name) for name in names]


def _chest_files(folder: Path) -> tuple[list[str], np.ndarray, list[int]]:
    files: list[str] = []
    labels: list[int] = []
    counts: list[int] = []
    for part in ("train", "val", "test"):
        before = len(files)
        for label, class_name in enumerate(CHEST_CLASSES):
            place = folder / part / class_name
            if not place.is_dir():
                raise CorruptDatasetError(
                    f"{folder} has no folder {part}/{class_name}; it must hold "
                    f"{LAYOUT['chest_xray']}"
                )
            images = _images_in(place)
            if not images:
                raise CorruptDatasetError(
                    f"{place} holds no image; unpack the data set again, or "
                    "point VARREG_DATA to a complete copy"
                )
            files += images
            labels += [label] * len(images)
        counts.append(len(files) - before)
    return files, np.array(labels), counts


def _skin_files(
    folder: Path, split: str
) -> tuple[list[str], dict[str, str], np.ndarray, np.ndarray, list[int]]:
    lesions, image_ids, labels = _read_metadata(folder / METADATA)
    images, copies = _skin_images(folder)
    if lost := [image_id for image_id in image_ids if image_id not in images]:
        raise CorruptDatasetError(
            f"{folder / METADATA} names {len(lost)} images that are in no folder beside it, "
            f"such as {lost[0]}; unpack both image folders of the data set"
        )
    if extra := sorted(set(images) - set(image_ids)):
        raise CorruptDatasetError(
            f"{folder / METADATA} has no row for {len(extra)} of the images beside it, "
            f"such as {images[extra[0]]}; use the complete table, or remove those images"
        )
    parts = split_by_row(len(image_ids)) if split == "paper" else split_by_group(lesions, labels)
    order = np.concatenate(parts)
    _, codes = np.unique(lesions, return_inverse=True)
    return (
        [images[image_ids[row]] for row in order],
        copies,
        np.array(labels)[order],
        codes[order],
        [len(part) for part in parts],
    )


def _read_metadata(path: Path) -> tuple[list[str], list[str], list[int]]:
    """Lesion, image and class of each row, in file order, on which the split `paper` depends."""
    codes = {code: label for label, code in enumerate(SKIN_CLASSES)}
    lesions: dict[str, str] = {}  # by image
    diagnoses: dict[str, str] = {}  # by lesion
    remedy = "use the table as published"
    with (
        reading(path, "is not a readable table", remedy),
        open_file(path) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as lines,
    ):
        table = csv.DictReader(lines)
        header = list(table.fieldnames or ())
        for column in COLUMNS:
            if (n := header.count(column)) != 1:
                has = f"has {n} columns" if n else "has no column"
                raise CorruptDatasetError(f"{path} {has} {column}; {remedy}")
        for row in table:
            lesion, image_id, dx = (row[column] for column in COLUMNS)
            if dx not in codes:
                wrong = f"dx is {dx!r}, allowed are {', '.join(codes)}; {remedy}"
            elif None in row:
                wrong = f"it has more fields than the header; {remedy}"
            elif not (lesion and lesion.strip() and image_id and image_id.strip()):
                wrong = f"lesion_id is {lesion!r} and image_id {image_id!r}; {remedy}"
            elif image_id in lesions:
                wrong = f"{image_id} has a row already; remove one"
            elif diagnoses.setdefault(lesion, dx) != dx:
                wrong = f"{lesion} is {dx} here and {diagnoses[lesion]} above; {remedy}"
            else:
                lesions[image_id] = lesion
                continue
            raise CorruptDatasetError(f"{path}, line {table.line_num}: {wrong}")
    if not lesions:
        raise CorruptDatasetError(f"{path} has no row; {remedy}")
    rows = "".join(f"{lesion},{image},{diagnoses[lesion]}\n" for image, lesion in lesions.items())
    digest = hashlib.sha256(rows.encode()).hexdigest()
    if len(lesions) == N_ROWS and digest != ROWS_SHA256:
        raise CorruptDatasetError(
            f"{path} has as many rows as published, but with other content or in another order, "
            f"and the splits depend on it (a spreadsheet may have sorted it); {remedy}"
        )
    return list(lesions.values()), list(lesions), [codes[diagnoses[of]] for of in lesions.values()]


def _skin_images(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The images below the folder by id; Kaggle's archive has each of them twice.

    Returns:
        The first file of each id, and for each other one the first file that it should equal.
    """
    images: dict[str, str] = {}
    copies: dict[str, str] = {}
    with reading(folder, "cannot be searched", "replace it with an intact copy"):
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    for place in (folder / name for name in names if os.path.isdir(folder / name)):
        for path in _images_in(place):
            first = images.setdefault(Path(path).stem, path)
            if first is not path:
                copies[path] = first
    return images, copies


def _require_equal(path: str, first: str) -> None:
    with (
        reading(path, "cannot be compared", "remove it"),
        open_file(path) as one,
        open_file(first) as other,
    ):
        equal = one.read() == other.read()
    if not equal:
        raise CorruptDatasetError(
            f"{first} and {path} have one name and differ; remove the wrong one"
        )


def _decode_all(
    files: Sequence[str], into: np.ndarray, done: int, name: str
) -> Generator[int, None, None]:
    """Decodes files into the rows of an array ``(N, size, size, 1 or 3)``, in parallel.

    Its first ``done`` rows are there already; yields how many of them are there now.
    """
    from tqdm.auto import tqdm

    def decode(start: int) -> int:
        stop = min(start + CHUNK, len(files))
        for row in range(start, stop):
            into[row] = _decode(files[row], into.shape[1], into.shape[3])
        return stop

    starts = range(done, len(files), CHUNK)
    bar = tqdm(total=len(files), initial=done, desc=f"decode {name}", unit="image", disable=None)
    with (
        bar,
        ThreadPoolExecutor(_threads(files[done : done + CHUNK])) as pool,
        contextlib.closing(cast("Generator[int, None, None]", pool.map(decode, starts))) as stops,
    ):
        for stop in stops:
            bar.update(stop - done)
            done = stop
            yield done


def _threads(files: Sequence[str]) -> int:
    """One a core, up to eight; a single one for files so small that more would be slower.

    Pillow decodes outside Python's lock, but has to get it back several times a file.
    """
    import joblib

    sizes = [os.path.getsize(file) for file in files]
    return 1 if sum(sizes) < SMALL * len(sizes) else min(8, joblib.cpu_count())


def _decode(path: str, size: int, channels: int) -> np.ndarray:
    """One image, resized straight to a square with bilinear interpolation, as in Keras."""
    from PIL.Image import Resampling

    image = open_image(path, "L" if channels == 1 else "RGB")
    pixels = np.asarray(image.resize((size, size), Resampling.BILINEAR))
    return pixels.reshape(size, size, channels)
