import numpy as np
import pytest

from companion.published_numbers import the_data
from tests.companion.synthetic_numbers import CHEST, THRESHOLDS


def test_the_prior_is_corrected_in_log_odds():
    rows = the_data.by_rule(CHEST).set_index(["method", "rule"])
    model = CHEST[CHEST["method"] == "augmented"]
    odds = np.log(model["p_1"] / model["p_0"])
    moved = odds + np.log(390 / 234) - np.log(3875 / 1341)
    wanted = ((moved > 0) == (model["label"] == 1)).mean()
    assert rows.loc[("augmented", "prior-corrected"), "accuracy"] == pytest.approx(wanted)
    assert rows.loc[("augmented", "0.5"), "accuracy"] == model["right"].mean()
    for method in ("baseline", "penalized", "augmented"):
        best = rows.loc[(method, "hindsight"), "accuracy"]
        assert best >= rows.loc[method, "accuracy"].max()


def test_the_price_of_one_half_is_paired():
    table = the_data.table(THRESHOLDS, the_data.by_rule(CHEST))
    assert len(table) == 6 + 3
    assert table.loc[0, "At 0.5"] == "0.801"
    assert table.loc[0, "Price of 0.5"].startswith("+0.021 [+0.019")
    assert table.loc[8, "Best on validation"] == "\u2013"
    balanced = the_data.table(THRESHOLDS, the_data.by_rule(CHEST), "balanced_accuracy")
    assert balanced.loc[0, "At 0.5"] == "0.751"
    facts = the_data.facts(THRESHOLDS)
    assert facts["shift_price_small_cnn"].startswith("+0.021 [+0.019")
    assert facts["shift_train"] == pytest.approx(100 * 3875 / 5216)
    assert facts["shift_test"] == 62.5
