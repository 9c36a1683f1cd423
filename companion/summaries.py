"""What the recorded runs say, in phrases that follow from them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pandas as pd

from companion import grid_search, published, tables, verdicts, words
from companion.claim_tables import numbers
from companion.studies.grid import MODELS

MEASURES = {
    "penalized": "the published setting",
    "tuned": "the weight above zero that is best on validation",
    "augmented": "augmentation, without a penalty",
}


def measures(runs: pd.DataFrame) -> pd.DataFrame:
    """What every measure changes against the baseline, in words, a row a measure and network.

    Args:
        runs: Rows of the study ``chest`` or ``skin``, one data set and split.
    """
    metrics = ("test_cross_entropy", "test_accuracy", "gap_cross_entropy")
    rows = []
    for (method, name), model in itertools.product(MEASURES.items(), MODELS):
        mine = tables.with_gaps(tables.of_model(runs, model))
        found = {metric: tables.difference(mine, metric, method) for metric in metrics}
        if (first := found[metrics[0]]) is not None:
            row = {"Measure": name, "Network": tables.MODEL_NAMES[model], "Pairs of runs": first.n}
            said = {words.capital(tables.METRIC_NAMES[each]): found[each] for each in metrics}
            rows.append(row | {each: verdicts.phrase(said[each], "it") for each in said})
    return pd.DataFrame(rows)


def counted(protocol: pd.DataFrame, experiment: str) -> dict[str, int]:
    """How many published test numbers the re-run protocol reproduces, by their source.

    Args:
        protocol: Rows of the study ``chest_paper`` or ``skin_paper``.
        experiment: ``"chest"`` or ``"skin"``.

    Returns:
        ``tables_numbers``, ``tables_reproduced``, ``tables_not_reproduced`` and
        ``tables_cannot_be_known``; and the same of the released notebooks, as ``log_*``.
    """
    found = {}
    for name, source in (("tables", None), ("log", published.RELEASED_LOG)):
        said = list(numbers(protocol, experiment, source)["Verdict"])
        found[f"{name}_numbers"] = len(said)
        for word in ("reproduced", "not reproduced", "cannot be known"):
            found[f"{name}_{word.replace(' ', '_')}"] = said.count(word)
    return found


def answer(
    chest: pd.DataFrame, skin: pd.DataFrame, grid: pd.DataFrame, protocol: pd.DataFrame
) -> dict[str, str]:
    """The phrases that the front page is made of: what the runs of the paper's network say.

    Args:
        chest: Rows of the study of that name.
        skin: Rows of the study of that name, one split.
        grid: Rows of the study of that name.
        protocol: Rows of the study ``chest_paper``.

    Returns:
        ``published_*`` and ``augmentation_*`` for ``chest_loss``, ``chest_accuracy``,
        ``skin_loss`` and ``skin_accuracy``, and ``augmentation_protocol_loss`` and
        ``augmentation_protocol_auroc``: a verb phrase each. ``choice_chest`` and
        ``choice_skin``: what validation chooses where no penalty is a candidate, how many seeds
        would have chosen the same, and whether it can be told apart from the second best.

    Example:
        >>> answer(*[pd.DataFrame()] * 4)["choice_chest"]
        'nothing yet'
    """
    wide, _ = grid_search.split_grid(tables.of_model(grid))
    said = {}
    for name, runs, dataset in (("chest", chest, "pneumoniamnist"), ("skin", skin, "ham10000")):
        for word, method in (("published", "penalized"), ("augmentation", "augmented")):
            for short, metric in (("loss", "test_cross_entropy"), ("accuracy", "test_accuracy")):
                found = tables.difference(tables.of_model(runs), metric, method)
                phrase = verdicts.phrase(found, f"the {tables.METRIC_NAMES[metric]}")
                said[f"{word}_{name}_{short}"] = phrase
        picked = grid_search.choices(tables.of_datasets(wide, [dataset]))
        said[f"choice_{name}"] = " or ".join(map(_choice, picked.itertuples())) or "nothing yet"
    for short, metric in (("loss", "test_cross_entropy"), ("auroc", "test_auroc")):
        found = tables.difference(tables.of_model(protocol), metric, "augmented")
        said[f"augmentation_protocol_{short}"] = verdicts.phrase(
            found, f"the {tables.METRIC_NAMES[metric]}"
        )
    return said


def _choice(row: NamedTuple) -> str:
    """A row of :func:`companion.grid_search.choices` in words, with how sure the choice is."""
    setting = grid_search.setting_text(*(getattr(row, name) for name in grid_search.SETTING))
    what = setting if setting == "no penalty" else f"a weight of {setting}"
    lead = row.lead
    unclear = lead is not None and lead.n > 1 and lead.low <= 0 <= lead.high
    doubt = f"; not told apart from {row.second}" if unclear else ""
    return f"{what} ({row.picked} of {words.count(row.seeds, 'seed')} agree{doubt})"
