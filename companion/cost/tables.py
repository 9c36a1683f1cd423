"""The tables of the chapter on cost: what each prints, and the one function that prints it."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller

import pandas as pd

from companion import words
from companion.cost.growth import QUANTITIES, fitted
from companion.cost.recordings import PLAIN, Recorded, Spread, network

DURATION = methodcaller("text", words.duration)
NETWORK = (["model", "pixels"], network)


def _relative(unit: str) -> Callable[[str, Spread, Spread], str]:
    """What a step without a penalty takes; of the others, how many times as much."""
    return lambda penalty, taken, ratio: (
        taken.text(unit.format) if penalty == PLAIN else ratio.text()
    )


def _end(choose: Callable, form: Callable[[float], str]) -> Callable[[Spread], str]:
    """The lowest or the highest of the values; a dash where there is none."""
    return lambda spread: form(choose(spread.values)) if spread.values else words.DASH


_PENALTY = {"Penalty": "penalty", "Network": (["model", "pixels", "batch"], network)}
#: Table -> the question that it is about and its columns, see :func:`companion.words.printed`.
#: Where the last one has no name, it is spread over columns named by the one before.
TABLES = {
    "steps": (
        "overhead",
        _PENALTY | {"": (["penalty", "step_ms", "ratio"], _relative("{:.2f} ms"))},
    ),
    "memory": (
        "overhead",
        _PENALTY | {"": (["penalty", "peak_mb", "peak_ratio"], _relative("{:.1f} MB"))},
    ),
    "bandwidth": (
        "bandwidth",
        {
            "Features, MB": ("megabytes", "g"),
            "Copy, GB/s": ("copy_gb_a_second", ".0f"),
            "Penalty": "penalty",
            "": ("share_of_copy", ".0%"),
        },
    ),
    "throughput": (
        "throughput",
        {
            "Network": NETWORK,
            "Peer": "peer",
            "varreg, images/s": ("varreg_images_a_second", ",.0f"),
            "Peer, images/s": ("peer_images_a_second", ",.0f"),
            "Times as fast": ("ratio", ".2f"),
        },
    ),
    "roofline": (
        "roofline",
        {
            "Network": NETWORK,
            "Step, ms": ("step_ms", ".1f"),
            "Operations a byte": ("flop_a_byte", ".2f"),
            "GFLOP/s": ("gflop_a_second", ",.0f"),
            "Matrix product, GFLOP/s": ("peak_gflop_a_second", ",.0f"),
            "GB/s": ("gb_a_second", ",.0f"),
            "Copy, GB/s": ("copy_gb_a_second", ",.0f"),
            "Of the roof": ("share_of_roof", ".0%"),
            "Bound by": "bound_by",
        },
    ),
    "ensemble": (
        "ensemble",
        {
            "Network": (["model", "size"], network),
            "Batch": "batch",
            "Members": "members",
            "One by one, images/s": ("images_per_second_alone", ",.0f"),
            "As one, images/s": ("images_per_second", ",.0f"),
            "Times as fast": ("gain", ".2f"),
        },
    ),
    "growth": (
        "growth",
        {
            "Quantity": ("quantity", QUANTITIES),
            "From": ("sizes", _end(min, "{:,.12g}".format)),
            "To": ("sizes", _end(max, "{:,.12g}".format)),
            "Shortest": ("seconds", _end(min, words.duration)),
            "Longest": ("seconds", _end(max, words.duration)),
            "Exponent": ("exponent", "z.2f"),
            "Fixed part": ("fixed", DURATION),
            "Farthest from the curve": ("worst", _end(max, "{:.2f} times".format)),
        },
    ),
    "decoding": (
        "decoding",
        {
            "Edge, pixels": "file_pixels",
            "File, kB": ("file_kilobytes", ",.1f"),
            "Threads": "threads",
            "Images/s": ("images_a_second", ",.0f"),
        },
    ),
    "training": (
        "larger_than_memory",
        {
            "Images": ("images", ","),
            "Decoded array, MB": ("array_megabytes", ",.1f"),
            "Before, MB": ("megabytes_before", ",.0f"),
            "Decoding, peak MB": ("decoding_peak_megabytes", ",.0f"),
            "Training, peak MB": ("training_peak_megabytes", ",.0f"),
            "Decoding, images/s": ("decoding_images_a_second", ",.0f"),
            "Training, images/s": ("training_images_a_second", ",.0f"),
        },
    ),
    "project": ("project", {"Command": "command", "Time": ("seconds", DURATION)}),
}


def table(name: str, recorded: Recorded) -> pd.DataFrame:
    """A table as printed, with the number of recordings; the device is named if there are several.

    Args:
        name: One of :data:`TABLES`.
        recorded: As from :func:`~companion.cost.gather`; at least the question of this table.

    Raises:
        ValueError: If there is no such table.

    Example:
        >>> table("steps", {"overhead": []}).empty
        True
    """
    if name not in TABLES:
        raise ValueError(f"table is {name!r}; allowed are {', '.join(TABLES)}")
    question, columns = TABLES[name]
    found = []
    for each in recorded[question]:
        lines = fitted(each) if question == "growth" else each.lines()
        printed = words.printed(pd.DataFrame(lines), columns | {"Recordings": "recordings"})
        printed = _across(printed) if "" in printed else printed.astype({"Recordings": str})
        found.append(printed.assign(Device=each.name) if len(recorded[question]) > 1 else printed)
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
