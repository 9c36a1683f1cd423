"""The rules that judge the paper's claims: from recorded runs to parts with a verdict each.

``claims.toml`` states every rule in words, once; here each is a function that gives the parts of a
claim, one a comparison. :func:`varreg.verdicts.together` makes them the claim's verdict.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd

from varreg import published, verdicts
from varreg.evidence import Evidence
from varreg.statistics import PairedDifference, paired_difference
from varreg.tables import (
    DATASET_NAMES,
    METRIC_NAMES,
    MODEL_NAMES,
    SETTING,
    against_published,
    better,
    chosen,
    difference,
    interval_text,
    of_datasets,
    of_model,
    of_split,
    setting_difference,
    setting_text,
    split_grid,
    with_gaps,
)

__all__ = ["MODELS", "RULES", "Part", "Records", "Rule", "changes", "printed", "read", "rules"]

MODELS = ("paper_cnn", "small_cnn")
#: Runs and curves by study; for a probe, its units and their details.
Records = Mapping[str, Evidence]

GAP_NAMES = {
    "gap_val_accuracy": "gap to validation, accuracy",
    "gap_val_cross_entropy": "gap to validation, cross-entropy",
}


@dataclass(frozen=True)
class Rule:
    """A rule in words, for each part of a claim.

    Attributes:
        name: As the claims call it.
        reproduced: When a part is reproduced.
        refuted: When it is not reproduced.
        unknown: When it cannot be known.
        margin: Smallest effect worth having, in the unit of what is compared.
    """

    name: str
    reproduced: str
    refuted: str
    unknown: str
    margin: float = verdicts.MARGIN


@dataclass(frozen=True)
class Part:
    """One comparison that a verdict rests on.

    Attributes:
        label: What is compared.
        text: What was measured, with its 95 % interval.
        n: Seeds, or pairs of them.
        verdict: What the rule says about it.
        network: Of which network, where there are several.
    """

    label: str
    text: str
    n: int
    verdict: str
    network: str = ""


@cache
def read() -> dict[str, object]:
    """Read ``claims.toml``."""
    return tomllib.loads((files("varreg") / "claims.toml").read_text("utf-8"))


@cache
def rules() -> dict[str, Rule]:
    """The rules by name, with their margins written out.

    Example:
        >>> rules()["difference"].margin == verdicts.MARGIN
        True
    """
    found = {}
    for name, entry in read()["rules"].items():
        margin = entry.get("margin", verdicts.MARGIN)
        words = {
            key: text.format(margin=margin, percent=100 * margin)
            for key, text in entry.items()
            if key != "margin"
        }
        found[name] = Rule(name, margin=margin, **words)
    return found


def changes(runs: pd.DataFrame, metric: str, method: str, reference: str) -> np.ndarray:
    """Change of each seed: points for an accuracy, percent of the reference for a loss.

    Args:
        runs: Rows of a ledger, of one data set and network.
        metric: ``"test_accuracy"`` or ``"test_cross_entropy"``.
        method: The method in question.
        reference: The method compared with.
    """
    if runs.empty:
        return np.array([])
    wide = runs.pivot(index="seed", columns="method", values=metric)
    if not {method, reference} <= set(wide.columns):
        return np.array([])
    wide = wide[[method, reference]].dropna()
    change = wide[method] - wide[reference]
    if metric == "test_cross_entropy":
        change = change / wide[reference]
    return 100 * change.to_numpy()


def printed(experiment: str, metric: str, reference: str) -> published.Shift | None:
    """The improvement over a reference that the paper derives from its tables, if it does.

    Args:
        experiment: ``"chest"`` or ``"skin"``.
        metric: ``"accuracy"`` or ``"loss"``.
        reference: ``"baseline"`` or ``"augmented"``.

    Example:
        >>> printed("skin", "accuracy", "baseline").value
        17.62
        >>> printed("skin", "accuracy", "augmented") is None
        True
    """
    for shift in published.SHIFTS:
        if (shift.experiment, shift.metric, shift.reference) == (experiment, metric, reference):
            return shift
    return None


# One function a rule. `second` asks for the claim's second verdict: the penalty with a chosen
# weight, a larger one, or all features.


def _number(
    records: Records, second: bool, experiment: str, method: str, metric: str
) -> list[Part]:
    number = published.find(experiment, method, metric, source=published.TABLES[experiment])
    row = against_published(_runs(records, f"{experiment}_paper"), [number]).iloc[0]
    text = interval_text(row["mean"], row["low"], row["high"])
    if row["n"] > 1:
        text += f"; one further run {row['from']:.3f} to {row['to']:.3f}"
    if row["same_n"]:
        text += f"; measured as it was, {row['same']:.3f} (runs: {row['same_n']})"
    label = METRIC_NAMES["test_cross_entropy" if metric == "loss" else f"test_{metric}"]
    return [Part(label, text, int(row["n"]), row["verdict"])]


def _change(
    records: Records, second: bool, experiment: str, method: str, reference: str, metric: str
) -> list[Part]:
    column = "test_accuracy" if metric == "accuracy" else "test_cross_entropy"
    values = changes(_runs(records, f"{experiment}_paper"), column, method, reference)
    word = verdicts.of_number(printed(experiment, metric, reference).value, values)
    label = f"{METRIC_NAMES[column]}, {'points' if metric == 'accuracy' else '%'}"
    return [_part(label, _mean(values), word, digits=1)]


def _difference(
    records: Records,
    second: bool,
    study: str,
    metrics: Sequence[str],
    reference: str = "baseline",
    split: str = "",
) -> list[Part]:
    runs = _gaps(of_split(_runs(records, study), split) if split else _runs(records, study))
    method = "tuned" if second else "penalized"
    parts = []
    for metric, model in itertools.product(metrics, MODELS):
        mine = of_model(runs, model)
        found = difference(mine, metric, method, reference)
        word = verdicts.of_difference(found, better(metric), rules()["difference"].margin)
        name = {"test_accuracy": "accuracy", "test_cross_entropy": "loss"}.get(metric, "")
        size = printed(study, name, reference)
        if word == "reproduced" and size is not None:
            values = changes(mine, metric, method, reference)
            if verdicts.of_number(size.value, values) == "not reproduced":
                word = "partly"
        name = GAP_NAMES.get(metric) or METRIC_NAMES[metric]
        parts.append(_part(name, found, word, network=model))
    return parts


def _best(records: Records, second: bool) -> list[Part]:
    """Whether the published setting is beaten by another of the paper's combinations."""
    _, twelve = split_grid(of_model(_runs(records, "grid")))
    winner = (
        published.VARIANCE_WEIGHT,
        published.FEATURE_SAMPLING_RATIO,
        published.LAMBDA["penalized"],
    )
    parts = []
    for name, best in _settings(twelve).items():
        runs = of_datasets(twelve, [name])
        found = setting_difference(runs, "val_cross_entropy", best, winner)
        beaten = verdicts.of_difference(found, -1) == "reproduced"
        word = "not reproduced" if beaten else "cannot be known"
        label = f"{DATASET_NAMES[name]}, {setting_text(*best)} (chosen) minus published"
        parts.append(_part(label, found, "reproduced" if best == winner else word))
    return parts


