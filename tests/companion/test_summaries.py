import pandas as pd
import pytest

from companion import published, summaries
from tests.companion.synthetic import grid, study

EMPTY = pd.DataFrame()
HELPS = {"baseline": 0.0, "penalized": -0.05, "tuned": -0.1, "augmented": -0.02}
HARMS = {"baseline": 0.0, "penalized": 0.05, "tuned": 0.1, "augmented": -0.02}


@pytest.mark.parametrize("runs", [EMPTY, study(HELPS, seeds=1)], ids=["none", "one seed"])
def test_too_few_runs_are_said_to_be_too_few(runs):
    alone = runs if runs.empty else runs[runs["model"] == "paper_cnn"]
    found = summaries.answer(runs, runs, EMPTY)
    assert found.pop("choice_chest") == found.pop("choice_skin") == "nothing yet"
    assert all("too few recorded runs" in phrase for phrase in found.values())
    assert "too few recorded runs" in summaries.summary(runs, alone, "chest")
    assert "need two seeds or more" in summaries.summary(runs, alone, "chest")


def test_the_answer_says_what_the_intervals_say():
    chest, skin = study(HELPS), study(HARMS)
    found = summaries.answer(chest, skin, grid([(1.0, 1.0, 1.0)], test_best=(100.0, 1.0, 1.0)))
    assert found["published_chest_loss"].startswith("lowers the test cross-entropy by 0.0")
    assert found["published_skin_loss"].startswith("raises the test cross-entropy by 0.0")
    assert found["augmentation_chest_loss"].startswith("lowers the test cross-entropy by 0.0")
    assert found["choice_chest"] == "a weight of 1"
    assert found["choice_skin"] == "nothing yet"
    by = summaries.summary(chest, chest[chest["model"] == "paper_cnn"], "chest")
    assert f"Of the 6 test numbers in {published.TABLES['chest']}, re-running" in by


@pytest.mark.parametrize(
    ("best", "text"), [(0.0, "no penalty with the paper's network (3 of"), (1.0, "1 with the")]
)
def test_the_choice_is_a_sentence_in_which_no_penalty_may_win(best, text):
    runs = pd.concat([grid([(best, 1.0, 1.0)]), grid([(0.01, 1.0, 1.0)], dataset="ham10000")])
    found = summaries.choice(runs, "pneumoniamnist")
    assert f"validation chooses {text}" in found
    assert summaries.choice(EMPTY, "pneumoniamnist") == "No grid search is recorded yet."
    chosen = summaries.answer(EMPTY, EMPTY, runs)
    assert chosen["choice_chest"] == ("a weight of 1" if best else "no penalty")
    assert chosen["choice_skin"] == "a weight of 0.01"


def test_the_summary_names_every_measure():
    text = summaries.summary(study(HELPS), study(HELPS, models=["paper_cnn"]), "skin")
    for start in ("**The published setting**", "**The weight above zero", "**Augmentation"):
        assert text.count(start) == 2  # one a network
