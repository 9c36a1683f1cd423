"""What the benchmarks recorded, by question and device: medians, their spread, and the source."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion import words
from companion.tables import MODEL_NAMES
from varreg.checks import check_choice
from varreg.lab.ledger import Ledger, default_results

#: The ledgers in ``results/benchmarks``, each with the columns that say what a row is about.
QUESTIONS = {
    "overhead": ["model", "pixels", "batch", "penalty"],
    "bandwidth": ["megabytes", "batch", "penalty"],
    "roofline": ["model", "pixels", "batch"],
    "throughput": ["model", "pixels", "peer"],
    "ensemble": ["model", "size", "batch", "members"],
    "growth": ["quantity", "value"],
    "decoding": ["file_pixels", "threads"],
    "larger_than_memory": ["images"],
    "project": ["command"],
}
#: The step that the others are compared with, and the same step once more.
PLAIN, AGAIN = "no penalty", "no penalty, again"
#: The steps with this package's penalty and with the literal translation of the released recipe,
#: by their sampling ratio.
OURS = {1.0: "varreg, all features", 0.2: "varreg, ratio 0.2"}
RELEASED = {1.0: "released recipe, all features", 0.2: "released recipe, ratio 0.2"}
#: What the notes of version 0.2.0 say about the ends of a bootstrap, which no page shows.
NOT_SHOWN = re.compile(r" with 95 % bootstrap intervals|; the interval is that of the ratio")


@dataclass(frozen=True)
class Spread:
    """One quantity in all recordings of a device; formatted, its :meth:`text`.

    Attributes:
        values: A value a recording, in the order of the recordings.
        low: Lower end of the 95 % interval inside a recording, over its turns; not a number where
            none was recorded.
        high: Upper end.

    Example:
        >>> f"{Spread((1.1, 1.0, 1.02)):.2f}", f"{Spread((1.1,), 1.0, 1.2):.1f}"
        ('1.02 (1.00 to 1.10)', '1.1 [1.0, 1.2]')
    """

    values: tuple[float, ...]
    low: float = math.nan
    high: float = math.nan

    @property
    def median(self) -> float:
        """Median over the recordings; not a number where there is none."""
        return float(np.median(self.values)) if self.values else math.nan

    def text(self, form: Callable[[float], str] = "{:.3f}".format) -> str:
        """The median, with the lowest and the highest recording where they differ from it.

        Of a single recording, the interval over its turns stands in square brackets.

        Args:
            form: Prints a value.
        """
        if not self.values:
            return words.DASH
        median, low, high = (form(x) for x in (self.median, min(self.values), max(self.values)))
        if len(self.values) == 1 and not math.isnan(self.low):
            return f"{median} [{form(self.low)}, {form(self.high)}]"
        return median if low == high else f"{median} ({low} to {high})"

    def __format__(self, spec: str) -> str:
        return self.text(lambda value: format(value, spec).replace("%", " %"))

    def __float__(self) -> float:
        return self.median


@dataclass(frozen=True, eq=False)
class Recordings:
    """All recordings of one question on one device.

    Attributes:
        question: One of :data:`QUESTIONS`.
        runs: A row a recording: when, from what code, and what a reader has to know.
        rows: The tables, one below the other; ``recording`` counts them from 0.
    """

    question: str
    runs: pd.DataFrame
    rows: pd.DataFrame

    @property
    def on_gpu(self) -> bool:
        """Whether the device is not a CPU, by its name (:func:`varreg.lab.machine.device_name`)."""
        return re.search(r"CPU, \d+ cores$", self.runs["device"].iloc[0]) is None

    @property
    def name(self) -> str:
        """The device as printed: of a CPU, with the number of threads."""
        device, threads = self.runs[["device", "threads"]].iloc[0]
        return device if self.on_gpu else f"{device}, {words.count(int(threads), 'thread')}"

    def newest(self) -> Recordings:
        """The last recording alone, for what grows with the project."""
        last = len(self.runs) - 1
        rows = self.rows[self.rows["recording"] == last].assign(recording=0)
        return Recordings(self.question, self.runs.iloc[[last]], rows.dropna(axis=1, how="all"))

    def lines(self) -> list[dict[str, Any]]:
        """A line a quantity: what it is about, how many recordings have it, and its columns.

        A column of numbers becomes a :class:`Spread`, one of words the different words. The ends
        that version 0.2.0 recorded are those of a bootstrap, in other columns: of few turns, they
        lie too close together, and nobody reads them.
        """
        about, found = QUESTIONS[self.question], []
        for values, rows in self.rows.groupby(about, sort=False):
            line: dict[str, Any] = dict(zip(about, values, strict=True))
            for name in rows.columns.difference([*about, "recording"], sort=False):
                column = rows[name].dropna()
                if pd.api.types.is_numeric_dtype(column):
                    ends = _ends(rows) if name in ("ratio", "gain") else ()
                    line[name] = Spread(tuple(column), *ends)
                else:
                    line[name] = " or ".join(column.unique())
            found.append(line | {"recordings": rows["recording"].nunique()})
        return found


#: The recordings by question, as :func:`gather` gives them.
Recorded = Mapping[str, Sequence[Recordings]]


def read(question: str, results: str | Path | None = None) -> list[Recordings]:
    """The recordings of each device, in the order in which the devices first came.

    Args:
        question: One of :data:`QUESTIONS`.
        results: Folder of the recorded results; default :func:`varreg.lab.ledger.default_results`.

    Raises:
        ValueError: If there is no such question.
        LedgerError: If the ledger is damaged.

    Example:
        >>> read("overhead", results="no-such-folder")
        []
    """
    check_choice("question", question, QUESTIONS)
    folder = Path(results) if results is not None else default_results()
    ledger = Ledger(question, folder / "benchmarks")
    return grouped(question, ledger.runs(), ledger.curves())


def grouped(question: str, runs: pd.DataFrame, curves: pd.DataFrame) -> list[Recordings]:
    """The rows of a ledger by device; another number of threads makes another device.

    Args:
        question: One of :data:`QUESTIONS`.
        runs: A row a recording.
        curves: Their tables.
    """
    found = []
    for _, mine in [] if runs.empty else runs.groupby(["device", "threads"], sort=False):
        number = {key: place for place, key in enumerate(mine["key"])}
        rows = curves[curves["key"].isin(number)]
        rows = rows.assign(recording=rows["key"].map(number)).drop(columns="key")
        # A column that only other versions of the benchmark know is empty here.
        rows = rows.dropna(axis=1, how="all").reset_index(drop=True)
        found.append(Recordings(question, mine, rows))
    return found


def gather(results: str | Path | None = None) -> dict[str, list[Recordings]]:
    """The recordings of all questions; those without one have an empty list.

    Args:
        results: As in :func:`read`.

    Example:
        >>> gather("no-such-folder")["growth"]
        []
    """
    return {question: read(question, results) for question in QUESTIONS}


def step_ratios(recordings: Recordings, penalty: str, against: str = PLAIN) -> dict[str, Spread]:
    """How many times as long a step with one penalty takes as with another, by network.

    Args:
        recordings: Of the question ``overhead``, on one device.
        penalty: As the benchmark calls it.
        against: What to compare with, in the same recording; default the step without a penalty.

    Returns:
        Networks as the columns of the table of steps are called. One that was not measured with
        both is left out.
    """
    found = {}
    for values, rows in recordings.rows.groupby(["model", "pixels", "batch"], sort=False):
        wide = rows.pivot(index="recording", columns="penalty", values="ratio")
        if {penalty, against} <= set(wide.columns):
            ends = _ends(rows[rows["penalty"] == penalty]) if against == PLAIN else ()
            found[network(*values)] = Spread(tuple((wide[penalty] / wide[against]).dropna()), *ends)
    return found


def _ends(rows: pd.DataFrame) -> tuple[float, ...]:
    """The t interval of a ratio, by :func:`varreg.lab.timing.ratio_interval`."""
    ends = [rows[name].iloc[-1] for name in ("low", "high") if name in rows]
    return tuple(ends) if len(ends) == 2 else ()


def network(model: str, pixels: int, batch: int | None = None) -> str:
    """A network and its input as printed.

    Example:
        >>> network("small_cnn", 28), network("resnet18", 64, 32)
        ('small CNN, 28 px', 'ResNet-18, 64 px, batch 32')
    """
    name = f"{MODEL_NAMES.get(model, model)}, {pixels} px"
    return name if batch is None else f"{name}, batch {batch}"


def source(recordings: Sequence[Recordings]) -> str:
    """Where and how the numbers of a section were measured, in Markdown.

    Example:
        >>> source([])
        'Not recorded yet: the scripts in `benchmarks` do it.'
    """
    lines = []
    for each in recordings:
        days, notes = each.runs["recorded_at"].str[:10], each.runs["note"].dropna()
        history = [
            words.count(len(days), "recording"),
            " to ".join(dict.fromkeys((days.min(), days.max()))),
        ]
        if uncommitted := int(_uncommitted(each.runs).sum()):
            history.append(f"{uncommitted} of code with uncommitted changes")
        versions = " and ".join(each.runs["torch_version"].unique())
        said = dict.fromkeys(f"{NOT_SHOWN.sub('', note).rstrip('.')}." for note in notes)
        lines.append(f"*{each.name}, PyTorch {versions}: {', '.join(history)}.* {' '.join(said)}")
    return "\n\n".join(lines) or "Not recorded yet: the scripts in `benchmarks` do it."


def hardware(recorded: Recorded) -> pd.DataFrame:
    """Every device with what was measured on it, how often, and from what code."""
    runs = [
        each.runs.assign(name=each.name, question=each.question.replace("_", " "))
        for recordings in recorded.values()
        for each in recordings
    ]
    return pd.DataFrame(
        {
            "Device": name,
            "PyTorch": ", ".join(sorted(mine["torch_version"].unique())),
            "Recordings": ", ".join(
                f"{question} {count}"
                for question, count in mine["question"].value_counts(sort=False).items()
            ),
            "With uncommitted changes": f"{_uncommitted(mine).sum()} of {len(mine)}",
            "Latest": mine["recorded_at"].str[:10].max(),
        }
        for name, mine in (pd.concat(runs).groupby("name", sort=False) if runs else ())
    )


def _uncommitted(runs: pd.DataFrame) -> pd.Series:
    return runs["commit"].fillna("").str.endswith("+")
