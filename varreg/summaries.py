"""What the recorded runs say, in sentences that follow from them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from varreg import published, verdicts
from varreg.claim_tables import numbers
from varreg.rules import MODELS
from varreg.statistics import PairedDifference
from varreg.tables import (
    DATASET_NAMES,
    MODEL_NAMES,
    choices,
    difference,
    of_model,
    split_grid,
    with_gaps,
)

__all__ = ["sentences", "summary"]


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
        ("tuned", "The weight chosen on validation"),
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
        f"With a weight chosen on validation data ({weights[0]} for chest, {weights[1]} for skin; "
        f"published: {published.VARIANCE_WEIGHT:g}), it {effects('tuned')}"
        f"{_hindsight_clause(grid, model)}.",
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


def _hindsight_clause(grid: pd.DataFrame, model: str) -> str:
    """What the best weight on the test images would have done, by which nobody may choose."""
    wide, _ = split_grid(of_model(grid, model))
    found = [row for row in choices(wide, wide).itertuples() if row.hindsight_gain]
    if not found:
        return ""
    parts = ", and ".join(
        f"{row.hindsight} on {DATASET_NAMES[row.dataset]}, where it "
        f"{verdicts.phrase(row.hindsight_gain, 'the test cross-entropy')}"
        for row in found
    )
    return (
        "; the test images themselves, by which nobody may choose, would choose a weight of "
        f"{parts}"
    )


def _numbers_sentence(runs: Mapping[str, pd.DataFrame]) -> str:
    """How many published numbers the re-run protocol reproduces, by source."""
    words: dict[str, list[str]] = {"tables": [], "log": []}
    for experiment, rows in runs.items():
        words["tables"] += list(numbers(rows, experiment)["Verdict"])
        words["log"] += list(numbers(rows, experiment, published.RELEASED_LOG)["Verdict"])
    known = {
        name: [word for word in found if word != "cannot be known"] for name, found in words.items()
    }
    if not known["tables"]:
        return "The released protocol has too few recorded runs yet to judge the published numbers."
    hits = {name: found.count("reproduced") for name, found in known.items()}
    tables = "Tables I to IV" if len(runs) > 1 else published.TABLES[next(iter(runs))]
    left = {name: len(words[name]) - len(found) for name, found in known.items()}
    more = {name: f" ({count} more wait for runs)" if count else "" for name, count in left.items()}
    return (
        f"Re-running the released protocol reproduces {hits['tables']} of the "
        f"{len(known['tables'])} test numbers in {tables}{more['tables']}, and {hits['log']} of "
        f"the {len(known['log'])} that evaluate() returned in the released notebooks{more['log']}."
    )
