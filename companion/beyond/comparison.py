"""What is recorded already says of three wishes: thresholds, other regularizers, the weight.

The comparison on BreastMNIST, and PneumoniaMNIST at the strengths that were chosen there.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from companion import words
from companion.beyond.effects import NAMES, TITLES, Pair, Section, of_specs, pairs, recorded
from companion.studies import few_images, rivals
from companion.studies.rivals_tuning import BLOCKS, chosen_strengths
from varreg.lab.methods import METHODS

PLAIN, AUGMENTED = BLOCKS[:2]

THRESHOLDS = ("excess", "target", "relative_within")
"""Only what varies more than the median pays; pay until half is gone; variance beside that between
the classes."""

REGULARIZERS = ("feature_l2", "self_setting", "head_weighted_self")
"""Those that validation left on beside augmentation and that are on the features."""


def _pair(name: str, method: str, against: str) -> Pair:
    return Pair(name, _title(name), method, against, METHODS[name].color)


def _than(method: str, other: str) -> Pair:
    """One method against another, which the figure over all sections leaves out."""
    title = f"{_title(method)}, against {_title(other)}"
    return Pair(f"{method}_{other}", title, method, other, drawn=False)


def _title(method: str) -> str:
    return TITLES.get(NAMES.get(method, ""), METHODS[method].title)


def _runs(results: Path | None) -> pd.DataFrame:
    """Both blocks, with and without augmentation; empty where one is not recorded."""
    keys = [
        spec.key
        for block in (PLAIN, AUGMENTED)
        for spec in rivals.block_specs(block, results) or ()
    ]
    runs = recorded("rivals", keys, results) if keys else pd.DataFrame()
    if runs.empty:
        return runs
    beside = runs["augment"] & (runs["method"] != "augmented")
    return runs.assign(method=runs["method"] + beside.map({True: " augmented", False: ""}))


def sections(results: Path | None = None) -> list[Section]:
    """The sections of these wishes, where all of their runs are recorded."""
    found = []
    runs = _runs(results)
    if len(runs):
        thresholds = [_pair(name, name, "baseline") for name in THRESHOLDS]
        thresholds += [_than(name, "tuned") for name in THRESHOLDS]
        found.append(Section("thresholds", "adaptive thresholds", runs, tuple(thresholds)))
        beside = [_pair(name, f"{name} augmented", "augmented") for name in REGULARIZERS]
        found.append(Section("combination", "beside augmentation", runs, tuple(beside)))
        weights = [_pair(name, name, "baseline") for name in ("tuned", "self_setting")]
        weights.append(_than("self_setting", "tuned"))
        found.append(Section("weight", "choice of the weight", runs, tuple(weights)))
    listed = [
        spec
        for spec in few_images.specs()
        if (spec.dataset, spec.train_share, spec.augment) == ("pneumoniamnist", 1.0, False)
    ]
    carried = (
        *pairs("fixed", "self_setting"),
        Pair(
            "self_setting_fixed",
            f"{TITLES['self_setting']}, against a fixed weight",
            "self_setting",
            "fixed",
            drawn=False,
        ),
    )
    return found + of_specs("carried", "carried to PneumoniaMNIST", listed, carried, results)


def facts(results: Path | None = None) -> dict[str, object]:
    """Which of the methods on the features validation turned off beside augmentation."""
    strengths = chosen_strengths(AUGMENTED, results)
    if strengths is None:
        return {}
    off = [_title(name) for name, strength in strengths.items() if strength == 0]
    return {"beyond_combination_off": words.listed(off) if off else "none"}
