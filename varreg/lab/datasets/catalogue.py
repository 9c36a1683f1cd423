"""Which data sets there are, which of them are here, and whether they are what they should be."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from varreg.checks import Task
from varreg.lab.datasets import folders, medmnist, phantom
from varreg.lab.datasets.cache import hash_bytes
from varreg.lab.datasets.core import (
    CorruptDatasetError,
    Dataset,
    DatasetError,
    Subset,
    as_stored,
    content_hash,
    open_file,
    reading,
)
from varreg.lab.datasets.registry import load, names, splits

NOT_OWN = "; the content was checked instead"
KERMANY = "Kermany et al., Cell 172, 1122 (2018), doi:10.1016/j.cell.2018.02.010"
TSCHANDL = "Tschandl et al., Scientific Data 5, 180161 (2018), doi:10.1038/sdata.2018.161"
YANG = "Yang et al., Scientific Data 10, 41 (2023), doi:10.1038/s41597-022-01721-8"


@dataclass(frozen=True)
class Entry:
    """What is known about a data set without loading it.

    Attributes:
        name: the name that :func:`varreg.lab.datasets.load` knows it by.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        classes: number of classes.
        sizes: the sizes it comes in, in words.
        splits: the ways to split it, the default first.
        licence: its licence.
        citation: what its licence or its authors ask to cite.
        found: whether it can be loaded without a download.
        state: where it was found, in words, or ``"not here"``.
        how: how to get it.
    """

    name: str
    task: Task
    classes: int
    sizes: str
    splits: tuple[str, ...]
    licence: str
    citation: str
    found: bool
    state: str
    how: str


def catalogue(root: str | Path | None = None) -> list[Entry]:
    """Lists every data set that :func:`varreg.lab.datasets.load` knows.

    Args:
        root: a folder to look into first.

    Returns:
        One entry a data set, in the order of :func:`varreg.lab.datasets.names`.

    Raises:
        DatasetNotFoundError: If ``root`` or ``$VARREG_DATA`` names something that is not a folder.

    Example:
        >>> entry = catalogue()[0]
        >>> entry.name, entry.task, entry.state
        ('phantom', 'binary', 'drawn by the package')
    """
    return [_entry(name, root) for name in names()]


def fetch(name: str, *, size: int = 28, root: str | Path | None = None) -> str:
    """Downloads a data set, unless it is here.

    Args:
        name: as for :func:`varreg.lab.datasets.load`.
        size: pixels along an edge; MedMNIST has one file a size.
        root: a folder to look into first.

    Returns:
        A sentence that says where it is now.

    Raises:
        UnknownDatasetError: If there is no such name or size.
        DatasetNotFoundError: If it has to be put in place by hand.
        DownloadError: If the download failed.

    Example:
        >>> fetch("phantom")
        'phantom is drawn by the package: nothing to fetch'
    """
    splits(name)  # refuses an unknown name
    if name in phantom.KINDS:
        return f"{name} is drawn by the package: nothing to fetch"
    is_folder = name in folders.SPLITS
    found = folders.find(name, root) if is_folder else medmnist.find(name, size, root)
    if found is not None:
        return f"{name} is here already, in {found[1]}: {found[0]}"
    path = folders.download(name) if is_folder else medmnist.download(name, size)
    return f"{name} is now here: {path}"


def check(name: str, *, size: int = 28, root: str | Path | None = None) -> str:
    """Loads a data set in every split and verifies what is inside.

    Beyond what :func:`varreg.lab.datasets.load` refuses by itself, every byte of the decoded images
    is read and compared with what was decoded, a folder must hold as many images as published, and
    the content must be what the recorded results were made from, where there are any of that size
    and split: that shows damage which no decoder can see, such as a flipped bit in a JPEG.

    Args:
        name: as for :func:`varreg.lab.datasets.load`.
        size: pixels along an edge.
        root: a folder to look into first.

    Returns:
        A report in several lines: counts of each class, how a file compares with MedMNIST's
        checksum and with the recorded results, images and lesions that stand in two parts, and the
        content hash.

    Raises:
        DatasetError: If something is not as it should be; see :func:`varreg.lab.datasets.load`.
        LedgerError: If the recorded results cannot be read.

    Example:
        >>> print(check("phantom"))
        phantom, 28 pixels, split official: as it should be
          drawn by varreg.lab.datasets.phantom, SHA-256 ...
          train: 1,200 images (clear 600, opacity 600)
          val: 300 images (clear 150, opacity 150)
          test: 600 images (clear 300, opacity 300)
          ...
    """
    reports = []
    for split in splits(name):
        data = load(name, size=size, split=split, root=root, download=False)
        _require_published_count(data)
        _require_intact(data)
        lines = [
            f"{name}, {size} pixels, split {split}: as it should be",
            f"{data.source}, SHA-256 {data.sha256}",
            *(f"{part}: {_count(data, subset)}" for part, subset in _parts(data).items()),
            *_origin(data, root),
            *_leaks(data),
        ]
        reports.append("\n  ".join(lines))
    return "\n".join(reports)


def _entry(name: str, root: str | Path | None) -> Entry:
    if name in phantom.KINDS:
        n_classes, sizes = phantom.KINDS[name][0], f"any from {phantom.MIN_SIZE}"
        task: Task = "binary" if n_classes == 2 else "multiclass"
        licence, citation = "MIT, as the package", "none"
        found, state, how = True, "drawn by the package", "nothing to do"
    elif name in folders.SPLITS:
        try:
            at = folders.find(name, root)
            found, state = at is not None, "not here" if at is None else f"in {at[1]}"
        except CorruptDatasetError as error:
            found, state = False, str(error)
        chest, sizes = name == "chest_xray", f"any from {folders.MIN_SIZE}"
        task = "binary" if chest else "multiclass"
        n_classes = len(folders.CHEST_CLASSES if chest else folders.SKIN_CLASSES)
        licence, citation = ("CC BY 4.0", KERMANY) if chest else ("CC BY-NC 4.0", TSCHANDL)
        how = f"https://www.kaggle.com/datasets/{folders.KAGGLE[name]}"
    else:
        info, published = medmnist.info()[name], medmnist.sizes(name)
        task, n_classes = medmnist.task(name), len(info["label"])
        sizes = ", ".join(map(str, published))
        licence, citation = info["license"], YANG
        here = [(size, at[1]) for size in published if (at := medmnist.find(name, size, root))]
        found = bool(here)
        state = ", ".join(f"{size} pixels in {words}" for size, words in here) or "not here"
        how = f"python -m varreg data fetch {name}"
    return Entry(name, task, n_classes, sizes, splits(name), licence, citation, found, state, how)


def _parts(data: Dataset) -> dict[str, Subset]:
    return {"train": data.train, "val": data.val, "test": data.test}


def _count(data: Dataset, subset: Subset) -> str:
    if data.task == "multilabel":
        per_class = subset.labels.sum(0).int().tolist()
    else:
        per_class = subset.labels.bincount(minlength=len(data.class_names)).tolist()
    classes = zip(data.class_names, per_class, strict=True)
    return f"{len(subset):,} images ({', '.join(f'{label} {n:,}' for label, n in classes)})"


def _require_published_count(data: Dataset) -> None:
    published = folders.N_IMAGES.get(data.name)
    counts = tuple(len(subset) for subset in _parts(data).values())
    if published and published not in (counts, (sum(counts),)):
        raise CorruptDatasetError(
            f"{data.name} ({data.source}) holds {counts} images in train, val and test, published "
            f"are {published}; unpack the data set again"
        )


def _require_intact(data: Dataset) -> None:
    parts = _parts(data).values()
    labels = np.concatenate([subset.labels.numpy() for subset in parts])
    images_sha256 = hash_bytes(*(as_stored(subset.images).numpy() for subset in parts))
    counts = [len(subset) for subset in parts]
    if content_hash(images_sha256, labels, counts) != data.sha256:
        raise CorruptDatasetError(
            f"the decoded images of {data.name} in the cache folder are not what was decoded; "
            "delete the folder `decoded` there, they are made anew"
        )


def _origin(data: Dataset, root: str | Path | None) -> list[str]:
    """Sentences on whether this is MedMNIST's own file, and what the recorded results used."""
    lines, own = [], False
    if data.name in medmnist.info() and (found := medmnist.find(data.name, data.size, root)):
        with reading(found[0], "cannot be read", "replace it"), open_file(found[0]) as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        own = md5 == medmnist.md5(data.name, data.size)
        lines = [f"MD5: {'' if own else 'not '}MedMNIST's own{'' if own else NOT_OWN}"]
    recorded = _recorded(data)
    if data.sha256 in recorded:
        return [*lines, "content: that of the recorded results"]
    if not recorded:
        return [*lines, "content: no recorded result to compare with"]
    used = " and ".join(sorted(recorded))
    if own:
        return [*lines, f"content: not that of the recorded results, which used SHA-256 {used}"]
    raise DatasetError(
        f"{data.name}, {data.size} pixels, split {data.split} ({data.source}) can be loaded, but "
        f"its content has SHA-256 {data.sha256}, and the recorded results were made from {used}. "
        "Either a file is damaged or replaced: compare with a fresh copy. Or this is an intact "
        "copy of another kind (resized, in another order, or decoded by another Pillow): results "
        "on it are not those of the book"
    )


