import math

import pytest
from scipy import stats

from companion.published_numbers import four_images
from tests.companion.synthetic import study
from tests.companion.synthetic_numbers import CHEST, EMPTY, PROTOCOL

CHEST_RUNS = study({"baseline": 0.0, "penalized": 0.1, "tuned": 0.2, "augmented": -0.1}, seeds=3)


def test_the_exact_test_is_a_fair_coin():
    for first, second in ((0, 0), (4, 0), (9, 2), (2, 9), (5, 5)):
        n = first + second
        tail = sum(math.comb(n, k) for k in range(max(first, second), n + 1)) / 2**n
        assert four_images.mcnemar(first, second) == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize("net", range(1, 12))
def test_no_larger_disagreement_is_significant(net):
    found = four_images.largest_disagreement(net)
    hits = [
        total
        for total in range(net, 400, 2)
        if stats.binomtest((total + net) // 2, total).pvalue < 0.05
    ]
    assert found == (max(hits) if hits else None)


def test_four_images_need_more_than_perfect_agreement():
    table = four_images.agreement_table().set_index("Difference")
    assert table["Images"].tolist() == [4, 4, 8]
    assert table.loc["penalized over baseline", "Agreement needed"] == "\u2013"
    assert table.loc["penalized over augmented", "Agreement needed"] == "612 of 624"


def test_disagreement_is_counted_on_the_same_images():
    right = {
        method: group["right"].to_numpy() for method, group in CHEST.groupby("method", sort=False)
    }
    table = four_images.disagreement(CHEST).set_index("models")
    line = table.loc["penalized and augmented"]
    assert line["p"] == four_images.mcnemar(*line[["first", "second"]].astype(int))
    assert line.iloc[0] == ((right["penalized"] == 1) & (right["augmented"] == 0)).sum()
    net = line.iloc[0] - line.iloc[1]
    assert net == right["penalized"].sum() - right["augmented"].sum()


def test_seeds_are_counted_in_images():
    table = four_images.seeds([PROTOCOL, EMPTY])
    values = table[["count", "mean", "std", "min", "max"]].to_numpy().tolist()
    assert values == [[3, 503, 3, 500, 506]] * 3
    facts = four_images.facts(PROTOCOL, EMPTY)
    assert (facts["four_net"], facts["four_total"], facts["four_p"]) == (4, 624, "0.125")
    assert facts["four_protocol"] == 3
    assert "four_powered" not in facts


def test_runs_are_dots_of_the_papers_network_only():
    top, panel, empty = four_images.figure({"a": CHEST_RUNS, "b": EMPTY}).axes
    dots = [line for line in panel.lines if line.get_marker() == "o"]
    assert [len(dot.get_xdata()) for dot in dots] == [3, 3, 3]
    assert [text.get_text() for text in top.texts] == ["500", "504", "496"]
    assert [text.get_text() for text in empty.texts] == ["no runs to show"]
