"""Recorded runs: append-only tables that survive a kill at any moment."""

from __future__ import annotations

import csv
import errno
import io
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pandas as pd
from filelock import FileLock, Timeout

from varreg.lab import csvtable
from varreg.lab.columns import (
    CURVE_COLUMNS,
    SPLITS,
    check_curves,
    check_runs,
    contents,
    settings_in,
)
from varreg.lab.csvtable import RESTORE, LedgerError, Table
from varreg.lab.machine import checkout
from varreg.lab.predictions import Predictions

__all__ = ["Ledger", "LedgerError", "as_folder", "default_results"]

SECONDS_UNTIL_A_WORD = 5

PREDICTION_COLUMNS = ("key", "split", "outputs", "logits")
IMAGE_COLUMNS = ("key", "split", "position", "image")  # the key is the hash of the data set


def default_results() -> Path:
    """Folder of the recorded results.

    ``$VARREG_RESULTS`` if set; else ``results/`` of the checkout that holds this package;
    else ``results/`` of the current folder.
    """
    if named := os.environ.get("VARREG_RESULTS"):
        return as_folder(named, "$VARREG_RESULTS")
    return (checkout() or Path()) / "results"


def as_folder(folder: str | Path, name: str = "results") -> Path:
    """The folder that somebody named, where ``~`` is a home.

    Raises:
        ValueError: If it is no path, or there is no such home.

    Example:
        >>> as_folder("~/runs") == Path.home() / "runs"
        True
    """
    if isinstance(folder, (str, Path)) and str(folder):
        try:
            return Path(folder).expanduser()
        except RuntimeError as error:
            raise ValueError(f"{name} is {str(folder)!r}: {error}") from error
    raise ValueError(f"{name} is {folder!r}; give the name of a folder")


