"""The page about reliability: how far a network's confidence can be trusted, and what that takes.

A level is a set of images that networks are asked about: like their own, or less and less so. Only
seeds that every method has are shown. Numbers of images are of 1,000, in the mix of the set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from companion import style, words
from companion.over_images import labels
from companion.probes.reliability import COMPARED, SEVERITIES
from companion.records import details
from companion.rivals import DATA
from companion.studies.few_images import ARMS
from companion.tables import pairs_of
from companion.when import DASHES, TITLES
from varreg.lab.calibration import reliability_curve
from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.metrics import risk_coverage
from varreg.lab.predictions import Predictions
from varreg.lab.statistics import Interval, mean_interval

LEVELS = ("validation", "test", *(f"corrupted {severity}" for severity in SEVERITIES))
PRIMARY = ("ece", "scaled_ece")
#: What a temperature changes, after which one is fitted ``scaled_``, and what it does not.
MEASURES = (
    *PRIMARY,
    "gap",
    "scaled_gap",
    "cross_entropy",
    "scaled_cross_entropy",
    "brier",
    "scaled_brier",
    "aurc",
    "augrc",
)
CLINICAL = ("wrong", "missed", "sent", "answered_wrong", "hindsight_sent")
#: The label of the disease; to call it the other is to miss it.
DISEASE = {"breastmnist": 0, "pneumoniamnist": 1}
#: What the text of the page says, by level.
TOLD = {
    "validation": ("gap", "wrong"),
    "test": (*MEASURES[:4], "cross_entropy", "scaled_cross_entropy", *CLINICAL),
    "corrupted 5": ("gap", "wrong", "answered_wrong"),
}
#: Methods in the reliability diagram: all of them would hide each other.
DRAWN = ("none", "fixed", "feature_l2", "augmented")
BINS = 10
#: Where more are sent, the few answers that are left say little.
MOST_SENT = 900


def recorded(results: Path | None = None) -> pd.DataFrame:
    """What is recorded, a row a network and condition, of seeds that every method has.

    Args:
        results: Folder of the ledgers; default: the recorded results.

    Returns:
        As the probe ``reliability`` has it, with the ``level``; ``gap`` and ``scaled_gap``, mean
        confidence minus accuracy; and in place of the text arrays of ``logits`` and ``truth``.
    """
    ledger = Ledger("reliability", results)
    rows = details(ledger.runs(), ledger.curves())
    if rows.empty:
        columns = ("dataset", "method", "seed", "level", "accuracy", "temperature", *MEASURES)
        return pd.DataFrame(columns=columns)
    methods = rows.groupby(["dataset", "seed"])["method"].transform("nunique")
    rows = rows[methods == len(COMPARED)].reset_index(drop=True)
    for head in ("", "scaled_"):
        rows[f"{head}gap"] = rows[f"{head}confidence"] - rows["accuracy"]
    truth, logits = [], []
    for row in rows.itertuples():
        part = "val" if row.condition == "val" else "test"
        truth.append(labels(row.dataset, None, part, results))
        said = Predictions.from_text(row.logits, 1, range(len(truth[-1])))
        logits.append(said.logits.ravel().astype(float))
    names = {"val": "validation", "test": "test"}
    level = [
        names.get(condition, f"corrupted {severity}")
        for condition, severity in zip(rows["condition"], rows["severity"], strict=True)
    ]
    return rows.assign(level=level, truth=truth, logits=logits)


# ---------------------------------------------------------------- a clinician's words


def threshold(confidence: np.ndarray, wrong: np.ndarray, promised: float) -> float:
    r"""The lowest confidence at which at most a promised share of the answers is wrong.

    With confidences :math:`c_i \geq 0` and :math:`w_i = 1` for what is wrong, the least of
    :math:`t \in \{0, c_1, \dots, c_n\}` with
    :math:`\sum_i [c_i \geq t]\, w_i \leq \text{promised} \cdot \sum_i [c_i \geq t]`. What is less
    confident goes to a second reader.

    Args:
        confidence: ``(n,)``, such as the log-odds of what is predicted.
        wrong: ``(n,)``, whether it is wrong.
        promised: Share, in [0, 1].

    Returns:
        0 where all may be answered, infinity where nothing may.

    Raises:
        ValueError: Arrays of different lengths, no image, or a share outside [0, 1].

    Example:
        The least confident of four is wrong; so is the second, which has to go as well:

        >>> sure, wrong = np.array([1.0, 4.0, 3.0, 2.0]), np.array([True, False, True, False])
        >>> threshold(sure, wrong, 0.25), threshold(sure, wrong, 0.5)
        (4.0, 0.0)
    """
    if len(confidence) != len(wrong) or not len(wrong):
        raise ValueError(
            f"there are {len(confidence)} confidences and {len(wrong)} answers; give one of each "
            "for every image, of one image or more"
        )
    if not 0 <= promised <= 1:
        raise ValueError(f"promised is {promised}; give a share from 0 to 1, such as 0.05")
    order = np.argsort(confidence)
    sorted_, wrong_so_far = confidence[order], np.append(0, wrong[order].cumsum())
    tried = np.append(0.0, np.unique(sorted_))
    sent = np.searchsorted(sorted_, tried)
    share = (wrong_so_far[-1] - wrong_so_far[sent]) / (len(sorted_) - sent)
    kept = tried[share <= promised]
    return float(kept[0]) if len(kept) else np.inf


def answered(confidence: np.ndarray, wrong: np.ndarray, least: float) -> tuple[float, float]:
    """Of 1,000 images, how many are sent to a second reader; of 1,000 answers, how many are wrong.

    Args:
        confidence: ``(n,)``.
        wrong: ``(n,)``.
        least: Images of this confidence or more are answered.

    Returns:
        Both; where nothing is answered, no answer is wrong.

    Example:
        >>> sure, wrong = np.array([1.0, 4.0, 3.0, 2.0]), np.array([True, False, True, False])
        >>> answered(sure, wrong, 3.0)
        (500.0, 500.0)
    """
    kept = confidence >= least
    share = wrong[kept].mean() if kept.any() else 0.0
    return 1000.0 * float(1 - kept.mean()), 1000.0 * float(share)


def promises(rows: pd.DataFrame) -> dict[str, float]:
    """By data set, the share of wrong answers that is promised.

    It is half of the share of validation images that the networks without a penalty get wrong, all
    answered, on average over the seeds.
    """
    plain = rows[(rows["method"] == "none") & (rows["level"] == "validation")]
    return {name: float(1 - mine.mean()) / 2 for name, mine in plain.groupby("dataset")["accuracy"]}


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """All measures by data set, method, seed and level, where a level is a mean over corruptions.

    The :func:`threshold` is chosen on the validation images of the run, for what is promised by
    :func:`promises`, and used on all others.

    Args:
        rows: As from :func:`recorded`.

    Returns:
        ``dataset, method, seed, level``, :data:`MEASURES`, ``temperature``, ``accuracy``, and of
        1,000 images :data:`CLINICAL`: ``wrong`` and, of these, disease ``missed``, if all are
        answered; ``sent`` to a second reader; of 1,000 answers ``answered_wrong``; and
        ``hindsight_sent``, as many as would have to be sent to keep the promise on these images.
    """
    promised, chosen, found = promises(rows), {}, []
    # Validation images come first, a network at a time.
    for row in rows.to_dict("records"):
        confidence = np.abs(row["logits"])
        wrong = (row["logits"] > 0) != row["truth"]
        best = threshold(confidence, wrong, promised[row["dataset"]])
        least = chosen.setdefault(row["key"], best)
        sent, answered_wrong = answered(confidence, wrong, least)
        missed = wrong & (row["truth"] == DISEASE[row["dataset"]])
        values = (1000 * wrong.mean(), 1000 * missed.mean(), sent, answered_wrong)
        hindsight = answered(confidence, wrong, best)[0]
        found.append(dict(zip(CLINICAL, (*values, hindsight), strict=True)))
    every = rows.join(pd.DataFrame(found, rows.index, CLINICAL))
    columns = [*MEASURES, "accuracy", "temperature", *CLINICAL]
    heads = ["dataset", "method", "seed", "level"]
    return every.groupby(heads, sort=False)[columns].mean().reset_index()


# ---------------------------------------------------------------- tables


def differences(found: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Every method against no penalty, at every level, over the seeds.

    Args:
        found: As from :func:`measured`.
        measures: Columns of it.

    Returns:
        A row a data set, level, measure and method: ``dataset, level, measure, method, mean, low,
        high, n, p, p_holm, text``; Holm's correction is over the methods. A star in the text is its
        p below 0.05.
    """
    rows = []
    for (dataset, level), mine in found.groupby(["dataset", "level"], sort=False):
        for measure in measures:
            pairs, digits = {name: (name, "none") for name in COMPARED[1:]}, _digits(measure)
            rows += pairs_of(mine, measure, pairs, digits=digits, dataset=dataset, level=level)
    return pd.DataFrame(rows)


