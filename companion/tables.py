"""The tables of the book, computed from recorded runs.

Every function takes the rows of a ledger and gives a data frame; :func:`show` prints one.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from companion import verdicts, words
from companion.published import SKIN_CLASSES, Number
from varreg.lab.methods import METHODS
from varreg.lab.statistics import (
    Interval,
    PairedDifference,
    holm,
    mean_interval,
    paired_difference,
    prediction_interval,
)

if TYPE_CHECKING:
    from IPython.display import HTML


METHOD_NAMES = {name: method.title for name, method in METHODS.items()}
MODEL_NAMES = {
    "paper_cnn": "paper's network",
    "small_cnn": "small CNN",
    "small_cnn_half": "half as wide",
    "small_cnn_wide": "three times as wide",
    "small_cnn_norm": "batch normalization",
    "small_resnet": "residual network",
    "small_vit": "vision transformer",
    "resnet18": "ResNet-18",
}
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
DATASET_NAMES = {
    "chest_xray": "chest X-rays",
    "pneumoniamnist": "PneumoniaMNIST",
    "ham10000": "HAM10000",
    "dermamnist": "DermaMNIST",
    "phantom": "phantom",
    "phantom7": "phantom, 7 classes",
}
#: Metrics without their split.
MEASURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "cross_entropy": "cross-entropy",
    "ece": "calibration error",
}
METRIC_NAMES = {
    f"{split}_{metric}": f"{where} {name}"
    for split, where in SPLIT_NAMES.items()
    for metric, name in MEASURES.items()
} | {
    f"{gap}_{metric}": f"{where} {MEASURES[metric]}"
    for gap, where in (("gap", "gap in"), ("gap_val", "gap to validation,"))
    for metric in ("accuracy", "cross_entropy")
}
#: What the best weight on the test images gains, and its price.
HINDSIGHT_METRICS = ["test_cross_entropy", "val_cross_entropy", "test_accuracy", "test_auroc"]
#: A comparison is made within one of these: same data, same split, same network.
GROUP = ["dataset", "split", "size", "model"]
#: What is compared where nothing else is asked for: method and reference.
PAIRS = tuple((name, each.reference) for name, each in METHODS.items() if name != each.reference)
#: The fields that make a setting of the penalty.
SETTING = ["variance_weight", "feature_sampling_ratio", "lambda_"]
#: The setting of a run without a penalty, a candidate wherever a setting is chosen.
NO_PENALTY = (0.0, 1.0, 1.0)
#: What names the data and the network of a row, as printed.
HEAD = {
    "Data": (["dataset", "split", "size"], lambda *names: data_name(*names)),
    "Network": ("model", lambda name: MODEL_NAMES.get(name, name)),
}
METRIC = {"Metric": ("metric", lambda name: METRIC_NAMES.get(name, name))}


def better(metric: str) -> int:
    """Direction in which a metric improves: +1 up, -1 down.

    Example:
        >>> better("test_auroc"), better("gap_accuracy")
        (1, -1)
    """
    lower = ("cross_entropy", "ece")
    return -1 if metric.startswith("gap_") or metric.endswith(lower) else 1


def possible(metric: str) -> tuple[float, float]:
    """Range that a metric cannot leave, and so its interval neither.

    Example:
        >>> possible("test_accuracy"), possible("val_cross_entropy"), possible("gap_accuracy")
        ((0.0, 1.0), (0.0, inf), (-1.0, 1.0))
    """
    loss = metric.endswith("cross_entropy")
    if metric.startswith("gap_"):
        return (-math.inf, math.inf) if loss else (-1.0, 1.0)
    return (0.0, math.inf) if loss or metric.endswith("feature_variance") else (0.0, 1.0)


def with_gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the generalization gaps: how much worse a model does on test than on training data.

    ``gap_accuracy`` is training minus test, ``gap_cross_entropy`` test minus training, both at
    the same checkpoint: positive means overfitting. ``gap_val_accuracy`` and
    ``gap_val_cross_entropy`` are those to the validation data.

    Example:
        >>> runs = pd.DataFrame({"train_accuracy": [0.9], "test_accuracy": [0.8],
        ...                      "train_cross_entropy": [0.2], "test_cross_entropy": [0.5]})
        >>> with_gaps(runs)[["gap_accuracy", "gap_cross_entropy"]].round(3).values.tolist()
        [[0.1, 0.3]]
    """
    gaps = {
        f"{name}_{metric}": better(metric) * (runs[f"train_{metric}"] - runs[f"{part}_{metric}"])
        for name, part in (("gap", "test"), ("gap_val", "val"))
        for metric in ("accuracy", "cross_entropy")
        if f"{part}_{metric}" in runs
    }
    return runs.assign(**gaps)


