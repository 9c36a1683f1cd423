"""Figures of what the penalty and the engine cost, as the benchmarks recorded it.

Every recording counts: what is drawn is the median over the recordings of a device, and a bar from
the lowest to the highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from companion.cost import (
    PLAIN,
    QUANTITIES,
    Recordings,
    Spread,
    exponent_text,
    growths,
    network_name,
    step_ratios,
)
from companion.figures.style import BLUE, GREEN, GREY, RED, WIDTH, say_empty

__all__ = [
    "cost_growth",
    "cost_memory",
    "cost_overhead",
    "cost_roofline",
    "cost_throughput",
]


#: One style a device, in the order of the recordings.
DEVICES = ((BLUE, "o"), (RED, "D"), (GREEN, "s"), (GREY, "^"))
PEERS = "#9A9A9A"


def cost_overhead(recordings: Sequence[Recordings]) -> Figure:
    """Time of a step with each penalty, as a multiple of that without; a panel a network.

    Dots are medians over recordings, small marks single recordings, bars go from the lowest to the
    highest. Orange is this package, grey its peers, hollow the step without a penalty, timed once
    more. A row of panels a device.

    Args:
        recordings: Of the question ``overhead``.
    """
    rows = [(each, _by_network(each)) for each in recordings]
    across = max((len(panels) for _, panels in rows), default=1)
    figure, axes = plt.subplots(
        max(1, len(rows)),
        across,
        figsize=(WIDTH + 1.0, 3.9 * max(1, len(rows)) + 0.2),
        sharex="row",
        sharey="row",
        squeeze=False,
    )
    if not rows:
        say_empty(axes[0, 0])
        return figure
    for row, (each, panels) in zip(axes, rows, strict=True):
        for ax in row[len(panels) :]:
            ax.set_axis_off()
        for ax, (network, ratios) in zip(row, panels.items(), strict=False):
            _ratios(ax, ratios)
            ax.set_title(network.replace(", ", ",\n", 1))
            ax.set_xlabel("Times as long")
        if len(rows) > 1:
            row[0].set_ylabel(each.name)
    return figure


def _by_network(recordings: Recordings) -> dict[str, dict[str, Spread]]:
    """Network -> penalty -> times as long as without."""
    panels: dict[str, dict[str, Spread]] = {}
    for penalty in recordings.rows["penalty"].unique():
        if penalty != PLAIN:
            for network, ratios in step_ratios(recordings, penalty).items():
                panels.setdefault(network, {})[penalty] = ratios
    return panels


def _ratios(ax: Axes, ratios: dict[str, Spread]) -> None:
    ax.axvline(1, color="black", lw=1)
    for place, (penalty, spread) in enumerate(ratios.items()):
        color = RED if penalty.startswith("varreg") else GREY
        hollow = {"mfc": "white"} if penalty.startswith(PLAIN) else {}
        low, high = min(spread.values), max(spread.values)
        ax.plot([low, high], [place, place], color=color, lw=2.4)
        ax.plot(spread.values, [place] * len(spread.values), "|", color=color, ms=8)
        ax.plot(spread.median, place, "o", color=color, ms=6.5, **hollow)
    ax.set_yticks(range(len(ratios)), ratios)
    ax.set_ylim(len(ratios) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def cost_growth(recordings: Sequence[Recordings]) -> Figure:
    """Seconds against batch, features, training images and ratio, with the fitted curves.

    A curve a recording. Both axes are logarithmic; the exponents stand in the titles, one a device.

    Args:
        recordings: Of the question ``growth``.
    """
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH + 0.6, 5.4))
    fits = [growths(each) for each in recordings]
    for ax, (quantity, name) in zip(axes.flat, QUANTITIES.items(), strict=True):
        exponents = []
        for recording, fitted, (color, marker) in zip(recordings, fits, DEVICES, strict=False):
            if quantity not in fitted:
                continue
            rows = recording.rows[recording.rows["quantity"] == quantity]
            ends = np.geomspace(rows["value"].min(), rows["value"].max(), 100)
            for curve in fitted[quantity]:
                ax.plot(ends, curve.seconds(ends), color=color, lw=1.2)
            ax.plot(rows["value"], rows["seconds"], marker, color=color, ms=5, alpha=0.7)
            exponents.append(exponent_text(fitted[quantity]))
        if not exponents:
            say_empty(ax)
            continue
        ax.set_title(f"Exponent {', '.join(exponents)}".replace(" (", "\n("))
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(name)
        _decades(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("Seconds")
    _device_legend(figure, recordings)
    return figure


def _decades(ax: Axes) -> None:
    """Seconds between whole powers of ten, so that a flat line looks flat."""
    low, high = ax.get_ylim()
    ax.set_ylim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(10, numticks=6))
        axis.set_minor_formatter(NullFormatter())


def cost_roofline(recordings: Sequence[Recordings]) -> Figure:
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
        say_empty(ax)
        return figure
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
            words = (
                f"{network_name(line['model'], line['pixels'])}\n"
                f"{line['share_of_roof'].text(lambda share: f'{100 * share:.0f} %')} of the roof"
            )
            ax.annotate(
                words,
                (here, reached.median),
                (8, -4),
                textcoords="offset points",
                va="top",
            )
    ax.set_xscale("log")
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low / 2, high * 1.5)
    plain = FuncFormatter(lambda value, _: f"{value:,g}")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    _device_legend(figure, recordings)
    return figure


def cost_throughput(recordings: Sequence[Recordings]) -> Figure:
    """Images a second of the engine and of its peers, a panel a network and device.

    Args:
        recordings: Of the question ``throughput``.
    """
    panels = [
        (each, model, list(lines))
        for each in recordings
        for model, lines in groupby(
            sorted(each.lines(), key=lambda line: line["model"], reverse=True),
            key=lambda line: line["model"],
        )
    ]
    figure, axes = plt.subplots(
        max(1, len(panels)),
        1,
        figsize=(WIDTH, sum(0.75 * len(rows) + 0.75 for *_, rows in panels) + 0.5 or 2.5),
        height_ratios=[len(rows) + 0.5 for *_, rows in panels] or None,
        squeeze=False,
    )
    if not panels:
        say_empty(axes[0, 0])
        return figure
    for ax, (recording, model, rows) in zip(axes[:, 0], panels, strict=True):
        for side, who, color in ((-0.2, "varreg", RED), (0.2, "peer", PEERS)):
            spreads = [line[f"{who}_images_a_second"] for line in rows]
            ax.barh(
                np.arange(len(rows)) + side,
                [spread.median for spread in spreads],
                0.38,
                color=color,
                xerr=_beside(spreads),
                ecolor="black",
            )
        ends = [_end(line) for line in rows]
        for place, line in enumerate(rows):
            head, *rest = line["ratio"].text("{:.1f}".format).split(" ", 1)
            ax.annotate(
                "\n".join([f"{head} times", *rest]),
                (ends[place], place),
                (6, 0),
                textcoords="offset points",
                va="center",
            )
        title = network_name(model, rows[0]["pixels"])
        if len(recordings) > 1:
            title += f", {recording.name}"
        ax.set_title(title[0].upper() + title[1:])
        ax.set_yticks(range(len(rows)), [line["peer"] for line in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlim(right=1.4 * max(ends))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel("Images a second while training")
    bars = [
        plt.Rectangle((0, 0), 1, 1, color=color, label=label)
        for color, label in ((RED, "varreg"), (PEERS, "peer"))
    ]
    figure.legend(handles=bars, loc="outside upper center", ncols=2)
    return figure


def _end(line: dict[str, Any]) -> float:
    """The longest of the bars of a line."""
    return max(
        max(line[f"{who}_images_a_second"].values, default=0.0) for who in ("varreg", "peer")
    )


def _beside(spreads: Sequence[Spread]) -> np.ndarray:
    """How far the lowest and the highest recording are from the median, as Matplotlib takes it."""
    return np.array(
        [(each.median - min(each.values), max(each.values) - each.median) for each in spreads]
    ).T


def cost_memory(recordings: Sequence[Recordings]) -> Figure:
    """Peak memory of decoding a folder and of training on it, against its number of images.

    Args:
        recordings: Of the question ``larger_than_memory``.
    """
    figure, axes = plt.subplots(
        max(1, len(recordings)),
        1,
        figsize=(WIDTH, 3.4 * max(1, len(recordings)) + 0.4),
        squeeze=False,
    )
    styles = {
        "training_peak_megabytes": ("training, peak", RED, "o", "-"),
        "decoding_peak_megabytes": ("decoding, peak", BLUE, "D", "-"),
        "megabytes_before": ("program alone", GREY, "", ":"),
        "array_megabytes": ("decoded array, on disk", "black", "s", "--"),
    }
    for ax, recording in zip(axes[:, 0], recordings, strict=False):
        lines = sorted(recording.lines(), key=lambda line: line["images"])
        for column, (_, color, marker, style) in styles.items():
            spreads = [line[column] for line in lines]
            ax.errorbar(
                [line["images"] for line in lines],
                [spread.median for spread in spreads],
                _beside(spreads),
                color=color,
                marker=marker,
                ls=style,
            )
        ax.set_xscale("log")
        ax.set_ylim(bottom=0)
        ax.set_ylabel("Megabytes")
        ax.set_xlabel("Images in the folder")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if len(recordings) > 1:
            ax.set_title(recording.name)
    if not recordings:
        say_empty(axes[0, 0])
        return figure
    handles = [
        Line2D([], [], color=color, marker=marker, ls=line, label=label)
        for label, color, marker, line in styles.values()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _device_legend(figure: Figure, recordings: Sequence[Recordings]) -> None:
    """Which colour is which device, where there are several."""
    if len(recordings) < 2:
        return
    handles = [
        Line2D([], [], color=color, marker=marker, label=recording.name)
        for recording, (color, marker) in zip(recordings, DEVICES, strict=False)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=1)