def _digits(measure: str) -> int:
    return 0 if measure in CLINICAL else 3


def mean(found: pd.DataFrame, dataset: str, level: str, name: str, measure: str) -> Interval:
    """A measure of one method over the seeds, see :func:`measured`."""
    chosen = (found["dataset"] == dataset) & (found["level"] == level) & (found["method"] == name)
    within = (0, 1000) if measure in CLINICAL else (-math.inf, math.inf)
    return mean_interval(list(found.loc[chosen, measure]), within=within)


def table(
    found: pd.DataFrame, dataset: str, level: str, columns: Mapping[str, str]
) -> pd.DataFrame:
    """Measures as printed: of no penalty as they are, of the others as differences from it.

    The first column has the name of the data set for its heading.

    Args:
        found: As from :func:`measured`.
        dataset: Which.
        level: One of :data:`LEVELS`.
        columns: Heading -> measure.
    """
    mine = found[(found["dataset"] == dataset) & (found["level"] == level)]
    changes = differences(mine, list(columns.values()))
    texts = changes.pivot(index="method", columns="measure", values="text")
    rows = []
    for name in COMPARED:
        row = {_data(dataset): _title(name)}
        for heading, measure in columns.items():
            own = mean(found, dataset, level, "none", measure)
            plain = words.level(own, _digits(measure))
            row[heading] = plain if name == "none" else texts.loc[name, measure]
        rows.append(row)
    return pd.DataFrame(rows)