def by_seed(
    runs: pd.DataFrame, metric: str, method: str, reference: str
) -> tuple[pd.Series, pd.Series]:
    """Values of two methods, over the seeds that both have.

    Args:
        runs: Rows of a ledger, of one data set, split and network.
        metric: A column, as in ``"test_auroc"``.
        method: The first method.
        reference: The second one.

    Raises:
        ValueError: A seed comes twice: the rows mix settings that should be compared apart.
    """
    if runs.empty:
        return pd.Series(dtype=float), pd.Series(dtype=float)
    kept = runs[runs["method"].isin([method, reference])]
    wide = _by_seed(kept, ["method"], metric).reindex(columns=[method, reference]).dropna()
    return wide[method], wide[reference]


def difference(
    runs: pd.DataFrame, metric: str, method: str, reference: str = "baseline"
) -> PairedDifference | None:
    """Paired difference ``method - reference`` of one metric over the seeds that both have.

    Args:
        runs: Rows of a ledger, of one data set, split and network.
        metric: A column, as in ``"test_auroc"``.
        method: A method of :data:`varreg.lab.methods.METHODS`.
        reference: The method compared with.

    Returns:
        The paired difference, or ``None`` without a common seed.

    Raises:
        ValueError: A seed comes twice: the rows mix settings that should be compared apart.
    """
    first, second = by_seed(runs, metric, method, reference)
    return paired_difference(first, second) if len(first) else None


def mean_change(changes: Sequence[float] | None) -> PairedDifference | None:
    """Mean of differences that are taken already, a value a pair; ``None`` where there is none."""
    if changes is None or not len(changes):
        return None
    return paired_difference(changes, np.zeros(len(changes)))


