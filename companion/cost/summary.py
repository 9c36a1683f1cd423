"""What the recordings say in numbers, glued into the text of the chapter by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    network,
    step_ratios,
)


def facts(recorded: Recorded) -> dict[str, str]:
    """What is glued: for each device, which is named where there are several.

    Args:
        recorded: As from :func:`~companion.cost.gather`.

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


def _times(*penalties: str) -> Callable[[Recordings], str]:
    """Times as long as without: from the lowest to the highest median of a network."""

    def tell(each: Recordings) -> str:
        spreads = [
            spread for penalty in penalties for spread in step_ratios(each, penalty).values()
        ]
        single = [value for spread in spreads for value in spread.values]
        medians = _range(spread.median for spread in spreads)
        return f"{medians} times (single recordings: {_range(single)})"

    return tell


def _range(values: Iterable[float]) -> str:
    found = sorted(values)
    ends = (f"{end:.3f}" for end in (found[0], found[-1])) if found else [words.DASH]
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


def _each(text: str, largest: str | None = None) -> Callable[[Recordings], str]:
    """A text a line, such as ``"{ratio:.1f}"``; only those with the largest of a column."""

    def tell(each: Recordings) -> str:
        lines = each.lines()
        if largest:
            most = max(line[largest] for line in lines)
            lines = [line for line in lines if line[largest] == most]
        return words.listed(
            text.format(
                **line, network=network(line["model"], line.get("pixels", line.get("size")))
            )
            for line in lines
        )

    return tell


def _exponent(quantity: str) -> Callable[[Recordings], str]:
    def tell(each: Recordings) -> str:
        texts = [
            f"{line['exponent']:z.2f}" for line in fitted(each) if line["quantity"] == quantity
        ]
        return words.minus(texts[0]) if texts else words.DASH

    return tell


def _grown(column: str) -> Callable[[Recordings], str]:
    """From the smallest folder to the largest."""

    def tell(each: Recordings) -> str:
        lines = sorted(each.lines(), key=lambda line: line["images"])
        grown = lines[-1][column].median - lines[0][column].median
        return f"{words.number(grown, 0, signed=True)} MB"

    return tell


def _worst(each: Recordings) -> str:
    values = [value for line in fitted(each) for value in line["worst"].values]
    return f"{max([1.0, *values]):.2f}"


#: Name -> the question, and what is said of the recordings on one device.
FACTS: dict[str, tuple[str, Callable[[Recordings], str]]] = {
    "step_all": ("overhead", _times(OURS[1.0])),
    "step_drawn": ("overhead", _times(OURS[0.2])),
    "step_released": ("overhead", _times(*RELEASED.values())),
    "step_again": ("overhead", _times(AGAIN)),
    "memory_ours": ("overhead", partial(_most_memory, ours=True)),
    "memory_others": ("overhead", partial(_most_memory, ours=False)),
    "engine": ("throughput", _each("{ratio:.1f} times {peer} ({network})")),
    "roof": ("roofline", _each("{share_of_roof:.0%} ({network}, bound by {bound_by})")),
    "members": ("ensemble", lambda each: f"{each.rows['members'].max()}"),
    "seeds": ("ensemble", _each("{gain:.1f} times ({network}, batch {batch})", "members")),
    **{f"growth_{quantity}": ("growth", _exponent(quantity)) for quantity in QUANTITIES},
    "growth_worst": ("growth", _worst),
    "folder_first": ("larger_than_memory", lambda each: f"{each.rows['images'].min():,}"),
    "folder_last": ("larger_than_memory", lambda each: f"{each.rows['images'].max():,}"),
    "folder_peak": ("larger_than_memory", _grown("training_peak_megabytes")),
    "folder_array": ("larger_than_memory", _grown("array_megabytes")),
}
