"""The rules that judge the paper's claims: from recorded runs to parts with a verdict each.

``claims.toml`` states every rule in words, once; here each is a function that gives the parts of a
claim, one a comparison. :func:`companion.verdicts.together` makes them the claim's verdict.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd

from companion import grid_search, published, stated, tables, verdicts, words
from companion.cost import recordings as cost
from companion.probes.norms import variance_parts
from companion.records import Record, details
from companion.studies.grid import MODELS
from varreg.lab.statistics import Interval, PairedDifference, prediction_interval
from varreg.loss import PUBLISHED

#: What of ours a printed number of the test images stands beside.
COLUMN_OF = {"accuracy": "test_accuracy", "loss": "test_cross_entropy"}
#: Runs and curves by study; for a probe, its units and their details.
Records = Mapping[str, Record]


@dataclass(frozen=True)
class Rule:
    """A rule in words, for each part of a claim.

    Attributes:
        name: As the claims call it.
        reproduced: When a part is reproduced; where the same holds on the other side, the part is
            contradicted.
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
        unit: What ``n`` counts.
    """

    label: str
    text: str
    n: int
    verdict: str
    network: str = ""
    unit: str = "seed"


@cache
def rules() -> dict[str, Rule]:
    """The rules by name, with their margins written out.

    Example:
        >>> rules()["difference"].margin == verdicts.MARGIN
        True
    """
    found = {}
    for name, entry in stated("claims")["rules"].items():
        said = {"margin": verdicts.MARGIN, **entry}
        margin = said.pop("margin")
        said = {key: text.format(margin=margin, percent=100 * margin) for key, text in said.items()}
        found[name] = Rule(name, margin=margin, **said)
    return found


def changes(runs: pd.DataFrame, metric: str, method: str, reference: str) -> np.ndarray:
    """Change of each seed, on a scale on which no interval can leave what is possible.

    Args:
        runs: Rows of a ledger, of one data set and network.
        metric: ``"test_accuracy"`` or ``"test_cross_entropy"``.
        method: The method in question.
        reference: The method compared with.

    Returns:
        Points for an accuracy; for a loss the logarithm of the ratio, which
        :func:`change_text` prints in percent.
    """
    new, old = tables.by_seed(runs, metric, method, reference)
    if metric == "test_cross_entropy":
        return np.log(new / old).to_numpy()
    return 100 * (new - old).to_numpy()


def on_scale(shift: published.Shift) -> float:
    """A printed change on the scale of :func:`changes`.

    Example:
        >>> halved = published.Shift("skin", "baseline", "penalized", "loss", -50.0, "")
        >>> round(on_scale(halved), 3)
        -0.693
    """
    return math.log1p(shift.value / 100) if shift.metric == "loss" else shift.value


def change_text(found: Interval | None, relative: bool) -> str:
    """An interval as printed; one of logarithms of ratios, ``relative``, in percent.

    Example:
        >>> halved = Interval(math.log(0.5), math.log(0.4), math.log(0.6), 5)
        >>> print(change_text(halved, relative=True))
        \u221250.0 [\u221260.0, \u221240.0]
    """
    return words.change(_percent(found) if found and relative else found, 1)


def range_text(values: np.ndarray, relative: bool) -> str:
    """Where the change of one further pair of runs is expected, as printed."""
    if len(values) < 2:
        return words.DASH
    found = prediction_interval(values)
    found = _percent(found) if relative else found
    return words.between(found.low, found.high, 1, signed=True)


def _percent(log: Interval) -> Interval:
    """A change in percent, from the logarithm of a ratio."""
    ends = (100 * math.expm1(end) for end in (log.mean, log.low, log.high))
    return Interval(*ends, log.n)


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
    known = {(each.experiment, each.metric, each.reference): each for each in published.SHIFTS}
    return known.get((experiment, metric, reference))


def judged(runs: pd.DataFrame, shift: published.Shift) -> tuple[np.ndarray, str]:
    """Our :func:`changes` beside a printed one, and the verdict on it."""
    values = changes(runs, COLUMN_OF[shift.metric], shift.method, shift.reference)
    return values, verdicts.of_number(on_scale(shift), values, null=0)


# One function a rule. Where a claim may have a second verdict, `second` asks for it: the penalty
# with the best weight above zero, a larger one, or all features.


def _number(records: Records, experiment: str, method: str, metric: str) -> list[Part]:
    number = published.find(experiment, method, metric, source=published.TABLES[experiment])
    row = tables.against_published(_runs(records, f"{experiment}_paper"), [number]).iloc[0]
    text = words.interval(row["mean"], row["low"], row["high"])
    if row["n"] > 1:
        text += f"; one further run {row['from']:.3f} to {row['to']:.3f}"
    if row["same_n"]:
        text += f"; measured as it was, {row['same']:.3f} (runs: {row['same_n']})"
    label = tables.METRIC_NAMES[COLUMN_OF[metric]]
    return [Part(label, text, int(row["n"]), row["verdict"])]


def _change(
    records: Records, experiment: str, method: str, reference: str, metric: str
) -> list[Part]:
    shift, relative = printed(experiment, metric, reference), metric == "loss"
    values, word = judged(_runs(records, f"{experiment}_paper"), shift)
    label = f"{tables.METRIC_NAMES[COLUMN_OF[metric]]}, {'%' if relative else 'points'}"
    text = change_text(tables.mean_change(values), relative)
    if len(values) > 1:
        text += f"; one further pair {range_text(values, relative)}"
    return [Part(label, text, len(values), word)]


def _difference(
    records: Records,
    study: str,
    metrics: Sequence[str],
    reference: str = "baseline",
    split: str = "",
    second: bool = False,
) -> list[Part]:
    runs = _runs(records, study)
    runs = tables.with_gaps(tables.of_split(runs, split) if split else runs)
    method = "tuned" if second else "penalized"
    parts = []
    for metric, model in itertools.product(metrics, MODELS):
        mine = tables.of_model(runs, model)
        found = tables.difference(mine, metric, method, reference)
        word = verdicts.of_difference(found, tables.better(metric), rules()["difference"].margin)
        name = next((name for name in COLUMN_OF if COLUMN_OF[name] == metric), "")
        size = printed(study, name, reference)
        if word == "reproduced" and size is not None:
            values = changes(mine, metric, method, reference)
            if verdicts.of_number(on_scale(size), values) == "not reproduced":
                word = "partly"
        parts.append(_part(tables.METRIC_NAMES[metric], found, word, tables.MODEL_NAMES[model]))
    return parts


def _best(records: Records) -> list[Part]:
    """Whether the published setting is beaten, on seeds left out, by what the others choose."""
    _, twelve = grid_search.split_grid(tables.of_model(_runs(records, "grid")))
    winner = tuple(PUBLISHED[name] for name in grid_search.SETTING)
    parts = []
    for name, best in _settings(twelve).items():
        runs = tables.of_datasets(twelve, [name])
        found = grid_search.crossfit_difference(runs, "val_cross_entropy", winner)
        # Every interval must exclude zero, so that no rival is favoured by being picked.
        rivals = set(runs[grid_search.SETTING].itertuples(index=False, name=None)) - {winner}
        leads = [
            grid_search.setting_difference(runs, "val_cross_entropy", winner, each)
            for each in rivals
        ]
        ahead = {verdicts.of_difference(lead, -1) for lead in leads} == {"reproduced"}
        beaten = verdicts.of_difference(found, -1) == "reproduced"
        word = "not reproduced" if beaten else "cannot be known"
        setting = grid_search.setting_text(*best)
        label = f"{tables.DATASET_NAMES[name]}, chosen ({setting}) minus published"
        parts.append(_part(label, found, "reproduced" if ahead else word))
    return parts


def _own(records: Records) -> list[Part]:
    """Whether a data set is better off with its own weight, on seeds left out, than another's."""
    wide, _ = grid_search.split_grid(tables.of_model(_runs(records, "grid")))
    parts = []
    for (name, own), (other, foreign) in itertools.permutations(_settings(wide).items(), 2):
        found = grid_search.crossfit_difference(
            tables.of_datasets(wide, [name]), "val_cross_entropy", foreign
        )
        word = verdicts.of_difference(found, -1, rules()["own"].margin)
        label = (
            f"{tables.DATASET_NAMES[name]}, its choice ({grid_search.setting_text(*own)}) minus "
            f"{tables.DATASET_NAMES[other]}'s ({grid_search.setting_text(*foreign)})"
        )
        parts.append(_part(label, found, word))
    return parts


