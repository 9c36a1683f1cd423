import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.published_numbers import leakage
from tests.companion.synthetic import study
from tests.companion.synthetic_numbers import LEAKS, SKIN


def test_leakage_is_what_the_same_images_lose():
    table = leakage.worth(LEAKS).set_index(["model", "quantity"])
    mine = table.loc["small_cnn"]
    details = LEAKS[LEAKS["key"] == LEAKS["key"].iloc[0]]
    images = details.groupby("seen")["images"].sum()
    right = details.groupby("seen")["right"].sum()  # all images, seed 0; each seed adds 7
    for name, seen in (("seen", 1), ("unseen", 0)):
        assert mine.loc[name, "interval"].mean == pytest.approx((right[seen] + 7) / images[seen])
    assert mine.loc["raw", "interval"].mean < 0  # they are harder, and remembered all the same
    assert mine.loc["memory", "interval"].mean == pytest.approx(0.1)
    assert mine.loc["memory", "interval"].n == 3
    assert mine.loc["control", "interval"].mean == 0
    share = images[1] / images.sum()
    assert mine.loc["worth", "interval"].mean == pytest.approx(0.1 * share)


def test_a_seed_without_all_three_models_does_not_count():
    fewer = leakage.worth(LEAKS[LEAKS["key"] != LEAKS["key"].iloc[-1]])
    memory = fewer[fewer["quantity"] == "memory"].set_index("model")["interval"]
    assert {model: found.n for model, found in memory.items()} == {"paper_cnn": 3, "small_cnn": 2}


def test_the_overlap_counts_images_of_each_class():
    rows = leakage.by_lesion(SKIN)
    table = leakage.overlap(rows[rows["method"] == "baseline"]).set_index("label")
    model = SKIN[SKIN["method"] == "baseline"]
    assert table.loc["all", "images"] == len(model)
    assert table.loc["all", "seen"] == model["seen"].sum()
    moles = model[model["label"] == 4]
    assert table.loc["melanocytic nevus", "seen"] == moles["seen"].sum()


def test_welch_by_hand():
    a, b = np.array([0.80, 0.82, 0.81, 0.85]), np.array([0.70, 0.74, 0.72])
    parts = [x.var(ddof=1) / len(x) for x in (a, b)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True)
    )
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    found = leakage.unpaired_difference(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    assert found.n == 7
    assert math.isnan(leakage.unpaired_difference([0.8], b).low)


def test_splits_are_compared_for_each_network():
    runs = pd.concat(
        study({"baseline": shift, "penalized": 0.3}, dataset="ham10000", split=split)
        for split, shift in (("lesion", 0.0), ("paper", -0.02))
    )
    table = leakage.split_difference(runs)
    assert table["model"].tolist() == ["paper_cnn", "small_cnn"]
    means = [found.mean for found in table["interval"]]
    assert means == pytest.approx([0.02, 0.02], abs=0.004)
    assert leakage.split_difference(runs[runs["split"] == "paper"]).empty


def test_networks_stand_side_by_side_and_what_is_not_measured_is_none():
    effects = leakage.worth(LEAKS)
    some = effects.drop(effects.index[-1])
    wide = leakage.by_network(some).set_index("model")
    assert wide.index.tolist() == ["paper_cnn", "small_cnn"]
    assert wide.loc["small_cnn", "worth"] is wide.loc["paper_cnn", "splits"] is None
    found = effects.set_index(["model", "quantity"])["interval"]
    assert wide.loc["small_cnn", "memory"] == found["small_cnn", "memory"]


def test_facts_are_those_of_the_overlap_and_of_what_it_is_worth():
    rows = leakage.by_lesion(SKIN)
    overlap = leakage.overlap(rows[rows["method"] == "baseline"])
    facts = leakage.facts(leakage.worth(LEAKS), overlap)
    seen = SKIN.loc[SKIN["method"] == "baseline", "seen"]
    assert (facts["leakage_seen"], facts["leakage_images"]) == (seen.sum(), len(seen))
    assert facts["leakage_share"] == pytest.approx(100 * seen.mean())
    found = leakage.worth(LEAKS).set_index(["model", "quantity"]).loc[("small_cnn", "worth")].item()
    assert facts["leakage_worth_small_cnn"].startswith(f"{found.mean:+.3f} [{found.low:+.3f}")
