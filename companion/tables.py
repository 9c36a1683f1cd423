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
#: A comparison is made within one of these: same data, same split, same network.
GROUP = ["dataset", "split", "size", "model"]
#: What is compared where nothing else is asked for: method and reference.
PAIRS = tuple((name, each.reference) for name, each in METHODS.items() if name != each.reference)
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
    wide = wide_by_seed(kept, ["method"], metric).reindex(columns=[method, reference]).dropna()
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


def pairs_of(
    runs: pd.DataFrame,
    measure: str,
    pairs: Mapping[str, tuple[str, str]],
    *,
    corrected: bool = True,
    digits: int = 3,
    **head: object,
) -> list[dict[str, object]]:
    """Named pairs of methods by one measure, each over the seeds that both have.

    Args:
        runs: Rows with ``method``, ``seed`` and the measure.
        measure: A column.
        pairs: Method and reference by name.
        corrected: Whether to correct over the pairs by Holm; ``p_holm`` is NaN without.
        digits: Of the text.
        **head: What every row starts with.

    Returns:
        A row a pair: ``head``, ``measure, method`` (its name), ``mean, low, high, n, p, p_holm,
        text``. A star in the text is a corrected p below 0.05.
    """
    found = {name: difference(runs, measure, *pair) for name, pair in pairs.items()}
    adjusted = holm([each.p for each in found.values()]) if corrected else [math.nan] * len(found)
    return [
        head
        | {"measure": measure, "method": name}
        | vars(each)
        | {"p_holm": p, "text": words.change(each, digits) + "*" * (p < 0.05)}
        for (name, each), p in zip(found.items(), adjusted, strict=True)
    ]


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


def of_datasets(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows of the data sets named."""
    return runs if runs.empty else runs[runs["dataset"].isin(names)]


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


def wide_by_seed(runs: pd.DataFrame, names: list[str], metric: str) -> pd.DataFrame:
    """One metric, a row a seed and a column a combination of the values of ``names``.

    Raises:
        ValueError: A seed comes twice: the rows mix settings that should be compared apart.
    """
    twice = runs.duplicated(["seed", *names])
    if twice.any():
        first = runs[twice].iloc[0]
        which = ", ".join(f"{name} {first[name]!r}" for name in names)
        raise ValueError(
            f"{which} has seed {first['seed']} more than once: select one data set, split, size "
            "and network before you compare, and for methods one setting"
        )
    return runs.pivot(index="seed", columns=names[0] if len(names) == 1 else names, values=metric)


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
