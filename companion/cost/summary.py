"""What the recordings say in numbers, glued into the text of the chapter by their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

from companion import words
from companion.cost.growth import QUANTITIES, fitted
from companion.cost.recordings import (
    AGAIN,
    OURS,
    PLAIN,
    RELEASED,
    Recorded,
    Recordings,
    Spread,
    network,
    step_ratios,
)


def facts(recorded: Recorded) -> dict[str, str]:
    """What is glued: for each device, which is named where there are several.

    Args:
        recorded: As from :func:`~companion.cost.recordings.gather`.

    Returns:
        Texts by name, each behind ``cost_``; a dash where nothing is recorded.

    Example:
        >>> facts({})["cost_gpus"], facts({})["cost_step_all"] == words.DASH
        ('none', True)
    """
    devices = {each.name: each.on_gpu for found in recorded.values() for each in found}
    gpus = [name for name, on_gpu in devices.items() if on_gpu]
    told = {"devices": words.listed(devices or [words.DASH]), "gpus": ", ".join(gpus) or "none"}
    for name, (question, tell) in FACTS.items():
        parts = [
            tell(each) + f" on {each.name}" * (len(devices) > 1)
            for each in recorded.get(question, ())
        ]
        told[name] = words.listed(parts or [words.DASH])
    return {f"cost_{name}": text for name, text in told.items()}


def _times(each: Recordings, *penalties: str) -> str:
    """Times as long as without: from the lowest to the highest median of a network."""
    spreads = [spread for name in penalties for spread in step_ratios(each, name).values()]
    single = [value for spread in spreads for value in spread.values]
    medians = [spread.median for spread in spreads]
    return f"{_range(medians)} times (single recordings: {_range(single)})"


def _range(values: Sequence[float]) -> str:
    ends = (f"{end:.3f}" for end in (min(values), max(values))) if values else [words.DASH]
    return " to ".join(dict.fromkeys(ends))


def _most_memory(each: Recordings, ours: bool) -> str:
    """The largest peak against that without, of this package or, with its name, of the others."""
    lines = [
        line
        for line in each.lines()
        if line["penalty"] not in (PLAIN, AGAIN) and (line["penalty"] in OURS.values()) == ours
    ]
    if not lines:
        return words.DASH
    most = max(lines, key=lambda line: line["peak_ratio"].median)
    where = network(most["model"], most["pixels"], most["batch"])
    named = "" if ours else f" ({most['penalty']}, {where})"
    return f"{most['peak_ratio'].median:.3f} times{named}"


def _listed(each: Recordings, text: str, size: str = "pixels") -> str:
    """A text a line, such as ``"{ratio:.1f}"``."""
    lines = [line | {"network": network(line["model"], line[size])} for line in each.lines()]
    return words.listed(text.format(**line) for line in lines)


def _gain(each: Recordings) -> str:
    """Of the largest ensembles."""
    most = each.rows[each.rows["members"] == each.rows["members"].max()]
    text = "{gain:.1f} times ({network}, batch {batch})"
    return _listed(dataclasses.replace(each, rows=most), text, "size")


def _exponent(each: Recordings, quantity: str) -> str:
    found = {line["quantity"]: line["exponent"] for line in fitted(each)}
    return words.minus(f"{found.get(quantity, Spread(())):z.2f}")


def _grown(each: Recordings, column: str) -> str:
    """From the smallest folder to the largest."""
    folders = sorted(each.lines(), key=lambda line: line["images"])
    grown = folders[-1][column].median - folders[0][column].median
    return f"{words.number(grown, 0, signed=True)} MB"


def _worst(each: Recordings) -> str:
    values = [value for line in fitted(each) for value in line["worst"].values]
    return f"{max([1.0, *values]):.2f}"


#: Name -> the question, and what is said of the recordings on one device.
FACTS: dict[str, tuple[str, Callable[[Recordings], str]]] = {
    "step_all": ("overhead", lambda each: _times(each, OURS[1.0])),
    "step_drawn": ("overhead", lambda each: _times(each, OURS[0.2])),
    "step_released": ("overhead", lambda each: _times(each, *RELEASED.values())),
    "step_again": ("overhead", lambda each: _times(each, AGAIN)),
    "memory_ours": ("overhead", partial(_most_memory, ours=True)),
    "memory_others": ("overhead", partial(_most_memory, ours=False)),
    "engine": ("throughput", partial(_listed, text="{ratio:.1f} times {peer} ({network})")),
    "roof": (
        "roofline",
        partial(_listed, text="{share_of_roof:.0%} ({network}, bound by {bound_by})"),
    ),
    "members": ("ensemble", lambda each: f"{each.rows['members'].max()}"),
    "seeds": ("ensemble", _gain),
    **{f"growth_{name}": ("growth", partial(_exponent, quantity=name)) for name in QUANTITIES},
    "growth_worst": ("growth", _worst),
    "folder_first": ("larger_than_memory", lambda each: f"{each.rows['images'].min():,}"),
    "folder_last": ("larger_than_memory", lambda each: f"{each.rows['images'].max():,}"),
    "folder_peak": ("larger_than_memory", partial(_grown, column="training_peak_megabytes")),
    "folder_array": ("larger_than_memory", partial(_grown, column="array_megabytes")),
}
