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

from companion import verdicts
from companion.studies.ambiguities import ALTERNATIVES, AS_RELEASED, Alternative, keys
from companion.tables import METRIC_NAMES, better, interval_text
from varreg.lab.columns import METRIC_COLUMNS
from varreg.lab.statistics import (
    Interval,
    PairedDifference,
    holm,
    mean_interval,
    paired_difference,
)

__all__ = [
    "COLUMNS",
    "DIFFERENCES",
    "SAME",
    "distinct",
    "effects",
    "fewest_seeds",
    "sentence",
    "table",
]

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
    rows = []
    for place, row in enumerate(found.to_dict("records")):
        cells = {
            name: _text(row[name]) + ("*" if (place, name) in stars else "") for name in DIFFERENCES
        }
        if row["same_as"]:
            same = SAME if row["same_as"] == AS_RELEASED else f"as {row['same_as']}"
            cells = dict.fromkeys(DIFFERENCES, same)
        level = row["level"]
        rows.append(
            {
                "Data": row["experiment"],
                "Topic": row["topic"],
                "Choice": row["choice"],
                "Who says so": row["source"],
                "Seeds": row["seeds"],
                "Baseline": interval_text(level.mean, level.low, level.high),
                "Moves the baseline by": cells["level_move"],
                "Effect of the penalty": cells["effect"],
                "Moves the effect by": cells["effect_move"],
            }
        )
    return pd.DataFrame(rows)


def fewest_seeds(found: pd.DataFrame) -> int:
    """Seeds behind the alternative that has the fewest."""
    return int(found["seeds"].min()) if len(found) else 0


def sentence(found: pd.DataFrame, metric: str = "test_cross_entropy") -> str:
    """What the alternatives say together, in words that follow from the table.

    Args:
        found: As from :func:`effects`.
        metric: The metric that it was made for.
    """
    parts = [
        _about(experiment, group, metric)
        for experiment, group in found.groupby("experiment", sort=False)
    ]
    if not parts:
        return "No run is recorded yet."
    return " ".join(parts)


def _paired(runs: pd.DataFrame, wanted: Sequence[str], metric: str) -> pd.DataFrame:
    """Columns ``baseline`` and ``effect`` by seed, for the seeds that both methods have."""
    mine = runs[runs["key"].isin(wanted)] if len(runs) else runs
    methods = {
        name: group.set_index("seed")[metric]
        for name, group in ([] if mine.empty else mine.groupby("method"))
    }
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
    moves = {"level_move": None, "effect_move": None}
    if alternative.choice != AS_RELEASED and len(seeds):
        mine, base = own.loc[seeds], released.loc[seeds]
        moves = {
            name: paired_difference(mine[column].to_numpy(), base[column].to_numpy())
            for name, column in (("level_move", "baseline"), ("effect_move", "effect"))
        }
    return {
        "experiment": alternative.experiment,
        "topic": alternative.topic,
        "choice": alternative.choice,
        "source": alternative.source,
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


def _about(experiment: str, group: pd.DataFrame, metric: str) -> str:
    name, own = METRIC_NAMES[metric], distinct(group)
    better_side = sum(_excludes_zero(effect, better(metric)) for effect in own["effect"])
    worse_side = sum(_excludes_zero(effect, -better(metric)) for effect in own["effect"])
    idle = len(group) - len(own)
    text = f"On {experiment}, {len(group)} choices give {len(own)} different readings"
    text += f"; {idle} of them change nothing here. Under " if idle else ". Under "
    text += (
        f"{better_side + worse_side} of {len(own)} readings the interval of the penalty's effect "
        f"on {name} excludes zero ({better_side} for the better, {worse_side} for the worse)"
    )
    moved = [row for row in own.itertuples() if row.level_move is not None]
    if not moved:
        return f"{text}."
    if max(row.level_move.n for row in moved) < 2:
        return f"{text}; there are too few recorded runs to say what moves the baseline."
    largest = max(abs(effect.mean) for effect in own["effect"])
    penalty = f"the largest mean effect of the penalty under any of them is {largest:.3f}"
    clear = [row for row in moved if any(_excludes_zero(row.level_move, side) for side in (1, -1))]
    if not clear:
        return f"{text}. No other choice measurably moves the baseline; {penalty}."
    most = max(clear, key=lambda row: abs(row.level_move.mean))
    return (
        f"{text}. The baseline itself is moved most by {most.topic} ({most.choice}), which "
        f"{verdicts.phrase(most.level_move, 'it')}; {penalty}."
    )


def _excludes_zero(interval: Interval, side: int) -> bool:
    """Whether the whole interval lies on one side of zero; a single run has none."""
    return interval.low > 0 if side > 0 else interval.high < 0


def _text(difference: PairedDifference | None) -> str:
    if difference is None:
        return "\u2013"
    return interval_text(difference.mean, difference.low, difference.high, signed=True)
