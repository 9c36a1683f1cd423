"""The page about the comparison: every method at its strength beside its reference.

A block is a data set, a network and with or without augmentation; see
:mod:`companion.studies.rivals_tuning`. Only blocks of which every run is recorded are shown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from companion import words
from companion.over_images import labels
from companion.studies import rivals
from companion.studies.rivals_tuning import (
    BLOCKS,
    CANDIDATES,
    Block,
    chosen_strengths,
    mean_scores,
    reference,
)
from companion.style import WIDTH
from varreg.lab.calibration import fit_temperature
from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.metrics import classification_metrics, reliability_metrics
from varreg.lab.predictions import Predictions
from varreg.lab.statistics import Interval, holm, paired_difference
from varreg.loss import PUBLISHED

#: Smallest effects of interest, of the plan.
NEGLIGIBLE = {"test_cross_entropy": 0.01, "test_auroc": 0.005}

#: What is compared: its name, and whether more is better.
MEASURES = {
    "test_cross_entropy": ("cross-entropy", False),
    "test_auroc": ("AUROC", True),
    "test_accuracy": ("accuracy", True),
    "test_balanced_accuracy": ("balanced accuracy", True),
    "test_ece": ("calibration error", False),
    "test_brier": ("Brier score", False),
    "test_augrc": ("AUGRC", False),
    "test_aurc": ("AURC", False),
    "scaled_cross_entropy": ("cross-entropy after temperature", False),
    "scaled_ece": ("calibration error after temperature", False),
    "corrupted_cross_entropy": ("cross-entropy, corrupted", False),
    "corrupted_auroc": ("AUROC, corrupted", True),
    "last_cross_entropy": ("cross-entropy, last epoch", False),
    "last_auroc": ("AUROC, last epoch", True),
}

#: Measures that the text may name.
TOLD = ("test_cross_entropy", "test_auroc", "scaled_cross_entropy", "corrupted_cross_entropy")

Blocks = Sequence[tuple[Block, pd.DataFrame]]

DATA = {
    "breastmnist": "BreastMNIST, 546 images",
    "pneumoniamnist": "PneumoniaMNIST, 4,708 images",
    "ham10000": "HAM10000 by lesion, 7 classes",
    "phantom": "phantom",
    "adrenalmnist3d": "AdrenalMNIST3D, volumes",
}
NETWORKS = {
    "small_cnn": "",
    "small_cnn_norm": ", batch normalization",
    "small_cnn_wide": ", three times as wide",
}


def name(block: Block) -> str:
    """A block as printed.

    Example:
        >>> name(BLOCKS[1])
        'BreastMNIST, 546 images, augmented'
    """
    return DATA[block.dataset] + NETWORKS[block.model] + ", augmented" * block.augment


def recorded_blocks(results: Path | None = None) -> list[tuple[Block, pd.DataFrame]]:
    """Blocks of which every run is recorded, each with its runs and what follows from them.

    Args:
        results: Folder of the ledgers; default: the recorded results.

    Returns:
        The runs have the columns of the ledger and those of :func:`measured`.
    """
    ledger, found = Ledger("rivals", results), []
    runs = ledger.runs()
    if runs.empty:
        return []
    runs = runs.set_index("key", drop=False)
    for block in BLOCKS:
        wanted = [spec.key for spec in rivals.block_specs(block, results) or ()]
        if wanted and set(wanted) <= set(runs.index):
            mine = runs.loc[wanted].reset_index(drop=True)
            said = ledger.all_predictions(wanted)
            parts = {part: labels(block.dataset, _split(mine), part, results) for part in PARTS}
            more = [measured(said[key], parts) for key in wanted]
            found.append((block, pd.concat([mine, pd.DataFrame(more)], axis=1)))
    return [(block, _with_augmentation(block, runs, found)) for block, runs in found]


def _with_augmentation(block: Block, runs: pd.DataFrame, every: Blocks) -> pd.DataFrame:
    """The paper's augmentation is a method too, where the runs are that are all augmented."""
    sibling = dataclasses.replace(block, augment=True, methods=())
    for other, augmented in every if not block.augment else ():
        if dataclasses.replace(other, methods=()) == sibling:
            return pd.concat([runs, augmented[augmented["method"] == "augmented"]])
    return runs


