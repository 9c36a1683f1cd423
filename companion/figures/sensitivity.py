"""How far each reading of the protocol moves the baseline and the effect of the penalty."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion import tables
from companion.figures.style import COLORS, WIDTH, say_empty
from companion.sensitivity import same_text
from companion.studies.ambiguities import AS_RELEASED

PANELS = (
    ("level_move", "Change of the baseline's", "baseline"),
    ("effect", "Effect of the penalty on", "penalized"),
)
BETTER, IDLE = "#009E73", "#999999"


def sensitivity_forest(effects: pd.DataFrame, metric: str = "test_cross_entropy") -> Figure:
    """What every choice does to the baseline, and what the penalty does under it.

    Bars are 95 % intervals. Hollow marks are the released protocol, from which the others differ
    in one thing; the band repeats its interval. Grey are choices that give the same runs as another
    one. The shaded side of zero is better. Every panel has a scale of its own.

    Args:
        effects: As from :func:`companion.sensitivity.effects`; a row of panels an experiment.
        metric: The metric that they were made for.
    """
    groups = list(effects.groupby("experiment", sort=False)) if len(effects) else []
    heights = [len(group) + 1 for _, group in groups] or [3]
    figure, axes = plt.subplots(
        len(heights),
        len(PANELS),
        figsize=(WIDTH + 0.8, 0.36 * sum(heights) + 1.1),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    if not groups:
        for ax in axes.flat:
            say_empty(ax)
        return figure
    for row, (experiment, group) in zip(axes, groups, strict=True):
        for ax, (column, _, method) in zip(row, PANELS, strict=True):
            _panel(ax, group, column, COLORS[method])
        row[0].set_title(f"{experiment.capitalize()}, {group['seeds'].min()} seeds")
        labels = [_label(each) for each in group.to_dict("records")]
        row[0].set_yticks(range(len(group)), labels)
        row[1].set_yticks(range(len(group)), [""] * len(group))
    side = tables.better(metric)
    for ax in axes.flat:
        limits = ax.get_xlim()
        ax.axvspan(*sorted((0, side * 10)), color=BETTER, alpha=0.08, lw=0, zorder=0)
        ax.set_xlim(limits)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    for ax, (_, title, _) in zip(axes[-1], PANELS, strict=True):
        ax.set_xlabel(f"{title}\n{tables.METRIC_NAMES[metric]}")
    return figure


def _panel(ax: Axes, group: pd.DataFrame, column: str, color: str) -> None:
    ax.axvline(0, color="black", lw=1)
    for place, row in enumerate(group.to_dict("records")):
        found, released = row[column], row["choice"] == AS_RELEASED
        tint = IDLE if row["same_as"] else color
        if found is None:  # the released protocol does not differ from itself
            ax.plot(0, place, "o", color=color, ms=7, mfc="white", zorder=3)
            continue
        if released and found.n > 1:
            ax.axvspan(found.low, found.high, color=IDLE, alpha=0.25, lw=0, zorder=0)
        ax.plot([found.low, found.high], [place, place], color=tint, lw=2.5, zorder=2)
        ax.plot(found.mean, place, "o", color=tint, ms=7, mfc="white" if released else tint)
        if row["same_as"] and column == "level_move":
            at = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(
                same_text(row["same_as"]),
                (found.mean, place),
                fontsize="small",
                color="#666666",
                **at,
            )
    ax.margins(x=0.08)
    ax.set_ylim(len(group) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


def _label(row: dict[str, object]) -> str:
    text = row["choice"] if row["choice"] == AS_RELEASED else f"{row['topic']}: {row['choice']}"
    return "\n".join(textwrap.wrap(str(text), 30))
