"""Decoded images on disk: one memory-mapped array a data set, size and split."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock

from varreg.lab.datasets.core import DatasetError, reading

# Raise this when the same files would be decoded into other numbers.
FORMAT = 1
CHECKPOINT = 1.0  # seconds of decoding that a kill may cost, apart from what is under way
HASHED = 256  # rows of an array at a time
# Linux's value; Python knows the name since 3.13.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def cache_dir() -> Path:
    """The folder for downloads and decoded images: ``$VARREG_CACHE``, or the system's."""
    if configured := os.environ.get("VARREG_CACHE"):
        return Path(os.path.expanduser(configured))
    from platformdirs import user_cache_path

    return user_cache_path("varreg", appauthor=False)


def hash_bytes(*arrays: np.ndarray) -> str:
    """SHA-256 of the bytes of some arrays, one after the other, as hexadecimal digits.

    They are read block by block: an array may be memory-mapped and larger than memory.

    Example:
        >>> array = np.arange(1000, dtype=np.uint8).reshape(500, 2)
        >>> hash_bytes(array[:1], array[1:]) == hashlib.sha256(array.tobytes()).hexdigest()
        True
    """
    digest = hashlib.sha256()
    for array in arrays:
        for start in range(0, len(array), HASHED):
            block = np.ascontiguousarray(array[start : start + HASHED])
            digest.update(block.data.cast("B"))
    return digest.hexdigest()


def cached_files(
    key: str,
    files: Sequence[str | Path],
    shape: tuple[int, ...],
    fill: Callable[[np.ndarray, int], Generator[int, None, None]],
) -> tuple[np.ndarray, str]:
    """Return the decoded images, decoding what is not decoded yet or has changed.

    The name of the cached array holds a digest of the names, sizes, times and inodes of ``files``,
    in order: what is there under that name is complete and up to date. Until it is
    complete it is a draft under another name, with a journal that says how many files it holds.
    A call that was stopped by a broken file, by the user or by a kill leaves its draft, and the
    next call goes on with it if the files that it holds are unchanged. Of several processes one
    decodes, and the others wait for it.

    Args:
        key: data set, size and split, for the file's name.
        files: what the images are decoded from, in the order of the images.
        shape: shape of the result.
        fill: ``fill(array, done)`` gets a ``uint8`` array of that shape that holds the first
            ``done`` files. It writes the others, and yields now and then, and at the end, how
            many it holds.

    Returns:
        The array, memory-mapped copy-on-write (so that torch may wrap it without a warning), and
        the SHA-256 of its bytes.

    Raises:
        DatasetError: If the cache folder cannot be written or has too little space.
        CorruptDatasetError: If one of the files is not there (a link to nothing) or not readable.
    """
    place = os.path.commonpath([os.path.realpath(p) for p in {os.path.dirname(f) for f in files}])
    with reading(place, "cannot be read", "replace it with an intact copy"):
        stamps = _Stamps(key, files, shape)
    family = f"{key}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"
    folder = cache_dir() / "decoded"
    target = folder / f"{family}-{stamps.digest(len(files))}.npy"
    with contextlib.suppress(DatasetError):
        return _open(target, shape)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{family}.lock"):
            with contextlib.suppress(DatasetError):
                return _open(target, shape)  # made by another process meanwhile
            _Draft(folder / f".{family}.npy", shape, stamps).complete(fill, target)
            for stale in set(folder.glob(f"{family}-*")) - {target, target.with_suffix(".json")}:
                with contextlib.suppress(OSError):  # still open elsewhere, on systems that mind
                    stale.unlink()
    except OSError as error:
        raise DatasetError(
            f"cannot write decoded images to the cache folder {folder}: {error}; "
            "set VARREG_CACHE to a folder that can be written"
        ) from error
    return _open(target, shape)


