"""What the recorded runs say, in sentences that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from varreg import published, verdicts
from varreg.claim_tables import numbers
from varreg.rules import MODELS
from varreg.statistics import PairedDifference
from varreg.tables import (
    DATASET_NAMES,
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

__all__ = ["choice", "sentences", "summary"]


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


def sentences(
    chest: pd.DataFrame,
    skin: pd.DataFrame,
    chest_paper: pd.DataFrame,
    skin_paper: pd.DataFrame,
    grid: pd.DataFrame,
    model: str = "paper_cnn",
) -> tuple[str, str, str]:
    """The answer so far in three sentences, in words that follow from the data.

    Args:
        chest: Rows of the study of that name.
        skin: Rows of the study of that name, one split.
        chest_paper: Rows of the study of that name.
        skin_paper: Rows of the study of that name.
        grid: Rows of the study of that name.
        model: The network that the first two sentences speak about.
    """
    parts = {"chest X-rays": chest, "skin lesions": skin}
    weights = [_weight_text(runs, model) for runs in parts.values()]

    def effects(method: str) -> str:
        return " and ".join(
            verdicts.phrase(
                _difference(runs, model, "test_cross_entropy", method), "the test cross-entropy"
            )
            + f" on {name}"
            for name, runs in parts.items()
        )

    return (
        f"In its published setting, the penalty {effects('penalized')}, compared with the same "
        "network without it.",
        f"With the weight above zero that is best on validation data ({weights[0]} for chest, "
        f"{weights[1]} for skin; published: {published.VARIANCE_WEIGHT:g}), it {effects('tuned')}"
        f"{_free_clause(grid, model)}.",
        _numbers_sentence({"chest": chest_paper, "skin": skin_paper}),
    )


def _difference(
    runs: pd.DataFrame, model: str, metric: str, method: str, reference: str = "baseline"
) -> PairedDifference | None:
    return difference(with_gaps(of_model(runs, model)), metric, method, reference)


def _weight_text(runs: pd.DataFrame, model: str) -> str:
    mine = of_model(runs, model)
    tuned = [] if mine.empty else mine.loc[mine["method"] == "tuned", "variance_weight"].unique()
    return " or ".join(f"{weight:g}" for weight in sorted(tuned)) or "not yet chosen"


def _free_clause(grid: pd.DataFrame, model: str) -> str:
    """What the grid search chooses, on seeds of its own, where no penalty is a candidate."""
    wide, _ = split_grid(of_model(grid, model))
    parts = [
        f"{setting_text(*(row[name] for name in SETTING))} on {DATASET_NAMES[row['dataset']]} "
        f"({row['seeds']} seeds)"
        for row in choices(wide).to_dict("records")
    ]
    if not parts:
        return ""
    return (
        "; free to choose no penalty as well, the grid search chooses by the same validation data "
        f"{' and '.join(parts)}"
    )


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
