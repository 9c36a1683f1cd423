import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from synthetic import curves, study

from varreg import claim_tables, claims, published, verdicts
from varreg.evidence import Evidence
from varreg.rules import rules

EMPTY = pd.DataFrame()
HELPS = {"baseline": 0.0, "penalized": -0.05, "tuned": -0.1, "augmented": -0.02}


@pytest.fixture(scope="module")
def judgements():
    runs = study(HELPS)
    records = {"chest": Evidence(runs, curves(runs), live=False)}
    return claims.judge(records)


class Balance(HTMLParser):
    """Complains about tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_claim_has_a_row_with_all_that_is_promised(judgements):
    text = claim_tables.claims_html(judgements)
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    rows = dict(re.findall(r'<tr id="claim-([\w-]+)">(.*?)</tr>', text, flags=re.S))
    assert list(rows) == [claim.id for claim in claims.load()]
    for judgement in judgements:
        claim, line = judgement.claim, rows[judgement.claim.id]
        assert re.findall('data-label="(.*?)"', line) == list(claim_tables.COLUMNS)
        assert f">{judgement.verdict}</span>" in line
        assert f"#{claim.section}" in line
        notebook, anchor = claim.figure.split("#")
        assert f"{notebook}.html#{anchor}" in line
        assert f"<code>{claim.command.replace('&', '&amp;')}</code>" in line
        assert f"#rule-{claim.rule}" in line
    assert "5 seeds" in rows["chest-loss"]
    assert "paper's network" in rows["chest-loss"].replace("&#x27;", "'")


def test_both_verdicts_stand_in_the_row(judgements):
    (line,) = (
        claim_tables.claims_html([judgement])
        for judgement in judgements
        if judgement.claim.id == "chest-accuracy"
    )
    assert line.count('class="verdict partly"') == 2
    assert "<summary>best weight above 0</summary>" in line


def test_the_rules_are_stated_once():
    text = claim_tables.rules_html()
    assert re.findall(r'id="rule-([\w-]+)"', text) == list(rules())


def test_counts_add_up(judgements):
    table = claim_tables.counts(judgements).set_index("Verdict")
    assert tuple(table.index) == verdicts.VERDICTS
    assert table["All"].sum() == len(claims.load())
    assert (table.drop(columns="All").sum(axis=1) == table["All"]).all()


def test_printed_texts_come_from_the_paper():
    texts = {claim.id: claim_tables.published_text(claim) for claim in claims.load()}
    assert texts["chest-baseline-accuracy"] == "0.2984"
    assert texts["skin-penalized-loss"] == "0.4167; 0.8334 on one scale"
    assert texts["chest-loss"] == "\u221265.70 %"
    # 2 x 0.3025 against 0.8814
    assert texts["chest-loss-against-baseline"] == "\u221265.70 %; \u221231.36 % on one scale"
    assert texts["chest-overfitting"] == texts["chest-narrower-gap"] == "in words"


def test_shifts_are_judged_as_printed_and_shown_on_one_scale():
    runs = study({"baseline": 0.0, "penalized": 0.0}, models=["paper_cnn"])
    table = claim_tables.shifts(runs, "skin")
    loss = table[table["Number"] == "loss, change from baseline"].iloc[0]
    assert loss["Published"] == "\u221249.96 %"
    assert loss["On one scale"] == "+0.11 %"  # 2 x 0.4167 against 0.8325
    assert loss["Verdict"] == "not reproduced"  # although nothing changed, as on one scale
    assert set(claim_tables.shifts(EMPTY, "chest")["Verdict"]) == {"cannot be known"}


@pytest.mark.parametrize("experiment", published.EXPERIMENTS)
def test_tables_agree_with_the_claims(experiment):
    """The tables of the notebooks and the centre of the book give the same verdicts."""
    runs = study(HELPS, models=["paper_cnn"])
    judged = claims.judge({f"{experiment}_paper": Evidence(runs, curves(runs), live=False)})
    for kind, make in (("number", claim_tables.numbers), ("change", claim_tables.shifts)):
        mine = [
            judgement.verdict
            for judgement in judged
            if judgement.claim.kind == kind and judgement.claim.by["experiment"] == experiment
        ]
        assert mine == list(make(runs, experiment)["Verdict"])
