import json
import re
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from companion import claims, published, verdicts
from companion.__main__ import _parser
from companion.rules import RULES, rules
from tests.companion.synthetic import HARMS, HELPS, records, study

ROOT = Path(__file__).parents[2]
LOAD = claims.load()


def by_id(judgements):
    return {judgement.claim.id: judgement for judgement in judgements}


@pytest.fixture
def checkout(monkeypatch):
    """The results of this repository, whatever the environment names."""
    monkeypatch.delenv("VARREG_RESULTS", raising=False)
    return ROOT / "results"


def test_verdicts_follow_from_the_ledger(checkout):
    old = claims.stale(claims.judge(claims.recorded(checkout)))
    assert not old, (
        "verdicts in companion/claims.toml no longer follow from the recorded runs; look at why, "
        "then write there:\n" + "\n".join(old)
    )


def test_a_verdict_that_no_longer_follows_is_named():
    found = claims.judge(records(chest=study(HARMS)))
    by_name = by_id(found)
    changed = by_name["chest-loss"]
    lines = claims.stale([changed])
    follows = changed.verdict
    assert follows == "contradicted"
    expected = f"chest-loss: verdict locked {changed.claim.verdict!r}, follows {follows!r}"
    assert (expected in lines) == (changed.claim.verdict != follows)
    # Locked as it follows, nothing is stale.
    for verdict, stale in (
        (follows, []),
        ("reproduced", ["chest-loss: verdict locked 'reproduced', follows 'contradicted'"]),
    ):
        claim = replace(changed.claim, verdict=verdict, chosen=changed.second_verdict)
        assert claims.stale([replace(changed, claim=claim)]) == stale


def test_every_entry_is_complete():
    ids = [claim.id for claim in LOAD]
    assert len(set(ids)) == len(ids)
    for claim in LOAD:
        assert claim.kind in claims.KINDS, claim.id
        assert claim.rule in rules(), claim.id
        assert {claim.verdict, claim.chosen or claim.verdict} <= set(verdicts.VERDICTS), claim.id
        for words in (claim.place, claim.text, claim.what):
            assert words == words.strip(), claim.id
            assert words, claim.id
        assert claim.what.endswith("."), claim.id
        assert not re.search(r"\d", claim.text + claim.what), f"{claim.id} has a number typed in"


def test_every_rule_is_used_and_has_its_function():
    assert set(rules()) == set(RULES) | {"parts"}
    assert {claim.rule for claim in LOAD} == set(rules())


def test_every_table_number_every_change_and_every_figure_is_there():
    numbers = [claim for claim in LOAD if claim.kind == "number"]
    stated = [number for number in published.NUMBERS if number.source.startswith("Table")]
    assert [(c.by["experiment"], c.by["method"], c.by["metric"], c.place) for c in numbers] == [
        (number.experiment, number.method, number.metric, number.source) for number in stated
    ]
    changes = [claim for claim in LOAD if claim.kind == "change"]
    assert [
        (c.by["experiment"], c.by["reference"], c.by["method"], c.by["metric"]) for c in changes
    ] == [
        (shift.experiment, shift.reference, shift.method, shift.metric)
        for shift in published.SHIFTS
    ]
    figures = [claim.place for claim in LOAD if claim.kind == "figure"]
    assert figures == [f"Figure {number}" for number in range(1, 11)]


def test_the_claims_in_words_are_there():
    named = (
        "chest-overfitting chest-accuracy chest-loss chest-augmentation-accuracy "
        "chest-augmentation-loss chest-narrower-gap skin-overfitting skin-accuracy skin-loss "
        "skin-narrower-gap both-tasks sampling-cost grid-best overhead features-stable needs-tuning"
    )
    found = {claim.id for claim in LOAD if claim.kind in ("words", "caveat")}
    assert found >= set(named.split())


@cache
def cells(notebook):
    return json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text("utf-8"))["cells"]


@pytest.mark.parametrize("claim", LOAD, ids=lambda claim: claim.id)
def test_figure_and_section_exist(claim):
    notebook, anchor = claim.figure.split("#")
    figures = [
        cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells(notebook)
    ]
    assert anchor in figures
    text = "\n".join("".join(cell["source"]) for cell in cells("04_published_numbers"))
    assert f"({claim.section})=" in text


@pytest.mark.parametrize("claim", LOAD, ids=lambda claim: claim.id)
def test_commands_exist(claim):
    for command in claim.command.split(" && "):
        words = shlex.split(command)
        if words[1].startswith("benchmarks/"):
            assert (ROOT / words[1]).is_file()
            continue
        assert words[:3] == ["python", "-m", "companion"]
        _parser().parse_args(words[3:])


def test_nothing_recorded_cannot_be_known():
    for judgement in claims.judge({}):
        assert judgement.verdict == "cannot be known"
        assert judgement.second_verdict in (None, "cannot be known")


@pytest.mark.parametrize(
    ("chest", "skin", "expected"),
    [
        (HELPS, HELPS, "partly"),  # by less than printed
        (HARMS, HARMS, "contradicted"),
        (HELPS, HARMS, "partly"),
    ],
)
def test_a_claim_about_several_rests_on_them(chest, skin, expected):
    found = by_id(claims.judge(records(chest=study(chest), skin=study(skin))))
    both = found["both-tasks"]
    assert both.verdict == both.second_verdict == expected
    assert [part.verdict for part in both.parts] == [
        found[name].verdict for name in both.claim.by["claims"]
    ]


def test_one_data_set_alone_does_not_settle_a_claim_about_both():
    found = by_id(claims.judge(records(chest=study(HARMS))))
    assert found["both-tasks"].verdict == "cannot be known"


def test_the_claims_of_one_study():
    found = claims.judge(records(chest=study(HELPS)), "chest")
    assert {judgement.claim.by["study"] for judgement in found} == {"chest"}
    assert {judgement.claim.kind for judgement in found} == {"words"}


def test_recorded_reads_what_every_rule_asks_for(tmp_path):
    found = claims.recorded(tmp_path)
    named = {claim.by["study"] for claim in LOAD if "study" in claim.by}
    assert named <= set(found)
    assert all(evidence.runs.empty for evidence in found.values())
    assert isinstance(found["norms"].curves, pd.DataFrame)
