"""What every section of the page compares, as a table, as words and in one figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion import style, verdicts, words
from companion.probes import units
from companion.rivals import MEASURES, PRIMARY
from companion.studies.few_images import ARMS
from companion.tables import pairs_of
from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.specs import RunSpec

MEASURED = (PRIMARY, "test_auroc", "test_accuracy")
#: By the method of a run, its name in ``few_images``.
NAMES = {given["method"]: name for name, given in ARMS.items() if not name.startswith("augmented_")}
TITLES = {name: METHODS[method].title for method, name in NAMES.items()} | {
    "fixed": "penalty, fixed weight"
}
SAYS = {
    "lower": "lower",
    "higher": "higher",
    "negligible": "too little to matter",
    "unclear": "no difference that stands after Holm's correction",
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two trainings that differ in one thing.

    Attributes:
        name: In facts.
        title: What is done, as printed.
        method: In the ``method`` column of the runs.
        against: The same without it.
        color: In figures.
        drawn: Whether the figure over all sections shows it.
    """

    name: str
    title: str
    method: str
    against: str = "none"
    color: str = METHODS["tuned"].color
    drawn: bool = True


def pairs(*names: str) -> tuple[Pair, ...]:
    """Methods of ``few_images`` against no penalty.

    Example:
        >>> [pair.title for pair in pairs("fixed", "augmented")]
        ['penalty, fixed weight', 'augmented']
    """
    colors = {name: METHODS[method].color for method, name in NAMES.items()}
    return tuple(Pair(name, TITLES[name], name, color=colors[name]) for name in names)


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """What is compared in one place.

    Attributes:
        name: In facts.
        title: As printed.
        runs: A row a run: ``method``, ``seed`` and the columns of :data:`MEASURED`.
        pairs: What is compared with what.
    """

    name: str
    title: str
    runs: pd.DataFrame
    pairs: tuple[Pair, ...]

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Each pair over the seeds that both have.

        A row a pair and measure: ``pair, title, measure, mean, low, high, n, p, p_holm, text,
        reads``.
        Holm's correction is over the pairs, for the primary outcome; it is NaN for the others.
        """
        rows, titles = [], {pair.name: pair.title for pair in self.pairs}
        for measure in MEASURED:
            compared = {pair.name: (pair.method, pair.against) for pair in self.pairs}
            for row in pairs_of(self.runs, measure, compared, corrected=measure == PRIMARY):
                said = verdicts.reads(row["mean"], row["low"], row["high"], row["p_holm"])
                rows.append(row | {"title": titles[row["method"]], "reads": said})
        return pd.DataFrame(rows).rename(columns={"method": "pair"})

    def of(self, pair: str, measure: str = PRIMARY) -> pd.Series:
        """The difference of one pair."""
        found = self.differences
        return found[(found["pair"] == pair) & (found["measure"] == measure)].iloc[0]


def of_specs(
    name: str,
    title: str,
    listed: Sequence[RunSpec],
    compared: tuple[Pair, ...],
    results: Path | None = None,
) -> list[Section]:
    """The section of some runs of a study; none where one of them is not recorded.

    Methods have their names in ``few_images``.
    """
    runs = recorded(listed[0].study, [spec.key for spec in listed], results)
    if runs.empty:
        return []
    return [Section(name, title, runs.assign(method=runs["method"].map(NAMES)), compared)]


def recorded(study: str, keys: Sequence[str], results: Path | None = None) -> pd.DataFrame:
    """Rows of a study or probe; empty where one of them is missing."""
    runs = Ledger(study, results).runs()
    if runs.empty or not set(keys) <= set(runs["key"]):
        return pd.DataFrame()
    return runs.set_index("key", drop=False).loc[list(keys)].reset_index(drop=True)


def recorded_units(
    probe: str, results: Path | None = None, **settings: object
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Units of a probe with these settings, and their details; empty where one is missing."""
    keys = [each.key for each in units(probe) if settings.items() <= each.setting.items()]
    rows = recorded(probe, keys, results)
    details = Ledger(probe, results).curves()
    return rows, details[details["key"].isin(keys)]


def table(section: Section) -> pd.DataFrame:
    """The differences of a section as printed: a row a pair, a column a measure.

    The first column is headed by the title of the section. A star marks the primary outcome where
    Holm's p is below 0.05.
    """
    rows = []
    for pair in section.pairs:
        row = {words.capital(section.title): words.capital(pair.title)}
        for measure in MEASURED:
            each = section.of(pair.name, measure)
            text = words.interval(each["mean"], each["low"], each["high"], signed=True)
            row[words.capital(MEASURES[measure][0])] = text + "*" * bool(each["p_holm"] < 0.05)
        row["Reads"] = section.of(pair.name)["reads"]
        rows.append(row)
    return pd.DataFrame(rows)


def facts(sections: Iterable[Section]) -> dict[str, object]:
    """What the text of the page says of the sections, by names of section, pair and measure.

    The primary outcome has no name in that of its fact; its reading ends with ``_says``.
    """
    found: dict[str, object] = {}
    for section in sections:
        head = f"beyond_{section.name}"
        found[f"{head}_seeds"] = int(section.differences["n"].min())
        for row in section.differences.itertuples():
            measure = row.measure.removeprefix("test") * (row.measure != PRIMARY)
            found[f"{head}_{row.pair}{measure}"] = words.change(row)
            if row.measure == PRIMARY:
                found[f"{head}_{row.pair}_says"] = SAYS[row.reads]
    return found


def forest(sections: Sequence[Section]) -> Figure:
    """Every difference of test cross-entropy that is about the penalty, by section.

    A mark is filled where the difference stands after Holm's correction.
    """
    if not sections:
        return style.empty()
    shown: list[tuple[Section, Pair | None]] = []
    for each in sections:
        shown += [(each, None), *((each, pair) for pair in each.pairs if pair.drawn)]
    figure, ax = plt.subplots(figsize=(style.WIDTH + 1.6, 0.9 + 0.27 * len(shown)))
    for place, (section, pair) in enumerate(shown):
        if pair is not None:
            row = section.of(pair.name)
            filled = pair.color if row["p_holm"] < 0.05 else "white"
            ax.plot([row["low"], row["high"]], [place, place], color=pair.color, lw=2)
            ax.plot(row["mean"], place, "o", color=pair.color, ms=6, mfc=filled)
        elif place:
            ax.axhline(place - 0.5, color=style.PALE, lw=0.8)
    names = [words.capital(each.title) if pair is None else pair.title for each, pair in shown]
    style.rows(ax, names)
    for label, (_, pair) in zip(ax.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if pair is None else "normal")
    ax.tick_params(axis="y", length=0)
    ax.axvline(0, color="black", lw=0.8)
    ax.axvspan(-verdicts.MARGIN, verdicts.MARGIN, color=style.PALE, alpha=0.5, lw=0, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_xlabel("change of test cross-entropy")
    return figure
