"""The figures of the chapter on cost.

What is drawn is the median over the recordings of a device, and a bar from the lowest to the
highest. Without recordings, a figure says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from companion import style, words
from companion.cost.growth import QUANTITIES, fitted
from companion.cost.recordings import PLAIN, Recordings, Spread, network
from companion.style import WIDTH
from varreg.lab.methods import BLUE, GREEN, GREY, RED

#: One style a device, in the order of the recordings.
DEVICES = ((BLUE, "o"), (RED, "D"), (GREEN, "s"), (GREY, "^"))
PEERS = "#9A9A9A"
#: Column -> name and style of its line.
MEMORY = {
    "training_peak_megabytes": ("training, peak", {"color": RED, "marker": "o", "ls": "-"}),
    "decoding_peak_megabytes": ("decoding, peak", {"color": BLUE, "marker": "D", "ls": "-"}),
    "megabytes_before": ("program alone", {"color": GREY, "marker": "", "ls": ":"}),
    "array_megabytes": (
        "decoded array, on disk",
        {"color": "black", "marker": "s", "ls": "--"},
    ),
}


def overhead(recordings: Sequence[Recordings]) -> Figure:
    """Time of a step with each penalty, as a multiple of that without; a panel a network.

    Dots are medians over recordings, small marks single recordings. Orange is this package, grey
    its peers, hollow the step without a penalty, timed once more. A row of panels a device.

    Args:
        recordings: Of the question ``overhead``.
    """
    if not recordings:
        return style.empty()
    rows: list[dict[str, dict[str, Spread]]] = []
    for each in recordings:
        rows.append({})
        for line in each.lines():
            place = network(line["model"], line["pixels"], line["batch"])
            rows[-1].setdefault(place, {})[line["penalty"]] = line["ratio"]
    shape = len(rows), max(map(len, rows)), 3.9 * len(rows) + 0.2
    figure, axes = style.panels(*shape, wider=1.0, sharex="row", sharey="row")
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
        ends = [min(spread.values), max(spread.values)]
        ax.plot(ends, [place, place], color=color, lw=2.4)
        ax.plot(spread.values, [place] * len(spread.values), "|", color=color, ms=8)
        ax.plot(spread.median, place, "o", color=color, ms=6.5, **hollow)
    style.rows(ax, list(ratios))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def growth(recordings: Sequence[Recordings]) -> Figure:
    """Seconds against batch, features, training images and ratio, with the fitted curves.

    A curve a recording. Both axes are logarithmic; the exponents stand in the titles, one a device.

    Args:
        recordings: Of the question ``growth``.
    """
    figure, axes = style.panels(2, 2, 5.4, wider=0.6)
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
            style.say_empty(ax)
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
    if not recordings:
        return style.empty()
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
    ax.set_xlabel("Operations for each byte moved")
    ax.set_ylabel("GFLOP/s")
    for recording, (color, _) in zip(recordings, DEVICES, strict=False):
        lines = recording.lines()
        peak = lines[0]["peak_gflop_a_second"].median
        copy = lines[0]["copy_gb_a_second"].median
        places = [line["flop_a_byte"].median for line in lines]
        least, most = min(places) / 4, max(*places, peak / copy) * 4
        ax.plot([least, peak / copy, most], [least * copy, peak, peak], color=color)
        for here, line in zip(places, lines, strict=True):
            spread = line["gflop_a_second"]
            reached = spread.median
            ax.plot([here, here], [reached, min(peak, here * copy)], color=color, ls=":")
            ax.errorbar(here, reached, _beside([spread]), fmt="o", color=color, ms=8)
            name = network(line["model"], line["pixels"])
            text = f"{name}\n{line['share_of_roof']:.0%} of the roof"
            ax.annotate(text, (here, reached), (8, -4), textcoords="offset points", va="top")
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
    if not recordings:
        return style.empty()
    panels = []
    for each in recordings:
        lines = each.lines()
        for model in sorted({line["model"] for line in lines}, reverse=True):
            panels.append((each, [line for line in lines if line["model"] == model]))
    height = sum(0.75 * len(rows) + 0.75 for _, rows in panels) + 0.5
    ratios = [len(rows) + 0.5 for _, rows in panels]
    figure, axes = style.panels(len(panels), 1, height, height_ratios=ratios)
    whose = {"varreg": RED, "peer": PEERS}
    for ax, (recording, rows) in zip(axes[:, 0], panels, strict=True):
        ends = np.zeros(len(rows))
        for side, (who, color) in zip((-0.2, 0.2), whose.items(), strict=True):
            spreads = [row[f"{who}_images_a_second"] for row in rows]
            medians = [spread.median for spread in spreads]
            look = {"color": color, "xerr": _beside(spreads), "ecolor": "black"}
            ax.barh(np.arange(len(rows)) + side, medians, 0.38, **look)
            ends = np.maximum(ends, [max(spread.values) for spread in spreads])
        for place, row in enumerate(rows):
            head, *rest = f"{row['ratio']:.1f}".split(" ", 1)
            text = "\n".join([f"{head} times", *rest])
            at = (ends[place], place)
            ax.annotate(text, at, (6, 0), textcoords="offset points", va="center")
        name = words.capital(network(rows[0]["model"], rows[0]["pixels"]))
        ax.set_title(name + f", {recording.name}" * (len(recordings) > 1))
        style.rows(ax, [row["peer"] for row in rows])
        ax.set_xlim(right=1.4 * max(ends))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[-1, 0].set_xlabel("Images a second while training")
    style.legend(figure, {who: Patch(color=color) for who, color in whose.items()}, ncols=2)
    return figure


def memory(recordings: Sequence[Recordings]) -> Figure:
    """Peak memory of decoding a folder and of training on it, against its number of images.

    Args:
        recordings: Of the question ``larger_than_memory``.
    """
    if not recordings:
        return style.empty()
    count = len(recordings)
    figure, axes = style.panels(count, 1, 3.4 * count + 0.4)
    for ax, recording in zip(axes[:, 0], recordings, strict=True):
        lines = sorted(recording.lines(), key=itemgetter("images"))
        for column, (_, look) in MEMORY.items():
            spreads = [line[column] for line in lines]
            medians = [spread.median for spread in spreads]
            ax.errorbar([line["images"] for line in lines], medians, _beside(spreads), **look)
        ax.set_xscale("log")
        ax.set_ylim(bottom=0)
        ax.set_ylabel("Megabytes")
        ax.set_xlabel("Images in the folder")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        if len(recordings) > 1:
            ax.set_title(recording.name)
    style.legend(figure, dict(MEMORY.values()), ncols=2)
    return figure


def _beside(spreads: Sequence[Spread]) -> np.ndarray:
    """How far the lowest and the highest recording are from the median, as Matplotlib takes it."""
    return np.array(
        [(each.median - min(each.values), max(each.values) - each.median) for each in spreads]
    ).T


def _name_devices(figure: Figure, recordings: Sequence[Recordings]) -> Figure:
    """Which colour is which device, where there are several."""
    if len(recordings) > 1:
        names = (recording.name for recording in recordings)
        looks = ({"color": color, "marker": marker} for color, marker in DEVICES)
        style.legend(figure, dict(zip(names, looks, strict=False)), ncols=1)
    return figure
