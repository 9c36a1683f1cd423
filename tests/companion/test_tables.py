import numpy as np
import pandas as pd
import pytest

from companion import grid_search, published, tables
from tests.companion.synthetic import EMPTY, row, study
from varreg.lab.statistics import holm, paired_difference


def test_difference_pairs_by_seed_whatever_the_order():
    runs = study({"baseline": 0.0, "penalized": -0.1}, models=["paper_cnn"])
    a, b = (
        runs[runs["method"] == method].sort_values("seed")["test_cross_entropy"]
        for method in ("penalized", "baseline")
    )
    mixed = runs.sample(frac=1, random_state=1)
    found = tables.difference(mixed, "test_cross_entropy", "penalized")
    assert found == paired_difference(a.to_numpy(), b.to_numpy())


def test_difference_uses_only_the_seeds_that_both_have():
    runs = study({"baseline": 0.0, "penalized": -0.1}, models=["paper_cnn"])
    runs = runs[~((runs["method"] == "baseline") & (runs["seed"] == 2))]
    assert tables.difference(runs, "test_cross_entropy", "penalized").n == 4
    assert tables.difference(runs, "test_cross_entropy", "augmented") is None
    assert tables.difference(EMPTY, "test_cross_entropy", "penalized") is None


def test_difference_refuses_a_mix_of_settings():
    runs = study({"baseline": 0.0, "penalized": -0.1})  # two networks
    with pytest.raises(ValueError, match="more than once"):
        tables.difference(runs, "test_cross_entropy", "penalized")


def test_differences_compare_within_a_network_and_correct_over_the_table():
    runs = study({"baseline": 0.0, "penalized": -0.1, "tuned": 0.0})
    table = tables.differences(runs, ["test_cross_entropy", "test_accuracy", "gap_accuracy"])
    assert len(table) == 2 * 2 * 3
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p"].tolist()))
    wins = table[(table["method"] == "penalized") & (table["metric"] != "gap_accuracy")]
    assert set(wins["verdict"]) == {"reproduced"}


def test_gaps_are_positive_when_a_model_overfits():
    runs = pd.DataFrame([row(train_accuracy=0.9, test_accuracy=0.7, train_cross_entropy=0.1)])
    gaps = tables.with_gaps(runs).iloc[0]
    assert gaps["gap_accuracy"] == pytest.approx(0.2)
    assert gaps["gap_cross_entropy"] == pytest.approx(0.4)
    assert gaps["gap_val_cross_entropy"] == pytest.approx(gaps["val_cross_entropy"] - 0.1)


def test_published_table_judges_each_number_by_the_right_runs():
    runs = study({"baseline": 0.0, "penalized": 0.0}, models=["paper_cnn"])
    table = tables.against_published(runs, published.select("chest", source="Tables I and II"))
    by = table.set_index(["method", "metric"])
    mine = runs.loc[runs["method"] == "penalized", "test_cross_entropy"]
    assert by.loc[("penalized", "loss"), "mean"] == pytest.approx(mine.mean())
    assert by.loc[("penalized", "loss"), "published"] == pytest.approx(0.605)
    assert by.loc[("baseline", "accuracy"), "verdict"] == "not reproduced"
    assert by.loc[("augmented", "accuracy"), "verdict"] == "cannot be known"


def test_a_number_of_a_log_is_compared_with_its_own_quantity_alone():
    runs = study(
        {"baseline": 0.0, "penalized": 0.0}, models=["paper_cnn"], seeds=6, test_auroc=0.9447
    )
    numbers = published.select("skin", source=published.RELEASED_LOG)
    by = tables.against_published(runs, numbers).set_index(["method", "metric"])
    area = by.loc[("baseline", "auroc")]
    # A mean over classes is not a micro average, however close.
    assert (area["n"], area["verdict"]) == (0, "cannot be known")
    assert np.isnan(area["mean"])
    assert by.loc[("penalized", "accuracy"), "verdict"] == "cannot be known"
    assert by.loc[("baseline", "accuracy"), "n"] == 6

    first = runs["seed"] == 0
    runs["test_keras_auc"] = np.where(first, 0.9, np.nan)
    one = tables.against_published(runs, numbers).set_index(["method", "metric"])
    area = one.loc[("baseline", "auroc")]
    assert (area["mean"], area["n"], area["verdict"]) == (0.9, 1, "cannot be known")

    runs["test_keras_auc"] = 0.94 + 0.005 * runs["seed"]
    every = tables.against_published(runs, numbers).set_index(["method", "metric"])
    area = every.loc[("baseline", "auroc")]
    assert (area["n"], area["verdict"]) == (6, "reproduced")