class _Stamps:
    """Digests of the names, sizes, times and inodes of files, in order.

    A program may set the time of a modification (``cp -p``, ``rsync -t``), but neither that of the
    change of an inode nor its number.
    """

    def __init__(self, key: str, files: Sequence[str | Path], shape: tuple[int, ...]) -> None:
        self.files = files
        numbers = (
            (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino % 2**63)
            for stat in map(os.stat, files)
        )
        self.numbers = np.fromiter(numbers, np.dtype((np.int64, 4)), len(files))
        self.head = {"format": FORMAT, "key": key, "shape": list(shape)}
        self._restart()

    def digest(self, count: int) -> str:
        """12 hexadecimal digits for the first ``count`` files; goes on from the last count."""
        if count < self.count:
            self._restart()
        # What is hashed is {**head, "files": [[name, size, ...], ...]} as JSON, in pieces.
        for row in range(self.count, count):
            stamp = json.dumps([os.path.basename(self.files[row]), *self.numbers[row].tolist()])
            self.running.update(f"{', ' if row else ''}{stamp}".encode())
        self.count: int = count
        closed = self.running.copy()
        closed.update(b"]}")
        return closed.hexdigest()[:12]

    def _restart(self) -> None:
        self.running = hashlib.sha256(f'{json.dumps(self.head)[:-1]}, "files": ['.encode())
        self.count = 0


class _Draft:
    """An array that is being filled; its journal says how many files it holds."""

    def __init__(self, path: Path, shape: tuple[int, ...], stamps: _Stamps) -> None:
        self.path, self.journal, self.stamps = path, path.with_suffix(".journal"), stamps
        self.done = self._left_before(shape)
        if not self.done:
            self._discard()
        missing = len(stamps.files) - self.done
        _require_space(path.parent, math.prod(shape) * missing // len(stamps.files))
        mode = "r+" if self.done else "w+"
        self.array = np.lib.format.open_memmap(path, mode, dtype=np.uint8, shape=shape)

    def complete(
        self, fill: Callable[[np.ndarray, int], Generator[int, None, None]], target: Path
    ) -> None:
        """Fills the rest of the array and gives it its final name."""
        saved = time.monotonic()
        try:
            with contextlib.closing(fill(self.array, self.done)) as counts:
                for count in counts:
                    self.done = count
                    if time.monotonic() - saved >= CHECKPOINT:
                        self._save()
                        saved = time.monotonic()
        finally:
            if self.done:
                self._save()
            else:
                self._discard()
        note = self.path.with_suffix(".json")
        note.write_text(json.dumps(self.stamps.head | {"sha256": hash_bytes(self.array)}))
        del self.array
        # The note goes first: an array under its final name always has one.
        os.replace(note, target.with_suffix(".json"))
        os.replace(self.path, target)
        self._discard()

    def _left_before(self, shape: tuple[int, ...]) -> int:
        """How many files an earlier call left in the draft that are still the same."""
        with contextlib.suppress(DatasetError), reading(self.path, "is no draft", "none is needed"):
            text, digest = self.journal.read_text().split()
            same = self.stamps.digest(int(text)) == digest
            whole = np.load(self.path, mmap_mode="r", allow_pickle=False).shape == shape
            return int(text) if same and whole else 0
        return 0

    def _save(self) -> None:
        # The images first, and on the disk, then the number that vouches for them.
        self.array.flush()
        new = self.path.with_suffix(".new")
        with new.open("w") as file:
            file.write(f"{self.done} {self.stamps.digest(self.done)}")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.journal)

    def _discard(self) -> None:
        for path in (self.journal, self.path):
            path.unlink(missing_ok=True)


def _open(target: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """The array, as :func:`cached_files` returns it; fails if it is not there or damaged."""
    with reading(target, "is not a decoded array with its note", "delete both"):
        plain = np.load(target, mmap_mode="r", allow_pickle=False)
        if plain.shape != shape or plain.dtype != np.uint8:
            raise ValueError(f"{target} holds {plain.dtype} {plain.shape}")
        sha256 = json.loads(target.with_suffix(".json").read_text())["sha256"]
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
            return np.load(target, mmap_mode="c", allow_pickle=False), sha256
        # NumPy's mode "c" asks Linux for memory for a copy of every page, and Linux refuses to map
        # an array that is larger than its memory. Nothing here writes, so nothing is asked for.
        flags, access = mmap.MAP_PRIVATE | NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        with target.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
        return np.frombuffer(pages, np.uint8, offset=plain.offset).reshape(shape), sha256


def _require_space(folder: Path, n_bytes: int) -> None:
    # Writing through a memory map to a full disk kills the process instead of raising.
    free = shutil.disk_usage(folder).free
    if free < n_bytes + 2**20:
        raise DatasetError(
            f"the cache folder {folder} needs {n_bytes / 1e9:.1f} GB and has {free / 1e9:.1f} GB; "
            "make space or set VARREG_CACHE to a folder on a larger disk"
        )
