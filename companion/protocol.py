"""Where paper, report and released notebooks disagree, and what our runs do.

What the sources say stands in ``protocol.toml``. What we did is read off the recorded runs, as far
as a column of the ledger says it.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cache

import pandas as pd

from companion import stated
from companion.claim_tables import link
from companion.grid_search import SETTING, setting_text
from companion.published import EXPERIMENTS
from companion.studies.ambiguities import ALTERNATIVES
from companion.tables import DATASET_NAMES, MODEL_NAMES
from companion.words import DASH, Format, say
from varreg.lab.specs import RunSpec

DEFAULTS = {field.name: field.default for field in dataclasses.fields(RunSpec)}
#: Pages that a topic is shown or tested on.
PAGES = {
    "numbers": '<a href="../notebooks/04_published_numbers.html">every published number</a>',
    "grid": '<a href="../notebooks/03_grid_search.html">the grid search</a>',
    "skin": '<a href="../notebooks/02_skin_lesions.html">skin lesions</a>',
    "data": '<a href="../book/data.html">the data</a>',
}


@dataclasses.dataclass(frozen=True)
class Topic:
    """One decision of the protocol, an entry of ``protocol.toml``.

    Attributes:
        name: The decision.
        released: What the released notebooks do.
        paper: What paper and report say; a dash where there is no statement of it to compare with.
        fields: Fields of a run that say what we do, read off the recorded runs.
        experiments: The experiments that the topic is about.
        protocol: What we do in words, for the runs of the released protocol, where no field says
            it.
        small: In words, for the paired studies; default as ``protocol``.
        pages: Keys of :data:`PAGES`: where it is shown or tested, besides the sensitivity table.
    """

    name: str
    released: str
    paper: str = DASH
    fields: Sequence[str] = ()
    experiments: Sequence[str] = EXPERIMENTS
    protocol: str = ""
    small: str = ""
    pages: Sequence[str] = ()


@cache
def topics() -> tuple[Topic, ...]:
    """Every topic, in the order of a training run.

    Example:
        >>> topics()[0].name
        'chest data'
    """
    return tuple(Topic(**entry) for entry in stated("protocol")["topic"])


_WORDS: Mapping[str, Format] = {
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
    return pd.DataFrame(
        {
            "Topic": topic.name,
            "Paper and report": topic.paper,
            "Released notebooks": topic.released,
            "Our runs of the protocol": topic.protocol or _all_done(protocol, topic),
            "Our paired studies": topic.small or topic.protocol or _all_done(small, topic),
            "Tested": _tested(topic, run) or DASH,
        }
        for topic in topics()
    )


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
    form = say(_WORDS.get(field, "{:g}".format))
    by_method = {
        method: _unique(form(value) for value in group[field].drop_duplicates())
        for method, group in whole.groupby("method", sort=False)
    }
    return _agreed(by_method, "{1} {0}", ", ")


def _all_done(studies: Mapping[str, pd.DataFrame], topic: Topic) -> str:
    """One text for both experiments where they agree."""
    texts = {name: done(studies[name], topic.fields) for name in topic.experiments}
    return _agreed(texts, "{0}: {1}", "; ")


def _agreed(texts: Mapping[str, str], form: str, between: str) -> str:
    """One text where all agree, else each with its name."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return between.join(form.format(*each) for each in texts.items())


def _tested(topic: Topic, run: Container[tuple[str, str, str]]) -> str:
    """The alternatives that change one of the fields, and the pages."""
    tried, left = [], []
    for each in ALTERNATIVES:
        if each.experiment in topic.experiments and set(each.settings) & set(topic.fields):
            where = tried if (each.experiment, each.topic, each.choice) in run else left
            where.append(html.escape(each.choice))
    parts = [PAGES[name] for name in topic.pages]
    if left:
        parts.insert(0, f"{_unique(left)} (not run)")
    if tried:
        parts.insert(0, link("05_evidence#fig-sensitivity", _unique(tried)))
    return "; ".join(parts)


def _unique(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))