class Ledger:
    """The recorded runs of one study: ``runs.csv``, a row a run, and ``curves.csv``.

    Where they were asked for, ``predictions.csv`` holds what the model of each run said about
    each image, and ``images.csv`` which images these are.

    Every change writes the whole table to a new file that then takes the place of the old
    one, under a lock: a reader sees all of a run or nothing, also after a kill.

    Args:
        study: Name of the study, and of its folder.
        results: Folder of all studies; default :func:`default_results`.

    Raises:
        ValueError: If ``study`` or ``results`` is no name of a folder.

    Example:
        >>> Ledger("chest", results="no-such-folder").runs().empty
        True
    """

    def __init__(self, study: str, results: str | Path | None = None) -> None:
        if not isinstance(study, str) or study.strip(". ") == "" or set("/\\\0") & set(study):
            raise ValueError(f"study is {study!r}; give a name that a folder can have")
        self.study = study
        self.folder = (default_results() if results is None else as_folder(results)) / study
        self.runs_path = self.folder / "runs.csv"
        self.curves_path = self.folder / "curves.csv"
        self.predictions_path = self.folder / "predictions.csv"
        self.images_path = self.folder / "images.csv"

    def runs(self) -> pd.DataFrame:
        """Read all finished runs, in the order in which they finished.

        A warning says so where runs of one data set, size and split saw different images.

        Raises:
            LedgerError: If a line is damaged or was changed, or if a run stands twice; it says
                which, and what to do.
        """
        with self._named("read"):
            runs = self._runs()
            for content, found in contents(runs).items():
                if len(found) > 1:
                    lines = [f"{sha} (line {runs.lines[n]})" for sha, n in found.items()]
                    warnings.warn(
                        f"{self.runs_path}: runs on {' '.join(content).strip()} saw different "
                        f"data, with the hashes {', '.join(lines)}; keep those of one of them, "
                        "and move the others to another folder of results",
                        stacklevel=2,
                    )
            return _frame(runs)

    def curves(self) -> pd.DataFrame:
        """Read the epochs of all finished runs.

        Raises:
            LedgerError: If a line is damaged or lost; it says which, and what to do.
        """
        with self._named("read"):
            runs, curves = self._tables()
            if not curves.rows:
                return pd.DataFrame(columns=list(CURVE_COLUMNS))
            frame = _frame(curves)
            return frame[frame["key"].isin(_keys(runs))].reset_index(drop=True)

    def predictions(self, key: str) -> dict[str, Predictions]:
        """What the model of one run said about each image.

        Args:
            key: Of the run.

        Returns:
            By split. Empty if the run is not recorded, or was without its predictions.

        Raises:
            LedgerError: If a line is damaged, or does not fit the images; it says which.
        """
        return self.all_predictions([key]).get(key, {})

    def all_predictions(
        self, keys: Iterable[str], splits: Container[str] | None = None
    ) -> dict[str, dict[str, Predictions]]:
        """What the models of several runs said, read at once.

        Args:
            keys: Of the runs.
            splits: Of these splits alone; default: of all that are recorded.

        Returns:
            By key and split, as :meth:`predictions` has them.

        Raises:
            LedgerError: As :meth:`predictions`.
        """
        with self._named("read"):
            runs, said, images = self._runs(), self._said(), self._images()
            if not runs.rows:
                return {}
            data = dict(zip(runs.column("key"), runs.column("dataset_sha256"), strict=True))
            wanted = set(keys) & set(data)
            found: dict[str, dict[str, Predictions]] = {}
            names: dict[tuple[str, str], list[str]] = defaultdict(list)
            for row in images.rows:
                names[row[0], row[1]].append(row[3])
            for number, record in enumerate(said.records()):
                key, split = record["key"], record["split"]
                if key not in wanted or (splits is not None and split not in splits):
                    continue
                try:
                    said_here = Predictions.from_text(
                        record["logits"], int(record["outputs"]), names[data[key], split]
                    )
                except ValueError as error:
                    raise said.refusal(number, f"is not what was recorded: {error}") from error
                found.setdefault(key, {})[split] = said_here
            return found

    def keys(self) -> set[str]:
        """Keys of the finished runs."""
        with self._named("read"):
            return _keys(self._runs())

    def data_hashes(self) -> dict[tuple[str, ...], set[str]]:
        """Hashes of the data that the runs saw, by data set, size and split as they are written."""
        with self._named("read"):
            return {content: set(found) for content, found in contents(self._runs()).items()}

    def append(
        self,
        run: Mapping[str, object],
        curve: Sequence[Mapping[str, object]],
        predictions: Mapping[str, Predictions] | None = None,
    ) -> bool:
        """Record a finished run; a key that is recorded already is left as it is.

        Args:
            run: Values by column; needs ``key``.
            curve: One mapping an epoch, by the names in `varreg.lab.columns.CURVE_COLUMNS` but
                ``key``.
            predictions: What its model said about the images, by split.

        Returns:
            Whether the run was new.

        Raises:
            LedgerError: If the folder cannot be written, a line in it is damaged, or the new row
                would be refused when it is read.
        """
        with self._locked():
            runs, curves = self._tables()
            if run["key"] in _keys(runs):
                return False
            known = contents(runs)
            runs = _grown(runs, [run])
            # Until its run is there, a curve does not count: this one was left by a kill.
            curves = _grown(_without(curves, run["key"]), [{"key": run["key"], **e} for e in curve])
            check_runs(runs)
            check_curves(curves, runs)
            for content, found in contents(runs).items():
                if len(found) > max(1, len(known.get(content, ()))):
                    raise runs.refusal(
                        len(runs.rows) - 1,
                        f"saw other data than those before it: {' '.join(content).strip()} had the "
                        f"hash {', '.join(known[content])}, now it has {[*found][-1]}; give the "
                        "data that the others had, or name another folder with results=",
                    )
            if predictions:
                self._append_predictions(run, predictions)
            csvtable.write(curves)
            csvtable.write(runs)
        return True

    def _append_predictions(
        self, run: Mapping[str, object], predictions: Mapping[str, Predictions]
    ) -> None:
        key, data = str(run["key"]), str(run["dataset_sha256"])
        said, images = _without(self._said(), key), self._images()
        known = {tuple(row[:2]) for row in images.rows}
        names = [
            [data, split, str(place), image]
            for split, found in predictions.items()
            if (data, split) not in known
            for place, image in enumerate(found.images)
        ]
        lines = [
            [key, split, str(found.logits.shape[1]), found.to_text()]
            for split, found in predictions.items()
        ]
        csvtable.write(images.grown(IMAGE_COLUMNS, names))
        csvtable.write(said.grown(PREDICTION_COLUMNS, lines))

    def check_writable(self) -> None:
        """Find out before hours of training that their result could not be recorded.

        Raises:
            LedgerError: If the folder cannot be written or its disk is full, or if what is
                recorded there is damaged.
        """
        with self._locked():
            self._tables()
            self._said()
            self._images()
            for path in (self.runs_path, self.curves_path):
                target = path.resolve()
                # The old table stands beside the new one until that is whole.
                needed = 2**14 + (target.stat().st_size if target.exists() else 0)
                with TemporaryFile(dir=target.parent) as file:
                    file.write(os.urandom(needed))
                    file.flush()
                    os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._named("record a run in"):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Beside the table itself: others may reach it through another link.
            lock = FileLock(self.runs_path.resolve().parent / ".lock")
            try:
                lock.acquire(timeout=SECONDS_UNTIL_A_WORD)
            except Timeout:
                print(
                    f"varreg: waiting for {lock.lock_file}, which another process holds while it "
                    "records a run; if that process is stopped, let it go on or end it",
                    file=sys.stderr,
                    flush=True,
                )
                lock.acquire()
            try:
                yield
            finally:
                lock.release()

    @contextmanager
    def _named(self, act: str) -> Iterator[None]:
        """The one place where what goes wrong in others' code becomes an error of the ledger."""
        try:
            yield
        except LedgerError:
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "make room on that disk" if full else "make the folder writable"
            raise LedgerError(
                f"cannot {act} {self.folder}: {error.strerror or error}; {remedy}, or name "
                "another with results= or $VARREG_RESULTS"
            ) from error
        except Exception as error:
            raise LedgerError(
                f"cannot {act} {self.folder}: {type(error).__name__}: {error}. {RESTORE} if "
                "the recorded tables were edited"
            ) from error

    def _runs(self) -> Table:
        runs = csvtable.read(self.runs_path) or Table(self.runs_path)
        check_runs(runs)
        return runs

    def _said(self) -> Table:
        return _with_columns(self.predictions_path, PREDICTION_COLUMNS)

    def _images(self) -> Table:
        return _with_columns(self.images_path, IMAGE_COLUMNS)

    def _tables(self) -> tuple[Table, Table]:
        """Both tables, checked; the runs are read first, because their curves are written first."""
        runs = self._runs()
        curves = csvtable.read(self.curves_path)
        if curves is None and runs.rows:
            raise LedgerError(
                f"{self.curves_path} is not there, and {self.runs_path} holds {len(runs.rows)} "
                f"runs. {RESTORE}, or delete {self.runs_path.name} too: its runs will be trained "
                "again"
            )
        curves = curves or Table(self.curves_path)
        check_curves(curves, runs)
        return runs, curves