def differences(
    runs: pd.DataFrame,
    metrics: Sequence[str],
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> pd.DataFrame:
    """All paired differences, a row each, with Holm's correction over the whole table.

    Args:
        runs: Rows of a ledger.
        metrics: Columns, as in ``("test_accuracy", "gap_accuracy")``.
        pairs: ``(method, reference)``; pairs without a common seed are left out.

    Returns:
        Columns ``dataset, split, size, model, method, reference, metric, mean, low, high, n, p,
        p_holm, verdict``; the verdict asks whether ``method`` improves on ``reference``.
    """
    rows = [
        head
        | {"method": method, "reference": reference, "metric": metric}
        | vars(found)
        | {"verdict": verdicts.of_difference(found, better(metric))}
        for head, group in groups(with_gaps(runs), GROUP)
        for metric, (method, reference) in itertools.product(metrics, pairs)
        if (found := difference(group, metric, method, reference)) is not None
    ]
    columns = [*GROUP, "method", "reference", "metric", "mean", "low", "high", "n", "p", "verdict"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(len(columns) - 1, "p_holm", holm(table["p"].astype(float).tolist()))
    return table


def differences_table(
    runs: pd.DataFrame, metrics: Sequence[str], pairs: Sequence[tuple[str, str]] = PAIRS
) -> pd.DataFrame:
    """Paired differences as printed: a row a comparison, a column a metric.

    A cell reads ``mean [95 % interval]``; ``*`` marks a Holm-corrected p below 0.05 over the
    whole table.
    """
    return spread_differences(differences(runs, metrics, pairs), metrics)


def spread_differences(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Differences, one a row, as printed; with a star where there is a Holm-corrected p."""
    columns = HEAD | {
        "Comparison": (
            ["method", "reference"],
            lambda *names: " \u2212 ".join(METHOD_NAMES[name] for name in names),
        ),
        "Pairs": "n",
        **METRIC,
        "text": (
            ["mean", "low", "high", "p_holm"],
            lambda *ends: words.interval(*ends[:3], signed=True) + "*" * bool(ends[3] < 0.05),
        ),
    }
    known = table if "p_holm" in table else table.assign(p_holm=1.0)
    return spread(known, columns, metrics)


def levels_table(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean and 95 % interval of every method, a column a metric."""
    rows = [
        head
        | {"seeds": len(group), "metric": metric}
        | {"interval": mean_interval(values.to_numpy(), within=possible(metric))}
        for head, group in groups(with_gaps(runs), [*GROUP, "method"])
        for metric in metrics
        if len(values := group[metric].dropna())
    ]
    table = pd.DataFrame(rows, columns=[*GROUP, "method", "seeds", "metric", "interval"])
    columns = {"Method": ("method", METHOD_NAMES), "Seeds": "seeds", **METRIC}
    return spread(table, HEAD | columns | {"text": ("interval", words.level)}, metrics)


def against_published(runs: pd.DataFrame, numbers: Iterable[Number]) -> pd.DataFrame:
    """Published numbers beside our runs of the same protocol, with a verdict each.

    A number of the paper is judged as what the paper calls it, one of a released log as what it is.
    Where the two differ, our values measured in the same way stand beside it. A published loss is
    divided by its lambda and compared with our unscaled cross-entropy.

    Args:
        runs: Rows of a ledger, of one data set and network; those of
            :func:`companion.predictions.with_released_metrics` hold more quantities.
        numbers: As from :func:`companion.published.select`.

    Returns:
        Columns ``method, split, metric, definition, printed, published, mean, low, high, from, to,
        n, same, same_n, verdict, source``: ``low`` and ``high`` bound the mean, ``from`` and ``to``
        one further run; ``same`` is the mean of the ``same_n`` runs that are measured in the same
        way as the number, where it is not judged by that.
    """
    rows = []
    unknown = Interval(math.nan, math.nan, math.nan, 0)
    for number in numbers:
        mine = runs if runs.empty else runs[runs["method"] == number.method]
        values = _recorded(mine, f"{number.split}_{number.column}")
        same = _recorded(mine, f"{number.split}_{number.same}" if number.same else "")
        mean = mean_interval(values) if values.size else unknown
        one = prediction_interval(values) if values.size else unknown
        rows.append(
            {name: getattr(number, name) for name in ("method", "split", "metric", "definition")}
            | {"printed": number.value, "published": number.comparable}
            | {"mean": mean.mean, "low": mean.low, "high": mean.high}
            | {"from": one.low, "to": one.high, "n": mean.n}
            | {"same": float(same.mean()) if same.size else math.nan, "same_n": int(same.size)}
            | {"verdict": verdicts.of_number(number.comparable, values), "source": number.source}
        )
    return pd.DataFrame(rows)


def published_table(runs: pd.DataFrame, numbers: Iterable[Number]) -> pd.DataFrame:
    """:func:`against_published` as printed in the book."""
    table = against_published(runs, numbers)
    names = {"accuracy": "accuracy", "auroc": "AUC", "loss": "loss"}
    same = {
        "Measured as it was (runs)": (
            ["same", "same_n"],
            lambda mean, count: f"{mean:.3f} ({count})" if count else words.DASH,
        )
    }
    columns = {
        "Model": "method",
        "Number": (["split", "metric"], lambda split, name: f"{SPLIT_NAMES[split]} {names[name]}"),
        "Definition": "definition",
        "Published": ("printed", ".4f"),
        "On one scale": ("published", ".4f"),
        "Recorded": (["mean", "low", "high"], words.interval),
        "One run": (["from", "to"], words.between),
        "Runs": "n",
        **(same if table["same_n"].any() else {}),
        "Verdict": "verdict",
    }
    return words.printed(table, columns)


def _recorded(runs: pd.DataFrame, column: str) -> np.ndarray:
    """Values of a column that some rows, or all, may lack."""
    return runs[column].dropna().to_numpy() if column in runs else np.array([])


def of_split(runs: pd.DataFrame, split: str) -> pd.DataFrame:
    """Rows of one way to split the data.

    Data that are recorded with a single split, such as the phantom, are returned whole.

    Example:
        >>> len(of_split(pd.DataFrame({"split": ["paper", "lesion"]}), "lesion"))
        1
    """
    if runs.empty or runs["split"].nunique(dropna=False) == 1:
        return runs
    return runs[runs["split"] == split]


def of_model(runs: pd.DataFrame, model: str = "paper_cnn") -> pd.DataFrame:
    """Rows of one network."""
    return runs if runs.empty else runs[runs["model"] == model]


def recalls(runs: pd.DataFrame) -> pd.DataFrame:
    """Recall of every class on the test images, a row a run and class.

    Args:
        runs: Rows of a ledger, of one data set.

    Returns:
        The columns of ``runs`` that name a run, ``class`` and ``recall``. The classes of HAM10000
        go by their names, others by their number.
    """
    head = [*GROUP, "method", "seed"]
    rows = []
    for run in runs.to_dict("records"):
        for number, value in enumerate(str(run["test_recall"]).split(";")):
            name = SKIN_CLASSES[number] if run["dataset"] == "ham10000" else f"class {number}"
            rows.append([*(run[key] for key in head), name, float(value)])
    return pd.DataFrame(rows, columns=[*head, "class", "recall"])


def grid_means(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds of every setting, with its 95 % interval.

    Returns:
        A row a data set, split, network and setting: ``n`` and, for each metric, the mean under
        its name, ``<metric>_low`` and ``<metric>_high``.
    """
    rows = []
    for head, group in groups(runs, [*GROUP, *SETTING], sort=True):
        row = head | {"n": len(group)}
        for metric in metrics:
            found = mean_interval(group[metric].to_numpy(), within=possible(metric))
            row |= {metric: found.mean, f"{metric}_low": found.low, f"{metric}_high": found.high}
        rows.append(row)
    columns = [f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high")]
    return _chest_first(rows, [*SETTING, "n", *columns])


def split_grid(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part the study ``grid`` into its two searches.

    Returns:
        The wide range of weights (all features, lambda 1), and the paper's 12 combinations; no
        penalty is a candidate of both.
    """
    if runs.empty:
        return runs, runs
    wide = (runs["feature_sampling_ratio"] == 1) & (runs["lambda_"] == 1)
    free = (runs["variance_weight"] == 0) & runs["model"].isin(runs.loc[~wide, "model"])
    return runs[wide], runs[~wide | free]


def of_datasets(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows of the data sets named."""
    return runs if runs.empty else runs[runs["dataset"].isin(names)]


def chosen(runs: pd.DataFrame, metric: str = "val_cross_entropy") -> pd.DataFrame:
    """The setting with the best mean over seeds, for every data set, split and network.

    Args:
        runs: Rows of the study ``grid``; no penalty, where it is among them, is a candidate.
        metric: What to choose by; a validation metric, so that the test data stay untouched.

    Returns:
        The columns of ``GROUP`` and ``SETTING``; the first candidate wins a tie. Only seeds that
        have every setting take part.

    Example:
        >>> runs = pd.DataFrame({"dataset": "phantom", "split": None, "size": 28,
        ...     "model": "paper_cnn", "seed": 0, "variance_weight": [0.0, 0.01],
        ...     "feature_sampling_ratio": 1.0, "lambda_": 1.0, "val_cross_entropy": [0.1, 0.2]})
        >>> chosen(runs)["variance_weight"].tolist()
        [0.0]
    """
    rows = [
        head | dict(zip(SETTING, (better(metric) * scores.mean()).idxmax(), strict=True))
        for head, scores in _scores_by_group(runs, metric)
    ]
    return _chest_first(rows, SETTING)


def chosen_weights(runs: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """Weight that validation cross-entropy chooses, by network, for the data sets named."""
    table = chosen(of_datasets(runs, names))
    return {row.model: float(row.variance_weight) for row in table.itertuples()}


def pick_counts(runs: pd.DataFrame) -> pd.DataFrame:
    """How often each setting wins when every seed chooses for itself by validation cross-entropy.

    A choice that changes from seed to seed is a choice by luck.

    Returns:
        A row a data set, split, network and setting: ``picked`` of ``seeds``.
    """
    rows = []
    for head, scores in _scores_by_group(runs, "val_cross_entropy"):
        winners = scores.idxmin(axis=1).tolist()
        rows += [
            head
            | dict(zip(SETTING, setting, strict=True))
            | {"picked": winners.count(setting), "seeds": len(scores)}
            for setting in scores.columns
        ]
    return _chest_first(rows, [*SETTING, "picked", "seeds"])


def setting_difference(
    runs: pd.DataFrame, metric: str, first: Sequence[float], second: Sequence[float]
) -> PairedDifference | None:
    """Paired difference between two settings of the grid.

    Args:
        runs: Rows of the study ``grid``, of one data set and network.
        metric: A column.
        first: Weight, ratio and lambda.
        second: The setting compared with.

    Returns:
        ``first - second`` over the seeds that both have, or ``None``.
    """
    if runs.empty or tuple(first) == tuple(second):
        return None
    both = pd.MultiIndex.from_tuples([first, second])
    wide = _by_seed(runs, SETTING, metric).reindex(columns=both).dropna()
    return paired_difference(*wide.to_numpy().T) if len(wide) else None


def crossfit_difference(
    runs: pd.DataFrame, metric: str, reference: Sequence[float]
) -> PairedDifference | None:
    """Difference between what validation chooses and a reference, on seeds that did not choose.

    The best of several settings looks better than it is on the runs that it was picked by. So each
    seed is left out in turn: the mean validation cross-entropy of the *other* seeds chooses, and
    the seed left out is measured (leave-one-out cross-fitting). If all settings were alike, the
    mean would be zero. The choices of two seeds share the remaining ones, and all share the
    validation images, so that the interval is a little too narrow.

    Args:
        runs: Rows of the study ``grid``, of one data set and network.
        metric: What is measured on the seed left out.
        reference: Weight, ratio and lambda compared with; a candidate too.

    Returns:
        ``chosen - reference`` over the seeds that have every setting, or ``None`` where there are
        fewer than two of them or no runs of the reference.

    Example:
        >>> runs = pd.DataFrame({"seed": [0, 0, 1, 1, 2, 2], "variance_weight": [0.0, 0.01] * 3,
        ...     "feature_sampling_ratio": 1.0, "lambda_": 1.0,
        ...     "val_cross_entropy": [0.5, 0.2, 0.4, 0.5, 0.4, 0.5]})
        >>> # without seed 0 no penalty wins, without seed 1 or 2 the weight 0.01
        >>> round(crossfit_difference(runs, "val_cross_entropy", NO_PENALTY).mean, 3)
        0.067
    """
    if runs.empty:
        return None
    scores, values = (_scores(runs, name) for name in ("val_cross_entropy", metric))
    if len(scores) < 2 or tuple(reference) not in scores:
        return None
    picks = {seed: scores.drop(seed).mean().idxmin() for seed in scores.index}
    measured = [values.loc[seed, pick] for seed, pick in picks.items()]
    return paired_difference(measured, values.loc[list(picks), tuple(reference)])


def setting_text(weight: float, ratio: float, lambda_: float) -> str:
    """A setting as printed: the weight alone where ratio and lambda are 1.

    Example:
        >>> setting_text(100.0, 1.0, 1.0), setting_text(0.01, 0.2, 0.5), setting_text(*NO_PENALTY)
        ('100', '0.01, 0.2, 0.5', 'no penalty')
    """
    if weight == 0:
        return "no penalty"
    return f"{weight:g}" if (ratio, lambda_) == (1, 1) else f"{weight:g}, {ratio:g}, {lambda_:g}"


def choices(runs: pd.DataFrame) -> pd.DataFrame:
    """What the grid chooses, how many seeds agree, and what it gains.

    Args:
        runs: The candidates, as from :func:`split_grid`.

    Returns:
        A row a data set and network: the columns of ``GROUP`` and ``SETTING``; ``picked`` of
        ``seeds`` that would have chosen the same on their own; ``by_accuracy``, what validation
        accuracy would have chosen; ``second``, the runner-up; and paired differences. ``lead`` is
        the chosen minus the second best in validation cross-entropy, on the runs that chose them:
        negative by construction, so that only an interval that holds zero says something. ``gain``
        and ``test_gain`` are the :func:`crossfit_difference` to no penalty in validation and in
        test cross-entropy. ``None`` where there are no pairs.
    """
    rows = []
    for row in chosen(runs).to_dict("records"):
        mine, setting = _complete(runs, row), tuple(row[name] for name in SETTING)
        scores = _scores(mine, "val_cross_entropy")
        others = scores.drop(columns=[setting]).mean()
        second = others.idxmin() if len(others) else None
        found = {
            "picked": scores.idxmin(axis=1).tolist().count(setting),
            "seeds": len(scores),
            "by_accuracy": setting_text(*_scores(mine, "val_accuracy").mean().idxmax()),
            "second": setting_text(*second) if second else words.DASH,
            "lead": second and setting_difference(mine, "val_cross_entropy", setting, second),
            "gain": crossfit_difference(mine, "val_cross_entropy", NO_PENALTY),
            "test_gain": crossfit_difference(mine, "test_cross_entropy", NO_PENALTY),
        }
        rows.append(row | found)
    columns = ["picked", "seeds", "by_accuracy", "second", "lead", "gain", "test_gain"]
    return pd.DataFrame(rows, columns=[*GROUP, *SETTING, *columns])


def choices_table(runs: pd.DataFrame) -> pd.DataFrame:
    """:func:`choices` as printed in the book."""
    columns = HEAD | {
        "Chosen": (SETTING, setting_text),
        "Seeds that agree": (["picked", "seeds"], "{} of {}".format),
        "By accuracy": "by_accuracy",
        "Second best": "second",
        "Chosen minus second best": ("lead", words.change),
    }
    return words.printed(choices(runs), columns)


def hindsight(wide: pd.DataFrame) -> pd.DataFrame:
    """The weight that is best on the test images, by which nobody may choose, and its price.

    It is picked as the best of all candidates on the images that then measure it: its gain in test
    cross-entropy is optimistic and no correction is made.

    Args:
        wide: The wide range of weights, as from :func:`split_grid`.

    Returns:
        A row a data set, network and ``metric`` of :data:`HINDSIGHT_METRICS`: the columns of
        ``GROUP``, ``weight``, the number of ``candidates`` (no penalty is one) and of ``seeds``,
        and ``change``, the paired difference to no penalty, on the same runs; ``None`` where no
        penalty is best or there are no pairs.
    """
    rows = []
    for row in chosen(wide, HINDSIGHT_METRICS[0]).to_dict("records"):
        mine = _complete(wide, row)
        setting = tuple(row[name] for name in SETTING)
        found = {name: row[name] for name in GROUP} | {
            "weight": setting[0],
            "candidates": mine["variance_weight"].nunique(),
            "seeds": mine["seed"].nunique(),
        }
        for metric in HINDSIGHT_METRICS:
            change = setting_difference(mine, metric, setting, NO_PENALTY)
            rows.append(found | {"metric": metric, "change": change})
    return pd.DataFrame(rows)


def cost(runs: pd.DataFrame) -> dict[str, object]:
    """What a study took: runs, hours of computing, seconds a run, hardware.

    Example:
        >>> cost(pd.DataFrame({"seconds": [3600.0, 7200.0], "device": ["CPU", "CPU"]}))
        {'runs': 2, 'hours': 3.0, 'seconds_per_run': 5400.0, 'device': 'CPU'}
    """
    if runs.empty:
        return {"runs": 0, "hours": 0.0, "seconds_per_run": 0.0, "device": "none yet"}
    seconds = runs["seconds"].astype(float)
    return {
        "runs": len(runs),
        "hours": float(seconds.sum() / 3600),
        "seconds_per_run": float(seconds.mean()),
        "device": ", ".join(dict.fromkeys(runs["device"].astype(str))),
    }


def to_html(table: pd.DataFrame, raw: Sequence[str] = ()) -> str:
    """A table as HTML that is the same at every run and scrolls on a phone.

    Args:
        table: What to print; text is escaped.
        raw: Columns that hold HTML of our own, such as links.

    Example:
        >>> "a &lt; b" in to_html(pd.DataFrame({"x": ["a < b"]}))
        True
    """
    if table.empty:
        return "<p>No run is recorded yet.</p>"
    safe = table.copy()
    for name in safe.columns:
        if name not in raw:
            safe[name] = [_cell(str(value)) for value in safe[name]]
    body = safe.to_html(index=False, border=0, escape=False, justify="left")
    return f'<div style="overflow-x: auto">{body}</div>'


def show(table: pd.DataFrame, raw: Sequence[str] = ()) -> HTML:
    """Print a table in a notebook."""
    from IPython.display import HTML

    return HTML(to_html(table, raw))


def folded(named: Mapping[str, Sequence[pd.DataFrame]], *, first: bool = False) -> HTML:
    """Print tables under names that open them.

    Args:
        named: Name -> the tables under it.
        first: Show those under the first name from the start.

    Example:
        >>> folded({"all": [], "part": []}, first=True).data
        '<details open><summary>all</summary></details><details><summary>part</summary></details>'
    """
    from IPython.display import HTML

    parts = (
        f"<details{' open' * (first and not place)}><summary>{html.escape(name)}</summary>"
        f"{''.join(map(to_html, each))}</details>"
        for place, (name, each) in enumerate(named.items())
    )
    return HTML("".join(parts))


def data_name(dataset: str, split: str, size: int) -> str:
    """Name of a data set as printed.

    Example:
        >>> data_name("ham10000", "lesion", 28)
        'HAM10000 split by lesion, 28 px'
    """
    name = DATASET_NAMES.get(dataset, dataset)
    if dataset == "ham10000":
        name += " split by lesion" if split == "lesion" else " split by image"
    return f"{name}, {size} px"


def _cell(text: str) -> str:
    """Escaped; an interval stays on one line, which may be below that of its mean."""
    escaped = html.escape(text)
    return escaped.replace(", ", ",&nbsp;") if "[" in text else escaped


def _chest_first(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Data sets in the order of the book."""
    order = list(DATASET_NAMES)
    return pd.DataFrame(rows, columns=[*GROUP, *columns]).sort_values(
        "dataset", key=lambda names: names.map(order.index), kind="stable", ignore_index=True
    )


def _scores(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row a seed, a column a setting; a seed that lacks a setting would tilt the means."""
    return _by_seed(runs, SETTING, metric).dropna()


def _by_seed(runs: pd.DataFrame, names: list[str], metric: str) -> pd.DataFrame:
    twice = runs.duplicated(["seed", *names])
    if twice.any():
        first = runs[twice].iloc[0]
        which = ", ".join(f"{name} {first[name]!r}" for name in names)
        raise ValueError(
            f"{which} has seed {first['seed']} more than once: select one data set, split, size "
            "and network before you compare, and for methods one setting"
        )
    return runs.pivot(index="seed", columns=names[0] if len(names) == 1 else names, values=metric)


def _complete(runs: pd.DataFrame, row: Mapping[str, object]) -> pd.DataFrame:
    """Rows of the data set and network of ``row``, of the seeds that have every setting."""
    # One split for each data set of the grid; it may be missing, and so equals nothing.
    names = ["dataset", "size", "model"]
    mine = runs[(runs[names] == [row[name] for name in names]).all(axis=1)]
    return mine[mine["seed"].isin(_scores(mine, "val_cross_entropy").index)]


def _scores_by_group(
    runs: pd.DataFrame, metric: str
) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """The columns of ``GROUP`` and the scores of each data set, split, size and network."""
    every = ((head, _scores(group, metric)) for head, group in groups(runs, GROUP, sort=True))
    return ((head, scores) for head, scores in every if len(scores))


def spread(
    table: pd.DataFrame, columns: Mapping[str, object], metrics: Sequence[str]
) -> pd.DataFrame:
    """As printed, with a column a metric: one row for each combination of the rest.

    Args:
        table: A row a metric.
        columns: As for :func:`companion.words.printed`; ``"Metric"`` and the text come last.
        metrics: Which, in this order.
    """
    long = words.printed(table, columns)
    index = list(columns)[:-2]
    wanted = [columns["Metric"][1](name) for name in metrics]
    if long.empty:
        return pd.DataFrame(columns=[*index, *wanted])
    wide = long.pivot(index=index, columns="Metric", values="text").reindex(columns=wanted)
    rows = long.drop_duplicates(index)[index].join(wide, on=index)
    return rows.fillna(words.DASH).reset_index(drop=True)


def groups(
    runs: pd.DataFrame, names: Sequence[str], sort: bool = False
) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """The values of some columns, and the rows that have them."""
    grouped = [] if runs.empty else runs.groupby(list(names), sort=sort, dropna=False)
    return ((dict(zip(names, values, strict=True)), group) for values, group in grouped)
