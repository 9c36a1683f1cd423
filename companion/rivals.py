"""The page about the comparison: every method at its strength beside its reference.

A block is a data set, a network and with or without augmentation; see
:mod:`companion.studies.rivals_tuning`. Only blocks of which every run is recorded are shown.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from companion import over_images, style, verdicts, words
from companion.over_images import labels
from companion.probes.labels import PARTS
from companion.studies import rivals
from companion.studies.rivals_tuning import (
    BLOCKS,
    CANDIDATES,
    DATASETS,
    MAIN,
    Block,
    chosen_strengths,
    mean_scores,
    reference,
)
from companion.tables import by_seed, mean_change, recalls, with_gaps
from varreg.lab.calibration import fit_temperature
from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.metrics import (
    auroc,
    cross_entropy,
    expected_calibration_error,
    reliability_metrics,
)
from varreg.lab.predictions import Predictions
from varreg.lab.statistics import (
    PairedDifference,
    detectable,
    holm,
    probability_of_improvement,
    variance_shares,
)
from varreg.loss import PUBLISHED

PRIMARY = "test_cross_entropy"
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
    "scaled_auroc": ("AUROC after temperature", True),
    "scaled_ece": ("calibration error after temperature", False),
    "scaled_brier": ("Brier score after temperature", False),
    "scaled_augrc": ("AUGRC after temperature", False),
    "scaled_aurc": ("AURC after temperature", False),
    "gap_cross_entropy": ("gap in cross-entropy", False),
    "corrupted_cross_entropy": ("cross-entropy, corrupted", False),
    "corrupted_auroc": ("AUROC, corrupted", True),
    "corrupted_accuracy": ("accuracy, corrupted", True),
    "last_cross_entropy": ("cross-entropy, last epoch", False),
    "last_auroc": ("AUROC, last epoch", True),
}

#: Measures that the text may name.
TOLD = (
    PRIMARY,
    "test_auroc",
    "test_balanced_accuracy",
    "scaled_cross_entropy",
    "corrupted_cross_entropy",
    "corrupted_auroc",
)

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
    "small_cnn_half": ", half as wide",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """A block of which every run is recorded.

    Attributes:
        block: Which.
        runs: Its runs, with the columns of the ledger and those of :func:`measured`.
        strengths: By method, as from :func:`companion.studies.rivals_tuning.chosen_strengths`.
        logits: Of the test images, by the key of a run.
        truth: Their labels.
    """

    block: Block
    runs: pd.DataFrame
    strengths: Mapping[str, float]
    logits: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    truth: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, int))

    @property
    def name(self) -> str:
        """As printed.

        Example:
            >>> Compared(BLOCKS[1], pd.DataFrame(), {}).name
            'BreastMNIST, 546 images, augmented'
        """
        augmented = ", augmented" * self.block.augment
        share = self.block.train_share
        part = f", {words.percent(share, 0)} of them" if share < 1 else ""
        return DATA[self.block.dataset] + part + NETWORKS[self.block.model] + augmented

    def change(self, method: str, against: str, measure: str) -> pd.Series:
        """``method - against``, a value for each seed that both have."""
        first, second = by_seed(self.runs, measure, method, against)
        return first - second

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Every method against its reference, over the seeds that both have.

        A row a method and measure: ``method, reference, strength, measure, mean, low, high, n, p,
        p_holm, wins`` (share of the seeds with a better value; ties count half), ``improves`` (the
        same where the other run has another seed), ``detectable`` (the smallest mean difference
        that would have been found with a probability of 80 %) and ``text``, the difference as
        printed. Holm's correction is over the methods, for the primary outcome; it is NaN for the
        others. What validation turned off has strength 0 and no difference.
        """
        rows = []
        for method in dict.fromkeys([*self.runs["method"], *self.strengths]):
            against = reference(self.block, method)
            strength = self.strengths.get(method, math.nan)
            head = {"method": method, "reference": against, "strength": strength}
            for measure, (_, more) in MEASURES.items() if method != against else ():
                if measure not in self.runs:
                    continue
                both = by_seed(self.runs, measure, method, against)
                if len(both[0]) > 1:
                    rows.append(head | {"measure": measure} | _difference(*both, more))
                elif strength == 0 and measure == PRIMARY:
                    off = {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 0, "p": math.nan}
                    rows.append(head | {"measure": measure} | off)
        return _corrected(pd.DataFrame(rows))

    def of(self, measure: str) -> pd.DataFrame:
        """The differences of one measure, by method, the lowest first."""
        found = self.differences
        return found[found["measure"] == measure].set_index("method").sort_values("mean")

    @cached_property
    def over_images(self) -> pd.DataFrame:
        """The differences over seeds *and* images: for other trainings and other test images.

        As :attr:`differences`, of cross-entropy and AUROC, without what was turned off.
        """
        keys, rows = self.runs.pivot(index="seed", columns="method", values="key"), []
        tested = self.of(PRIMARY).query("n > 1")["reference"]
        for measure in (PRIMARY, "test_auroc"):
            added = {
                key: over_images.by_image(self.logits[key], self.truth, measure)
                for key in self.runs["key"]
            }
            for method, against in tested.items():
                exact = mean_change(self.change(method, against, measure))
                found = over_images.crossed(keys[[method, against]], added, exact)
                ends = {key: getattr(found, key) for key in ("mean", "low", "high", "n", "p")}
                head = {"method": method, "reference": against, "measure": measure}
                rows.append(head | {"strength": self.strengths.get(method, math.nan)} | ends)
        return _corrected(pd.DataFrame(rows))