def _with_columns(path: Path, columns: tuple[str, ...]) -> Table:
    """A table of exactly these columns; empty where there is no file."""
    table = csvtable.read(path) or Table(path, list(columns))
    if tuple(table.header) != columns:
        raise LedgerError(
            f"{path}, line 1: the header is {','.join(table.header)} and must be "
            f"{','.join(columns)}. {RESTORE}"
        )
    return table


def _keys(table: Table) -> set[str]:
    return set(table.column("key")) if table.rows else set()


def _without(table: Table, key: object) -> Table:
    if key not in _keys(table):
        return table
    at = table.header.index("key")
    kept = [number for number, row in enumerate(table.rows) if row[at] != key]
    return Table(
        table.path,
        table.header,
        [table.rows[number] for number in kept],
        [table.lines[number] for number in kept],
    )


def _grown(table: Table, rows: Sequence[Mapping[str, object]]) -> Table:
    # A column may be new (a later version records more) or of some rows: others leave it empty.
    names = list(dict.fromkeys([*table.header, "key", *(name for row in rows for name in row)]))
    exact = settings_in(names)
    return table.grown(names, [[_text(row.get(n), n in exact) for n in names] for row in rows])


def _frame(table: Table) -> pd.DataFrame:
    if not table.rows:
        return pd.DataFrame()
    text = io.StringIO()
    csv.writer(text).writerows([table.header, *table.rows])
    text.seek(0)
    strings = {"key": str, "commit": str, "dataset_sha256": str}
    strings |= {f"{split}_recall": str for split in SPLITS}
    return pd.read_csv(text, dtype=strings)


def _text(value: object, exact: bool = False) -> str:
    """Eight significant digits, as many as float32 holds; lists joined by semicolons.

    With ``exact``, as many as it takes: a setting is read back as it was.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        short = f"{value:.8g}"
        return short if not exact or float(short) == value else repr(float(value))
    if isinstance(value, (list, tuple)):
        return ";".join(f"{item:.8g}" for item in value)
    return str(value)
