"""The search for the best setting of the penalty: what validation chooses, and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from companion import tables, words
from varreg.lab.statistics import PairedDifference, mean_interval, paired_difference

#: The fields that make a setting of the penalty.
SETTING = ["variance_weight", "feature_sampling_ratio", "lambda_"]
#: The setting of a run without a penalty, a candidate wherever a setting is chosen.
NO_PENALTY = (0.0, 1.0, 1.0)
#: What the best weight on the test images gains, and its price.
HINDSIGHT_METRICS = ["test_cross_entropy", "val_cross_entropy", "test_accuracy", "test_auroc"]


def grid_means(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds of every setting, with its 95 % interval.

    Returns:
        A row a data set, split, network and setting: ``n`` and, for each metric, the mean under
        its name, ``<metric>_low`` and ``<metric>_high``.
    """
    rows = []
    for head, group in tables.groups(runs, [*tables.GROUP, *SETTING], sort=True):
        row = head | {"n": len(group)}
        for metric in metrics:
            found = mean_interval(group[metric].to_numpy(), within=tables.possible(metric))
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
        head | dict(zip(SETTING, (tables.better(metric) * scores.mean()).idxmax(), strict=True))
        for head, scores in _scores_by_group(runs, metric)
    ]
    return _chest_first(rows, SETTING)


def chosen_weights(runs: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """Weight that validation cross-entropy chooses, by network, for the data sets named."""
    table = chosen(tables.of_datasets(runs, names))
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
    wide = tables.wide_by_seed(runs, SETTING, metric).reindex(columns=both).dropna()
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
    return pd.DataFrame(rows, columns=[*tables.GROUP, *SETTING, *columns])


def choices_table(runs: pd.DataFrame) -> pd.DataFrame:
    """:func:`choices` as printed in the book."""
    columns = tables.HEAD | {
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
        found = {name: row[name] for name in tables.GROUP} | {
            "weight": setting[0],
            "candidates": mine["variance_weight"].nunique(),
            "seeds": mine["seed"].nunique(),
        }
        for metric in HINDSIGHT_METRICS:
            change = setting_difference(mine, metric, setting, NO_PENALTY)
            rows.append(found | {"metric": metric, "change": change})
    return pd.DataFrame(rows)


def _chest_first(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Data sets in the order of the book."""
    order = list(tables.DATASET_NAMES)
    return pd.DataFrame(rows, columns=[*tables.GROUP, *columns]).sort_values(
        "dataset", key=lambda names: names.map(order.index), kind="stable", ignore_index=True
    )


def _scores(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row a seed, a column a setting; a seed that lacks a setting would tilt the means."""
    return tables.wide_by_seed(runs, SETTING, metric).dropna()


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
    for head, group in tables.groups(runs, tables.GROUP, sort=True):
        if len(scores := _scores(group, metric)):
            yield head, scores
