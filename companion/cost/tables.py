"""The tables of the chapter on cost: what each prints stands in its cell of the notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from companion import words
from companion.cost.recordings import PLAIN, Recordings, Spread, network

NETWORK = (["model", "pixels"], network)
_PENALTY = {"Penalty": "penalty", "Network": (["model", "pixels", "batch"], network)}


def _relative(unit: str) -> Callable[[str, Spread, Spread], str]:
    """What a step without a penalty takes; of the others, how many times as much."""
    return lambda penalty, taken, ratio: (
        taken.text(unit.format) if penalty == PLAIN else ratio.text()
    )


#: Columns of :func:`table` for the benchmark ``overhead``: time and peak memory of a step.
STEPS = _PENALTY | {"": (["penalty", "step_ms", "ratio"], _relative("{:.2f} ms"))}
MEMORY = _PENALTY | {"": (["penalty", "peak_mb", "peak_ratio"], _relative("{:.1f} MB"))}


def table(
    recordings: Sequence[Recordings],
    columns: Mapping[str, object],
    lines: Callable[[Recordings], list[dict[str, object]]] = Recordings.lines,
) -> pd.DataFrame:
    """A table as printed, with the number of recordings; the device is named if there are several.

    Args:
        recordings: Of one question, as from :func:`companion.cost.recordings.read`.
        columns: See :func:`companion.words.printed`. A last one without a name is spread over
            columns named by the one before.
        lines: What a device has to say, a line a row.

    Example:
        >>> table([], STEPS).empty
        True
    """
    found = []
    for each in recordings:
        every = pd.DataFrame(lines(each))
        printed = words.printed(every, {**columns, "Recordings": "recordings"})
        printed = _across(printed) if "" in printed else printed.astype({"Recordings": str})
        found.append(printed.assign(Device=each.name) if len(recordings) > 1 else printed)
    return pd.concat(found, ignore_index=True).fillna(words.DASH) if found else pd.DataFrame()


def _across(printed: pd.DataFrame) -> pd.DataFrame:
    """The nameless column spread over columns, a row where all before them is the same."""
    *heads, spread, _, _ = printed.columns
    rows, counts = [], []
    for values, lines in printed.groupby(heads, sort=False):
        rows.append(dict(zip([*heads, *lines[spread]], [*values, *lines[""]], strict=True)))
        ends = dict.fromkeys((lines["Recordings"].min(), lines["Recordings"].max()))
        counts.append(" to ".join(map(str, ends)))
    return pd.DataFrame(rows).assign(Recordings=counts)
