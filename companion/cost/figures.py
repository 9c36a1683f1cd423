"""The figures of the chapter on cost.

What is drawn is the median over the recordings of a device, and a bar from the lowest to the
highest. Without recordings, a figure says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from companion import words
from companion.cost.growth import QUANTITIES, fitted
from companion.cost.recordings import PLAIN, Recordings, Spread, network
from companion.style import WIDTH, say_empty
from varreg.lab.methods import BLUE, GREEN, GREY, RED

#: One style a device, in the order of the recordings.
DEVICES = ((BLUE, "o"), (RED, "D"), (GREEN, "s"), (GREY, "^"))
PEERS = "#9A9A9A"
MEMORY = {
    "training_peak_megabytes": {"label": "training, peak", "color": RED, "marker": "o", "ls": "-"},
    "decoding_peak_megabytes": {"label": "decoding, peak", "color": BLUE, "marker": "D", "ls": "-"},
    "megabytes_before": {"label": "program alone", "color": GREY, "marker": "", "ls": ":"},
    "array_megabytes": {
        "label": "decoded array, on disk", "color": "black", "marker": "s", "ls": "--",
    },
}  # fmt: skip


def overhead(recordings: Sequence[Recordings]) -> Figure:
    """Time of a step with each penalty, as a multiple of that without; a panel a network.

    Dots are medians over recordings, small marks single recordings. Orange is this package, grey
    its peers, hollow the step without a penalty, timed once more. A row of panels a device.

    Args:
        recordings: Of the question ``overhead``.
    """
    rows = []
    for each in recordings:
        panels: dict[str, dict[str, Spread]] = {}
        for line in each.lines():
            place = network(line["model"], line["pixels"], line["batch"])
            panels.setdefault(place, {})[line["penalty"]] = line["ratio"]
        rows.append(panels)
    count = max(1, len(rows))
    figure, axes = plt.subplots(
        count,
        max(map(len, rows), default=1),
        figsize=(WIDTH + 1.0, 3.9 * count + 0.2),
        sharex="row",
        sharey="row",
        squeeze=False,
    )
    if not rows:
        return _nothing(figure)
    for row, panels, recording in zip(axes, rows, recordings, strict=True):
        for ax in row[len(panels) :]:
            ax.set_axis_off()
        for ax, (place, ratios) in zip(row, panels.items(), strict=False):
            _ratios(ax, ratios)
            ax.set_title(place.replace(", ", ",\n", 1))
            ax.set_xlabel("Times as long")
        if len(rows) > 1:
            row[0].set_ylabel(recording.name)
    return figure


def _ratios(ax: Axes, ratios: dict[str, Spread]) -> None:
    ratios = {penalty: spread for penalty, spread in ratios.items() if penalty != PLAIN}
    ax.axvline(1, color="black", lw=1)
    for place, (penalty, spread) in enumerate(ratios.items()):
        color = RED if penalty.startswith("varreg") else GREY
        hollow = {"mfc": "white"} if penalty.startswith(PLAIN) else {}
        low, high = min(spread.values), max(spread.values)
        ax.plot([low, high], [place, place], color=color, lw=2.4)
        ax.plot(spread.values, [place] * len(spread.values), "|", color=color, ms=8)
        ax.plot(spread.median, place, "o", color=color, ms=6.5, **hollow)
    _rows(ax, list(ratios))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def growth(recordings: Sequence[Recordings]) -> Figure:
    """Seconds against batch, features, training images and ratio, with the fitted curves.

    A curve a recording. Both axes are logarithmic; the exponents stand in the titles, one a device.

    Args:
        recordings: Of the question ``growth``.
    """
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH + 0.6, 5.4))
    fits = [{line["quantity"]: line for line in fitted(each)} for each in recordings]
    for ax, (quantity, name) in zip(axes.flat, QUANTITIES.items(), strict=True):
        exponents = []
        for lines, (color, marker) in zip(fits, DEVICES, strict=False):
            if (line := lines.get(quantity)) is None:
                continue
            sizes = line["sizes"].values
            ends = np.geomspace(min(sizes), max(sizes), 100)
            for curve in line["curves"]:
                ax.plot(ends, curve.seconds(ends), color=color, lw=1.2)
            ax.plot(sizes, line["seconds"].values, marker, color=color, ms=5, alpha=0.7)
            exponents.append(words.minus(f"{line['exponent']:z.2f}"))
        if not exponents:
            say_empty(ax)
            continue
        ax.set_title(f"Exponent {', '.join(exponents)}".replace(" (", "\n("))
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(name)
        # Seconds between whole powers of ten, so that a flat line looks flat.
        low, high = np.log10(ax.get_ylim())
        ax.set_ylim(10 ** np.floor(low), 10 ** np.ceil(high))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(10, numticks=6))
            axis.set_minor_formatter(NullFormatter())
    for ax in axes[:, 0]:
        ax.set_ylabel("Seconds")
    return _name_devices(figure, recordings)


def roofline(recordings: Sequence[Recordings]) -> Figure:
    """Where the networks stand under the roof of each device.

    The roof is the lower of the speed of a matrix product and that of a copy times the operations
    a byte.

    Args:
        recordings: Of the question ``roofline``.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
    ax.set_xlabel("Operations for each byte moved")
    ax.set_ylabel("GFLOP/s")
    if not recordings:
        return _nothing(figure)
    for recording, (color, _) in zip(recordings, DEVICES, strict=False):
        lines = recording.lines()
        peak = lines[0]["peak_gflop_a_second"].median
        copy = lines[0]["copy_gb_a_second"].median
        places = [line["flop_a_byte"].median for line in lines]
        least, most = min(places) / 4, max(*places, peak / copy) * 4
        ax.plot([least, peak / copy, most], [least * copy, peak, peak], color=color)
        for here, line in zip(places, lines, strict=True):
            reached = line["gflop_a_second"]
            ax.plot([here, here], [reached.median, min(peak, here * copy)], color=color, ls=":")
            ax.errorbar(here, reached.median, _beside([reached]), fmt="o", color=color, ms=8)
            name = network(line["model"], line["pixels"])
            _beside_point(
                ax,
                f"{name}\n{line['share_of_roof']:.0%} of the roof",
                (here, reached.median),
                (8, -4),
                "top",
            )
    ax.set_xscale("log")
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low / 2, high * 1.5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    return _name_devices(figure, recordings)


