"""How much the result depends on what the sources leave open or disagree about.

The study ``ambiguities`` runs the released protocol and every alternative to it, without and with
the penalty, with the same seeds. Two questions about each alternative: how far does it move the
baseline, and how far does it move what the penalty does? Some choices never bind, such as a longer
patience where nothing stops early: their runs are those of another choice to the last digit, and
count as one reading with it.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from companion import verdicts, words
from companion.studies.ambiguities import ALTERNATIVES, AS_RELEASED, keys
from companion.tables import METRIC_NAMES, better, by_seed, mean_change
from varreg.lab.columns import METRIC_COLUMNS
from varreg.lab.statistics import Interval, holm, mean_interval

#: The paired differences in a row of :func:`effects`, in the order of the printed table.
DIFFERENCES = ("level_move", "effect", "effect_move")
COLUMNS = ("experiment", "topic", "choice", "source", "seeds", "same_as", "level", *DIFFERENCES)
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
