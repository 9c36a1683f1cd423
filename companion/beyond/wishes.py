"""The paper's list of what it leaves for later, and what was found for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from companion import words
from companion.beyond import comparison, effects, multimodal, pretraining, transformer, volumes
from companion.beyond.effects import PRIMARY, SAYS, Section

#: Wish, section, and the pair that answers it.
WISHES = (
    ("Volumes", "volumes", "fixed"),
    ("Volumes", "phantoms", "fixed"),
    ("Several kinds of input", "multimodal", "fixed"),
    ("Self-supervised learning", "pretraining", "fixed"),
    ("Transformers", "transformer", "fixed"),
    ("Adaptive thresholds", "thresholds", "excess"),
    ("Other regularizers beside it", "combination", "self_setting"),
    ("A better choice of the weight", "weight", "self_setting"),
    ("A better choice of the weight", "carried", "self_setting"),
)


def sections(results: Path | None = None) -> dict[str, Section]:
    """Every section of which all runs are recorded, by name, in the order of the page."""
    modules = (volumes, multimodal, pretraining, transformer, comparison)
    listed = [section for module in modules for section in module.sections(results)]
    return {section.name: section for section in listed}


def facts(found: Mapping[str, Section], results: Path | None = None) -> dict[str, object]:
    """What the text of the page says, by name."""
    said = effects.facts(found.values()) | comparison.facts(results)
    for name, module in {"multimodal": multimodal, "pretraining": pretraining}.items():
        if name in found:
            said |= module.facts(found[name])
    return said


def answers(found: Mapping[str, Section]) -> pd.DataFrame:
    """A row a wish as printed: where it was tried, what was done there, and what came of it."""
    rows = []
    for wish, name, pair in WISHES:
        if name in found:
            section = found[name]
            first, area = (section.of(pair, measure) for measure in (PRIMARY, "test_auroc"))
            texts = [
                words.interval(each["mean"], each["low"], each["high"], signed=True)
                for each in (first, area)
            ]
            done = words.capital(first["title"])
            rows.append((wish, words.capital(section.title), done, *texts, SAYS[first["reads"]]))
    columns = ["Wish", "Tried on", "What is done", "Cross-entropy", "AUROC", "Cross-entropy is"]
    return pd.DataFrame(rows, columns=columns)


def tables(found: Mapping[str, Section], *names: str) -> Iterator[pd.DataFrame]:
    """The tables of these sections, where they are there."""
    return (effects.table(found[name]) for name in names if name in found)
