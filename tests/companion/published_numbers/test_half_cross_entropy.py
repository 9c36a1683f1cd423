import numpy as np
import pandas as pd
import pytest

from companion import published
from companion.published_numbers import half_cross_entropy
from tests.companion.synthetic_numbers import EMPTY, PREDICTIONS, PROTOCOL


def test_every_published_penalized_loss_is_decomposed_once():
    table = half_cross_entropy.decomposition()
    every = [
        number.value
        for number in (*published.NUMBERS, *published.SHOWN)
        if number.method == "penalized" and number.metric == "loss"
    ]
    assert sorted(table["total"]) == sorted(every)
    rebuilt = published.LAMBDA["penalized"] * table["baseline"] + table["left"]
    np.testing.assert_allclose(rebuilt, table["total"])
    np.testing.assert_allclose(table["most"], 2 * table["total"])
    skin = table[(table["experiment"] == "skin") & (table["source"] == published.RELEASED_LOG)]
    assert skin["left"].item() == pytest.approx(0.4038826525 - 0.5 * 0.8068420887)


def test_the_recorded_penalty_is_read_at_the_epoch_that_was_kept():
    runs = PROTOCOL[PROTOCOL["method"] == "penalized"]
    curves = pd.DataFrame(
        {
            "key": key,
            "epoch": epoch,
            "train_feature_variance": epoch,
            "val_feature_variance": 10 * epoch,
        }
        for key in runs["key"]
        for epoch in (1, 2, 3)
    )
    table = half_cross_entropy.variance(
        {"chest": (PROTOCOL, curves), "skin": (EMPTY, EMPTY)}, PREDICTIONS
    )
    assert table["data"].tolist() == ["chest, training", "chest, validation", "chest, test"]
    assert table["seeds"].tolist() == [3, 3, 1]
    assert table["variance"].tolist() == [2, 20, 0.004]
    assert table["penalty"].tolist() == pytest.approx([0.02, 0.2, 0.00004])


def test_solid_and_hatched_bars_compare_total_and_cross_entropy():
    ax = half_cross_entropy.figure().axes[0]
    widths = sorted(patch.get_width() for patch in ax.patches)
    rows = half_cross_entropy.decomposition()
    assert widths == pytest.approx(sorted([*rows["baseline"], *rows["total"], *rows["most"]]))


def test_facts_are_the_changes_of_the_decomposition():
    facts = half_cross_entropy.facts()
    baseline, total = (
        published.find("chest", method, "loss", source=published.TABLES["chest"]).value
        for method in ("baseline", "penalized")
    )
    printed, unscaled = 100 * (total / baseline - 1), 100 * (2 * total / baseline - 1)
    assert facts["half_chest_printed"] == f"\u2212{-printed:.1f} %"
    assert facts["half_chest_unscaled"] == f"\u2212{-unscaled:.1f} %"
    assert facts["half_lambda"] == 0.5