def _difference(first: pd.Series, second: pd.Series, more: bool) -> dict[str, float]:
    found = mean_change(first - second)
    better, worse = (first, second) if more else (second, first)
    return {key: getattr(found, key) for key in ("mean", "low", "high", "n", "p")} | {
        "wins": ((better > worse) + 0.5 * (better == worse)).mean(),
        "improves": probability_of_improvement(better, worse),
        "detectable": detectable(first - second),
    }


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """With Holm's p over the methods, for the primary outcome, and the text."""
    primary = table["measure"] == PRIMARY
    table["p_holm"] = math.nan
    table.loc[primary, "p_holm"] = holm(table.loc[primary, "p"])
    return table.assign(text=[_text(row) for row in table.itertuples()])


def _text(row: NamedTuple) -> str:
    star = "*" * (row.p_holm < 0.05)
    return words.change(row) + star if row.n else "off"


def recorded_blocks(results: Path | None = None) -> list[Compared]:
    """Blocks of which every run is recorded.

    Those that differ in their methods alone are one: Holm's correction is over all of them.

    Args:
        results: Folder of the ledgers; default: the recorded results.
    """
    ledger = Ledger("rivals", results)
    runs = ledger.runs()
    if runs.empty:
        return []
    runs, wanted = runs.set_index("key", drop=False), {}
    methods: dict[Block, tuple[str, ...]] = {}
    for block in BLOCKS:
        keys = {spec.key for spec in rivals.block_specs(block, results) or ()}
        if keys and keys <= set(runs.index):
            setting = dataclasses.replace(block, methods=())
            methods[setting] = methods.get(setting, ()) + block.methods
    for setting, every in methods.items():
        block = dataclasses.replace(setting, methods=every)
        wanted[block] = [spec.key for spec in rivals.block_specs(block, results) or ()]
    said = ledger.all_predictions(itertools.chain(*wanted.values()), (*PARTS, "test_last"))
    found = [
        with_predictions(
            Compared(block, runs.loc[keys], chosen_strengths(block, results)), said, results
        )
        for block, keys in wanted.items()
    ]
    return [with_augmentation(each, found) for each in found]


def with_predictions(
    mine: Compared, said: Mapping[str, dict[str, Predictions]], results: Path | None = None
) -> Compared:
    """A block with what follows from the recorded logits of its runs.

    Args:
        mine: The block, its runs as in the ledger.
        said: Predictions by key of a run and split, with all runs of the block among them.
        results: Folder of the ledgers, where the labels are.
    """
    split = DATASETS[mine.block.dataset].get("split")
    truth = {part: labels(mine.block.dataset, split, part, results) for part in PARTS}
    keys = mine.runs["key"]
    more = pd.DataFrame([measured(said[key], truth) for key in keys])
    runs = pd.concat([with_gaps(mine.runs).reset_index(drop=True), more], axis=1)
    # Of all blocks: augmentation alone is a method of this one and a run of another.
    logits = {key: each["test"].logits for key, each in said.items()}
    return dataclasses.replace(mine, runs=runs, logits=logits, truth=truth["test"])


