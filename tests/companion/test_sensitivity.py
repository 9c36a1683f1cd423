"""What the alternatives of the protocol move, against NumPy and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion import sensitivity
from companion.studies import ambiguities
from varreg.lab.ledger import Ledger

RUNS_OF = {
    (each.experiment, each.choice): set(ambiguities.keys(each)) for each in ambiguities.ALTERNATIVES
}
RATES = RUNS_OF["chest", "0.001"] | RUNS_OF["skin", "0.001"]
CHOICE = "0.001"


def made_up(effect=-0.02, rate_level=0.1, rate_effect=-0.05, noise=0.004, keep=lambda spec: True):
    """A run for every spec; the learning rate moves the level and the effect."""
    rows = []
    for spec in ambiguities.specs():
        moved = spec.key in RATES
        level = 0.6 + 0.1 * np.sin(spec.seed) + (rate_level if moved else 0)
        if spec.method == "penalized":
            level += effect + (rate_effect if moved else 0)
        scatter = np.random.default_rng(int(spec.key, 16))
        level += noise * scatter.standard_normal()
        if keep(spec):
            run = {"key": spec.key, "method": spec.method, "seed": spec.seed}
            rows.append(run | {"test_cross_entropy": level, "test_accuracy": 1.3 - level})
    return pd.DataFrame(rows)


def values(runs, experiment, choice, method):
    """The metric by seed, picked without the code under test."""
    mine = runs[runs["key"].isin(RUNS_OF[experiment, choice]) & (runs["method"] == method)]
    return mine.sort_values("seed")["test_cross_entropy"].to_numpy()


def row(found, choice, experiment="chest"):
    mine = (found["experiment"] == experiment) & (found["choice"] == choice)
    return found[mine].iloc[0]


def test_every_alternative_has_a_row_and_its_own_numbers():
    runs = made_up()
    found = sensitivity.effects(runs)
    wanted = [[each.experiment, each.topic, each.choice] for each in ambiguities.ALTERNATIVES]
    assert found[["experiment", "topic", "choice"]].to_numpy().tolist() == wanted
    base, penalized, other, other_penalized = (
        values(runs, "chest", choice, method)
        for choice in (ambiguities.AS_RELEASED, CHOICE)
        for method in ("baseline", "penalized")
    )
    mine = row(found, CHOICE)
    assert mine["seeds"] == len(ambiguities.SEEDS)
    assert mine["level"].mean == pytest.approx(other.mean())
    assert mine["effect"].mean == pytest.approx((other_penalized - other).mean())
    assert mine["level_move"].mean == pytest.approx((other - base).mean())
    moves = (other_penalized - other) - (penalized - base)
    assert mine["effect_move"].mean == pytest.approx(moves.mean())
    # Intervals and p-values: SciPy on the same pairs.
    test = stats.ttest_rel(other_penalized - other, penalized - base)
    assert mine["effect_move"].p == pytest.approx(test.pvalue)
    assert (mine["effect_move"].low, mine["effect_move"].high) == pytest.approx(
        tuple(test.confidence_interval(0.95))
    )


def test_the_released_protocol_has_no_move_and_seeds_are_paired():
    runs = made_up(keep=lambda spec: not (spec.key in RATES and spec.seed < 2))
    found = sensitivity.effects(runs)
    released = row(found, ambiguities.AS_RELEASED)
    assert released["level_move"] is None
    assert released["effect_move"] is None
    mine = row(found, CHOICE)
    assert (mine["seeds"], mine["level_move"].n) == (3, 3)
    base = values(runs, "chest", ambiguities.AS_RELEASED, "baseline")[2:]
    other = values(runs, "chest", CHOICE, "baseline")
    assert mine["level_move"].mean == pytest.approx((other - base).mean())
    assert sensitivity.fewest_seeds(found) == 3


def test_what_is_not_recorded_is_left_out():
    assert sensitivity.effects(pd.DataFrame()).empty
    assert sensitivity.table(sensitivity.effects(pd.DataFrame())).empty
    assert sensitivity.fewest_seeds(sensitivity.effects(pd.DataFrame())) == 0
    runs = made_up(keep=lambda spec: spec.method == "baseline" or spec.dataset == "ham10000")
    found = sensitivity.effects(runs)
    assert set(found["experiment"]) == {"skin"}
    # A row that no alternative has any more does no harm.
    stray = pd.DataFrame([{"key": "0" * 12, "method": "baseline", "seed": 0}])
    assert len(sensitivity.effects(pd.concat([runs, stray]))) == len(found)
    # Without the released protocol there is nothing to move away from.
    alone = made_up(keep=lambda spec: spec.key in RATES)
    assert row(sensitivity.effects(alone), CHOICE)["level_move"] is None


def test_each_learning_rate_has_a_protocol_of_its_own():
    runs = made_up()
    found = sensitivity.effects(runs, rate="paper")
    assert CHOICE not in set(found["choice"])
    base = row(found, ambiguities.AS_RELEASED)
    assert base["level"].mean == pytest.approx(values(runs, "chest", CHOICE, "baseline").mean())
    named = {(each.experiment, each.choice): each for each in ambiguities.ALTERNATIVES}
    wanted = ambiguities.keys(named["chest", "contrast enhanced"], "paper")
    assert not set(wanted) & RUNS_OF["chest", "contrast enhanced"]
    mine = runs[runs["key"].isin(wanted) & (runs["method"] == "baseline")].sort_values("seed")
    moved = mine["test_cross_entropy"].to_numpy() - values(runs, "chest", CHOICE, "baseline")
    assert row(found, "contrast enhanced")["level_move"].mean == pytest.approx(moved.mean())


def test_printed_table_marks_what_stands_after_correction():
    found = sensitivity.effects(made_up(effect=0.0))
    printed = sensitivity.table(found)
    assert list(printed.columns[:5]) == ["Data", "Topic", "Choice", "Who says so", "Seeds"]
    assert len(printed) == len(found)
    starred = printed["Moves the baseline by"].str.endswith("*")
    assert set(printed.loc[starred, "Choice"]) == {CHOICE}
    released = printed["Choice"] == ambiguities.AS_RELEASED
    assert set(printed.loc[released, "Moves the effect by"]) == {"\u2013"}


def test_summary_counts_choices_and_names_the_largest_move():
    chest = len([each for each in ambiguities.ALTERNATIVES if each.experiment == "chest"])
    lower = sensitivity.summary(sensitivity.effects(made_up(noise=1e-4))).set_index("Data")
    assert list(lower.index) == ["chest", "skin"]
    counted = ["Choices", "Different readings", "Penalty better", "Penalty worse"]
    assert lower.loc["chest", counted].tolist() == [chest, chest, chest, 0]
    most = lower.loc["chest", "Moves the baseline most"]
    assert most.startswith("learning rate (0.001), which raises it by 0.1")
    assert lower.loc["chest", "Largest mean effect"] == "0.070"
    # For accuracy higher is better: the same runs, the same verdict.
    by_accuracy = sensitivity.effects(made_up(noise=1e-4), "test_accuracy")
    same = sensitivity.summary(by_accuracy, "test_accuracy").set_index("Data")
    assert same.loc["chest", counted].tolist() == [chest, chest, chest, 0]
    higher = sensitivity.summary(sensitivity.effects(made_up(effect=0.2, noise=1e-4)))
    assert higher.loc[0, counted].tolist() == [chest, chest, 0, chest]


def test_summary_with_one_seed_or_none():
    assert sensitivity.summary(sensitivity.effects(pd.DataFrame())).empty
    one = sensitivity.summary(sensitivity.effects(made_up(keep=lambda spec: spec.seed == 0)))
    assert set(one["Penalty better"]) == set(one["Penalty worse"]) == {0}
    assert set(one["Moves the baseline most"]) == {"too few recorded runs to say"}


def repeated(runs, choice, of, experiment="chest"):
    """With the runs of a choice replaced by those of another one, to the last digit."""
    rows = {name: runs["key"].isin(RUNS_OF[experiment, name]) for name in (choice, of)}
    theirs = runs[rows[of]].set_index(["method", "seed"])
    mine = pd.MultiIndex.from_frame(runs.loc[rows[choice], ["method", "seed"]])
    names = ["test_cross_entropy", "test_accuracy"]
    runs = runs.copy()
    runs.loc[rows[choice], names] = theirs.loc[mine, names].to_numpy()
    return runs


def test_a_choice_that_gives_the_same_runs_counts_once():
    chest = [each for each in ambiguities.ALTERNATIVES if each.experiment == "chest"]
    idle = [each.choice for each in chest if each.topic == "epochs"]
    assert len(idle) == 2
    runs = made_up(noise=1e-4)
    for choice in idle:
        runs = repeated(runs, choice, ambiguities.AS_RELEASED)
    found = sensitivity.effects(runs)
    same = found[found["same_as"] != ""]
    assert same["choice"].tolist() == idle
    assert set(same["same_as"]) == {ambiguities.AS_RELEASED}
    assert len(sensitivity.distinct(found)) == len(found) - 2
    count = len(chest) - 2
    (first, *_) = sensitivity.summary(found).to_dict("records")
    assert (first["Choices"], first["Different readings"]) == (len(chest), count)
    assert first["Penalty better"] == count
    table = sensitivity.table(found)
    cells = table[table["Choice"].isin(idle)][["Moves the baseline by", "Moves the effect by"]]
    assert (cells == sensitivity.SAME).all(axis=None)
    # Nothing is tested twice, so the others are corrected as if the rows were not there.
    without = sensitivity.table(sensitivity.distinct(found))
    pd.testing.assert_frame_equal(
        table[~table["Choice"].isin(idle)].reset_index(drop=True), without
    )


def test_a_choice_that_repeats_another_is_named_after_it():
    runs = repeated(made_up(), "standardized", "contrast enhanced")
    found = sensitivity.effects(runs)
    assert row(found, "standardized")["same_as"] == "contrast enhanced"
    table = sensitivity.table(found).set_index(["Data", "Choice"])
    assert table.loc[("chest", "standardized"), "Effect of the penalty"] == "as contrast enhanced"


def test_the_same_accuracy_is_not_the_same_run():
    runs = made_up().assign(test_accuracy=0.625)
    found = sensitivity.effects(runs, "test_accuracy")
    assert (found["same_as"] == "").all()
    # Nor is one with fewer seeds, or with one number of one seed changed.
    runs = repeated(made_up(), "25 for both", ambiguities.AS_RELEASED)
    keys = RUNS_OF["chest", "25 for both"]
    fewer = runs[~(runs["key"].isin(keys) & (runs["seed"] == 4))]
    assert row(sensitivity.effects(fewer), "25 for both")["same_as"] == ""
    runs.loc[runs.index[runs["key"].isin(keys)][-1], "test_accuracy"] += 1e-8
    assert row(sensitivity.effects(runs), "25 for both")["same_as"] == ""


def test_the_summary_does_not_name_a_move_that_is_none():
    runs = made_up(rate_level=0.0, rate_effect=0.0, noise=0.05)
    found = sensitivity.effects(runs)
    chest = found[found["experiment"] == "chest"]
    (text,) = sensitivity.summary(chest)["Moves the baseline most"]
    clear = [each for each in chest["level_move"] if each and not each.low <= 0 <= each.high]
    assert (text == "none: every interval holds zero") == (not clear)


def test_recorded_readings_are_those_that_differ_by_hand():
    runs = Ledger("ambiguities").runs()
    found = sensitivity.effects(runs, rate="paper")
    if found.empty or sensitivity.fewest_seeds(found) < len(ambiguities.SEEDS):
        pytest.skip("the study is not recorded")
    chest = found[found["experiment"] == "chest"]
    effects = {(round(each.mean, 7), round(each.low, 7)) for each in chest["effect"]}
    assert len(sensitivity.distinct(chest)) == len(effects)
