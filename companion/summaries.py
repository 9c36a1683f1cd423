"""What the recorded runs say, in sentences that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from companion import published, verdicts
from companion.claim_tables import numbers
from companion.rules import MODELS
from companion.tables import (
    METRIC_NAMES,
    MODEL_NAMES,
    SETTING,
    choices,
    difference,
    interval_text,
    of_datasets,
    of_model,
    setting_text,
    split_grid,
    with_gaps,
)
from varreg.lab.statistics import PairedDifference

__all__ = ["answer", "choice", "summary"]


def summary(powered: pd.DataFrame, protocol: pd.DataFrame, experiment: str) -> str:
    """What one experiment says, as a Markdown list that follows from its runs.

    Args:
        powered: Rows of the study ``chest`` or ``skin``, one data set and split.
        protocol: Rows of the study ``chest_paper`` or ``skin_paper``.
        experiment: ``"chest"`` or ``"skin"``.
    """
    lines = [f"**Published numbers.** {_numbers_sentence({experiment: protocol})}"]
    for method, name in (
        ("penalized", "The published setting"),
        ("tuned", "The weight above zero that is best on validation"),
        ("augmented", "Augmentation, without a penalty,"),
    ):
        for model in MODELS:
            found = _difference(powered, model, "test_cross_entropy", method)
            if found is None or found.n < 2:
                continue
            accuracy = _difference(powered, model, "test_accuracy", method)
            gap = _difference(powered, model, "gap_cross_entropy", method)
            lines.append(
                f"**{name}** with the {MODEL_NAMES[model]} "
                f"({found.n} pairs of runs) {verdicts.phrase(found, 'test cross-entropy')}, "
                f"{verdicts.phrase(accuracy, 'test accuracy')} and "
                f"{verdicts.phrase(gap, 'the gap in cross-entropy')}."
            )
    if len(lines) == 1:
        lines.append("**Differences** need two seeds or more, and better ten.")
    return "\n".join(f"- {line}" for line in lines)


def choice(grid: pd.DataFrame, dataset: str) -> str:
    """What validation chooses on a data set where no penalty is a candidate, in a sentence.

    Args:
        grid: Rows of the study ``grid``.
        dataset: Name of the data set.
    """
    wide, _ = split_grid(grid)
    parts = []
    for row in choices(of_datasets(wide, [dataset])).to_dict("records"):
        text = f"{setting_text(*(row[name] for name in SETTING))} with the "
        text += f"{MODEL_NAMES[row['model']]} ({row['picked']} of {row['seeds']} seeds agree"
        lead = row["lead"]
        if lead is not None:
            found = interval_text(lead.mean, lead.low, lead.high, signed=True)
            text += f"; its validation cross-entropy minus that of {row['second']}: {found}"
        parts.append(f"{text})")
    if not parts:
        return "No grid search is recorded yet."
    return (
        "In the recorded grid search, where no penalty is a candidate as well, validation chooses "
        f"{' and '.join(parts)}."
    )


def answer(
    chest: pd.DataFrame, skin: pd.DataFrame, grid: pd.DataFrame, model: str = "paper_cnn"
) -> dict[str, str]:
    """The phrases that the front page is made of, which follow from the runs.

    Args:
        chest: Rows of the study of that name.
        skin: Rows of the study of that name, one split.
        grid: Rows of the study of that name.
        model: The network that they speak about.

    Returns:
        ``published_*`` and ``augmentation_*`` for ``chest_loss``, ``chest_accuracy``,
        ``skin_loss`` and ``skin_accuracy``: a verb phrase each. ``choice_chest`` and
        ``choice_skin``: what validation chooses where no penalty is a candidate.

    Example:
        >>> answer(pd.DataFrame(), pd.DataFrame(), pd.DataFrame())["choice_chest"]
        'nothing yet'
    """
    wide, _ = split_grid(of_model(grid, model))
    said = {}
    for name, runs, dataset in (("chest", chest, "pneumoniamnist"), ("skin", skin, "ham10000")):
        for word, method in (("published", "penalized"), ("augmentation", "augmented")):
            for short, metric in (("loss", "test_cross_entropy"), ("accuracy", "test_accuracy")):
                found = _difference(runs, model, metric, method)
                said[f"{word}_{name}_{short}"] = verdicts.phrase(
                    found, f"the {METRIC_NAMES[metric]}"
                )
        settings = [
            setting_text(*(row[field] for field in SETTING))
            for row in choices(of_datasets(wide, [dataset])).to_dict("records")
        ]
        said[f"choice_{name}"] = (
            " or ".join(
                setting if setting == "no penalty" else f"a weight of {setting}"
                for setting in settings
            )
            or "nothing yet"
        )
    return said


def _difference(
    runs: pd.DataFrame, model: str, metric: str, method: str, reference: str = "baseline"
) -> PairedDifference | None:
    return difference(with_gaps(of_model(runs, model)), metric, method, reference)


def _numbers_sentence(runs: Mapping[str, pd.DataFrame]) -> str:
    """How many published numbers the re-run protocol reproduces, by source."""
    words: dict[str, list[str]] = {"tables": [], "log": []}
    for experiment, rows in runs.items():
        words["tables"] += list(numbers(rows, experiment)["Verdict"])
        words["log"] += list(numbers(rows, experiment, published.RELEASED_LOG)["Verdict"])
    if set(words["tables"] + words["log"]) == {"cannot be known"}:
        return "The released protocol has too few recorded runs yet to judge the published numbers."
    tables = "Tables I to IV" if len(runs) > 1 else published.TABLES[next(iter(runs))]
    return (
        f"Of the {len(words['tables'])} test numbers in {tables}, re-running the released protocol "
        f"{_counted(words['tables'])}; of the {len(words['log'])} that evaluate() returned in the "
        f"released notebooks, it {_counted(words['log'])}."
    )


def _counted(words: Sequence[str]) -> str:
    """How many of some verdicts say what."""
    return (
        f"reproduces {words.count('reproduced')}, does not reproduce "
        f"{words.count('not reproduced')}, and cannot tell for {words.count('cannot be known')}"
    )
