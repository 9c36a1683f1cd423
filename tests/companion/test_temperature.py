import pytest
from scipy import stats

from companion import temperature
from tests.companion.synthetic import study
from tests.companion.synthetic_numbers import EMPTY, temperatures


def test_the_effect_of_a_temperature_is_paired_by_seed():
    units, details = temperatures()
    mine = units[(units["source"] == "skin") & (units["model"] == "small_cnn")]
    found = temperature.effect(mine, details, "cross_entropy")
    test = stats.ttest_1samp([-0.010, -0.011, -0.012], 0)
    assert (found.mean, found.n) == (pytest.approx(-0.011), 3)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    text = temperature.phrase(units, details, "skin", "cross_entropy")
    assert text.startswith("lowers the test cross-entropy by 0.011")
    assert "raises the calibration error" in temperature.phrase(units, details, "chest", "ece")
    assert "too few" in temperature.phrase(EMPTY, EMPTY, "chest", "ece")


def test_a_temperature_stands_beside_what_was_trained():
    units, details = temperatures()
    runs = study({"baseline": 0.0, "penalized": -0.1, "augmented": -0.2})
    table = temperature.table(units, details, {"chest": runs})
    assert table["Data"].tolist() == ["chest"] * 6 + ["skin"] * 2
    assert table["What is done"].tolist()[:3] == [
        "temperature, 1.30 on average",
        "penalized, as published",
        "augmented",
    ]
    assert table["Test cross-entropy"].tolist()[0].startswith("\u22120.011 [")
    assert table["Pairs"].tolist()[:3] == [3, 5, 5]
    assert temperature.table(EMPTY, EMPTY, {}).empty
