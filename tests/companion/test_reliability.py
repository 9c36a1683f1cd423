"""The page about reliability: thresholds, curves, tables and figures."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve

from companion import reliability
from companion.probes.reliability import COMPARED
from tests.companion import notebooks
from varreg.lab.corruptions import CORRUPTIONS
from varreg.lab.metrics import reliability_metrics
from varreg.lab.predictions import Predictions

# ---------------------------------------------------------------- by hand

#: Ten images, the most confident first: the third, the sixth and the last are wrong.
SURE = np.arange(10.0, 0.0, -1.0)
WRONG = np.array([0, 0, 1, 0, 0, 1, 0, 0, 0, 1], dtype=bool)
RISK = np.array([0, 0, 1 / 3, 1 / 4, 1 / 5, 2 / 6, 2 / 7, 2 / 8, 2 / 9, 3 / 10])


def network(sure, wrong):
    """A row of a network that says so, of images that are all positive."""
    return {"logits": np.where(wrong, -sure, sure), "truth": np.ones(len(sure), dtype=int)}


def test_risk_over_coverage_of_ten_images():
    mine = pd.DataFrame([network(SURE, WRONG)])
    sent, risk = reliability.risk_curve(mine)
    np.testing.assert_allclose(sent, 100 * np.arange(9, -1, -1))
    np.testing.assert_allclose(risk, RISK)
    # Two networks: the mean of their curves, each in the order of its own confidences.
    other = network(SURE[::-1], WRONG)
    _, both = reliability.risk_curve(pd.DataFrame([network(SURE, WRONG), other]))
    np.testing.assert_allclose(both, (RISK + WRONG[::-1].cumsum() / np.arange(1, 11)) / 2)


def test_the_area_under_that_curve_is_a_loop_in_numpy():
    random = np.random.default_rng(0)
    logits, truth = random.normal(size=60), random.integers(0, 2, 60)
    wrong = (logits > 0) != truth
    risks = [wrong[np.abs(logits) >= least].mean() for least in np.abs(logits)]
    mine = pd.DataFrame([{"logits": logits, "truth": truth}])
    assert reliability.risk_curve(mine)[1].mean() == pytest.approx(np.mean(risks))
    found = reliability_metrics(torch.tensor(logits), torch.tensor(truth), "binary")
    assert found["aurc"] == pytest.approx(np.mean(risks))


@pytest.mark.parametrize(
    ("promised", "least", "sent", "wrong"),
    [
        (0.0, 9, 800, 0),  # the third has to go, and all below it
        (0.2, 6, 500, 200),
        (0.24, 2, 100, 1000 * 2 / 9),  # errors that come late are diluted by what is right
        (0.3, 0, 0, 300),
        (1.0, 0, 0, 300),
    ],
)
def test_a_threshold_of_ten_images(promised, least, sent, wrong):
    assert reliability.threshold(SURE, WRONG, promised) == least
    assert reliability.answered(SURE, WRONG, least) == pytest.approx((sent, wrong))


def test_nothing_is_answered_where_the_surest_image_is_wrong():
    least = reliability.threshold(SURE, WRONG[::-1], 0.1)
    assert least == np.inf
    assert reliability.answered(SURE, WRONG[::-1], least) == (1000, 0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30),
    st.fractions(0, 1, max_denominator=30),
)
def test_a_threshold_is_the_least_that_keeps_the_promise(images, promised):
    sure, wrong = (np.array(each) for each in zip(*images, strict=True))
    keeping = []
    for least in {0, *sure.tolist()}:
        kept = [bad for confidence, bad in images if confidence >= least]
        if kept and sum(kept) / len(kept) <= float(promised):
            keeping.append(least)
    found = reliability.threshold(sure.astype(float), wrong, float(promised))
    assert found == min(keeping, default=np.inf)


@pytest.mark.parametrize(
    ("sure", "wrong", "promised", "message"),
    [
        (SURE, WRONG[:9], 0.1, "10 confidences and 9 answers; give one of each for every image"),
        (SURE[:0], WRONG[:0], 0.1, "0 confidences and 0 answers; .* of one image or more"),
        (SURE, WRONG, 5, "promised is 5; give a share from 0 to 1, such as 0.05"),
        (SURE, WRONG, float("nan"), "promised is nan; give a share from 0 to 1"),
    ],
)
def test_a_threshold_refuses(sure, wrong, promised, message):
    with pytest.raises(ValueError, match=message):
        reliability.threshold(sure, wrong, promised)


@pytest.mark.parametrize("scaled", [False, True])
def test_bins_are_those_of_scikit_learn(scaled):
    random, rows = np.random.default_rng(1), []
    for temperature in (0.5, 2.0):
        truth = random.integers(0, 2, 400)
        logits = random.normal(2 * truth - 1, 2)
        rows.append({"logits": logits, "truth": truth, "temperature": temperature})
    divisors = [row["temperature"] if scaled else 1 for row in rows]
    logits = np.concatenate([row["logits"] / by for row, by in zip(rows, divisors, strict=True)])
    truth = np.concatenate([row["truth"] for row in rows])
    sure = 1 / (1 + np.exp(-np.abs(logits)))
    right = (logits > 0) == truth
    expected = calibration_curve(right, sure, n_bins=reliability.BINS, strategy="uniform")
    found = reliability.pooled(pd.DataFrame(rows), scaled=scaled).query("n > 0")
    np.testing.assert_allclose(found["accuracy"], expected[0])
    np.testing.assert_allclose(found["confidence"], expected[1])
    assert found["n"].sum() == 800


# ---------------------------------------------------------------- made-up networks

DATASETS, SEEDS, IMAGES = ("breastmnist", "pneumoniamnist"), range(3), 40


def truth_of(dataset, split, part, results=None):
    return np.random.default_rng(len(dataset) + len(part)).integers(0, 2, IMAGES)


@pytest.fixture
def rows(monkeypatch):
    """Networks that are better with augmentation, and less and less right on worse images."""
    units, found = [], []
    conditions = [("val", 0), ("test", 0)]
    conditions += [(name, severity) for name in CORRUPTIONS for severity in (1, 3, 5)]
    for dataset in DATASETS:
        for seed in SEEDS:
            for method in COMPARED:
                random = np.random.default_rng([len(dataset), seed, COMPARED.index(method)])
                key = f"{dataset}-{seed}-{method}"
                same = {"key": key, "dataset": dataset, "seed": seed, "method": method}
                units.append(same | {"temperature": 1.0 + seed})
                for condition, severity in conditions:
                    truth = truth_of(dataset, None, "val" if condition == "val" else "test")
                    pull = 2.5 - severity / 3 + ("augmented" in method)
                    logits = pull * (truth - 0.5) + random.normal(size=IMAGES)
                    logits = np.float16(logits).astype(float)
                    row = {"key": key, "condition": condition, "severity": severity}
                    row |= dict.fromkeys(reliability.MEASURES, 0.1)
                    row |= {"ece": random.random(), "confidence": 0.9, "scaled_confidence": 0.8}
                    row["accuracy"] = ((logits > 0) == truth).mean()
                    said = Predictions(logits[:, None], range(IMAGES))
                    found.append(row | {"logits": said.to_text()})
    made_up = SimpleNamespace(units=pd.DataFrame(units), details=pd.DataFrame(found))
    ledger = SimpleNamespace(runs=lambda: made_up.units, curves=lambda: made_up.details)
    monkeypatch.setattr(reliability, "Ledger", lambda *_: ledger)
    monkeypatch.setattr(reliability, "labels", truth_of)
    return made_up


def test_only_seeds_of_all_methods_are_shown(rows):
    found = reliability.recorded()
    assert len(found) == 2 * 3 * 6 * 20
    assert list(dict.fromkeys(found["level"])) == list(reliability.LEVELS)
    np.testing.assert_allclose(found["gap"], 0.9 - found["accuracy"])
    np.testing.assert_allclose(found["scaled_gap"], 0.8 - found["accuracy"])
    right = [((logits > 0) == truth).mean() for logits, truth in found[["logits", "truth"]].values]
    np.testing.assert_allclose(right, found["accuracy"])
    rows.units = rows.units.iloc[:-1]
    left = reliability.recorded()
    assert len(left) == (2 * 3 - 1) * 6 * 20
    assert left.groupby("dataset")["seed"].nunique().tolist() == [3, 2]


def test_where_nothing_is_recorded_nothing_is_shown(rows):
    rows.units = rows.units.iloc[:0]
    recorded = reliability.recorded()
    assert recorded.empty
    found, promised = reliability.measured(recorded), reliability.promises(recorded)
    assert found.empty
    assert promised == reliability.facts(found, promised) == {}
    figures = (
        reliability.trust(found),
        reliability.diagrams(recorded, "pneumoniamnist"),
        reliability.risks(recorded, found),
    )
    for figure in figures:
        assert figure.axes[0].texts[0].get_text() == "no runs to show"


def test_a_threshold_is_chosen_on_validation_images_and_kept(rows):
    recorded = reliability.recorded()
    promised = reliability.promises(recorded)
    plain = recorded[(recorded["method"] == "none") & (recorded["condition"] == "val")]
    errors = 1 - plain[plain["dataset"] == "breastmnist"]["accuracy"]
    assert promised["breastmnist"] == pytest.approx(errors.mean() / 2)
    found = reliability.measured(recorded)
    assert len(found) == 2 * 3 * 6 * 5
    found = found.set_index(["dataset", "method", "seed", "level"])
    for dataset, method, disease in (("breastmnist", "none", 0), ("pneumoniamnist", "fixed", 1)):
        same = recorded[["dataset", "method", "seed"]] == [dataset, method, 1]
        mine = recorded[same.all(axis=1)].set_index(["condition", "severity"])
        wrong = {at: (row.logits > 0) != row.truth for at, row in mine.iterrows()}
        sure = {at: np.abs(row.logits) for at, row in mine.iterrows()}
        share = promised[dataset]
        least = reliability.threshold(sure["val", 0], wrong["val", 0], share)
        by_level = {"validation": [("val", 0)], "test": [("test", 0)]}
        by_level["corrupted 3"] = [(name, 3) for name in CORRUPTIONS]
        for level, places in by_level.items():
            told = found.loc[(dataset, method, 1, level)]
            kept = [sure[at] >= least for at in places]
            bad = [wrong[at] for at in places]
            sent = np.mean([1000 * (1 - each.mean()) for each in kept])
            assert told["sent"] == pytest.approx(sent)
            assert told["wrong"] == pytest.approx(1000 * np.mean(bad))
            missed = [
                w & (mine.loc[at, "truth"] == disease) for w, at in zip(bad, places, strict=True)
            ]
            assert told["missed"] == pytest.approx(1000 * np.mean(missed))
            answers = [w[k].mean() if k.any() else 0 for w, k in zip(bad, kept, strict=True)]
            assert told["answered_wrong"] == pytest.approx(1000 * np.mean(answers))
            best = [reliability.threshold(sure[at], wrong[at], share) for at in places]
            sent = [1000 * (sure[at] < b).mean() for at, b in zip(places, best, strict=True)]
            assert told["hindsight_sent"] == pytest.approx(np.mean(sent))
            assert told["ece"] == pytest.approx(mine.loc[places, "ece"].mean())
        assert found.loc[(dataset, method, 1, "validation"), "answered_wrong"] <= 1000 * share


def test_differences_are_paired_and_corrected_over_the_methods(rows):
    found = reliability.measured(reliability.recorded())
    told = reliability.differences(found, ["ece", "wrong"])
    assert len(told) == 2 * 5 * 2 * 5
    level = found[(found["dataset"] == "breastmnist") & (found["level"] == "corrupted 5")]
    wide = level.pivot(index="seed", columns="method", values="ece")
    mine = told.query("dataset == 'breastmnist' and level == 'corrupted 5' and measure == 'ece'")
    mine, raw = mine.set_index("method"), {}
    for name in COMPARED[1:]:
        raw[name] = stats.ttest_rel(wide[name], wide["none"]).pvalue
        assert mine.loc[name, "mean"] == pytest.approx((wide[name] - wide["none"]).mean())
        assert mine.loc[name, "p"] == pytest.approx(raw[name])
    least = min(raw, key=raw.get)
    assert mine.loc[least, "p_holm"] == pytest.approx(min(1, 5 * raw[least]))
    stars = told["text"].str.endswith("*")
    assert (stars == (told["p_holm"] < 0.05)).all()


def test_a_table_has_a_row_a_method_and_the_facts_say_the_same(rows):
    recorded = reliability.recorded()
    found = reliability.measured(recorded)
    columns = {"Error": "ece", "Wrong": "wrong"}
    shown = reliability.table(found, "breastmnist", "test", columns)
    assert list(shown) == ["BreastMNIST", "Error", "Wrong"]
    assert shown["BreastMNIST"].tolist()[:2] == ["Baseline", "Penalty, fixed weight"]
    plain = reliability.mean(found, "breastmnist", "test", "none", "wrong")
    assert shown.iloc[0]["Wrong"].startswith(f"{plain.mean:.0f} [")
    told = reliability.differences(found, ["ece"]).set_index(["dataset", "level", "method"])
    fixed = told.loc[("breastmnist", "test", "fixed"), "text"]
    assert shown.iloc[1]["Error"] == fixed
    facts = reliability.facts(found, reliability.promises(recorded))
    assert facts["reliability_breastmnist_test_fixed_ece"] == fixed.rstrip("*")
    assert facts["reliability_breastmnist_test_none_wrong"] == shown.iloc[0]["Wrong"]
    assert facts["reliability_breastmnist_seeds"] == 3
    assert facts["reliability_pneumoniamnist_none_temperature"] == "2.00"


def test_figures_show_what_was_measured(rows):
    recorded = reliability.recorded()
    found = reliability.measured(recorded)
    figure = reliability.trust(found)
    assert len(figure.axes) == 4
    for ax in figure.axes:
        assert len(ax.lines) == len(COMPARED) + 1
    mine = found[(found["dataset"] == "breastmnist") & (found["method"] == "none")]
    means = 100 * mine.groupby("level")["gap"].mean()[list(reliability.LEVELS)]
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx(means.to_numpy())

    figure = reliability.diagrams(recorded, "breastmnist")
    assert len(figure.axes) == 4
    assert all(len(ax.lines) == len(reliability.DRAWN) + 1 for ax in figure.axes)

    figure = reliability.risks(recorded, found)
    assert len(figure.axes) == 2
    curve, disc = figure.axes[0].lines[:2]
    assert curve.get_xdata().max() <= 900
    # The curve ends where everything is answered, and the disc is where the threshold leads.
    plain = reliability.mean(found, "breastmnist", "test", "none", "wrong").mean
    assert curve.get_ydata()[-1] == pytest.approx(plain / 10)
    sent = reliability.mean(found, "breastmnist", "test", "none", "sent").mean
    assert disc.get_xdata()[0] == pytest.approx(sent)


def test_the_page_says_what_it_has_glued(rows, monkeypatch):
    monkeypatch.setattr("builtins.display", lambda shown: None, raising=False)  # as in a notebook
    shown, facts = notebooks.run("08_reliability", "made-up", monkeypatch)
    assert {next(iter(table)) for table in shown} == {"BreastMNIST", "PneumoniaMNIST"}
    source = (notebooks.NOTEBOOKS / "08_reliability.ipynb").read_text("utf-8")
    quoted = re.findall(r"\{glue:text\}`(\w+):(\w)`", source)
    assert quoted
    for name, kind in quoted:
        assert isinstance(facts[name], int if kind == "d" else str), name
    rows.units = rows.units.iloc[:0]
    assert notebooks.run("08_reliability", "nothing", monkeypatch) == ([], {})


@pytest.fixture(scope="module")
def told():
    """What is recorded, by data set, level, measure and method: means, and changes from none."""
    found = reliability.measured(reliability.recorded())
    if set(found["dataset"]) != set(DATASETS):
        pytest.skip("reliability is not recorded on both data sets")
    measures = ("gap", "scaled_gap", "ece", "scaled_ece", *reliability.CLINICAL)
    changes = reliability.differences(found, measures)
    return found, changes.set_index(["dataset", "level", "measure", "method"]).sort_index()


def test_what_the_page_says_follows_from_the_networks(told):
    found, changes = told
    breast, chest = DATASETS
    worst = "corrupted 5"

    def plain(dataset, level, measure):
        return reliability.mean(found, dataset, level, "none", measure)

    def change(dataset, level, measure, method):
        return changes.loc[(dataset, level, measure, method)]

    for dataset, level in ((chest, "validation"), (breast, "validation"), (breast, "test")):
        assert abs(plain(dataset, level, "gap").mean) < 0.02, "like its own, it can be trusted"
    for dataset, level in ((chest, "test"), (chest, worst), (breast, worst)):
        assert plain(dataset, level, "gap").low > 0.05, "on others it cannot"
        assert plain(dataset, level, "scaled_gap").low > 0.05, "nor with a temperature"
    for method in ("fixed", "feature_l2"):
        mine = found[(found["dataset"] == chest) & (found["method"] == method)]
        assert mine["temperature"].mean() < 1, "not sure enough on validation images"
        for measure in ("ece", "scaled_ece"):
            assert change(chest, "test", measure, method)["high"] > 0, "no better calibrated"
    for method in ("augmented", "augmented_feature_l2"):
        assert change(chest, "test", "ece", method)["high"] < 0, "augmentation helps there"
        assert change(chest, worst, "gap", method)["high"] > 0, "and not on corrupted images"
    for method in ("fixed", "feature_l2", "augmented"):
        assert change(breast, "test", "wrong", method)["p_holm"] < 0.05, "fewer are wrong"
        assert change(breast, "test", "wrong", method)["mean"] < 0
    assert change(breast, "test", "sent", "fixed")["high"] < 0, "far fewer are sent"
    assert change(breast, "test", "answered_wrong", "fixed")["low"] > 0, "a promise is broken"
    share = reliability.promises(reliability.recorded())
    assert plain(breast, "test", "answered_wrong").mean < 1000 * share[breast], "kept without it"
    assert plain(chest, "test", "answered_wrong").low > 3 * 1000 * share[chest], "broken by far"
    for method in ("fixed", "feature_l2"):
        assert change(chest, "test", "wrong", method)["high"] > 0, "not fewer are wrong"
        for dataset in DATASETS:
            assert change(dataset, worst, "wrong", method)["high"] > 0, "no help"
    assert change(chest, "test", "wrong", "augmented")["high"] < 0
    assert plain(chest, "test", "missed").mean < plain(chest, "test", "wrong").mean / 5
    assert plain(chest, "test", "hindsight_sent").mean > 700, "nearly all would have to be sent"
