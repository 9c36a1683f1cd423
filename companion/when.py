"""The page about when the penalty helps: with few images, with wrong labels, in other networks.

A level is what a study varies. Only data sets of which every run is recorded are shown.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from companion import style, words
from companion.probes.layers import ENTERS, METRICS
from companion.rivals import DATA, MEASURES, PRIMARY
from companion.studies import few_images_weights, specs
from companion.studies.few_images import ARMS, DRAWS, SHARES
from companion.tables import MODEL_NAMES, mean_change, pairs_of
from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.statistics import holm, mean_interval

#: Name in ``few_images`` -> as printed.
TITLES = {
    name: METHODS[given["method"]].title
    + ", augmented" * (given["method"] != "augmented" and given.get("augment", False))
    for name, given in ARMS.items()
} | {"fixed": "penalty, fixed weight"}
#: What each method is compared with.
REFERENCES = {
    name: "augmented" if name.startswith("augmented_") else "none"
    for name in ARMS
    if name != "none"
}
#: Methods that the curves show: all of them would hide each other.
DRAWN = ("none", "fixed", "self_setting", "feature_l2", "augmented", "augmented_feature_l2")
#: What is told of a study, the primary outcome first.
OUTCOMES = (PRIMARY, "test_auroc", "test_accuracy")
#: The same of ``longer``, by name.
LONGER = {
    "Test cross-entropy": PRIMARY,
    "Test AUROC": "test_auroc",
    "Validation cross-entropy": "val_cross_entropy",
}
#: Those that stand beside each other level by level, all against no penalty.
BESIDE = ("fixed", "self_setting", "head_weighted", "feature_l2", "augmented")
DASHES = {"self_setting": ":", "augmented_feature_l2": "--"}
MARKERS = {"self_setting": "s", "augmented_feature_l2": "D"}


def recorded(study: str, results: Path | None = None) -> dict[str, pd.DataFrame]:
    """Runs by data set, where all of its runs are recorded.

    Args:
        study: One of :data:`companion.studies.WHEN`.
        results: Folder of the ledgers; default: the recorded results.

    Returns:
        As in the ledger, with the ``level`` as printed, and methods by the names in ``few_images``
        but for ``few_images_weights``.
    """
    runs = Ledger(study, results).runs()
    if runs.empty:
        return {}
    if study != few_images_weights.STUDY:
        name_of = {_setting(given): name for name, given in ARMS.items()}
        runs = runs.assign(method=[name_of[_setting(run)] for run in runs.to_dict("records")])
    runs = runs.assign(level=[_level(study, run) for run in runs.to_dict("records")])
    by_key, found = runs.set_index("key", drop=False), {}
    for dataset in dict.fromkeys(spec.dataset for spec in specs(study)):
        keys = [spec.key for spec in specs(study) if spec.dataset == dataset]
        if set(keys) <= set(by_key.index):
            found[dataset] = by_key.loc[keys].reset_index(drop=True)
    return found


def _setting(run: Mapping[str, object]) -> tuple[object, bool]:
    augments = run.get("augment", False) is True or run["method"] == "augmented"
    return run["method"], augments


def _level(study: str, run: Mapping[str, object]) -> str:
    if study == "networks":
        return MODEL_NAMES[str(run["model"])]
    if study == "longer":
        return f"{run['epochs']} epochs"
    if study == "wrong_labels":
        kind = str(run["wrong_kind"]).replace("_", " ")
        wrong = float(run["wrong_labels"])
        return f"{words.percent(wrong)} {kind}" if wrong else words.percent(0)
    return words.percent(float(run["train_share"]))


def _in_a_name(level: str) -> str:
    return re.sub(r"\W+", "_", level).strip("_")


def differences(runs: pd.DataFrame, measures: Sequence[str] = OUTCOMES) -> pd.DataFrame:
    """Every method against its reference at every level, over the seeds.

    Args:
        runs: Of one data set, as from :func:`recorded`.
        measures: Columns of metrics.

    Returns:
        A row a level, method and measure: ``level, method, measure, mean, low, high, n, p, p_holm,
        text``. Holm's correction is over the methods of a level, for the primary outcome; it is NaN
        for the others. A star in the text is its p below 0.05.
    """
    rows = []
    for level, mine in runs.groupby("level", sort=False):
        for measure in measures:
            pairs = {
                name: (name, against)
                for name, against in REFERENCES.items()
                if name in set(mine["method"])
            }
            rows += pairs_of(mine, measure, pairs, corrected=measure == PRIMARY, level=level)
    return pd.DataFrame(rows)


def table(found: pd.DataFrame, measure: str = PRIMARY, *, intervals: bool = True) -> pd.DataFrame:
    """Differences as printed: a row a method, a column a level; without intervals the means."""
    rows = found[found["measure"] == measure]
    if not intervals:
        rows = rows.assign(text=[re.sub(r" \[.*\]", "", text) for text in rows["text"]])
    wide = rows.pivot(index="method", columns="level", values="text")
    order = [name for name in REFERENCES if name in wide.index]
    wide = wide.loc[order, list(dict.fromkeys(rows["level"]))]
    return wide.rename(index=_title).rename_axis(index="Method", columns=None).reset_index()


def meeting(found: pd.DataFrame, name: str) -> str:
    """The first level at which the interval of the primary outcome includes zero, as printed.

    *None* where it excludes zero at every level.
    """
    rows = found[(found["measure"] == PRIMARY) & (found["method"] == name)]
    includes = rows["level"][(rows["low"] <= 0) & (rows["high"] >= 0)]
    return "none" if includes.empty else str(includes.iloc[0])


def late(study: str, every: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """How many runs have their best epoch in the last tenth of the training, for the text.

    Args:
        study: Which.
        every: By data set, as from :func:`recorded`.

    Returns:
        By data set, level and method, in percent.
    """
    said: dict[str, object] = {}
    for dataset, runs in every.items():
        is_late = runs["best_epoch"] > 0.9 * runs["epochs"]
        for (level, method), share in (
            is_late.groupby([runs["level"], runs["method"]]).mean().items()
        ):
            head = f"when_{study}_{dataset}_{_in_a_name(level)}_{method}"
            said[f"{head}_late"] = words.percent(share)
    return said


def drift(every: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """What more epochs change in test cross-entropy, seed by seed, for the text.

    Args:
        every: Runs of ``longer`` by data set, as from :func:`recorded`.

    Returns:
        By data set and method: with the most epochs minus with the fewest.
    """
    said: dict[str, object] = {}
    for dataset, runs in every.items():
        wide = runs.pivot(index=["method", "seed"], columns="epochs", values=PRIMARY)
        for method, change in (wide.iloc[:, -1] - wide.iloc[:, 0]).groupby("method"):
            said[f"when_longer_{dataset}_{method}_drift"] = words.change(mean_change(change))
    return said


def best_strengths(runs: pd.DataFrame) -> pd.DataFrame:
    """The best strength at each share of the images, by mean validation cross-entropy, as printed.

    Args:
        runs: Of one data set in ``few_images_weights``.

    Returns:
        A row a share; for each method the strength, *off* where that is best, and what it gains.
    """
    rows = []
    for level, mine in runs.groupby("level", sort=False):
        off = mine.loc[mine["method"] == "baseline", "val_cross_entropy"].mean()
        row = {"Images": level}
        for method, setting in few_images_weights.SETTING_OF.items():
            scores = mine[mine["method"] == method].groupby(setting)["val_cross_entropy"].mean()
            gain = scores.min() - off
            title = words.capital(METHODS[method].title)
            row[title] = words.short(scores.idxmin()) if gain < 0 else "off"
            row[f"{title}: gain"] = words.number(min(gain, 0.0), signed=True)
        rows.append(row)
    return pd.DataFrame(rows)


def best_facts(dataset: str, runs: pd.DataFrame) -> dict[str, object]:
    """What the text says of :func:`best_strengths`: by data set, share and method."""
    said: dict[str, object] = {}
    for row in best_strengths(runs).to_dict("records"):
        level = _in_a_name(row["Images"])
        for method in few_images_weights.SETTING_OF:
            title, head = (
                words.capital(METHODS[method].title),
                f"when_best_{dataset}_{level}_{method}",
            )
            said |= {head: row[title], f"{head}_gain": row[f"{title}: gain"]}
    return said


def layers(units: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """What it changes which features pay, against no penalty, over the seeds.

    Args:
        units: ``runs()`` of the probe ``layers``.
        features: Its ``curves()``.

    Returns:
        A row a weight and choice of layers: ``weight, layers``; ``cross_entropy``, ``auroc`` and
        ``accuracy``, their differences as :class:`~varreg.lab.statistics.PairedDifference`;
        ``p_holm`` of the first, corrected over the rows; ``first`` and ``last``, the variance
        there over that without a penalty, geometric mean over the seeds.
    """
    wide = features.pivot(index="key", columns="layer", values="variance")
    arms = {
        arm: group.set_index("seed").sort_index()
        for arm, group in units.join(np.log(wide), on="key").groupby(["weight", "layers"])
    }
    free, rows = arms.pop(("none", "none")), []
    for (weight, which), mine in arms.items():
        row = {"weight": weight, "layers": which}
        row |= {name: mean_change((mine[name] - free[name]).dropna()) for name in METRICS}
        rows.append(row | {name: math.exp((mine[name] - free[name]).mean()) for name in ENTERS})
    adjusted = holm([row["cross_entropy"].p for row in rows])
    return pd.DataFrame(rows).assign(p_holm=adjusted)


def layers_table(found: pd.DataFrame) -> pd.DataFrame:
    """What :func:`layers` found, as printed; a star where it stands after Holm's correction."""
    stars = ["*" * (p < 0.05) for p in found["p_holm"]]
    changes = {
        f"Δ {MEASURES[f'test_{name}'][0]}": [words.change(each) for each in found[name]]
        for name in METRICS
    }
    first = next(iter(changes))
    changes[first] = [text + star for text, star in zip(changes[first], stars, strict=True)]
    variances = {
        f"Variance, {layer} layer": [words.percent(share) for share in found[layer]]
        for layer in ENTERS
    }
    head = {"Weight": [_title(name) for name in found["weight"]], "Who pays": found["layers"]}
    return pd.DataFrame(head | changes | variances)