def _own(records: Records, second: bool) -> list[Part]:
    """Whether a data set is better off with its own weight than with the other's."""
    wide, _ = split_grid(of_model(_runs(records, "grid")))
    settings = _settings(wide)
    parts = []
    for (name, own), other in itertools.permutations(settings.items(), 2):
        foreign = other[1]
        runs = of_datasets(wide, [name])
        found = setting_difference(runs, "val_cross_entropy", own, foreign)
        word = verdicts.of_difference(found, -1, rules()["own"].margin)
        label = f"{DATASET_NAMES[name]}, weight {setting_text(*own)} minus {setting_text(*foreign)}"
        parts.append(_part(label, found, "not reproduced" if own == foreign else word))
    return parts


def _sampling(records: Records, second: bool) -> list[Part]:
    """Percent of a plain step that sampling saves."""
    sampled = _added_time(records, published.FEATURE_SAMPLING_RATIO)
    whole = _added_time(records, 1.0)
    parts = []
    for model, times in sampled.items():
        found = _paired(times, whole.get(model))
        word = verdicts.of_difference(found, -1, 100 * rules()["sampling"].margin)
        parts.append(_part("time of a step, %", found, word, digits=1, network=model))
    return parts


def _overhead(records: Records, second: bool) -> list[Part]:
    """Percent that the penalty adds to a step, against the margin."""
    least = 100 * rules()["overhead"].margin
    times = _added_time(records, 1.0 if second else published.FEATURE_SAMPLING_RATIO)
    return [
        _part(
            "added to a step, %",
            _mean(added),
            verdicts.of_difference(_mean(added - least), 1, 0),
            digits=1,
            network=model,
        )
        for model, added in times.items()
    ]


def _stability(records: Records, second: bool, larger: Sequence[float]) -> list[Part]:
    """Percent change of the features' variance at the last epoch, against weight 0."""
    table = _joined(records, "norms")
    if table.empty:
        return []
    last = table.loc[table.groupby("key")["epoch"].idxmax()]
    weights = larger if second else [published.VARIANCE_WEIGHT]
    measures = {"feature_variance": "variance", "relative_variance": "relative variance"}
    parts = []
    for weight, column, model in itertools.product(weights, measures, last["model"].unique()):
        wide = last[last["model"] == model].pivot(
            index="seed", columns="variance_weight", values=column
        )
        found = None
        if {0.0, weight} <= set(wide.columns):
            found = _mean((100 * (wide[weight] / wide[0.0] - 1)).dropna())
        word = verdicts.of_difference(found, -1, 100 * rules()["stability"].margin)
        label = f"{measures[column]}, %, weight {weight:g}"
        parts.append(_part(label, found, word, digits=1, network=model))
    return parts


