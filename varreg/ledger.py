"""Recorded runs: append-only tables that survive a kill at any moment."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pandas as pd
from filelock import FileLock

from varreg.metrics import METRICS

__all__ = [
    "CURVE_COLUMNS",
    "SPLITS",
    "Ledger",
    "LedgerError",
    "default_results",
]

SPLITS = ("train", "val", "test")
CURVE_COLUMNS = (
    "key",
    "epoch",
    *(
        f"{split}_{name}"
        for split in ("train", "val")
        for name in ("total", "cross_entropy", "feature_variance", "accuracy", "auroc")
    ),
)
METRIC_COLUMNS = tuple(f"{split}_{metric}" for split in SPLITS for metric in METRICS)
OUTCOME_COLUMNS = (*METRIC_COLUMNS, "best_epoch", "epochs_run", "parameters")
PROVENANCE_COLUMNS = (
    "version",
    "commit",
    "dataset_sha256",
    "torch_version",
    "device",
    "threads",
    "seconds",
    "recorded_at",
)


class LedgerError(ValueError):
    """Raised when a ledger cannot be read or written without losing something."""


def default_results() -> Path:
    """Folder of the recorded results.

    ``$VARREG_RESULTS`` if set; else ``results/`` of the checkout that holds this package;
    else ``results/`` of the current folder.
    """
    if named := os.environ.get("VARREG_RESULTS"):
        return Path(named)
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "results").is_dir():
        return checkout / "results"
    return Path("results")


class Ledger:
    """The recorded runs of one study: ``runs.csv``, a row a run, and ``curves.csv``.

    Every change writes the whole table to a new file that then takes the place of the old
    one, under a lock: a reader sees all of a run or nothing, also after a kill.

    Args:
        study: Name of the study, and of its folder.
        results: Folder of all studies; default :func:`default_results`.

    Example:
        >>> Ledger("chest", results="no-such-folder").runs().empty
        True
    """

    def __init__(self, study: str, results: str | Path | None = None) -> None:
        self.study = study
        self.folder = (Path(results) if results is not None else default_results()) / study
        self.runs_path = self.folder / "runs.csv"
        self.curves_path = self.folder / "curves.csv"

    def runs(self) -> pd.DataFrame:
        """Read all finished runs, in the order in which they finished.

        Raises:
            LedgerError: If a line is damaged or a run stands twice; it says which and what to do.
        """
        runs = self._read(self.runs_path)
        if not runs.empty and (twice := runs["key"][runs["key"].duplicated()]).any():
            raise LedgerError(
                f"{self.runs_path} holds run {twice.iloc[0]} twice, as after a merge of two "
                "ledgers. Nothing was changed. Keep one of its lines"
            )
        return runs

    def curves(self) -> pd.DataFrame:
        """Read the epochs of all finished runs.

        Raises:
            LedgerError: If a line is damaged; it says which and what to do.
        """
        curves = self._read(self.curves_path)
        if curves.empty:
            return pd.DataFrame(columns=list(CURVE_COLUMNS))
        return curves[curves["key"].isin(self.keys())].reset_index(drop=True)

    def keys(self) -> set[str]:
        """Keys of the finished runs."""
        runs = self.runs()
        return set() if runs.empty else set(runs["key"])

    def append(self, run: Mapping[str, object], curve: Sequence[Mapping[str, object]]) -> bool:
        """Record a finished run; a key that is recorded already is left as it is.

        Args:
            run: Values by column; needs ``key``.
            curve: One mapping an epoch, by the names in :data:`CURVE_COLUMNS` but ``key``.

        Returns:
            Whether the run was new.

        Raises:
            LedgerError: If the folder cannot be written or a line in it is damaged.
        """
        with self._locked():
            if run["key"] in self.keys():
                return False
            # Curves first: until its run is there, a curve does not count.
            kept = self._lines(self.curves_path)
            kept = [line for line in kept if line[0] != run["key"]]
            rows = [{"key": run["key"], **epoch} for epoch in curve]
            self._write(self.curves_path, kept, rows)
            self._write(self.runs_path, self._lines(self.runs_path), [run])
        return True

    def check_writable(self) -> None:
        """Find out before hours of training that their result could not be recorded.

        Raises:
            LedgerError: If the folder cannot be written.
        """
        with self._locked(), TemporaryFile(dir=self.folder):
            pass

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                yield
        except OSError as error:
            raise LedgerError(
                f"cannot record a run in {self.folder}: {error.strerror or error}; make the "
                "folder writable, or name another with results= or $VARREG_RESULTS"
            ) from error

    def _read(self, path: Path) -> pd.DataFrame:
        lines = self._lines(path)
        if not lines:
            return pd.DataFrame()
        text = io.StringIO()
        csv.writer(text).writerows(lines)
        text.seek(0)
        strings = {"key": str, "commit": str, "dataset_sha256": str}
        strings |= {f"{split}_recall": str for split in SPLITS}
        return pd.read_csv(text, dtype=strings)

    def _lines(self, path: Path) -> list[list[str]]:
        """Header and rows as written; refuses a damaged line."""
        if not path.is_file():
            return []
        advice = (
            "Nothing was changed. Restore the file from version control, or delete that line: "
            "the run will be trained again"
        )
        data = path.read_bytes()
        try:
            text = data.decode()
            lines = list(csv.reader(io.StringIO(text, newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise LedgerError(f"{path} is not a table in UTF-8: {error}. {advice}") from error
        if text and not text.endswith("\n"):
            raise LedgerError(f"{path}, line {len(lines)} is cut short. {advice}")
        for number, line in enumerate(lines, 1):
            if len(line) != len(lines[0]):
                raise LedgerError(
                    f"{path}, line {number} has {len(line)} fields where the header has "
                    f"{len(lines[0])}. {advice}"
                )
        return lines

    def _write(
        self, path: Path, lines: list[list[str]], rows: Sequence[Mapping[str, object]]
    ) -> None:
        if not rows:
            return
        header = lines[0] if lines else list(rows[0])
        # A column may be new (a later version records more): old rows leave it empty.
        header = header + [name for name in rows[0] if name not in header]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(line + [""] * (len(header) - len(line)) for line in lines[1:])
        writer.writerows([_text(row.get(name)) for name in header] for row in rows)
        new = path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            file.write(out.getvalue())
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


def _text(value: object) -> str:
    """Eight significant digits, as many as float32 holds; lists joined by semicolons."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, (list, tuple)):
        return ";".join(f"{item:.8g}" for item in value)
    return str(value)
