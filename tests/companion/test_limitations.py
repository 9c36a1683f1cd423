"""What the page of limitations counts, by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from companion import limitations, tables, verdicts
from tests.companion.synthetic import EMPTY, study

RUNS = study({"baseline": 0.0, "penalized": -0.004}, seeds=5)
PAIRS = [("penalized", "baseline")]
FOUND = tables.differences(RUNS, ["test_accuracy", "test_cross_entropy"], PAIRS)


def test_facts_follow_from_the_published_counts_and_the_runs():
    mine = tables.of_model(RUNS)
    protocol = mine[mine["seed"] < 3].assign(size=224)
    found = limitations.facts(protocol, mine, FOUND)
    assert found["val_images"] == 16
    assert found["train_share"] == pytest.approx(100 * 3875 / 5216)
    assert found["comparisons"] == len(FOUND) == 4
    assert found["by_chance"] == pytest.approx(0.2)
    assert found["times_features"] == 64
    accuracy = mine.loc[mine["method"] == "baseline", "test_accuracy"].mean()
    interval = stats.binomtest(round(accuracy * 624), 624).proportion_ci(method="wilson")
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(tuple(interval))


def test_half_widths_are_those_of_the_paired_t_interval():
    table = limitations.resolution_table({"chest": RUNS, "none": EMPTY})
    assert list(table["Study"]) == ["chest", "chest"]
    assert set(table["Pairs"]) == {5}
    mine = tables.of_model(RUNS).pivot(index="seed", columns="method", values="test_accuracy")
    interval = stats.ttest_rel(mine["penalized"], mine["baseline"]).confidence_interval()
    half = (interval.high - interval.low) / 2
    first = table[table["Network"] == "paper's network"].iloc[0]
    assert first["Half-width, test accuracy"] == f"{half:.3f}"


def test_one_pair_has_no_width():
    table = limitations.resolution_table({"chest": RUNS[RUNS["seed"] == 0]})
    assert set(table["Half-width, test accuracy"]) == {"\u2013"}


def test_a_larger_margin_turns_doubt_into_a_no():
    # Intervals that include zero and reach 0.8 of the margin in use.
    rows = FOUND.assign(mean=0.0, low=-0.8 * verdicts.MARGIN, high=0.8 * verdicts.MARGIN)
    table = limitations.margins_table(rows).set_index("Margin")
    assert list(table["cannot be known"]) == [4, 0, 0]
    assert list(table["not reproduced"]) == [0, 4, 4]
    assert np.isclose(float(table.index[1]), verdicts.MARGIN)


def test_provenance_lists_what_the_rows_say():
    rows = RUNS.assign(
        version="0.1.0",
        commit=["aaa", "bbb"] * (len(RUNS) // 2),
        torch_version="2.13.0",
        recorded_at="2026-11-20T10:00:00+00:00",
    )
    table = limitations.provenance_table({"chest": rows, "none": EMPTY})
    (row,) = table.to_dict("records")
    assert row["Rows"] == len(RUNS)
    assert (row["Commit"], row["Recorded"]) == ("aaa, bbb", "2026-11-20")


def test_nothing_recorded_gives_empty_tables():
    none = tables.differences(EMPTY, ["test_accuracy"], PAIRS)
    assert limitations.resolution_table({"chest": EMPTY}).empty
    assert limitations.margins_table(none).empty
    assert limitations.provenance_table({"chest": EMPTY}).empty
    found = limitations.facts(EMPTY, EMPTY, none)
    assert np.isnan([found[name] for name in ("accuracy_low", "times_features")]).all()