def throughput(recordings: Sequence[Recordings]) -> Figure:
    """Images a second of the engine and of its peers, a panel a network and device.

    Args:
        recordings: Of the question ``throughput``.
    """
    model = itemgetter("model")
    panels = [
        (each, list(lines))
        for each in recordings
        for _, lines in groupby(sorted(each.lines(), key=model, reverse=True), model)
    ]
    figure, axes = plt.subplots(
        max(1, len(panels)),
        1,
        figsize=(WIDTH, sum(0.75 * len(rows) + 0.75 for _, rows in panels) + 0.5 or 2.5),
        height_ratios=[len(rows) + 0.5 for _, rows in panels] or None,
        squeeze=False,
    )
    if not panels:
        return _nothing(figure)
    whose = {"varreg": RED, "peer": PEERS}
    for ax, (recording, rows) in zip(axes[:, 0], panels, strict=True):
        ends = np.zeros(len(rows))
        for side, (who, color) in zip((-0.2, 0.2), whose.items(), strict=True):
            spreads = [row[f"{who}_images_a_second"] for row in rows]
            ax.barh(
                np.arange(len(rows)) + side,
                [spread.median for spread in spreads],
                0.38,
                color=color,
                xerr=_beside(spreads),
                ecolor="black",
            )
            ends = np.maximum(ends, [max(spread.values, default=0.0) for spread in spreads])
        for place, row in enumerate(rows):
            head, *rest = f"{row['ratio']:.1f}".split(" ", 1)
            text = "\n".join([f"{head} times", *rest])
            _beside_point(ax, text, (ends[place], place), (6, 0), "center")
        name = words.capital(network(rows[0]["model"], rows[0]["pixels"]))
        ax.set_title(name + f", {recording.name}" * (len(recordings) > 1))
        _rows(ax, [row["peer"] for row in rows])
        ax.set_xlim(right=1.4 * max(ends))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[-1, 0].set_xlabel("Images a second while training")
    bars = [Patch(color=color, label=who) for who, color in whose.items()]
    figure.legend(handles=bars, loc="outside upper center", ncols=2)
    return figure


def memory(recordings: Sequence[Recordings]) -> Figure:
    """Peak memory of decoding a folder and of training on it, against its number of images.

    Args:
        recordings: Of the question ``larger_than_memory``.
    """
    count = max(1, len(recordings))
    figure, axes = plt.subplots(count, 1, figsize=(WIDTH, 3.4 * count + 0.4), squeeze=False)
    if not recordings:
        return _nothing(figure)
    for ax, recording in zip(axes[:, 0], recordings, strict=True):
        lines = sorted(recording.lines(), key=itemgetter("images"))
        for column, style in MEMORY.items():
            spreads = [line[column] for line in lines]
            medians = [spread.median for spread in spreads]
            ax.errorbar([line["images"] for line in lines], medians, _beside(spreads), **style)
        ax.set_xscale("log")
        ax.set_ylim(bottom=0)
        ax.set_ylabel("Megabytes")
        ax.set_xlabel("Images in the folder")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        if len(recordings) > 1:
            ax.set_title(recording.name)
    handles = [Line2D([], [], **style) for style in MEMORY.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _nothing(figure: Figure) -> Figure:
    say_empty(figure.axes[0])
    return figure


def _rows(ax: Axes, names: Sequence[str]) -> None:
    """A row a name, from the top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def _beside(spreads: Sequence[Spread]) -> np.ndarray:
    """How far the lowest and the highest recording are from the median, as Matplotlib takes it."""
    return np.array(
        [(each.median - min(each.values), max(each.values) - each.median) for each in spreads]
    ).T


def _beside_point(ax: Axes, text: str, at: Any, points: tuple[int, int], va: str) -> None:
    ax.annotate(text, at, points, textcoords="offset points", va=va)


def _name_devices(figure: Figure, recordings: Sequence[Recordings]) -> Figure:
    """Which colour is which device, where there are several."""
    if len(recordings) > 1:
        handles = [
            Line2D([], [], color=color, marker=marker, label=recording.name)
            for recording, (color, marker) in zip(recordings, DEVICES, strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=1)
    return figure
