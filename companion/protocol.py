"""Where paper, report and released notebooks disagree, and what our runs do.

What the sources say is in :data:`companion.published.PROTOCOL`. What we did is read off the
recorded runs, as far as a column of the ledger says it.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import pandas as pd

from companion.published import EXPERIMENTS, PROTOCOL
from companion.studies.ambiguities import ALTERNATIVES
from companion.tables import DATASET_NAMES, MODEL_NAMES, SETTING, setting_text
from companion.words import DASH
from varreg.lab.runs import RunSpec

DEFAULTS = {field.name: field.default for field in dataclasses.fields(RunSpec)}
NUMBERS_PAGE = '<a href="../notebooks/04_published_numbers.html">every published number</a>'
GRID_PAGE = '<a href="../notebooks/03_grid_search.html">the grid search</a>'
SKIN_PAGE = '<a href="../notebooks/02_skin_lesions.html">skin lesions</a>'
DATA_PAGE = '<a href="../book/data.html">the data</a>'


@dataclasses.dataclass(frozen=True)
class Ours:
    """What our runs do about one topic, and where it is tested.

    Attributes:
        fields: Fields of a run that say it, read off the recorded runs.
        experiments: The experiments that the topic is about.
        protocol: In words, for the runs of the released protocol, where no field says it.
        small: In words, for the paired studies; default as ``protocol``.
        page: A link to where it is shown or tested, besides the sensitivity table.
    """

    fields: tuple[str, ...] = ()
    experiments: Sequence[str] = EXPERIMENTS
    protocol: str = ""
    small: str = ""
    page: str = ""


RELEASED = "as released"
#: Topic of :data:`companion.published.PROTOCOL` -> what we do.
OURS: Mapping[str, Ours] = {
    "chest data": Ours(
        protocol="the images that the notebook downloads",
        small="the same images, as in PneumoniaMNIST",
        page=DATA_PAGE,
    ),
    "splits, chest": Ours(
        ("dataset",), ("chest",), RELEASED, "those of PneumoniaMNIST", page=DATA_PAGE
    ),
    "splits, skin": Ours(("dataset", "split"), ("skin",), page=NUMBERS_PAGE),
    "preprocessing": Ours(("size", "normalize", "equalize")),
    "augmentation": Ours(protocol=f"{RELEASED} (chest only)"),
    "depth, skin": Ours(("model",), ("skin",)),
    "initial weights": Ours(("init",)),
    "learning rate": Ours(("optimizer", "learning_rate")),
    "Adam's epsilon": Ours(("adam_epsilon",)),
    "batch size": Ours(("batch_size",)),
    "epochs, chest": Ours(("epochs",), ("chest",)),
    "epochs, skin": Ours(("epochs",), ("skin",)),
    "patience": Ours(("patience",)),
    "early stopping watches": Ours(("monitor",)),
    "features": Ours(
        protocol="the same values, which enter the dense layer; passed to the loss by themselves"
    ),
    "penalized setting": Ours(
        tuple(SETTING),
        small="the same, and the weight above zero that is best on validation data, with all "
        "features and the cross-entropy as it is",
        page=GRID_PAGE,
    ),
    "grid search": Ours(
        protocol="not repeated at this size",
        small="every run from initial weights of its own; chosen by the mean validation "
        "cross-entropy over seeds",
        page=f"{GRID_PAGE}; {NUMBERS_PAGE}",
    ),
    "seeds": Ours(("seed",)),
    "accuracy, chest": Ours(
        protocol="share of images that are classified right, over the whole split",
        page=NUMBERS_PAGE,
    ),
    "accuracy, skin": Ours(
        protocol="share of images whose most probable class is the right one",
        page=NUMBERS_PAGE,
    ),
    "AUC, skin": Ours(
        protocol="macro average: the mean over classes; beside a released AUC, the same as there",
        page=SKIN_PAGE,
    ),
    "loss": Ours(
        protocol="cross-entropy, not scaled; printed losses are divided by their lambda",
        page=NUMBERS_PAGE,
    ),
}

_WORDS: Mapping[str, Mapping[object, str] | Callable[[object], str]] = {
    "dataset": DATASET_NAMES,
    "split": {"paper": "by image", "lesion": "by lesion"},
    "size": "{:g} pixels".format,
    "normalize": {"unit": "divided by 255", "standard": "standardized"},
    "equalize": {True: "contrast enhanced", False: "no contrast enhancement"},
    "model": MODEL_NAMES,
    "init": {"glorot": "Glorot, as Keras", "default": "PyTorch's default"},
    "optimizer": str.capitalize,
    "patience": lambda value: "no stopping" if math.isnan(value) else f"{value:g}",
    "monitor": {
        "total": "the total; best weights kept",
        "cross_entropy": "the cross-entropy, not scaled; best weights kept",
    },
}


def ambiguities_table(
    protocol: Mapping[str, pd.DataFrame],
    small: Mapping[str, pd.DataFrame],
    effects: pd.DataFrame,
) -> pd.DataFrame:
    """Every topic: what the sources say, what we chose, where it is tested.

    Args:
        protocol: Experiment -> rows of the released protocol.
        small: Experiment -> rows of the paired study.
        effects: The alternatives that were run, as from :func:`companion.sensitivity.effects`.

    Returns:
        Columns ``Topic, Paper and report, Released notebooks, Our runs of the protocol, Our paired
        studies, Tested``; the last one holds links.
    """
    run = set(effects[["experiment", "topic", "choice"]].itertuples(index=False, name=None))
    rows = []
    for topic in PROTOCOL:
        ours = OURS[topic.name]
        rows.append(
            {
                "Topic": topic.name,
                "Paper and report": topic.paper,
                "Released notebooks": topic.released,
                "Our runs of the protocol": ours.protocol or _all_done(protocol, ours),
                "Our paired studies": ours.small or ours.protocol or _all_done(small, ours),
                "Tested": _tested(ours, run) or DASH,
            }
        )
    return pd.DataFrame(rows)


def done(runs: pd.DataFrame, fields: Sequence[str]) -> str:
    """What recorded runs did, in words; a value by method where methods differ.

    Args:
        runs: Rows of a ledger, of one experiment. A column that they lack, because it is younger
            than they are, has its default.
        fields: Columns.

    Example:
        >>> runs = pd.DataFrame({"method": ["baseline", "penalized"], "seed": [0, 0],
        ...                      "epochs": [25, 30], "learning_rate": [1e-3, 1e-3]})
        >>> done(runs, ["learning_rate"]), done(runs, ["epochs"]), done(runs, ["equalize"])
        ('0.001', '25 baseline, 30 penalized', 'no contrast enhancement')
    """
    if runs.empty:
        return DASH
    if tuple(fields) == tuple(SETTING):
        penalized = runs.loc[runs["method"] == "penalized", list(SETTING)].drop_duplicates()
        return "; ".join(setting_text(*each) for each in penalized.itertuples(index=False))
    return ", ".join(_field(runs, field) for field in fields)


def _field(runs: pd.DataFrame, field: str) -> str:
    if field == "seed":
        return str(runs["seed"].nunique())
    whole = runs if field in runs else runs.assign(**{field: DEFAULTS[field]})
    word = _WORDS.get(field, "{:g}".format)
    say = word.__getitem__ if isinstance(word, Mapping) else word
    by_method = {
        method: _unique(say(value) for value in group[field].drop_duplicates())
        for method, group in whole.groupby("method", sort=False)
    }
    return _agreed(by_method, "{1} {0}", ", ")


def _all_done(studies: Mapping[str, pd.DataFrame], ours: Ours) -> str:
    """One text for both experiments where they agree."""
    texts = {name: done(studies[name], ours.fields) for name in ours.experiments}
    return _agreed(texts, "{0}: {1}", "; ")


def _agreed(texts: Mapping[str, str], form: str, between: str) -> str:
    """One text where all agree, else each with its name."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return between.join(form.format(*each) for each in texts.items())


def _tested(ours: Ours, run: Container[tuple[str, str, str]]) -> str:
    """The alternatives that change one of the fields, and the page."""
    tried, left = [], []
    for each in ALTERNATIVES:
        if each.experiment in ours.experiments and set(each.settings) & set(ours.fields):
            where = tried if (each.experiment, each.topic, each.choice) in run else left
            where.append(html.escape(each.choice))
    parts = [
        f'<a href="../notebooks/05_evidence.html#fig-sensitivity">{_unique(tried)}</a>'
        * bool(tried),
        f"{_unique(left)} (not run)" * bool(left),
        ours.page,
    ]
    return "; ".join(part for part in parts if part)


def _unique(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))
