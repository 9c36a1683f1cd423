"""The paper's claims, each judged by the recorded runs.

``claims.toml`` lists every claim in words, every number of Tables I to IV, every improvement that
the paper derives from them and every figure, each with the rule that judges it. :func:`judge`
applies the rules of :mod:`companion.rules`; :func:`stale` compares what follows with the verdicts
that the file has locked; :mod:`companion.claim_tables` prints the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import pandas as pd

from companion import records, stated, verdicts
from companion.records import Record
from companion.rules import RULES, Part, Records
from varreg.lab.ledger import Ledger, default_results

KINDS = ("words", "caveat", "number", "change", "figure")
#: Every study and probe that a claim rests on; besides these, the benchmark ``overhead``.
STUDIES = ("chest", "skin", "chest_paper", "skin_paper", "grid", "norms")


@dataclass(frozen=True)
class Claim:
    """An entry of ``claims.toml``.

    Attributes:
        id: Short name.
        kind: One of :data:`KINDS`.
        place: Where it stands in the paper.
        text: The claim, in our words.
        what: What that number is, or what the claim means.
        section: Section of the notebook ``04_published_numbers`` that explains it.
        rule: Name of the rule that judges it.
        figure: ``notebook#anchor``.
        command: Records again what the verdict rests on.
        verdict: The locked verdict on the penalty as published.
        chosen: The locked second verdict, on the penalty with a chosen setting, if there is one.
        of: For an improvement: the claim in words that it is the printed size of. The two are one
            claim and have one verdict.
        was: The verdict before the runs were last recorded anew, where that moved it.
        why: Why it moved.
        by: Parameters of the rule.
    """

    id: str
    kind: str
    place: str
    text: str
    what: str
    section: str
    rule: str
    figure: str
    command: str
    verdict: str
    chosen: str | None = None
    of: str | None = None
    was: str | None = None
    why: str = ""
    by: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """What the recorded runs say about a claim.

    Attributes:
        claim: The claim.
        parts: What was measured of the penalty as published.
        chosen: The same with a chosen setting; empty where the claim has no second verdict.
        of: For an improvement: the judgement of the claim in words that it belongs to.
    """

    claim: Claim
    parts: tuple[Part, ...]
    chosen: tuple[Part, ...] = ()
    of: Judgement | None = None

    @property
    def verdict(self) -> str:
        """On the penalty as published."""
        if self.of is not None:
            return self.of.verdict
        return verdicts.together(part.verdict for part in self.parts)

    @property
    def second_verdict(self) -> str | None:
        """On the penalty with a chosen setting, if the claim asks for it."""
        if self.claim.chosen is None:
            return None
        return verdicts.together(part.verdict for part in self.chosen)


@cache
def load() -> tuple[Claim, ...]:
    """Read all claims, in the order of the book.

    Example:
        >>> load()[0].id
        'chest-overfitting'
    """
    return tuple(Claim(**entry) for entry in stated("claims")["claim"])


def recorded(results: str | None = None) -> dict[str, Record]:
    """Read what is recorded of every study and benchmark that a claim rests on.

    Args:
        results: Folder of the ledgers; default: the recorded results.
    """
    ledger = Ledger("overhead", Path(results or default_results()) / "benchmarks")
    steps = Record(ledger.runs(), ledger.curves(), live=False)
    return {study: records.recorded(study, results) for study in STUDIES} | {"overhead": steps}


def judge(records: Records, study: str | None = None) -> list[Judgement]:
    """Judge every claim by the rule that stands beside it.

    Args:
        records: Runs by study, recorded or live; what is missing cannot be known.
        study: Judge only the claims in words that compare runs of this study.

    Example:
        >>> {judgement.verdict for judgement in judge({})}
        {'cannot be known'}
        >>> [judgement.claim.id for judgement in judge({}, "skin")][:2]
        ['skin-overfitting', 'skin-narrower-gap']
    """
    return [
        _judge(claim, records)
        for claim in load()
        if study is None or (claim.kind == "words" and claim.by.get("study") == study)
    ]


def moved() -> pd.DataFrame:
    """The claims whose verdict moved when the runs were last recorded anew, as printed."""
    rows = [(c.text, c.place, c.was, c.verdict, c.why) for c in load() if c.was is not None]
    return pd.DataFrame(rows, columns=["Claim", "Where", "Before", "Now", "Why"])


def stale(judgements: Sequence[Judgement]) -> list[str]:
    """Say which locked verdicts no longer follow from the runs, and what follows instead."""
    return [
        f"{each.claim.id}: {name} locked {locked!r}, follows {follows!r}"
        for each in judgements
        for name, locked, follows in (
            ("verdict", each.claim.verdict, each.verdict),
            ("chosen", each.claim.chosen, each.second_verdict),
        )
        if locked != follows
    ]


def _judge(claim: Claim, records: Records) -> Judgement:
    if claim.rule == "parts":
        rests_on = [_judge(other, records) for other in load() if other.id in claim.by["claims"]]
        ask = partial(_parts, rests_on)
    else:
        ask = partial(RULES[claim.rule], records, **claim.by)
    asked = [ask()] if claim.chosen is None else [ask(), ask(second=True)]
    words = next((_judge(other, records) for other in load() if other.id == claim.of), None)
    return Judgement(claim, *map(tuple, asked), of=words)


def _parts(judgements: Sequence[Judgement], second: bool = False) -> list[Part]:
    """The verdicts on other claims, as parts of one."""
    parts = []
    for judgement in judgements:
        word = judgement.second_verdict if second else judgement.verdict
        seeds = max((part.n for part in judgement.parts), default=0)
        parts.append(Part(judgement.claim.id.replace("-", ", "), word, seeds, word))
    return parts
