import re
from html.parser import HTMLParser

import pytest

from companion import claim_tables, claims, published, verdicts
from companion.rules import Part, rules
from tests.companion.synthetic import EMPTY, HELPS, records, study


@pytest.fixture(scope="module")
def judgements():
    return claims.judge(records(chest=study(HELPS)))


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
    text = claim_tables.show_claims(judgements).data
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    rows = dict(re.findall(r'<tr id="claim-([\w-]+)">(.*?)</tr>', text, flags=re.S))
    assert list(rows) == [claim.id for claim in claims.load()]
    for judgement in judgements:
        claim, line = judgement.claim, rows[judgement.claim.id]
        assert re.findall('data-label="(.*?)"', line) == list(claim_tables.COLUMNS)
        shown = judgement.verdict
        if claim.kind == "caveat":
            shown = claim_tables.CAVEAT_WORDS[shown]
        assert f">{shown}</span>" in line
        assert f"#{claim.section}" in line
        notebook, anchor = claim.figure.split("#")
        assert f"{notebook}.html#{anchor}" in line
        assert f"<code>{claim.command.replace('&', '&amp;')}</code>" in line
        assert f"#rule-{claim.rule}" in line
    assert "5 seeds" in rows["chest-loss"]
    assert "paper's network" in rows["chest-loss"].replace("&#x27;", "'")


def test_both_verdicts_stand_in_the_row(judgements):
    (judgement,) = (each for each in judgements if each.claim.id == "chest-accuracy")
    line = claim_tables.show_claims([judgement]).data
    assert line.count('class="verdict partly"') == 2
    assert "<summary>best weight above 0</summary>" in line


def test_the_rules_are_stated_once():
    text = claim_tables.show_rules().data
    assert re.findall(r'id="rule-([\w-]+)"', text) == list(rules())


def test_counts_add_up(judgements):
    table = claim_tables.counts(judgements).set_index("Verdict")
    assert tuple(table.index) == verdicts.VERDICTS
    counted = [claim for claim in claims.load() if claim.kind in ("words", "number", "figure")]
    assert table["All"].sum() == len(counted)
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
    assert loss["In range"] == "no"  # nothing changed, and half as much is printed
    assert set(claim_tables.shifts(EMPTY, "chest")["In range"]) == {"cannot be told"}


def test_an_interval_of_a_loss_ratio_cannot_leave_what_is_possible():
    runs = study({"baseline": 0.0, "penalized": 0.0}, models=["paper_cnn"])
    wild = runs["test_cross_entropy"].where(runs["method"] == "baseline", 0.001 + 3 * runs["seed"])
    table = claim_tables.shifts(runs.assign(test_cross_entropy=wild), "skin")
    text = table.loc[table["Number"] == "loss, change from baseline", "One run"].iloc[0]
    low, high = (float(end.replace("\u2212", "-").replace(",", "")) for end in text.split(" to "))
    assert -100 <= low < high


def test_an_improvement_has_the_verdict_of_its_claim_in_words(judgements):
    named = {judgement.claim.id: judgement for judgement in judgements}
    changes = [judgement for judgement in judgements if judgement.claim.kind == "change"]
    assert len(changes) == len(published.SHIFTS)
    for change in changes:
        assert change.verdict == named[change.claim.of].verdict
        line = claim_tables.show_claims([change]).data
        assert line.count('class="verdict') == 1
        assert f'href="#claim-{change.claim.of}"' in line


def test_a_caveat_that_is_not_met_is_no_failure():
    assert set(claim_tables.CAVEAT_WORDS) == set(verdicts.VERDICTS)
    caveats = [judged for judged in claims.judge({}) if judged.claim.kind == "caveat"]
    assert {judged.claim.place for judged in caveats} == {"limitations"}
    for word in verdicts.VERDICTS:
        part = Part("added", "", 3, word)
        text = claim_tables.show_claims([claims.Judgement(caveats[0].claim, (part,))]).data
        assert "reproduced</span>" not in text
        assert "contradicted</span>" not in text


@pytest.mark.parametrize("experiment", published.EXPERIMENTS)
def test_tables_agree_with_the_claims(experiment):
    """The tables of the notebooks and the centre of the book give the same verdicts."""
    runs = study(HELPS, models=["paper_cnn"])
    judged = claims.judge(records(**{f"{experiment}_paper": runs}))
    mine = {
        kind: [
            judgement
            for judgement in judged
            if judgement.claim.kind == kind and judgement.claim.by["experiment"] == experiment
        ]
        for kind in ("number", "change")
    }
    words = [judgement.verdict for judgement in mine["number"]]
    assert words == list(claim_tables.numbers(runs, experiment)["Verdict"])
    in_range = [claim_tables.IN_RANGE[judgement.parts[0].verdict] for judgement in mine["change"]]
    assert in_range == list(claim_tables.shifts(runs, experiment)["In range"])