def _sampling(records: Records) -> list[Part]:
    """Whether a step with the sampled penalty takes less time than one with all features."""
    saving = -math.log1p(-rules()["sampling"].margin)
    sampled, whole = cost.RELEASED[published.FEATURE_SAMPLING_RATIO], cost.RELEASED[1.0]

    def judge(found: PairedDifference, noise: float) -> str:
        word = verdicts.of_difference(found, -1, saving)
        # A difference, or the lack of one, counts where the same step twice differs by less.
        seen = saving if word == "not reproduced" else min(abs(found.low), abs(found.high))
        return word if noise < seen else "cannot be known"

    return _steps(records, sampled, whole, judge)


def _overhead(records: Records, second: bool = False) -> list[Part]:
    """Whether the penalty adds more to a step than the margin."""
    least = math.log1p(rules()["overhead"].margin)
    penalty = cost.RELEASED[1.0 if second else published.FEATURE_SAMPLING_RATIO]

    def judge(found: PairedDifference, noise: float) -> str:
        if found.low > max(least, noise):
            return "reproduced"
        return "not reproduced" if max(found.high, noise) < least else "cannot be known"

    return _steps(records, penalty, cost.PLAIN, judge)


def _steps(
    records: Records,
    penalty: str,
    against: str,
    judge: Callable[[PairedDifference, float], str],
) -> list[Part]:
    """Judge the ratio of two training steps, network by network, on the scale of logarithms.

    ``judge`` is given the difference over recordings, and how far from none the interval of a
    step reaches that is timed twice.
    """
    if "overhead" not in records:
        return []
    parts = []
    devices = cost.grouped("overhead", records["overhead"].runs, records["overhead"].curves)
    for each in devices:
        label = f"times as long, {penalty} against {against}"
        label += f", on {each.name}" * (len(devices) > 1)
        twice = cost.step_ratios(each, cost.AGAIN)
        for network, ratios in cost.step_ratios(each, penalty, against).items():
            found = tables.mean_change(np.log(ratios.values))
            same = tables.mean_change(np.log(twice[network].values)) if network in twice else None
            text, word = ratios.text(), "cannot be known"
            if found.n > 1:
                low, high = np.exp([found.low, found.high])
                text += f"; 95 % interval {low:.3f} to {high:.3f}"
            if found.n > 1 and same and same.n > 1:
                word = judge(found, max(abs(same.low), abs(same.high)))
            parts.append(Part(label, text, found.n, word, network, "recording"))
    return parts