def facts(found: pd.DataFrame, promised: Mapping[str, float]) -> dict[str, object]:
    """What the text of the page says in numbers: data, level, method and measure by their names.

    Args:
        found: As from :func:`measured`.
        promised: As from :func:`promises`.

    Returns:
        What :data:`TOLD` lists: of no penalty as it is, ``reliability_DATA_LEVEL_none_MEASURE``, of
        the others as the difference from it. By data set the number of ``_seeds`` and what is
        ``_promised``, of 1,000; and each method's ``_temperature``, on average.
    """
    said: dict[str, object] = {}
    for dataset, share in promised.items():
        head, mine = f"reliability_{dataset}", found[found["dataset"] == dataset]
        said[f"{head}_seeds"] = int(mine["seed"].nunique())
        said[f"{head}_promised"] = words.number(1000 * share, 0)
        for name, each in mine.groupby("method")["temperature"]:
            said[f"{head}_{name}_temperature"] = words.number(each.mean(), 2)
        for level, measures in TOLD.items():
            shown = table(found, dataset, level, {measure: measure for measure in measures})
            for name, row in zip(COMPARED, shown.to_dict("records"), strict=True):
                where = f"{head}_{level.replace(' ', '_')}_{name}"
                said |= {f"{where}_{measure}": row[measure].rstrip("*") for measure in measures}
    return said


# ---------------------------------------------------------------- figures


def trust(found: pd.DataFrame) -> Figure:
    """How much too sure networks are, from images like their own to worse ones.

    Args:
        found: As from :func:`measured`.

    Returns:
        A row a data set; left as trained, right after the temperature.
    """
    if found.empty:
        return style.empty()
    datasets = list(dict.fromkeys(found["dataset"]))
    size = (9, 0.8 + 2.9 * len(datasets))
    figure, axes = plt.subplots(len(datasets), 2, figsize=size, squeeze=False, sharey="row")
    for row, dataset in zip(axes, datasets, strict=True):
        for ax, (head, what) in zip(row, _HEADS.items(), strict=True):
            for name in COMPARED:
                each = [mean(found, dataset, level, name, f"{head}gap") for level in LEVELS]
                middle, low, high = ([100 * getattr(one, end) for one in each] for end in _ENDS)
                ax.plot(middle, **_look(name), marker="o", ms=4)
                color = _look(name)["color"]
                ax.fill_between(range(len(LEVELS)), low, high, color=color, alpha=0.12, lw=0)
            ax.axhline(0, color="0.3", lw=1)
            ax.set_xticks(range(len(LEVELS)), [level.replace(" ", "\n") for level in LEVELS])
            ax.set_title(f"{_data(dataset)}, {what}")
        row[0].set_ylabel("too sure by\n(percentage points)")
    _legend(figure, COMPARED)
    return figure