PARTS = ("val", "test")


def measured(said: dict[str, Predictions], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """What follows from the recorded logits of a run.

    Args:
        said: Its predictions, by split.
        truth: Labels of the validation and test images.

    Returns:
        Brier score, AURC and AUGRC of the test images; the ``temperature`` that the validation
        images fit, and behind ``scaled_`` the metrics after it; behind ``last_`` those of the
        weights of the last epoch.
    """
    task = "binary" if said["test"].logits.shape[1] == 1 else "multiclass"
    logits = {
        split: torch.tensor(found.logits, dtype=torch.float64) for split, found in said.items()
    }
    target = {part: torch.tensor(values) for part, values in truth.items()}
    temperature = fit_temperature(logits["val"], target["val"], task)
    scaled = classification_metrics(logits["test"] / temperature, target["test"], task)
    last = classification_metrics(logits["test_last"], target["test"], task)
    reliable = reliability_metrics(logits["test"], target["test"], task)
    return {
        **{f"test_{metric}": value for metric, value in reliable.items()},
        "temperature": temperature,
        **{f"scaled_{metric}": scaled[metric] for metric in ("cross_entropy", "ece")},
        **{f"last_{metric}": last[metric] for metric in ("cross_entropy", "auroc")},
    }


def differences(block: Block, runs: pd.DataFrame, results: Path | None = None) -> pd.DataFrame:
    """Every method of a block against its reference, over the seeds that both have.

    Args:
        block: Which.
        runs: Its runs, as from :func:`recorded_blocks`.
        results: Folder of the ledgers.

    Returns:
        A row a method and measure: ``method, reference, strength, measure, mean, low, high, n,
        p, p_holm, wins`` (share of the seeds with a better value; ties count half),
        ``detectable`` (the smallest mean difference that would have been found with a
        probability of 80 %). Holm's correction is over the methods, for the primary outcome;
        it is NaN for the others. What validation turned off has strength 0 and no difference.
    """
    strengths = chosen_strengths(block, results) or {}
    shown = dict.fromkeys(runs["method"]) | dict.fromkeys(strengths)
    rows = []
    for method in shown:
        against = reference(block, method)
        if method == against:
            continue
        strength = strengths.get(method, math.nan)
        for measure, (_, more) in MEASURES.items():
            head = {"method": method, "reference": against, "strength": strength}
            row = head | {"measure": measure}
            wide = runs.pivot_table(index="seed", columns="method", values=measure)
            if method not in wide or against not in wide:
                if strength == 0 and measure == "test_cross_entropy":
                    rows.append(row | {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 0, "p": math.nan})
                continue
            wide = wide[[method, against]].dropna()
            if len(wide) < 2:
                continue
            found = paired_difference(wide[method], wide[against])
            gain = (wide[method] - wide[against]) * (1 if more else -1)
            spread = (wide[method] - wide[against]).std() / math.sqrt(len(wide))
            reach = stats.t.ppf(0.975, len(wide) - 1) + stats.t.ppf(0.8, len(wide) - 1)
            rows.append(
                row
                | {key: getattr(found, key) for key in ("mean", "low", "high", "n", "p")}
                | {"wins": ((gain > 0) + 0.5 * (gain == 0)).mean(), "detectable": reach * spread}
            )
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    primary = table["measure"] == "test_cross_entropy"
    table["p_holm"] = math.nan
    table.loc[primary, "p_holm"] = holm(table.loc[primary, "p"])
    return table


def methods_table() -> pd.DataFrame:
    """What is compared: what the strength of each method is, and who proposed it, as printed."""
    shown = {name: METHODS[name] for name in CANDIDATES}
    return pd.DataFrame(
        [
            {
                "Method": words.capital(method.title),
                "Strength": method.strength or "variance_weight",
                "Source": method.source or words.DASH,
            }
            for method in shown.values()
        ]
    )


def table(found: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Differences of a block as printed, the largest gain in the primary outcome first.

    A star marks the primary outcome where Holm's p is below 0.05, and *reads* says what follows:
    lower or higher than the reference, negligible, or unclear; *off* is a method that validation
    turned off.
    """
    wide = {measure: found[found["measure"] == measure].set_index("method") for measure in measures}
    first = wide["test_cross_entropy"].sort_values("mean")
    columns = {
        "Method": [_named(row.Index, row.reference) for row in first.itertuples()],
        "Strength": [_strength(value) for value in first["strength"]],
    }
    for measure in measures:
        columns[words.capital(MEASURES[measure][0])] = [
            _said(wide[measure], method) for method in first.index
        ]
    columns["Reads"] = [_reads(row) for row in first.itertuples()]
    columns["Better in"] = [
        words.DASH if row.n == 0 else f"{words.percent(row.wins)} of {row.n:.0f}"
        for row in first.itertuples()
    ]
    return pd.DataFrame(columns)


def confidence(blocks: Blocks, results: Path | None = None) -> pd.DataFrame:
    """The gain in cross-entropy before and after a temperature, as printed, where there was one."""
    rows = []
    for block, runs in blocks:
        every = differences(block, runs, results)
        wide = {m: every[every["measure"] == m].set_index("method") for m in TOLD}
        first = wide["test_cross_entropy"]
        for method in first[(first["high"] < 0) & (first["n"] > 0)].sort_values("mean").index:
            after = wide["scaled_cross_entropy"].loc[method]
            rows.append(
                {
                    "Block": name(block),
                    "Method": words.capital(METHODS[method].title),
                    "As trained": _said(first, method),
                    "After a temperature": _said(wide["scaled_cross_entropy"], method),
                    "AUROC": _said(wide["test_auroc"], method),
                    "Left": words.percent(after["mean"] / first.loc[method, "mean"]),
                }
            )
    columns = ["Block", "Method", "As trained", "After a temperature", "AUROC", "Left"]
    return pd.DataFrame(rows, columns=columns)


def strengths_table(block: Block, results: Path | None = None) -> pd.DataFrame:
    """Validation cross-entropy of each method at its six strengths, less that of its reference."""
    means = mean_scores(block, results)
    rows = []
    for method in block.methods if means is not None else ():
        off = means[reference(block, method), 0.0]
        row = {"Method": words.capital(METHODS[method].title)}
        for place, strength in enumerate(CANDIDATES[method], 1):
            gain = words.number(means[method, strength] - off, signed=True)
            row[f"Strength {place}"] = f"{gain} ({words.short(strength)})"
        rows.append(row)
    return pd.DataFrame(rows)


#: What the variants differ by: the question, and the two methods that answer it.
CONTRASTS = (
    ("Is it the variance, or the size of the features?", "tuned", "feature_l2"),
    ("Within the classes only, or over all images?", "within_class", "tuned"),
    ("Relative to the variance between the classes, or as it is?", "relative_within", "tuned"),
    ("Weighted by the head, or each feature alike?", "head_weighted", "tuned"),
    ("A weight that sets itself, or one that was searched for?", "self_setting", "tuned"),
    ("The same, weighted by the head", "head_weighted_self", "head_weighted"),
    ("Off at first, or on from the start?", "warmed_up", "self_setting"),
    ("Down to half of its start, or a weight?", "target", "tuned"),
    ("Only the features that vary most, or all?", "excess", "tuned"),
    ("The features, or the logits?", "tuned", "logit_variance"),
    ("Their variance, or their covariances?", "tuned", "decov"),
    ("The features, or noise on them?", "tuned", "dropout"),
    ("The penalty, or another learning rate?", "tuned", "learning_rate"),
    ("The penalty, or a smaller head?", "tuned", "head_decay"),
    ("The penalty, or a smoother goal?", "tuned", "label_smoothing"),
    ("Over views of an image, or over images?", "view_variance", "tuned"),
)


def contrasts(
    runs: pd.DataFrame,
    measures: Sequence[str] = ("test_cross_entropy", "test_auroc", "scaled_cross_entropy"),
) -> pd.DataFrame:
    """Two methods beside each other that differ in one ingredient, seed by seed, as printed.

    Args:
        runs: Those of a block, as from :func:`recorded_blocks`; pairs that it lacks are left out.
        measures: Keys of :data:`MEASURES`.
    """
    rows = []
    for question, first, second in CONTRASTS:
        names = f"{METHODS[first].title} \u2212 {METHODS[second].title}"
        row = {"Question": question, "Difference": words.capital(names)}
        for measure in measures:
            wide = runs.pivot_table(index="seed", columns="method", values=measure)
            if {first, second} <= set(wide.columns):
                found = paired_difference(wide[first], wide[second])
                row[words.capital(MEASURES[measure][0])] = words.level(found, signed=True)
        if len(row) > 2:
            rows.append(row)
    return pd.DataFrame(rows)


def variation(blocks: Blocks, results: Path | None = None) -> pd.DataFrame:
    """What explains the variation of the primary outcome, and what could have been seen."""
    rows = []
    for block, runs in blocks:
        every = differences(block, runs, results)
        mine = every[(every["measure"] == "test_cross_entropy") & (every["n"] > 0)]
        shares = {part: words.percent(share) for part, share in explained(runs).items()}
        rows.append(
            {
                "Block": name(block),
                "Method": shares["method"],
                "Seed": shares["seed"],
                "Rest": shares["rest"],
                "Detectable, median": words.number(mine["detectable"].median()),
                "Detectable, largest": words.number(mine["detectable"].max()),
            }
        )
    return pd.DataFrame(rows)


def explained(runs: pd.DataFrame, measure: str = "test_cross_entropy") -> dict[str, float]:
    """Shares of the variation of a measure over a block: method, seed, and what is left.

    Those of the sums of squares of a two-way layout without replicates.
    """
    wide = runs.pivot_table(index="seed", columns="method", values=measure).dropna(axis=1)
    values = wide.to_numpy()
    mean = values.mean()
    whole = ((values - mean) ** 2).sum()
    method = len(wide) * ((values.mean(0) - mean) ** 2).sum() / whole
    seed = wide.shape[1] * ((values.mean(1) - mean) ** 2).sum() / whole
    return {"method": method, "seed": seed, "rest": 1 - method - seed}


def facts(blocks: Blocks, results: Path | None = None) -> dict[str, object]:
    """What the text of the page says in numbers, by name."""
    found: dict[str, object] = {"rivals_blocks": len(blocks)}
    for block, runs in blocks:
        key = f"rivals_{block.dataset}{'_augmented' * block.augment}"
        if block.model != "small_cnn":
            key += f"_{block.model.removeprefix('small_cnn_')}"
        every = differences(block, runs, results)
        rows = every[(every["measure"] == "test_cross_entropy") & (every["n"] > 0)]
        rows = rows[rows["reference"] != "two_views"]
        found[f"{key}_methods"] = len(rows)
        found[f"{key}_seeds"] = int(rows["n"].max())
        stands = rows[(rows["p_holm"] < 0.05) & (rows["mean"] < 0)]
        found[f"{key}_stand"] = len(stands)
        found[f"{key}_worse"] = int(((rows["p_holm"] < 0.05) & (rows["mean"] > 0)).sum())
        best = rows.sort_values("mean").iloc[0]
        found[f"{key}_best"] = METHODS[best["method"]].title
        for row in every.itertuples():
            if row.n and row.measure in TOLD:
                said = words.interval(row.mean, row.low, row.high, signed=True)
                found[f"{key}_{row.method}_{row.measure}"] = said
        wide = runs.pivot_table(index="seed", columns="method", values="test_cross_entropy")
        if {"tuned", "feature_l2"} <= set(wide.columns):
            apart = paired_difference(wide["tuned"], wide["feature_l2"])
            found[f"{key}_over_feature_l2"] = words.level(apart, signed=True)
        strengths = chosen_strengths(block, results) or {}
        if strengths.get("tuned"):
            times = strengths["tuned"] / PUBLISHED["variance_weight"]
            found[f"{key}_times_published"] = words.short(times)
        edge = [
            METHODS[method].title
            for method, strength in strengths.items()
            if strength in (CANDIDATES[method][0], CANDIDATES[method][-1])
        ]
        found[f"{key}_edge"] = words.listed(edge) if edge else "none"
        shares = explained(runs)
        found |= {f"{key}_explained_{part}": words.percent(share) for part, share in shares.items()}
    return found


def figure(
    blocks: Blocks,
    measures: Sequence[str] = ("test_cross_entropy", "test_auroc"),
    results: Path | None = None,
) -> Figure:
    """Each method's difference from its reference: a row a method, a column a block and measure."""
    every = [differences(block, runs, results) for block, runs in blocks]
    methods = _order(every)
    count = max(1, len(blocks) * len(measures))
    figure, axes = plt.subplots(
        1,
        count,
        figsize=(max(WIDTH, 2.2 + 2.4 * count), 0.6 + 0.27 * max(4, len(methods))),
        squeeze=False,
        sharey=True,
    )
    for place, (block, _) in enumerate(blocks):
        for at, measure in enumerate(measures):
            ax = axes[0, place * len(measures) + at]
            _forest(ax, every[place], measure, methods)
            ax.set_title(name(block).split(",")[0] + " aug." * block.augment if not at else "")
    axes[0, 0].set_yticks(
        range(len(methods)), [words.capital(METHODS[method].title) for method in methods]
    )
    axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
    return figure


def _forest(ax: Axes, found: pd.DataFrame, measure: str, methods: Sequence[str]) -> None:
    rows = found[found["measure"] == measure].set_index("method")
    said, more = MEASURES[measure]
    for place, method in enumerate(methods):
        if method not in rows.index:
            continue
        row, color = rows.loc[method], METHODS[method].color
        if row["n"] == 0:
            ax.plot(0, place, "x", color=color, ms=5)
            continue
        ax.plot([row["low"], row["high"]], [place, place], color=color, lw=2)
        stands = row["p_holm"] < 0.05 or measure != "test_cross_entropy"
        ax.plot(row["mean"], place, "o", color=color, ms=6, mfc=color if stands else "white")
    ax.axvline(0, color="black", lw=0.8)
    side = 1 if more else -1
    ax.axvspan(*sorted((0, side * 10)), color="#009E73", alpha=0.07, lw=0, zorder=0)
    ends = rows[["low", "high"]].to_numpy()
    if len(ends):
        low, high = min(0.0, np.nanmin(ends)), max(0.0, np.nanmax(ends))
        room = 0.05 * max(high - low, 0.01)
        ax.set_xlim(low - room, high + room)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.set_xlabel(said)
    ax.grid(axis="y", visible=False)


def _order(every: Sequence[pd.DataFrame]) -> list[str]:
    """Methods by their mean gain in the primary outcome, in the first block that has them."""
    found: dict[str, None] = {}
    for rows in every:
        if len(rows):
            first = rows[rows["measure"] == "test_cross_entropy"].sort_values("mean")
            found |= dict.fromkeys(first["method"])
    return list(found)


def _said(rows: pd.DataFrame, method: str) -> str:
    if method not in rows.index:
        return words.DASH
    row = rows.loc[method]
    if row["n"] == 0:
        return "off"
    star = "*" if row["p_holm"] < 0.05 else ""
    found = Interval(row["mean"], row["low"], row["high"], int(row["n"]))
    return words.level(found, signed=True) + star


def _reads(row: tuple) -> str:
    """What the primary outcome says, by the rules of the plan."""
    if row.n == 0:
        return "off"
    if row.p_holm < 0.05:
        return "lower" if row.mean < 0 else "higher"
    bound = NEGLIGIBLE["test_cross_entropy"]
    return "negligible" if -bound < row.low and row.high < bound else "unclear"


def _named(method: str, against: str) -> str:
    """A method as printed, with its reference where that is not what it changes alone."""
    title = words.capital(METHODS[method].title)
    usual = against in ("baseline", "augmented")
    return title if usual else f"{title} (against {METHODS[against].title})"


def _strength(value: float) -> str:
    if math.isnan(value):
        return words.DASH
    return words.short(value) if value else "off"


def _split(runs: pd.DataFrame) -> str:
    split = runs["split"].iloc[0]
    return "official" if pd.isna(split) else split
