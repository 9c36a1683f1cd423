import pandas as pd
import pytest
from synthetic import grid, study

from varreg import summaries

EMPTY = pd.DataFrame()
HELPS = {"baseline": 0.0, "penalized": -0.05, "tuned": -0.1, "augmented": -0.02}
HARMS = {"baseline": 0.0, "penalized": 0.05, "tuned": 0.1, "augmented": -0.02}


@pytest.mark.parametrize("runs", [EMPTY, study(HELPS, seeds=1)], ids=["none", "one seed"])
def test_too_few_runs_are_said_to_be_too_few(runs):
    alone = runs if runs.empty else runs[runs["model"] == "paper_cnn"]
    assert "too few recorded runs" in summaries.sentences(runs, runs, alone, alone, EMPTY)[2]
    assert "need two seeds or more" in summaries.summary(runs, alone, "chest")


def test_sentences_say_what_the_intervals_say():
    chest, skin = study(HELPS), study(HARMS)
    first, second, third = summaries.sentences(
        chest,
        skin,
        *(runs[runs["model"] == "paper_cnn"] for runs in (chest, skin)),
        grid([(1.0, 1.0, 1.0)], test_best=(100.0, 1.0, 1.0)),
    )
    assert "lowers the test cross-entropy by" in first.split(" on chest X-rays")[0]
    assert "raises the test cross-entropy by" in first.split(" on chest X-rays")[1]
    assert "(100 for chest, 100 for skin; published: 0.01)" in second
    assert second.startswith("With the weight above zero that is best on validation data (100 for")
    assert second.endswith(
        "search chooses by the same validation data 1 on PneumoniaMNIST (3 seeds)."
    )
    assert "test images" not in second
    assert third.startswith("Of the 10 test numbers in Tables I to IV, re-running")


@pytest.mark.parametrize(
    ("best", "text"), [(0.0, "no penalty with the paper's network (3 of"), (1.0, "1 with the")]
)
def test_the_choice_is_a_sentence_in_which_no_penalty_may_win(best, text):
    runs = pd.concat([grid([(best, 1.0, 1.0)]), grid([(0.01, 1.0, 1.0)], dataset="ham10000")])
    found = summaries.choice(runs, "pneumoniamnist")
    assert f"validation chooses {text}" in found
    assert summaries.choice(EMPTY, "pneumoniamnist") == "No grid search is recorded yet."
    *_, second, _ = summaries.sentences(EMPTY, EMPTY, EMPTY, EMPTY, runs)
    expected = "data no penalty on PneumoniaMNIST (3 seeds) and 0.01 on HAM10000 (3 seeds)."
    assert second.endswith(expected) == (best == 0)


def test_the_summary_names_every_measure():
    text = summaries.summary(study(HELPS), study(HELPS, models=["paper_cnn"]), "skin")
    for start in ("**The published setting**", "**The weight above zero", "**Augmentation"):
        assert text.count(start) == 2  # one a network