def layers_facts(found: pd.DataFrame) -> dict[str, object]:
    """What the text says of :func:`layers`, by weight and choice: cross-entropy, AUROC, pairs."""
    said: dict[str, object] = {}
    for row in found.itertuples():
        head = f"when_layers_{row.weight}_{row.layers}"
        said |= {head: words.change(row.cross_entropy), f"{head}_auroc": words.change(row.auroc)}
        said["when_layers_seeds"] = row.cross_entropy.n
    return said


def facts(study: str, every: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """What the text of the page says in numbers: names of study, data, level, method, measure.

    Args:
        study: Which.
        every: By data set, as from :func:`differences`.

    Returns:
        The primary outcome has no name in that of its fact. Over all levels, how many there are,
        at how many each method stands after Holm's correction (``_better`` and ``_worse``), and
        the first at which it does not differ (``_meets``). Of ``few_images`` also its ``draws``.
    """
    said: dict[str, object] = {f"when_{study}_draws": DRAWS} if study == "few_images" else {}
    for dataset, found in every.items():
        head = f"when_{study}_{dataset}"
        said[f"{head}_levels"] = found["level"].nunique()
        said[f"{head}_seeds"] = int(found["n"].min())
        for row in found.itertuples():
            level = _in_a_name(row.level)
            measure = f"_{row.measure.removeprefix('test_')}" * (row.measure != PRIMARY)
            said[f"{head}_{level}_{row.method}{measure}"] = row.text.rstrip("*")
        first = found[found["p_holm"] < 0.05]
        for name in dict.fromkeys(found["method"]):
            means = first.loc[first["method"] == name, "mean"]
            said[f"{head}_{name}_better"] = int((means < 0).sum())
            said[f"{head}_{name}_worse"] = int((means > 0).sum())
            said[f"{head}_{name}_meets"] = meeting(found, name)
    return said


def curves(
    runs: Mapping[str, pd.DataFrame], measures: Sequence[str] = (PRIMARY, "test_auroc")
) -> Figure:
    """Metrics over the number of images: a row a data set, a column a metric.

    Args:
        runs: By data set, as from :func:`recorded` for ``few_images``.
        measures: Columns of metrics.
    """
    rows = max(1, len(runs))
    figure, axes = plt.subplots(rows, len(measures), figsize=(9, 3.4 * rows), squeeze=False)
    for row, (dataset, mine) in zip(axes, runs.items(), strict=False):
        row[0].set_title(DATA[dataset].split(",")[0])
        for ax, measure in zip(row, measures, strict=True):
            for name in DRAWN:
                _curve(ax, name, mine[mine["method"] == name].groupby("train_share")[measure])
            ax.set_ylabel(f"test {MEASURES[measure][0]}")
            ax.set_xscale("log")
            ax.set_xticks(SHARES)
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: words.percent(share)))
            ax.set_xlabel("training images")
    entries = {_title(name): _look(name) for name in DRAWN}
    style.legend(figure, entries, loc="outside lower center", ncols=3)
    return figure