def _recorded(data: Dataset) -> set[str]:
    """Hashes of this data set, in this size and split, in the ledgers of all studies."""
    from varreg.lab.ledger import Ledger, default_results  # imports pandas

    hashes: set[str] = set()
    for path in default_results().glob("*/runs.csv"):
        for (name, size, split), found in Ledger(path.parent.name).data_hashes().items():
            of = name, size, split or splits(data.name)[0]
            if of == (data.name, str(data.size), data.split):
                hashes |= found
    return hashes


def _leaks(data: Dataset) -> list[str]:
    """Sentences on what stands in more than one part."""
    notes = []
    seen = {
        part: [hashlib.sha256(image).digest() for image in as_stored(subset.images).numpy()]
        for part, subset in _parts(data).items()
    }
    for part, earlier in (("val", ["train"]), ("test", ["train", "val"])):
        known = set().union(*(seen[other] for other in earlier))
        if n := sum(image in known for image in seen[part]):
            notes.append(
                f"note: {n:,} {part} images are identical to one in {' or '.join(earlier)}"
            )
    if data.train.groups is not None:
        parts_of = Counter(
            group
            for subset in _parts(data).values()
            if subset.groups is not None
            for group in set(subset.groups.tolist())
        )
        n = sum(parts > 1 for parts in parts_of.values())
        notes.append(f"note: {n:,} of {len(parts_of):,} lesions stand in more than one part")
    return notes