def _gap(records: Records, second: bool, study: str, method: str, metric: str) -> list[Part]:
    found = _mean(_curve_gaps(records, study, metric).get(method))
    word = verdicts.of_difference(found, 1, rules()["gap"].margin)
    return [_part(f"gap in {_plain(metric)}", found, word)]


def _narrower(records: Records, second: bool, study: str, method: str, metric: str) -> list[Part]:
    gaps = _curve_gaps(records, study, metric)
    found = _paired(gaps.get(method), gaps.get("baseline"))
    word = verdicts.of_difference(found, -1, rules()["narrower"].margin)
    return [_part(f"gap in {_plain(metric)}, minus the baseline's", found, word)]


def _shown(records: Records, second: bool, study: str, method: str, metric: str) -> list[Part]:
    (part,) = _gap(records, second, study, method, metric)
    return [Part(part.label, part.text, part.n, "cannot be known")]


def _unjudged(records: Records, second: bool) -> list[Part]:
    return []


#: All rules but ``parts``, which rests on other claims.
RULES: dict[str, Callable[..., list[Part]]] = {
    "number": _number,
    "change": _change,
    "difference": _difference,
    "best": _best,
    "own": _own,
    "sampling": _sampling,
    "overhead": _overhead,
    "stability": _stability,
    "gap": _gap,
    "narrower": _narrower,
    "shown": _shown,
    "unjudged": _unjudged,
}


def _runs(records: Records, study: str) -> pd.DataFrame:
    return records[study].runs if study in records else pd.DataFrame()


def _joined(records: Records, probe: str) -> pd.DataFrame:
    """Details of a probe with the settings of their units."""
    units = _runs(records, probe)
    if units.empty:
        return units
    details = records[probe].curves
    names = [name for name in units.columns if name == "key" or name not in details.columns]
    return details.merge(units[names], on="key")


def _added_time(records: Records, ratio: float) -> dict[str, pd.Series]:
    """Percent that the penalty adds to a training step, by network; a value a seed."""
    table = _joined(records, "sampling")
    if table.empty:
        return {}
    mine = table[np.isclose(table["ratio"], ratio)]
    return {
        model: 100 * (group.set_index("seed")["step_ratio"] - 1)
        for model, group in mine.groupby("model", sort=False)
    }


def _curve_gaps(records: Records, study: str, metric: str) -> dict[str, pd.Series]:
    """How far validation is behind training at the restored epoch, by method; a value a seed."""
    runs = _runs(records, study)
    if runs.empty:
        return {}
    names = ["key", "method", "seed", "best_epoch"]
    table = records[study].curves.merge(runs[names], on="key")
    table = table[table["epoch"] == table["best_epoch"]]
    ahead = better(metric) * (table[f"train_{metric}"] - table[f"val_{metric}"])
    table = table.assign(gap=ahead).dropna(subset="gap")
    return {method: group.set_index("seed")["gap"] for method, group in table.groupby("method")}


def _gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """With the gaps to test and to validation images, at the same weights."""
    gapped = with_gaps(runs)
    if gapped.empty:
        return gapped
    return gapped.assign(
        gap_val_accuracy=gapped["train_accuracy"] - gapped["val_accuracy"],
        gap_val_cross_entropy=gapped["val_cross_entropy"] - gapped["train_cross_entropy"],
    )


def _settings(runs: pd.DataFrame) -> dict[str, tuple]:
    """Data set -> the setting that validation chooses."""
    table = chosen(runs)
    settings = table[SETTING].itertuples(index=False)
    return {name: tuple(setting) for name, setting in zip(table["dataset"], settings, strict=True)}


def _mean(values: pd.Series | np.ndarray | None) -> PairedDifference | None:
    """The difference to zero."""
    if values is None or not len(values):
        return None
    return paired_difference(values, np.zeros(len(values)))


def _paired(first: pd.Series | None, second: pd.Series | None) -> PairedDifference | None:
    """``first - second`` over the seeds that both have."""
    if first is None or second is None:
        return None
    return _mean((first - second).dropna())


def _part(
    label: str,
    found: PairedDifference | None,
    verdict: str,
    digits: int = 3,
    network: str = "",
) -> Part:
    text = "\u2013"
    if found is not None:
        text = interval_text(found.mean, found.low, found.high, digits, signed=True)
    return Part(label, text, found.n if found else 0, verdict, MODEL_NAMES.get(network, network))


def _plain(metric: str) -> str:
    return metric.replace("_", "-")
