import pandas as pd
import pytest

from companion import published, summaries
from tests.companion.synthetic import EMPTY, HARMS, HELPS, grid, study


@pytest.mark.parametrize("runs", [EMPTY, study(HELPS, seeds=1)], ids=["none", "one seed"])
def test_too_few_runs_are_said_to_be_too_few(runs):
    found = summaries.answer(runs, runs, EMPTY, runs)
    assert found.pop("choice_chest") == found.pop("choice_skin") == "nothing yet"
    assert all("too few recorded runs" in phrase for phrase in found.values())
    table = summaries.measures(runs)
    assert table.empty == runs.empty
    assert all("too few recorded runs" in phrase for phrase in table.iloc[:, 3:].to_numpy().flat)


def test_the_answer_says_what_the_intervals_say():
    chest, skin = study(HELPS), study(HARMS)
    best = grid([(1.0, 1.0, 1.0)], test_best=(100.0, 1.0, 1.0))
    found = summaries.answer(chest, skin, best, skin)
    assert found["published_chest_loss"].startswith("lowers the test cross-entropy by 0.0")
    assert found["published_skin_loss"].startswith("raises the test cross-entropy by 0.0")
    assert found["augmentation_chest_loss"].startswith("lowers the test cross-entropy by 0.0")
    assert found["augmentation_protocol_loss"].startswith("lowers the test cross-entropy by 0.0")
    assert found["choice_chest"] == "a weight of 1 (3 of 3 seeds agree)"
    assert found["choice_skin"] == "nothing yet"


@pytest.mark.parametrize(("best", "text"), [(0.0, "no penalty"), (1.0, "a weight of 1")])
def test_no_penalty_may_be_the_choice(best, text):
    runs = pd.concat([grid([(best, 1.0, 1.0)]), grid([(0.01, 1.0, 1.0)], dataset="ham10000")])
    chosen = summaries.answer(EMPTY, EMPTY, runs, EMPTY)
    assert chosen["choice_chest"].startswith(f"{text} (")
    assert chosen["choice_skin"].startswith("a weight of 0.01 (")


def test_a_choice_by_luck_is_said_to_be_one():
    # Weight 1 is best on average, and the best of one seed of three; nothing is second.
    losses = {0.0: (0.50, 0.52, 0.51), 1.0: (0.40, 0.53, 0.52)}
    runs = grid([(1.0, 1.0, 1.0)])
    runs = runs[runs["variance_weight"].isin(losses) & (runs["model"] == "paper_cnn")]
    runs = runs[runs["lambda_"].eq(1) & runs["feature_sampling_ratio"].eq(1)]
    assert sorted(runs["seed"].unique()) == [0, 1, 2]
    own = [losses[row.variance_weight][row.seed] for row in runs.itertuples()]
    said = summaries.answer(EMPTY, EMPTY, runs.assign(val_cross_entropy=own), EMPTY)["choice_chest"]
    assert said == "a weight of 1 (1 of 3 seeds agree; not told apart from no penalty)"


def test_every_measure_is_said_for_every_network():
    table = summaries.measures(study(HELPS))
    assert len(table) == len(summaries.MEASURES) * 2
    assert set(table["Pairs of runs"]) == {5}
    assert table["Test cross-entropy"].str.startswith("lowers it by 0.").all()
    less = summaries.measures(study({"baseline": 0.0, "tuned": 0.1}))
    assert set(less["Measure"]) == {summaries.MEASURES["tuned"]}


def test_published_numbers_are_counted_by_source():
    runs = study(HELPS, models=["paper_cnn"])
    for experiment in published.EXPERIMENTS:
        found = summaries.counted(runs, experiment)
        for name in ("tables", "log"):
            parts = ("reproduced", "not_reproduced", "cannot_be_known")
            assert found[f"{name}_numbers"] == sum(found[f"{name}_{part}"] for part in parts)
    assert summaries.counted(EMPTY, "chest")["tables_cannot_be_known"] == 6
