"""Features that were learned without labels, and then with the penalty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from companion import words
from companion.beyond.effects import NAMES, TITLES, Pair, Section, recorded, recorded_units
from companion.probes.pretraining import COMPARED as PENALTIES
from companion.probes.pretraining import supervised
from companion.records import details
from varreg.lab.statistics import mean_interval

COMPARED = (
    Pair("fixed", TITLES["fixed"], "pretrained fixed", "pretrained none"),
    Pair("self_setting", TITLES["self_setting"], "pretrained self_setting", "pretrained none"),
    Pair("fixed_random", TITLES["fixed"] + ", random start", "random fixed", "random none"),
    Pair(
        "start",
        "pre-training, without a penalty",
        "pretrained none",
        "random none",
        drawn=False,
    ),
    Pair(
        "start_fixed",
        "pre-training, with the penalty",
        "pretrained fixed",
        "random fixed",
        drawn=False,
    ),
)


def sections(results: Path | None = None) -> list[Section]:
    """It is there where its units are recorded, and the runs of ``few_images`` beside them."""
    units, rows = recorded_units("pretraining", results)
    if units.empty:
        return []
    keys = [supervised(name, seed).key for seed in units["seed"] for name in PENALTIES]
    before = recorded("few_images", keys, results)
    if before.empty:
        return []
    mine = details(units, rows)
    runs = pd.concat(
        [
            mine.assign(method="pretrained " + mine["method"]),
            before.assign(method="random " + before["method"].map(NAMES)),
        ]
    )
    return [Section("pretraining", "pre-trained without labels", runs, COMPARED)]


def facts(section: Section) -> dict[str, object]:
    """The factor by which the feature variance changes: without labels, and then with them.

    And the share of runs whose best epoch is in the last tenth of the training with labels.
    """
    mine = section.runs[section.runs["method"].str.startswith("pretrained")]
    start = mine["variance_pretrained"]
    grown = mine.drop_duplicates("seed")
    found = {"without_labels": np.log(grown["variance_pretrained"] / grown["variance_random"])}
    for name in PENALTIES:
        kept = mine["method"] == f"pretrained {name}"
        found[name] = np.log(mine.loc[kept, "feature_variance"] / start[kept])
    said = {
        f"beyond_pretraining_variance_{name}": words.factor(mean_interval(list(values)))
        for name, values in found.items()
    }
    for name in PENALTIES:
        best = mine.loc[mine["method"] == f"pretrained {name}", "best_epoch"]
        late = best > 0.9 * supervised(name, 0).epochs
        said[f"beyond_pretraining_late_{name}"] = words.percent(late.mean())
    return said
