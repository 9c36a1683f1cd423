"""How much the result depends on what the sources leave open or disagree about.

The study ``ambiguities`` runs the released protocol and every alternative to it, without and with
the penalty, with the same seeds. Two questions about each alternative: how far does it move the
baseline, and how far does it move what the penalty does? Some choices never bind, such as a longer
patience where nothing stops early: their runs are those of another choice to the last digit, and
count as one reading with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from companion import verdicts, words
from companion.studies.ambiguities import ALTERNATIVES, AS_RELEASED, Alternative, keys
from companion.tables import METRIC_NAMES, better
from varreg.lab.columns import METRIC_COLUMNS
from varreg.lab.statistics import (
    Interval,
    holm,
    mean_interval,
    paired_difference,
)

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
    released = {}
    seen: dict[tuple, str] = {}
    for alternative in ALTERNATIVES:
        wanted = keys(alternative, rate)
        own = _paired(runs, wanted, metric)
        if alternative.choice == AS_RELEASED:
            released[alternative.experiment] = own
        if len(own):
            row = _row(alternative, own, released[alternative.experiment])
            reading = (alternative.experiment, *_outcomes(runs, wanted))
            rows.append(row | {"same_as": seen.get(reading, "")})
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
    stars = _significant(found)
    rows = found.copy()
    for name in DIFFERENCES:
        rows[name] = [
            words.change(row[name]) + "*" * ((place, name) in stars)
            if not row["same_as"]
            else same_text(row["same_as"])
            for place, row in enumerate(found.to_dict("records"))
        ]
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


def _paired(runs: pd.DataFrame, wanted: Sequence[str], metric: str) -> pd.DataFrame:
    """Columns ``baseline`` and ``effect`` by seed, for the seeds that both methods have."""
    mine = runs[runs["key"].isin(wanted)] if len(runs) else runs
    methods = dict(tuple(mine.set_index("seed").groupby("method")[metric])) if len(mine) else {}
    if set(methods) != {"baseline", "penalized"}:
        return pd.DataFrame(columns=["baseline", "effect"], dtype=float)
    wide = pd.DataFrame(methods).dropna()
    return wide.assign(effect=wide["penalized"] - wide["baseline"])[["baseline", "effect"]]


def _outcomes(runs: pd.DataFrame, wanted: Sequence[str]) -> tuple:
    """All recorded metrics of an alternative's runs, in an order of their own."""
    names = [name for name in METRIC_COLUMNS if name in runs]
    mine = runs[runs["key"].isin(wanted)].sort_values(["method", "seed"])
    # Text, because NaN is not equal to itself.
    return tuple(mine[["method", "seed", *names]].astype(str).itertuples(index=False, name=None))


def _row(alternative: Alternative, own: pd.DataFrame, released: pd.DataFrame) -> dict[str, object]:
    seeds = own.index.intersection(released.index)
    moves = dict.fromkeys(("level_move", "effect_move"))
    if alternative.choice != AS_RELEASED and len(seeds):
        for name, column in (("level_move", "baseline"), ("effect_move", "effect")):
            moves[name] = paired_difference(own.loc[seeds, column], released.loc[seeds, column])
    return {
        **{
            name: getattr(alternative, name) for name in ("experiment", "topic", "choice", "source")
        },
        "seeds": len(own),
        "level": mean_interval(own["baseline"].to_numpy()),
        "effect": paired_difference(own["effect"].to_numpy(), [0.0] * len(own)),
        **moves,
    }


def _significant(found: pd.DataFrame) -> set[tuple[int, str]]:
    """Place and column of every paired difference that stands after Holm's correction."""
    tests = [
        (place, name, row[name].p)
        for place, row in enumerate(found.to_dict("records"))
        for name in DIFFERENCES
        if row[name] is not None and not row["same_as"]
    ]
    adjusted = holm([p for *_, p in tests])
    return {(place, name) for (place, name, _), p in zip(tests, adjusted, strict=True) if p < 0.05}


def _side(interval: Interval) -> int:
    """On which side of zero the whole interval lies, 0 for neither; a single run has none."""
    return int(interval.low > 0) - int(interval.high < 0)