def with_augmentation(mine: Compared, every: Sequence[Compared]) -> Compared:
    """A block in which the paper's augmentation is a method, too, where its runs are recorded.

    Args:
        mine: The block.
        every: All of them: augmentation alone is the reference where all are augmented.
    """
    sibling = dataclasses.replace(mine.block, augment=True, methods=())
    for other in every if not mine.block.augment else ():
        if dataclasses.replace(other.block, methods=()) == sibling:
            augmented = other.runs[other.runs["method"] == "augmented"]
            return dataclasses.replace(mine, runs=pd.concat([mine.runs, augmented]))
    return mine


def measured(said: dict[str, Predictions], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """What follows from the recorded logits of a run.

    Args:
        said: Its predictions, by split.
        truth: Labels of the validation and test images.

    Returns:
        Brier score, AURC and AUGRC of the test images; the ``temperature`` that the validation
        images fit, and behind ``scaled_`` the metrics that it can change; behind ``last_`` those of
        the weights of the last epoch, where these were recorded.
    """
    task = "binary" if said["test"].logits.shape[1] == 1 else "multiclass"
    logits = {
        split: torch.tensor(found.logits, dtype=torch.float64) for split, found in said.items()
    }
    target = {part: torch.tensor(values) for part, values in truth.items()}
    temperature = fit_temperature(logits["val"], target["val"], task)
    scaled = (logits["test"] / temperature, target["test"], task)
    reliability = reliability_metrics(logits["test"], *scaled[1:])
    found = {f"test_{name}": value for name, value in reliability.items()} | {
        "temperature": temperature,
        "scaled_cross_entropy": cross_entropy(*scaled),
        "scaled_ece": expected_calibration_error(*scaled),
    }
    after = {f"scaled_{name}": value for name, value in reliability_metrics(*scaled).items()}
    if "test_last" in said:
        last = (logits["test_last"], *scaled[1:])
        found |= {"last_cross_entropy": cross_entropy(*last), "last_auroc": auroc(*last)}
    # One temperature moves no image past another where there are two classes.
    if task == "binary":
        return found | {"scaled_brier": after["scaled_brier"]}
    return found | after | {"scaled_auroc": auroc(*scaled)}


def methods_table() -> pd.DataFrame:
    """What is compared, as printed: what each does, what its strength is, and who proposed it."""
    rows = []
    for name in METHODS:
        if name == "baseline":
            continue
        method = METHODS[name]
        rows.append(
            {
                "Method": title(name),
                "Does": method.formula,
                "Unchanged by": method.unchanged.replace(" ", ", "),
                "Strength s": method.strength or "weight" * method.weighted,
                "Start with": f"{method.default:g}" if method.default else "",
                "Source": method.source,
            }
        )
    return pd.DataFrame(rows).replace("", words.DASH)


def table(compared: Compared, measures: Sequence[str]) -> pd.DataFrame:
    """Differences of a block as printed, the largest gain in the primary outcome first.

    Measures that are not there are left out. With the primary outcome come the strength, its
    verdict and how often it is better. A star marks it where Holm's p is below 0.05, and *reads*
    says what follows: lower or higher than the reference, negligible, or unclear; *off* is a method
    that validation turned off. *Better in* is the share of the seeds in which it is better, and in
    brackets that of all pairs of runs with different seeds.
    """
    measures = [measure for measure in measures if measure in compared.runs]
    rows = compared.of(PRIMARY).reset_index()
    texts = {measure: rows["method"].map(compared.of(measure)["text"]) for measure in measures}
    columns = {
        "Method": (["method", "reference"], _named),
        "Strength": ("strength", said_strength),
        **{words.capital(MEASURES[measure][0]): measure for measure in measures},
        "Reads": (["n", "mean", "low", "high", "p_holm"], _reads),
        "Better in": (["wins", "improves", "n"], _better),
    }
    rows = rows.assign(**texts).fillna(dict.fromkeys(measures, words.DASH))
    shown = words.printed(rows, columns)
    return shown if PRIMARY in measures else shown.drop(columns=["Strength", "Reads", "Better in"])


def confidence(compared: Compared) -> pd.DataFrame:
    """The gain in cross-entropy before and after a temperature, as printed, where there was one."""
    first, after, area = map(compared.of, (PRIMARY, "scaled_cross_entropy", "test_auroc"))
    rows = []
    for method in first.index[(first["high"] < 0) & (first["n"] > 0)]:
        left = words.percent(after.loc[method, "mean"] / first.loc[method, "mean"])
        texts = [found.loc[method, "text"] for found in (first, after, area)]
        rows.append((title(method), *texts, left))
    columns = ["Method", "As trained", "After a temperature", "AUROC", "Left"]
    return pd.DataFrame(rows, columns=columns)


def strengths_table(block: Block, results: Path | None = None) -> pd.DataFrame:
    """Validation cross-entropy of each method at its six strengths, less that of its reference."""
    means = mean_scores(block, results)
    rows = []
    for method in block.methods if means is not None else ():
        off = means[reference(block, method), 0.0]
        row = {"Method": title(method)}
        for place, strength in enumerate(CANDIDATES[method], 1):
            gain = words.number(means[method, strength] - off, signed=True)
            row[f"Strength {place}"] = f"{gain} ({said_strength(strength)})"
        rows.append(row)
    return pd.DataFrame(rows)


#: What the variants differ by: the question, and the two methods that answer it.
CONTRASTS = (
    ("Is it the variance, or the size of the features?", "tuned", "feature_l2"),
    ("Within the classes only, or over all images?", "within_class", "tuned"),
    ("Relative to the variance between the classes, or as it is?", "relative_within", "tuned"),
    ("Weighted by the head, or each feature alike?", "head_weighted", "tuned"),
    ("The same, within the classes only", "head_weighted_within", "head_weighted"),
    ("A weight that sets itself, or one that was searched for?", "self_setting", "tuned"),
    ("And where both are weighted by the head?", "head_weighted_self", "head_weighted"),
    ("Off at first, or on from the start?", "warmed_up", "self_setting"),
    ("Down to half of its start, or a weight?", "target", "tuned"),
    ("Only the features that vary most, or all?", "excess", "tuned"),
    ("The features, or the logits?", "tuned", "logit_variance"),
    ("Their variance, or their covariances?", "tuned", "decov"),
    ("The features, or noise on them?", "tuned", "dropout"),
    ("The penalty, or another learning rate?", "tuned", "learning_rate"),
    ("The penalty, or a smaller head?", "tuned", "head_decay"),
    ("The penalty, or a smoother goal?", "tuned", "label_smoothing"),
    ("Two views of half as many images, or one of each?", "two_views", "augmented"),
    ("Over two views of an image, or two views alone?", "view_variance", "two_views"),
    ("The same, of the logits", "logit_view_variance", "two_views"),
)


def contrasts(
    compared: Compared,
    measures: Sequence[str] = (PRIMARY, "test_auroc", "scaled_cross_entropy"),
) -> pd.DataFrame:
    """Two methods beside each other that differ in one ingredient, seed by seed, as printed.

    What validation turned off is its reference, and says so; a pair of which both are off is left
    out.

    Args:
        compared: A block; pairs that it lacks are left out.
        measures: Keys of :data:`MEASURES`.
    """
    rows = []
    for question, *pair in CONTRASTS:
        changes = [_contrast(compared, pair, measure) for measure in measures]
        if any(changes):
            names = " \u2212 ".join(
                named(name) + " (off)" * (compared.strengths.get(name) == 0) for name in pair
            )
            rows.append((question, words.capital(names), *map(words.change, changes)))
    titles = [words.capital(MEASURES[measure][0]) for measure in measures]
    return pd.DataFrame(rows, columns=["Question", "Difference", *titles])


def contrast_facts(blocks: Sequence[Compared]) -> dict[str, str]:
    """The differences of :func:`contrasts` by name: ``variants_``, block, the two methods.

    After a temperature their names end in ``_scaled``.
    """
    found = {}
    for each, (_, *pair) in itertools.product(blocks, CONTRASTS):
        name = f"variants_{in_a_name(each.block)}_{'_over_'.join(pair)}"
        for key, measure in ((name, PRIMARY), (f"{name}_scaled", "scaled_cross_entropy")):
            if apart := _contrast(each, pair, measure):
                found[key] = words.change(apart)
    return found


def _contrast(compared: Compared, pair: Sequence[str], measure: str) -> PairedDifference | None:
    """The first minus the second, or its reference for what is off; ``None`` without runs."""
    trained = [
        reference(compared.block, name) if compared.strengths.get(name) == 0 else name
        for name in pair
    ]
    if trained[0] == trained[1]:
        return None
    return mean_change(compared.change(*trained, measure))


def other_images(compared: Compared) -> pd.DataFrame:
    """The differences over seeds and images as printed, the largest gain first.

    A star marks the primary outcome where Holm's p, over seeds and images, is below 0.05.
    """
    found = compared.over_images.pivot(index="method", columns="measure", values="text")
    order = compared.of(PRIMARY).query("n > 1")
    columns = {"Method": (["index", "reference"], _named)} | {
        words.capital(MEASURES[measure][0]): measure for measure in (PRIMARY, "test_auroc")
    }
    rows = found.loc[order.index].assign(reference=order["reference"])
    return words.printed(rows.rename_axis("index").reset_index(), columns)


def recall_table(compared: Compared) -> pd.DataFrame:
    """Difference in the recall of each class as printed, the largest gain in the primary first."""
    rows = compared.of(PRIMARY).query("n > 1")["reference"]
    every, found = recalls(compared.runs), {"Method": [*map(_named, rows.index, rows)]}
    for name, mine in every.groupby("class", sort=False):
        pairs = (by_seed(mine, "recall", *pair) for pair in rows.items())
        changes = [words.change(mean_change(first - second)) for first, second in pairs]
        found[words.capital(name)] = changes
    return pd.DataFrame(found)


def variation(blocks: Sequence[Compared]) -> pd.DataFrame:
    """What explains the variation of the primary outcome, and what could have been seen.

    The last column is with a test at 5 % over the number of methods, the first step of Holm's.
    """
    rows = []
    for each in blocks:
        first = each.of(PRIMARY).query("n > 1")
        strict = 1 - 0.05 / len(first)
        seen = [
            detectable(each.change(*pair, PRIMARY), confidence=strict)
            for pair in first["reference"].items()
        ]
        reaches = (first["detectable"].median(), first["detectable"].max(), np.median(seen))
        shares = map(words.percent, explained(each.runs).values())
        rows.append((each.name, *shares, *map(words.number, reaches)))
    seen = ["Detectable, median", "Detectable, largest", "Median after Holm"]
    return pd.DataFrame(rows, columns=["Block", "Method", "Seed", "Rest", *seen])


def explained(runs: pd.DataFrame) -> dict[str, float]:
    """Shares of the variation of the primary outcome: method, seed, and what is left."""
    wide = runs.pivot(index="seed", columns="method", values=PRIMARY).dropna(axis=1)
    seed, method, rest = variance_shares(wide.to_numpy(), ["seed", "method"], order=1).values()
    return {"method": method, "seed": seed, "rest": rest}


def facts(blocks: Sequence[Compared]) -> dict[str, object]:
    """What the text of the page says in numbers, by name."""
    recorded = [
        any(
            dataclasses.replace(planned, methods=each.block.methods) == each.block
            and set(planned.methods) <= set(each.block.methods)
            for each in blocks
        )
        for planned in BLOCKS
    ]
    found: dict[str, object] = {"rivals_recorded": sum(recorded), "rivals_planned": len(BLOCKS)}
    for each in blocks:
        block, strengths = each.block, each.strengths
        rows = each.of(PRIMARY).query("n > 0 and reference != 'two_views'")
        stands = rows["p_holm"] < 0.05
        edge = [
            named(method)
            for method, strength in strengths.items()
            if strength in (CANDIDATES[method][0], CANDIDATES[method][-1])
        ]
        told = {
            "methods": len(rows),
            "seeds": int(rows["n"].max()),
            "images": len(each.truth),
            "stand": int((stands & (rows["mean"] < 0)).sum()),
            "worse": int((stands & (rows["mean"] > 0)).sum()),
            "best": named(rows.index[0]),
            "edge": words.listed(edge) if edge else "none",
        }
        for row in each.differences.itertuples():
            if row.n and row.measure in TOLD:
                told[f"{row.method}_{row.measure}"] = words.change(row)
        images = each.over_images
        beyond = images[(images["p_holm"] < 0.05) & (images["mean"] < 0)]
        told["stand_images"] = int(beyond["method"].isin(rows.index).sum())
        for row in images[images["method"].isin(MAIN)].itertuples():
            told[f"{row.method}_{row.measure}_images"] = words.change(row)
        # Beside the cross-entropy, which the paper halves.
        beside = PUBLISHED["variance_weight"] / PUBLISHED["lambda_"]
        if times := strengths.get("tuned", 0) / beside:
            told["times_published"] = f"{times:,.3g}"
            told["weight"] = said_strength(strengths["tuned"])
        for part, share in explained(each.runs).items():
            told[f"explained_{part}"] = words.percent(share)
        found |= {f"rivals_{in_a_name(block)}_{name}": value for name, value in told.items()}
    return found


def in_a_name(block: Block) -> str:
    """A block in the name of a fact: data set, augmentation, network.

    Example:
        >>> in_a_name(Block("breastmnist", (), model="small_cnn_norm"))
        'breastmnist_norm'
    """
    network = block.model.removeprefix("small_cnn")  # "", or "_norm" and the like
    return f"{block.dataset}{'_augmented' * block.augment}{network}"


def forest(ax: Axes, compared: Compared, measure: str, methods: Sequence[str]) -> None:
    """Draw the differences of a block in one measure; what validation turned off is a cross.

    Args:
        ax: Where.
        compared: The block.
        measure: A key of :data:`MEASURES`.
        methods: From top to bottom; the others are not drawn.
    """
    said, more = MEASURES[measure]
    rows = compared.of(measure).query("n > 0")
    rows = rows[rows.index.isin(list(methods))]
    for row in rows.itertuples():
        place, color = methods.index(row.Index), METHODS[row.Index].color
        face = color if style.filled(row, corrected=measure == PRIMARY) else "white"
        style.bar(ax, row, place, 2, color=color, marker="o", ms=6, mfc=face)
    for name, strength in compared.strengths.items():
        if not strength and name in methods:
            ax.plot(0, methods.index(name), "x", color=METHODS[name].color, ms=5)
    ax.axvline(0, color="black", lw=0.8)
    style.shade_better(ax, 1 if more else -1)
    ends = rows[["low", "high"]].to_numpy()
    if len(ends):
        low, high = min(0.0, np.nanmin(ends)), max(0.0, np.nanmax(ends))
        room = 0.05 * max(high - low, 0.01)
        ax.set_xlim(low - room, high + room)
    ax.xaxis.set_major_locator(MaxNLocator(2))
    ax.set_xlabel(said)
    ax.grid(axis="y", visible=False)


def _reads(n: int, *found: float) -> str:
    return verdicts.reads(*found) if n else "off"


def named(method: str) -> str:
    """A method as printed within a sentence; a weight that validation chose is a fixed one here."""
    return "penalty, fixed weight" if method == "tuned" else METHODS[method].title


def title(method: str) -> str:
    """A method as printed on its own."""
    return words.capital(named(method))


def _named(method: str, against: str) -> str:
    """A method as printed, with its reference where that is not what it changes alone."""
    usual = METHODS[method].reference == "baseline"
    return title(method) + f" (against {named(against)})" * (not usual)


def _better(wins: float, improves: float, n: int) -> str:
    return f"{words.percent(wins)} ({words.percent(improves)})" if n else words.DASH


def said_strength(value: float) -> str:
    """A strength as printed, exactly: 0.998 is not 1.

    Example:
        >>> said_strength(0.998), said_strength(0.0)
        ('0.998', 'off')
    """
    if math.isnan(value):
        return words.DASH
    return f"{value:g}" if value else "off"