def by_level(found: pd.DataFrame, measures: Sequence[str] = (PRIMARY, "test_auroc")) -> Figure:
    """Differences from no penalty: a row a level, a column a metric.

    A mark of the primary outcome is filled where it stands after Holm's correction, another where
    its interval excludes zero.

    Args:
        found: Of one data set, as from :func:`differences`.
        measures: Columns of metrics.
    """
    levels = list(dict.fromkeys(found["level"]))
    height = 1.3 + 0.7 * len(levels)
    figure, axes = style.panels(1, len(measures), height, sharey=True)
    for ax, measure in zip(axes[0], measures, strict=True):
        shown = found[(found["measure"] == measure) & found["method"].isin(BESIDE)]
        for row in shown.itertuples():
            place = levels.index(row.level) + 0.15 * (BESIDE.index(row.method) - 2)
            filled = style.filled(row, corrected=measure == PRIMARY)
            look = _mark(row.method)
            style.bar(ax, row, place, 2, **look, mfc=look["color"] if filled else "white")
        for place in range(1, len(levels)):
            ax.axhline(place - 0.5, color=style.PALE, lw=0.8)
        ax.axvline(0, color="black", lw=0.8)
        ax.set_xlabel(f"change of test\n{MEASURES[measure][0]}")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="y", visible=False)
    style.rows(axes[0, 0], [textwrap.fill(level, 13) for level in levels])
    entries = {_title(name): _mark(name) | {"ls": ""} for name in BESIDE}
    style.legend(figure, entries, loc="outside lower center", ncols=2)
    return figure


def _curve(ax: Axes, name: str, values: Iterable[tuple[float, pd.Series]]) -> None:
    found = {share: mean_interval(list(each)) for share, each in values}
    ax.plot(list(found), [each.mean for each in found.values()], **_look(name))
    lows, highs = ([getattr(each, end) for each in found.values()] for end in ("low", "high"))
    ax.fill_between(list(found), lows, highs, color=_look(name)["color"], alpha=0.12, lw=0)


def _look(name: str) -> dict[str, object]:
    color = METHODS[str(ARMS[name]["method"])].color
    marker = MARKERS.get(name, "o")
    return {"color": color, "ls": DASHES.get(name, "-"), "marker": marker, "ms": 4}


def _mark(name: str) -> dict[str, object]:
    look = _look(name)
    return {"color": look["color"], "marker": look["marker"], "ms": 6}


def _title(name: str) -> str:
    return words.capital(TITLES[name])
