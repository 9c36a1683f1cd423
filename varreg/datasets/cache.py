"""Decoded images on disk: one memory-mapped array a data set, size and split."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from varreg.datasets.core import DatasetError

__all__ = ["cache_dir", "cached_array", "hash_bytes"]

# Raise this when the same files would be decoded into other numbers.
FORMAT = 1


def cache_dir() -> Path:
    """The folder for downloads and decoded images: ``$VARREG_CACHE``, or the system's."""
    if configured := os.environ.get("VARREG_CACHE"):
        return Path(configured).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("varreg", appauthor=False)


def hash_bytes(*arrays: np.ndarray) -> str:
    """SHA-256 of the bytes of some arrays, one after the other, as hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(memoryview(np.ascontiguousarray(array)).cast("B"))
    return digest.hexdigest()


def cached_array(
    key: str,
    files: Sequence[Path],
    shape: tuple[int, ...],
    fill: Callable[[np.ndarray], None],
) -> tuple[np.ndarray, str]:
    """Return the decoded images, decoding them only when a file has changed.

    The name of the cached file holds a digest of the names, sizes and modification times of
    ``files``, in order: what is there under that name is complete and up to date, also while
    several processes decode at once.

    Args:
        key: data set, size and split, for the file's name.
        files: what the images are decoded from.
        shape: shape of the result.
        fill: writes the images into an empty ``uint8`` array of that shape.

    Returns:
        The array, memory-mapped copy-on-write (so that torch may wrap it without a warning), and
        the SHA-256 of its bytes.

    Raises:
        DatasetError: If the cache folder cannot be written or has too little space.
    """
    stats = [(path, path.stat()) for path in files]
    place = os.path.commonpath([folder.resolve() for folder in {path.parent for path in files}])
    index = {
        "format": FORMAT,
        "key": key,
        "shape": list(shape),
        "files": [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in stats],
    }
    family = f"{key}-{_digest(place)}"
    folder = cache_dir() / "decoded"
    target = folder / f"{family}-{_digest(json.dumps(index))}.npy"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return _open(target, shape)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_space(folder, int(np.prod(shape)))
        _write(target, shape, fill, index)
    except OSError as error:
        raise DatasetError(
            f"cannot write decoded images to the cache folder {folder}: {error}; "
            "set VARREG_CACHE to a folder that can be written"
        ) from error
    for stale in set(folder.glob(f"{family}-*")) - {target, target.with_suffix(".json")}:
        with contextlib.suppress(OSError):  # still open elsewhere, on systems that mind
            stale.unlink()
    return _open(target, shape)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _open(target: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    array = np.load(target, mmap_mode="c", allow_pickle=False)
    if array.shape != shape or array.dtype != np.uint8:
        raise ValueError(f"{target} holds {array.dtype} {array.shape}")
    return array, json.loads(target.with_suffix(".json").read_text())["sha256"]


def _require_space(folder: Path, n_bytes: int) -> None:
    # Writing through a memory map to a full disk kills the process instead of raising.
    free = shutil.disk_usage(folder).free
    if free < n_bytes + 2**20:
        raise DatasetError(
            f"the cache folder {folder} needs {n_bytes / 1e9:.1f} GB and has {free / 1e9:.1f} GB; "
            "make space or set VARREG_CACHE to a folder on a larger disk"
        )


def _write(
    target: Path, shape: tuple[int, ...], fill: Callable[[np.ndarray], None], index: dict
) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as partial:
        draft = Path(partial) / "array.npy"
        array = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
        fill(array)
        array.flush()
        note = draft.with_suffix(".json")
        note.write_text(json.dumps(index | {"sha256": hash_bytes(array)}))
        del array
        # The note goes first: an array under its final name always has one.
        os.replace(note, target.with_suffix(".json"))
        os.replace(draft, target)