def test_a_number_of_the_paper_is_judged_as_what_it_is_called():
    runs = study({"baseline": 0.0, "penalized": 0.0}, models=["paper_cnn"])
    runs["test_bar_accuracy"] = np.where(runs["seed"] < 2, 0.3 + 0.1 * runs["seed"], np.nan)
    numbers = published.select("chest", source="Tables I and II")
    row_ = tables.against_published(runs, numbers).iloc[0]
    assert row_["mean"] == pytest.approx(
        runs.loc[runs["method"] == "baseline", "test_accuracy"].mean()
    )
    assert (row_["same"], row_["same_n"]) == (pytest.approx(0.35), 2)
    printed = tables.published_table(runs, numbers)
    assert printed["Measured as it was (runs)"].tolist()[:2] == ["0.350 (2)", "\u2013"]
    assert printed["Definition"].tolist() == [number.definition for number in numbers]
    without = tables.published_table(runs.drop(columns="test_bar_accuracy"), numbers)
    assert "Measured as it was (runs)" not in without


def test_tables_without_runs_say_so():
    numbers = published.select("skin")
    assert set(tables.published_table(EMPTY, numbers)["Verdict"]) == {"cannot be known"}
    for table in (
        tables.levels_table(EMPTY, ["test_accuracy"]),
        tables.differences_table(EMPTY, ["test_accuracy"]),
        grid_search.choices_table(EMPTY),
        grid_search.hindsight(EMPTY),
    ):
        assert "No run is recorded yet" in tables.to_html(table)
    assert tables.cost(EMPTY)["runs"] == 0


def test_one_run_gives_a_level_and_no_interval():
    table = tables.levels_table(pd.DataFrame([row()]), ["test_accuracy"])
    assert table["test accuracy"].tolist() == ["0.500"]


def test_recalls_are_named_after_the_classes_of_ham10000():
    runs = pd.DataFrame([row(dataset="ham10000", classes=7)])
    assert tuple(tables.recalls(runs)["class"]) == published.SKIN_CLASSES
    assert list(tables.recalls(pd.DataFrame([row()]))["class"]) == ["class 0", "class 1"]
    assert tables.recalls(EMPTY).empty


def test_html_escapes_text_and_keeps_links():
    table = pd.DataFrame({"a": ["<b>"], "Evidence": ['<a href="x">y</a>']})
    text = tables.to_html(table, raw=["Evidence"])
    assert "&lt;b&gt;" in text
    assert '<a href="x">y</a>' in text
    assert text == tables.to_html(table.copy(), raw=["Evidence"])
    assert tables.show(table).data


def test_cost_adds_up():
    costs = [tables.cost(runs) for runs in (study({"baseline": 0.0}), EMPTY)]
    assert [cost["runs"] for cost in costs] == [10, 0]
    assert [f"{cost['hours']:.1f}" for cost in costs] == ["0.1", "0.0"]


def test_split_and_model_filters():
    runs = pd.DataFrame([row(split="paper"), row(split="lesion"), row(split="lesion", model="x")])
    assert len(tables.of_split(runs, "lesion")) == 2
    assert len(tables.of_split(runs[:1], "lesion")) == 1  # one split only: returned whole
    assert len(tables.of_model(runs)) == 2
    assert len(tables.of_datasets(runs, ["other"])) == 0
