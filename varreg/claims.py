"""The paper's claims, each beside what was measured and a verdict.

What is claimed in words is judged by paired differences over many seeds at 28 pixels; what is
claimed in numbers by runs of the released protocol at 224 pixels. :mod:`varreg.verdicts` has the
rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from varreg import published, verdicts
from varreg.statistics import PairedDifference, mean_interval, prediction_interval
from varreg.tables import (
    DATASET_NAMES,
    METHOD_NAMES,
    MODEL_NAMES,
    SETTING,
    better,
    choices,
    chosen,
    difference,
    interval_text,
    of_datasets,
    of_model,
    published_table,
    setting_difference,
    setting_text,
    split_grid,
    with_gaps,
)

__all__ = [
    "CLAIMS",
    "MODELS",
    "Claim",
    "count_verdicts",
    "directions",
    "link",
    "numbers",
    "numbers_table",
    "sentences",
    "shifts",
    "summary",
    "words_table",
    "works_for_both",
]

MODELS = ("paper_cnn", "small_cnn")
NOTEBOOKS = {"chest": "01_chest_xray", "skin": "02_skin_lesions", "grid": "03_grid_search"}


@dataclass(frozen=True)
class Claim:
    """A claim that one model is better than another.

    Attributes:
        experiment: ``"chest"`` or ``"skin"``.
        text: The claim, in few words.
        metric: The column that decides it.
        reference: The model compared with.
    """

    experiment: str
    text: str
    metric: str
    reference: str = "baseline"

    @property
    def shift(self) -> published.Shift | None:
        """The size that the paper prints, if it prints one."""
        name = {"test_accuracy": "accuracy", "test_cross_entropy": "loss"}.get(self.metric)
        for shift in published.SHIFTS:
            if (shift.experiment, shift.reference, shift.metric) == (
                self.experiment,
                self.reference,
                name,
            ):
                return shift
        return None


CLAIMS = (
    Claim("chest", "less overfitting (gap in cross-entropy)", "gap_cross_entropy"),
    Claim("chest", "less overfitting (gap in accuracy)", "gap_accuracy"),
    Claim("chest", "higher accuracy", "test_accuracy"),
    Claim("chest", "lower loss", "test_cross_entropy"),
    Claim("chest", "higher accuracy than augmentation", "test_accuracy", "augmented"),
    Claim("chest", "lower loss than augmentation", "test_cross_entropy", "augmented"),
    Claim("skin", "less overfitting (gap in cross-entropy)", "gap_cross_entropy"),
    Claim("skin", "less overfitting (gap in accuracy)", "gap_accuracy"),
    Claim("skin", "higher accuracy", "test_accuracy"),
    Claim("skin", "lower loss", "test_cross_entropy"),
)


def directions(runs: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """The claims in words about one experiment, a row a claim and setting of the penalty.

    Args:
        runs: Rows of the study ``chest`` or ``skin``, one data set and split, any networks.
        experiment: ``"chest"`` or ``"skin"``.

    Returns:
        Columns ``Claim, Published, Setting``, one a network with the paired difference,
        ``Pairs`` and ``Verdict`` (over all networks together). Where the direction is reproduced
        but the paper prints a size that our pairs rule out, the verdict is ``partly``.
    """
    gapped = with_gaps(runs)
    rows = []
    for claim in CLAIMS:
        if claim.experiment != experiment:
            continue
        for method in ("penalized", "tuned"):
            row = {
                "Claim": claim.text,
                "Published": _shift_text(claim.shift) if claim.shift else "in words",
                "Setting": METHOD_NAMES[method].removeprefix("penalized, "),
            }
            words, pairs = [], 0
            for model in MODELS:
                mine = gapped[gapped["model"] == model] if len(gapped) else gapped
                found = difference(mine, claim.metric, method, claim.reference)
                words.append(_direction_and_size(mine, claim, method))
                pairs = max(pairs, found.n if found else 0)
                row[_capital(MODEL_NAMES[model])] = (
                    interval_text(found.mean, found.low, found.high, signed=True)
                    if found
                    else "\u2013"
                )
            rows.append(row | {"Pairs": pairs, "Verdict": verdicts.together(words)})
    return pd.DataFrame(rows)


def works_for_both(chest: pd.DataFrame, skin: pd.DataFrame) -> pd.DataFrame:
    """The claim that the method serves binary and multi-class tasks alike.

    Args:
        chest: As from :func:`directions`.
        skin: As from :func:`directions`.

    Returns:
        Columns ``Claim, Setting, Chest, Skin, Verdict``: accuracy and loss against the baseline
        taken together, for each data set and then for both.
    """
    rows = []
    for setting in dict.fromkeys(chest["Setting"]):
        words = []
        for table in (chest, skin):
            main = table["Claim"].isin(["higher accuracy", "lower loss"])
            words.append(
                verdicts.together(table.loc[main & (table["Setting"] == setting), "Verdict"])
            )
        rows.append(
            {
                "Claim": "serves binary and multi-class tasks",
                "Setting": setting,
                "Chest": words[0],
                "Skin": words[1],
                # Both must be known: one data set alone says nothing about the other.
                "Verdict": (
                    "cannot be known" if "cannot be known" in words else verdicts.together(words)
                ),
            }
        )
    return pd.DataFrame(rows)


def numbers(runs: pd.DataFrame, experiment: str, source: str | None = None) -> pd.DataFrame:
    """Every published test number of one experiment beside the released protocol, re-run.

    Args:
        runs: Rows of the study ``chest_paper`` or ``skin_paper``.
        experiment: ``"chest"`` or ``"skin"``.
        source: As in :func:`varreg.published.select`; default the paper's tables.
    """
    chosen = published.select(experiment, source=source or published.TABLES[experiment])
    return published_table(runs, chosen)


def shifts(runs: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """The improvements that the paper derives from its tables, re-measured.

    The verdict is on the change as printed, against the change in our unscaled cross-entropy.
    Beside it stands what the printed losses say once each is divided by its lambda.

    Args:
        runs: Rows of the study ``chest_paper`` or ``skin_paper``.
        experiment: ``"chest"`` or ``"skin"``.

    Returns:
        The columns of :func:`numbers`.
    """
    rows = []
    for shift in published.SHIFTS:
        if shift.experiment != experiment:
            continue
        column = "test_accuracy" if shift.metric == "accuracy" else "test_cross_entropy"
        values = _changes(runs, column, shift.method, shift.reference)
        fair = _fair(shift)
        mean = mean_interval(values) if values.size else None
        one = prediction_interval(values) if values.size else None
        unit = "points" if shift.metric == "accuracy" else "%"
        rows.append(
            {
                "Model": shift.method,
                "Number": f"{shift.metric}, change from {shift.reference}",
                "Published": _shift_text(shift),
                "On one scale": f"{fair:+.2f} {unit}".replace("-", "\u2212"),
                "Recorded": (
                    interval_text(mean.mean, mean.low, mean.high, 1, signed=True)
                    if mean
                    else "\u2013"
                ),
                "One run": (
                    f"{one.low:+.1f} to {one.high:+.1f}".replace("-", "\u2212")
                    if one and one.n > 1
                    else "\u2013"
                ),
                "Runs": int(values.size),
                "Verdict": verdicts.of_number(shift.value, values),
            }
        )
    return pd.DataFrame(rows)


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


def words_table(chest: pd.DataFrame, skin: pd.DataFrame, grid: pd.DataFrame) -> pd.DataFrame:
    """All claims in words, for the claims page.

    Args:
        chest: Rows of the study ``chest``.
        skin: Rows of the study ``skin``, one split.
        grid: Rows of the study ``grid``.

    Returns:
        Columns ``Data, Claim, Published, Setting, Verdict``, one a network, ``Pairs, Evidence``;
        the last one holds links.
    """
    parts = {"chest": directions(chest, "chest"), "skin": directions(skin, "skin")}
    rows = [
        {"Data": name} | row.to_dict() | {"Evidence": link(name, f"fig-{name}-differences")}
        for name, table in parts.items()
        for _, row in table.iterrows()
    ]
    for row in works_for_both(**parts).to_dict("records"):
        rows.append(
            {
                "Data": "both",
                "Claim": row["Claim"],
                "Published": "in words",
                "Setting": row["Setting"],
                "Verdict": row["Verdict"],
                "Evidence": f"{link('chest', 'fig-chest-differences', 'chest')}, "
                f"{link('skin', 'fig-skin-differences', 'skin')}",
            }
        )
    rows += _grid_rows(grid)
    table = pd.DataFrame(rows).fillna({"Pairs": 0}).fillna("\u2013").astype({"Pairs": int})
    return _verdict_early(table, "Setting")


def numbers_table(chest_paper: pd.DataFrame, skin_paper: pd.DataFrame) -> pd.DataFrame:
    """Every published number and derived improvement, for the claims page.

    Args:
        chest_paper: Rows of the study of that name.
        skin_paper: Rows of the study of that name.

    Returns:
        The columns of :func:`numbers`, with ``Data`` before and ``Evidence`` (links) after them.
    """
    parts = []
    for name, runs in (("chest", chest_paper), ("skin", skin_paper)):
        table = pd.concat([numbers(runs, name), shifts(runs, name)])
        table.insert(0, "Data", name)
        table["Evidence"] = link(name, f"fig-{name}-published")
        parts.append(table)
    return _verdict_early(pd.concat(parts, ignore_index=True), "Published")


def count_verdicts(table: pd.DataFrame) -> dict[str, int]:
    """How often each verdict stands in a table, all of :data:`varreg.verdicts.VERDICTS`."""
    return {verdict: int((table["Verdict"] == verdict).sum()) for verdict in verdicts.VERDICTS}


def link(page: str, anchor: str, text: str = "figure") -> str:
    """A link from a page of the book to a figure or section of a notebook.

    Example:
        >>> link("chest", "fig-chest-published")
        '<a href="../notebooks/01_chest_xray.html#fig-chest-published">figure</a>'
    """
    return f'<a href="../notebooks/{NOTEBOOKS[page]}.html#{anchor}">{text}</a>'


def _verdict_early(table: pd.DataFrame, after: str) -> pd.DataFrame:
    """The verdict where a phone still shows it."""
    names = [name for name in table.columns if name != "Verdict"]
    place = names.index(after) + 1
    return table[[*names[:place], "Verdict", *names[place:]]]


def _grid_rows(grid: pd.DataFrame) -> list[dict[str, object]]:
    """Claims about the choice of the setting: the published winner, and the need for tuning."""
    wide, twelve = split_grid(of_model(grid))
    winner = (
        published.VARIANCE_WEIGHT,
        published.FEATURE_SAMPLING_RATIO,
        published.LAMBDA["penalized"],
    )
    best, own = _settings(twelve), _settings(wide)
    return [
        {
            "Data": "both",
            "Claim": "the published setting is the best of the 12",
            "Published": setting_text(*winner),
            "Setting": "12 combinations",
            "Paper's network": _settings_text(best),
            "Pairs": _seeds(twelve),
            "Verdict": verdicts.together(
                _is_best(of_datasets(twelve, [name]), winner, setting)
                for name, setting in best.items()
            ),
            "Evidence": link("grid", "fig-grid-chest"),
        },
        {
            "Data": "both",
            "Claim": "the penalty has to be tuned for each data set",
            "Published": "in words",
            "Setting": "wide range",
            "Paper's network": _settings_text(own),
            "Pairs": _seeds(wide),
            "Verdict": verdicts.together(
                _better_with_its_own(of_datasets(wide, [name]), setting, other)
                for name, setting in own.items()
                for another, other in own.items()
                if another != name
            ),
            "Evidence": link("grid", "fig-weights-chest"),
        },
    ]


def _is_best(runs: pd.DataFrame, candidate: tuple, best: tuple) -> str:
    """Not beaten by chance alone: another setting has to be better by more than its interval."""
    if candidate == best:
        return "reproduced"
    found = setting_difference(runs, "val_cross_entropy", best, candidate)
    beaten = verdicts.of_difference(found, -1) == "reproduced"
    return "not reproduced" if beaten else "undecided"


def _better_with_its_own(runs: pd.DataFrame, own: tuple, other: tuple) -> str:
    if own == other:
        return "not reproduced"
    found = setting_difference(runs, "val_cross_entropy", own, other)
    return verdicts.of_difference(found, -1)


def _settings(runs: pd.DataFrame) -> dict[str, tuple]:
    """Data set -> the setting that validation chooses."""
    table = chosen(runs)
    settings = table[SETTING].itertuples(index=False)
    return {name: tuple(setting) for name, setting in zip(table["dataset"], settings, strict=True)}


def _settings_text(settings: Mapping[str, tuple]) -> str:
    found = (f"{DATASET_NAMES[name]}: {setting_text(*each)}" for name, each in settings.items())
    return "; ".join(found) or "\u2013"


def _seeds(runs: pd.DataFrame) -> int:
    return 0 if runs.empty else int(runs["seed"].nunique())


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
    waiting = len(words["tables"]) - len(known["tables"])
    more = f" ({waiting} more wait for runs)" if waiting else ""
    return (
        f"Re-running the released protocol reproduces {hits['tables']} of the "
        f"{len(known['tables'])} test numbers in {tables}{more}, and {hits['log']} of the "
        f"{len(known['log'])} that evaluate() returned in the released notebooks."
    )


def _changes(runs: pd.DataFrame, column: str, method: str, reference: str) -> np.ndarray:
    """Change of each seed: points for an accuracy, percent of the reference for a loss."""
    if runs.empty:
        return np.array([])
    wide = runs.pivot(index="seed", columns="method", values=column)
    if not {method, reference} <= set(wide.columns):
        return np.array([])
    wide = wide[[method, reference]].dropna()
    change = wide[method] - wide[reference]
    if column == "test_cross_entropy":
        change = change / wide[reference]
    return 100 * change.to_numpy()


def _direction_and_size(runs: pd.DataFrame, claim: Claim, method: str) -> str:
    found = difference(runs, claim.metric, method, claim.reference)
    word = verdicts.of_difference(found, better(claim.metric))
    if word != "reproduced" or claim.shift is None:
        return word
    values = _changes(runs, claim.metric, method, claim.reference)
    return "partly" if verdicts.of_number(claim.shift.value, values) == "not reproduced" else word


def _fair(shift: published.Shift) -> float:
    """The published change on one scale."""
    if shift.metric == "accuracy":
        return shift.value
    source = published.TABLES[shift.experiment]
    new, old = (
        published.find(shift.experiment, method, "loss", source=source).comparable
        for method in (shift.method, shift.reference)
    )
    return 100 * (new / old - 1)


def _shift_text(shift: published.Shift) -> str:
    if shift.metric == "accuracy":
        return f"{shift.value:+.2f} points".replace("-", "\u2212")
    return f"{shift.value:+.2f} %".replace("-", "\u2212")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