def _stability(records: Records, larger: Sequence[float], second: bool = False) -> list[Part]:
    """Factor on the features' variance at the last epoch, against weight 0."""
    weights = larger if second else [published.VARIANCE_WEIGHT]
    measures = {"variance": "variance", "shape": "relative variance"}
    least = -math.log1p(-rules()["stability"].margin)
    norms = records.get("norms")
    found = variance_parts(details(norms.runs, norms.curves) if norms else pd.DataFrame())
    parts = []
    for weight, column in itertools.product(weights, measures):
        for row in found[found["variance_weight"] == weight].to_dict("records"):
            log = row[column]
            word = verdicts.of_difference(log, -1, least)
            label = f"{measures[column]}, times that without, weight {weight:g}"
            network = tables.MODEL_NAMES[row["model"]]
            parts.append(Part(label, words.factor(log), log.n, word, network))
    return parts


def _gap(records: Records, study: str, method: str, metric: str) -> list[Part]:
    found = tables.mean_change(_curve_gaps(records, study, metric).get(method))
    word = verdicts.of_difference(found, 1, rules()["gap"].margin)
    return [_part(f"gap in {metric.replace('_', '-')}", found, word)]


def _narrower(records: Records, study: str, method: str, metric: str) -> list[Part]:
    gaps = _curve_gaps(records, study, metric)
    both = {method, "baseline"} <= set(gaps)
    found = tables.mean_change((gaps[method] - gaps["baseline"]).dropna()) if both else None
    word = verdicts.of_difference(found, -1, rules()["narrower"].margin)
    return [_part(f"gap in {metric.replace('_', '-')}, minus the baseline's", found, word)]


def _shown(records: Records, study: str, method: str, metric: str) -> list[Part]:
    (part,) = _gap(records, study, method, metric)
    return [replace(part, verdict="cannot be known")]


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
    "unjudged": lambda records: [],
}


def _runs(records: Records, study: str) -> pd.DataFrame:
    return records[study].runs if study in records else pd.DataFrame()


def _curve_gaps(records: Records, study: str, metric: str) -> dict[str, pd.Series]:
    """How far validation is behind training at the restored epoch, by method; a value a seed."""
    runs = _runs(records, study)
    if runs.empty:
        return {}
    table = details(runs, records[study].curves).query("epoch == best_epoch").set_index("seed")
    gap = tables.better(metric) * (table[f"train_{metric}"] - table[f"val_{metric}"])
    return dict(tuple(gap.dropna().groupby(table["method"])))


def _settings(runs: pd.DataFrame) -> dict[str, tuple]:
    """Data set -> the setting that validation chooses, no penalty among the candidates."""
    chosen = grid_search.chosen(runs).itertuples()
    return {
        row.dataset: tuple(getattr(row, name) for name in grid_search.SETTING) for row in chosen
    }


def _part(label: str, found: PairedDifference | None, verdict: str, network: str = "") -> Part:
    return Part(label, words.change(found), found.n if found else 0, verdict, network)
