from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from companion import grid_search
from companion.grid_search import NO_PENALTY
from tests.companion.synthetic import grid
from varreg.lab.ledger import Ledger
from varreg.lab.statistics import paired_difference


@pytest.mark.parametrize(("best", "weight"), [((100.0, 1.0, 1.0), 100.0), ((0.0, 1.0, 1.0), 0.0)])
def test_no_penalty_is_a_candidate_of_both_searches(best, weight):
    wide, twelve = grid_search.split_grid(grid([best]))
    assert (len(wide), len(twelve)) == (3 * 4, 3 * 13)
    assert grid_search.chosen_weights(wide, ["pneumoniamnist"]) == {"paper_cnn": weight}
    _, other = grid_search.split_grid(grid([best, (0.1, 0.5, 2.0)]))
    second = grid_search.chosen(other[other["variance_weight"] > 0]).iloc[0]
    assert tuple(second[grid_search.SETTING]) == (0.1, 0.5, 2.0)


def test_where_no_penalty_wins_everything_says_so():
    wide, twelve = grid_search.split_grid(grid([NO_PENALTY]))
    for runs in (wide, twelve):
        (row,) = grid_search.choices_table(runs).to_dict("records")
        assert (row["Chosen"], row["Seeds that agree"]) == ("no penalty", "3 of 3")
        counts = grid_search.pick_counts(runs).set_index("variance_weight")["picked"]
        assert counts[0.0] == counts.sum() == 3
        (found,) = grid_search.choices(runs).to_dict("records")
        assert found["gain"].mean == found["test_gain"].mean == 0


def test_a_search_of_the_small_network_alone_has_no_twelve():
    wide, twelve = grid_search.split_grid(grid([NO_PENALTY]).query("feature_sampling_ratio == 1"))
    assert (len(wide), len(twelve)) == (3 * 4, 0)


def test_a_seed_that_lacks_a_setting_takes_no_part_in_the_choice():
    wide, _ = grid_search.split_grid(grid([(1.0, 1.0, 1.0)]))
    wide.loc[(wide["seed"] == 2) & (wide["variance_weight"] == 0), "val_cross_entropy"] = -9.0
    assert grid_search.chosen_weights(wide, ["pneumoniamnist"]) == {"paper_cnn": 0.0}
    stopped = wide[(wide["seed"] != 2) | (wide["variance_weight"] < 100)]
    assert grid_search.chosen_weights(stopped, ["pneumoniamnist"]) == {"paper_cnn": 1.0}
    (row,) = grid_search.choices(stopped).to_dict("records")
    assert (row["seeds"], row["lead"].n, row["gain"].n) == (2, 2, 2)
    found = grid_search.hindsight(stopped)
    assert {*found["seeds"], *(change.n for change in found["change"])} == {2}
    with pytest.raises(ValueError, match=r"variance_weight .* has seed 0 more than once"):
        grid_search.crossfit_difference(pd.concat([wide, wide]), "val_auroc", NO_PENALTY)


def test_crossfit_difference_is_that_of_a_loop():
    wide, _ = grid_search.split_grid(grid([], seeds=6))
    random = np.random.default_rng(1)
    wide["val_cross_entropy"] = random.random(len(wide))
    wide["test_accuracy"] = random.random(len(wide))
    score, value = (
        wide.sort_values(["seed", "variance_weight"])[name].to_numpy().reshape(6, 4)
        for name in ("val_cross_entropy", "test_accuracy")
    )
    expected, picks = [], set()
    for seed in range(6):
        others = [other for other in range(6) if other != seed]
        pick = np.argmin(score[others].mean(axis=0))
        expected.append(value[seed, pick] - value[seed, 2])
        picks.add(pick)
    found = grid_search.crossfit_difference(
        wide.sample(frac=1, random_state=0), "test_accuracy", (1.0, 1.0, 1.0)
    )
    assert len(picks) > 1  # or the loop would show nothing
    assert found == paired_difference(expected, np.zeros(6))
    assert grid_search.crossfit_difference(wide, "test_accuracy", (7.0, 1.0, 1.0)) is None
    assert (
        grid_search.crossfit_difference(wide.query("seed == 0"), "test_accuracy", (1, 1, 1)) is None
    )


def test_hindsight_names_its_seeds_its_candidates_and_its_price():
    wide, _ = grid_search.split_grid(grid([(1.0, 1.0, 1.0)], test_best=(100.0, 1.0, 1.0)))
    table = grid_search.hindsight(wide)
    assert table["metric"].tolist() == grid_search.HINDSIGHT_METRICS
    for found in table.to_dict("records"):
        assert (found["weight"], found["candidates"], found["seeds"]) == (100.0, 4, 3)
        mine = wide.pivot(index="seed", columns="variance_weight", values=found["metric"])
        assert found["change"] == paired_difference(mine[100.0], mine[0.0])
    assert table["change"][0].mean < -0.09
    none, _ = grid_search.split_grid(grid([(1.0, 1.0, 1.0)], test_best=NO_PENALTY))
    table = grid_search.hindsight(none)
    assert set(table["weight"]) == {0.0}
    assert set(table["change"]) == {None}


def test_choice_agrees_with_the_study_that_trains_with_it(tmp_path):
    from companion.studies.grid import best_weight_above_zero, specs

    rows = []
    for spec in specs():
        near = abs(np.log10(spec.variance_weight + 1e-9) - 1)
        score = 0.3 + 0.01 * near + 0.001 * np.sin(spec.seed + near)
        rows.append({"key": spec.key, **asdict(spec), "val_cross_entropy": score})
    (tmp_path / "grid").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "grid" / "runs.csv", index=False)
    wide, _ = grid_search.split_grid(Ledger("grid", tmp_path).runs())
    for dataset in ("pneumoniamnist", "ham10000"):
        for model, weight in grid_search.chosen_weights(wide, [dataset]).items():
            assert weight == best_weight_above_zero(dataset, model, results=tmp_path) == 10.0


def test_pick_counts_let_each_seed_choose():
    runs = grid([(1.0, 1.0, 1.0)])
    runs.loc[(runs["seed"] == 2) & (runs["variance_weight"] == 100), "val_cross_entropy"] = 0.1
    wide, _ = grid_search.split_grid(runs)
    counts = grid_search.pick_counts(wide).set_index("variance_weight")["picked"]
    assert counts.to_dict() == {0.0: 0, 0.01: 0, 1.0: 2, 100.0: 1}
    table = grid_search.choices_table(wide)
    assert table["Chosen"].tolist() == ["1"]
    assert table["Seeds that agree"].tolist() == ["2 of 3"]
    assert table["Second best"].tolist() == ["100"]
