"""How much the result depends on what the sources leave open or disagree about.

The study ``ambiguities`` runs the released protocol and every alternative to it, without and with
the penalty, with the same seeds. Two questions about each alternative: how far does it move the
baseline, and how far does it move what the penalty does? Some choices never bind, such as a longer
patience where nothing stops early: their runs are those of another choice to the last digit, and
count as one reading with it.
"""

from __future__ import annotations

import math
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion import style, verdicts, words
from companion.studies.ambiguities import ALTERNATIVES, AS_RELEASED, keys
from companion.tables import METRIC_NAMES, better, by_seed, mean_change
from varreg.lab.columns import METRIC_COLUMNS
from varreg.lab.statistics import Interval, holm, mean_interval

#: The paired differences in a row of :func:`effects`, in the order of the printed table.
DIFFERENCES = ("level_move", "effect", "effect_move")
COLUMNS = ("experiment", "topic", "choice", "source", "seeds", "same_as", "level", *DIFFERENCES)
#: Colour of a choice that gives the runs of another one.
IDLE = "#999999"
#: What is said of a choice that gives the runs of the released protocol.
SAME = "changes nothing here"


def effects(
    runs: pd.DataFrame, metric: str = "test_cross_entropy", rate: str = "released"
) -> pd.DataFrame:
    """What every alternative gives, and how far that is from the released protocol.

    Args:
        runs: Rows of the study ``ambiguities``; may be incomplete.
        metric: A column.
        rate: Which of :data:`companion.studies.ambiguities.LEARNING_RATES` all of them have, the
            released protocol too.

    Returns:
        A row an alternative that has a seed with both methods, in the order of
        :data:`companion.studies.ambiguities.ALTERNATIVES`: the fields that name it, ``seeds``, and

        - ``same_as``: the first choice with the same runs, to the last digit of every recorded
          metric, for all seeds and both models; ``""`` for a reading of its own;
        - ``level``: the baseline, an :class:`~varreg.lab.statistics.Interval`;
        - ``effect``: penalized minus baseline, paired by seed;
        - ``level_move``: the baseline minus that of the released protocol, paired by seed;
        - ``effect_move``: the effect minus that of the released protocol, paired by seed.

        The last three are a :class:`~varreg.lab.statistics.PairedDifference`; the moves are
        ``None`` for the released protocol itself, and where no seed is common with it.
    """
    rows = []
    released: dict[str, pd.DataFrame] = {}
    seen: dict[tuple, str] = {}
    for alternative in ALTERNATIVES:
        mine = runs[runs["key"].isin(keys(alternative, rate))] if len(runs) else runs
        penalized, level = by_seed(mine, metric, "penalized", "baseline")
        own = pd.DataFrame({"level": level, "effect": penalized - level})
        move = own - released.setdefault(alternative.experiment, own)
        if alternative.choice == AS_RELEASED:
            move = move[:0]
        reading = (alternative.experiment, *_outcomes(mine))
        if len(own):
            row = {
                "seeds": len(own),
                "same_as": seen.get(reading, ""),
                "level": mean_interval(own["level"]),
                "effect": mean_change(own["effect"]),
                "level_move": mean_change(move["level"].dropna()),
                "effect_move": mean_change(move["effect"].dropna()),
            }
            rows.append(vars(alternative) | row)
            seen.setdefault(reading, alternative.choice)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def distinct(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`effects` that are a reading of their own."""
    return found[found["same_as"] == ""]


def table(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`effects` as printed in the book.

    ``*`` marks a paired difference whose p stays below 0.05 after Holm's correction over the whole
    table, where a reading counts once.
    """
    own = found["same_as"] == ""
    changes = found[list(DIFFERENCES)]
    p = changes.map(lambda each: each.p if each else math.nan).where(own, math.nan)
    stars = np.reshape(np.array(holm(p.to_numpy(float).ravel())) < 0.05, p.shape)
    texts = changes.map(words.change) + np.where(stars, "*", "")
    rows = found.assign(**texts.where(own, found["same_as"].map(same_text), axis=0))
    columns = {
        "Data": "experiment",
        "Topic": "topic",
        "Choice": "choice",
        "Who says so": "source",
        "Seeds": "seeds",
        "Baseline": ("level", words.level),
        "Moves the baseline by": "level_move",
        "Effect of the penalty": "effect",
        "Moves the effect by": "effect_move",
    }
    return words.printed(rows, columns)


def summary(found: pd.DataFrame, metric: str = "test_cross_entropy") -> pd.DataFrame:
    """What the alternatives say together, in words that follow from the table.

    Args:
        found: As from :func:`effects`.
        metric: The metric that it was made for.

    Returns:
        A row an experiment: how many choices and readings there are, under how many of the readings
        the interval of the penalty's effect excludes zero, which one moves the baseline most, of
        those whose interval excludes zero, and the largest mean effect of the penalty.
    """
    rows = []
    for experiment, group in found.groupby("experiment", sort=False):
        own = distinct(group)
        sides = [better(metric) * _side(effect) for effect in own["effect"]]
        moved = [row for row in own.itertuples() if row.level_move is not None]
        clear = [row for row in moved if _side(row.level_move)]
        most = "none: every interval holds zero" if moved else words.DASH
        if clear:
            row = max(clear, key=lambda row: abs(row.level_move.mean))
            most = f"{row.topic} ({row.choice}), which {verdicts.phrase(row.level_move, 'it')}"
        elif moved and max(row.level_move.n for row in moved) < 2:
            most = "too few recorded runs to say"
        rows.append(
            {
                "Data": experiment,
                "Metric": METRIC_NAMES[metric],
                "Choices": len(group),
                "Different readings": len(own),
                "Penalty better": sides.count(1),
                "Penalty worse": sides.count(-1),
                "Moves the baseline most": most,
                "Largest mean effect": words.number(max(abs(each.mean) for each in own["effect"])),
            }
        )
    return pd.DataFrame(rows)


def forest(effects: pd.DataFrame, metric: str = "test_cross_entropy") -> Figure:
    """What every choice does to the baseline, and what the penalty does under it.

    Bars are 95 % intervals. Hollow marks are the released protocol, from which the others differ
    in one thing; the band repeats its interval. Grey are choices that give the same runs as another
    one. The shaded side of zero is better. Every panel has a scale of its own.

    Args:
        effects: As from :func:`effects`; a row of panels an experiment.
        metric: The metric that they were made for.
    """
    if effects.empty:
        return style.empty()
    groups = effects.groupby("experiment", sort=False)
    heights = [len(group) + 1 for _, group in groups]
    shape = len(groups), 2, 0.36 * sum(heights) + 1.1
    figure, axes = style.panels(*shape, wider=0.8, height_ratios=heights)
    for (left, right), (experiment, group) in zip(axes, groups, strict=True):
        left.set_title(f"{experiment.capitalize()}, {group['seeds'].min()} seeds")
        _reading_panel(left, group, "level_move", style.COLORS["baseline"])
        _reading_panel(right, group, "effect", style.COLORS["penalized"])
        right.set_yticks(range(len(group)), [""] * len(group))
    for ax in axes.flat:
        limits = ax.get_xlim()
        style.shade_better(ax, better(metric))
        ax.set_xlim(limits)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[-1, 0].set_xlabel(f"Change of the baseline's\n{METRIC_NAMES[metric]}")
    axes[-1, 1].set_xlabel(f"Effect of the penalty on\n{METRIC_NAMES[metric]}")
    return figure


def same_text(choice: str) -> str:
    """What is said of a choice that gives the runs of another one."""
    return SAME if choice == AS_RELEASED else f"as {choice}"


def fewest_seeds(found: pd.DataFrame) -> int:
    """Seeds behind the alternative that has the fewest."""
    return int(found["seeds"].min()) if len(found) else 0


def _outcomes(mine: pd.DataFrame) -> tuple:
    """All recorded metrics of an alternative's runs, in an order of their own."""
    if mine.empty:
        return ()
    names = [name for name in METRIC_COLUMNS if name in mine]
    rows = mine.sort_values(["method", "seed"])[["method", "seed", *names]]
    # Text, because NaN is not equal to itself.
    return tuple(rows.astype(str).itertuples(index=False, name=None))


def _side(interval: Interval) -> int:
    """On which side of zero the whole interval lies, 0 for neither; a single run has none."""
    return int(interval.low > 0) - int(interval.high < 0)


def _reading_panel(ax: Axes, group: pd.DataFrame, column: str, color: str) -> None:
    ax.axvline(0, color="black", lw=1)
    for place, row in enumerate(group.to_dict("records")):
        found, released = row[column], row["choice"] == AS_RELEASED
        tint = IDLE if row["same_as"] else color
        if found is None:  # the released protocol does not differ from itself
            ax.plot(0, place, "o", color=color, ms=7, mfc="white", zorder=3)
            continue
        if released and found.n > 1:
            ax.axvspan(found.low, found.high, color=IDLE, alpha=0.25, lw=0, zorder=0)
        face = "white" if released else tint
        style.bar(ax, found, place, 2.5, color=tint, marker="o", ms=7, mfc=face)
        if row["same_as"] and column == "level_move":
            look = {"fontsize": "small", "color": "#666666", "va": "center"}
            text, at = same_text(row["same_as"]), (found.mean, place)
            ax.annotate(text, at, (8, 0), textcoords="offset points", **look)
    ax.margins(x=0.08)
    style.rows(ax, [_label(row) for row in group.to_dict("records")], 0.4, 0.6)


def _label(row: dict[str, object]) -> str:
    text = row["choice"] if row["choice"] == AS_RELEASED else f"{row['topic']}: {row['choice']}"
    return "\n".join(textwrap.wrap(str(text), 30))