def diagrams(rows: pd.DataFrame, dataset: str) -> Figure:
    """Reliability diagrams of validation and test images, all seeds pooled.

    Args:
        rows: As from :func:`recorded`.
        dataset: Which.
    """
    if dataset not in set(rows["dataset"]):
        return style.empty()
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True)
    for line, level in zip(axes, LEVELS, strict=False):
        for ax, (head, what) in zip(line, _HEADS.items(), strict=True):
            for name in DRAWN:
                mine = _selected(rows, dataset, level, name)
                curve = pooled(mine, scaled=bool(head)).query("n > 0")
                ax.plot(curve["confidence"], curve["accuracy"], **_look(name), marker="o", ms=4)
            ax.plot([0.5, 1], [0.5, 1], color="0.3", lw=1)
            ax.set_title(f"{level}, {what}")
        line[0].set_ylabel("share that is right")
    for ax in axes[1]:
        ax.set_xlabel("confidence")
    _legend(figure, DRAWN)
    return figure


def pooled(mine: pd.DataFrame, *, scaled: bool) -> pd.DataFrame:
    """The bins of the reliability diagram of several networks on one set of images.

    Args:
        mine: Some rows of :func:`recorded`.
        scaled: Whether each network's logits are divided by its temperature first.
    """
    divisors = mine["temperature"] if scaled else np.ones(len(mine))
    logits = [one / by for one, by in zip(mine["logits"], divisors, strict=True)]
    both = (torch.tensor(np.concatenate(each)) for each in (logits, list(mine["truth"])))
    return reliability_curve(*both, "binary", bins=BINS)


def risks(rows: pd.DataFrame, found: pd.DataFrame, level: str = "test") -> Figure:
    """Share of wrong answers over how many images are sent to a second reader: a panel a data set.

    Args:
        rows: As from :func:`recorded`.
        found: As from :func:`measured`.
        level: ``"validation"`` or ``"test"``.

    Returns:
        Means over the seeds. A disc is where the threshold of the validation images leads.
    """
    if rows.empty:
        return style.empty()
    promised = promises(rows)
    figure, axes = plt.subplots(1, len(promised), figsize=(9, 4.2), squeeze=False)
    for ax, (dataset, share) in zip(axes[0], promised.items(), strict=True):
        for name in COMPARED:
            sent, risk = risk_curve(_selected(rows, dataset, level, name))
            shown = sent <= MOST_SENT
            ax.plot(sent[shown], 100 * risk[shown], **_look(name))
            x, y = (mean(found, dataset, level, name, m).mean for m in ("sent", "answered_wrong"))
            ax.plot(x, y / 10, marker="o", ms=8, color=_look(name)["color"], mec="white", zorder=3)
        ax.axhline(100 * share, color="0.3", lw=1)
        ax.text(0, 100 * share, "promised", va="bottom", color="0.3")
        ax.set_title(_data(dataset))
        ax.set_xlabel("sent to a second reader, of 1,000")
        ax.set_ylim(0)
    axes[0][0].set_ylabel("wrong answers (%)")
    _legend(figure, COMPARED)
    return figure


def risk_curve(mine: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Mean risk-coverage curve of several networks on the same images.

    Args:
        mine: Some rows of :func:`recorded`.

    Returns:
        Of 1,000 images, how many are sent to a second reader, and the share of wrong answers.
    """
    curves = [
        risk_coverage(torch.tensor(logits), torch.tensor(truth), "binary")
        for logits, truth in zip(mine["logits"], mine["truth"], strict=True)
    ]
    return 1000 * (1 - curves[0][0]), np.mean([risk for _, risk in curves], axis=0)


_ENDS = ("mean", "low", "high")
_HEADS = {"": "as trained", "scaled_": "with a temperature"}


def _selected(rows: pd.DataFrame, dataset: str, level: str, name: str) -> pd.DataFrame:
    same = rows[["dataset", "level", "method"]] == [dataset, level, name]
    return rows[same.all(axis=1)]


def _legend(figure: Figure, names: Sequence[str]) -> None:
    entries = {_title(name): _look(name) for name in names}
    style.legend(figure, entries, loc="outside lower center", ncols=3)


def _look(name: str) -> dict[str, object]:
    color = METHODS[str(ARMS[name]["method"])].color
    return {"color": color, "ls": DASHES.get(name, "-")}


def _title(name: str) -> str:
    return words.capital(TITLES[name])


def _data(dataset: str) -> str:
    return DATA[dataset].split(",")[0]
