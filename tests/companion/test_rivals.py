from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from medmnist import INFO
from scipy import stats
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from companion import rivals
from companion.studies.rivals_tuning import BLOCKS, CANDIDATES, chosen_strengths
from varreg.lab.methods import METHODS
from varreg.lab.predictions import Predictions
from varreg.lab.statistics import PairedDifference, paired_difference

BLOCK = dataclasses.replace(BLOCKS[0], methods=("feature_l2", "logit_l2", "dropout"))


def runs(effects: dict[str, float], seeds: int = 20, spread: float = 0.02) -> pd.DataFrame:
    random = np.random.default_rng(0)
    of_seed = random.normal(0.5, 0.1, seeds)
    rows = []
    for method, effect in effects.items():
        for seed in range(seeds):
            loss = of_seed[seed] + effect + (random.normal(0, spread) if effect else 0)
            values = dict.fromkeys(rivals.MEASURES, loss)
            rows.append({"method": method, "seed": seed, **values, "test_auroc": 1 - loss})
    return pd.DataFrame(rows)


@pytest.fixture
def strengths(monkeypatch):
    chosen = {"feature_l2": 2.5, "logit_l2": 0.01, "dropout": 0.0}
    monkeypatch.setattr(rivals, "chosen_strengths", lambda block, results: chosen)


@pytest.mark.usefixtures("strengths")
def test_differences_are_paired_by_seed_and_corrected_over_the_methods():
    table = runs({"baseline": 0.0, "feature_l2": -0.03, "logit_l2": 0.005})
    found = rivals.differences(BLOCK, table)
    wide = table.pivot(index="seed", columns="method", values="test_cross_entropy")
    primary = found[found["measure"] == "test_cross_entropy"].set_index("method")
    raw = {}
    for method in ("feature_l2", "logit_l2"):
        gain = wide[method] - wide["baseline"]
        raw[method] = stats.ttest_1samp(gain, 0).pvalue
        assert primary.loc[method, "mean"] == pytest.approx(gain.mean())
        assert primary.loc[method, "p"] == pytest.approx(raw[method])
        assert primary.loc[method, "wins"] == (gain < 0).mean()
    low, high = sorted(raw.values())
    assert sorted(primary["p_holm"].dropna()) == pytest.approx([2 * low, max(2 * low, high)])
    area = found[(found["measure"] == "test_auroc") & (found["method"] == "feature_l2")].iloc[0]
    assert area["mean"] == pytest.approx(-primary.loc["feature_l2", "mean"])
    assert area["wins"] == primary.loc["feature_l2", "wins"]


@pytest.mark.usefixtures("strengths")
def test_what_validation_turned_off_is_shown_as_off_and_not_tested():
    found = rivals.differences(BLOCK, runs({"baseline": 0.0, "feature_l2": -0.03}))
    off = found[found["method"] == "dropout"]
    assert off["n"].tolist() == [0]
    assert off["p_holm"].isna().all()
    shown = rivals.table(found, ["test_cross_entropy", "test_auroc"]).set_index("Method")
    assert shown.loc["Dropout on the features", "Cross-entropy"] == "off"
    assert shown.index[0] == "Feature L2"
    assert shown["Reads"].to_dict() == {"Feature L2": "lower", "Dropout on the features": "off"}


@pytest.mark.usefixtures("strengths")
@pytest.mark.parametrize(
    ("effect", "spread", "word"),
    [(0.03, 0.01, "higher"), (0.001, 0.004, "negligible"), (0.001, 0.1, "unclear")],
)
def test_what_a_difference_reads_as(effect, spread, word):
    found = rivals.differences(BLOCK, runs({"baseline": 0.0, "feature_l2": effect}, spread=spread))
    shown = rivals.table(found, ["test_cross_entropy"]).set_index("Method")
    assert shown.loc["Feature L2", "Reads"] == word


@pytest.mark.usefixtures("strengths")
def test_a_copy_of_another_method_has_no_effect():
    found = rivals.differences(BLOCK, runs({"baseline": 0.0, "feature_l2": 0.0}))
    copy = found[(found["method"] == "feature_l2") & (found["measure"] == "test_cross_entropy")]
    assert copy[["mean", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]
    assert copy["wins"].tolist() == [0.5]


@pytest.mark.usefixtures("strengths")
def test_what_could_have_been_seen_is_seen_four_times_in_five():
    table = runs({"baseline": 0.0, "feature_l2": 1e-9}, spread=0.05)
    found = rivals.differences(BLOCK, table).iloc[0]
    wide = table.pivot(index="seed", columns="method", values="test_cross_entropy")
    spread = (wide["feature_l2"] - wide["baseline"]).std()
    random = np.random.default_rng(1)
    drawn = random.normal(found["detectable"], spread, (4000, 20))
    power = (stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)


def test_shares_of_the_variation():
    only_methods = pd.concat(
        runs({"a": 0.0}, seeds=3).assign(method=name, test_cross_entropy=value)
        for name, value in (("a", 1.0), ("b", 2.0))
    )
    assert rivals.explained(only_methods)["method"] == pytest.approx(1)
    found = rivals.explained(runs({"baseline": 0.0, "feature_l2": -0.03}))
    assert sum(found.values()) == pytest.approx(1)
    assert found["seed"] > 0.8


def test_what_follows_from_recorded_logits():
    random = np.random.default_rng(0)
    truth = {part: random.integers(0, 2, 400) for part in rivals.PARTS}
    sure = {part: 4 * (2 * truth[part] - 1 + random.normal(0, 1.5, 400))[:, None] for part in truth}
    names = [str(place) for place in range(400)]
    said = {part: Predictions(logits, names) for part, logits in sure.items()}
    said |= {f"{part}_last": Predictions(-logits, names) for part, logits in sure.items()}
    found = rivals.measured(said, truth)
    p = 1 / (1 + np.exp(-sure["test"][:, 0]))
    cooled = 1 / (1 + np.exp(-sure["test"][:, 0] / found["temperature"]))
    assert found["temperature"] > 2
    assert found["test_brier"] == pytest.approx(brier_score_loss(truth["test"], p))
    assert found["scaled_cross_entropy"] == pytest.approx(log_loss(truth["test"], cooled))
    assert found["scaled_cross_entropy"] < log_loss(truth["test"], p)
    assert found["last_auroc"] == pytest.approx(1 - roc_auc_score(truth["test"], p))


@pytest.mark.usefixtures("strengths")
def test_the_page_with_and_without_blocks():
    table = runs({"baseline": 0.0, "feature_l2": -0.03, "logit_l2": 0.02})
    for blocks in ([], [(BLOCK, table)]):
        rivals.figure(blocks).canvas.draw()
        assert len(rivals.confidence(blocks)) == len(blocks)
        assert len(rivals.variation(blocks)) == len(blocks)
        assert rivals.facts(blocks)["rivals_blocks"] == len(blocks)
    told = rivals.facts([(BLOCK, table)])
    assert told["rivals_breastmnist_best"] == "feature L2"
    assert (told["rivals_breastmnist_stand"], told["rivals_breastmnist_worse"]) == (1, 1)


def test_contrasts_are_paired_differences_of_two_methods():
    table = runs({"baseline": 0.0, "tuned": -0.05, "feature_l2": -0.03})
    (row,) = rivals.contrasts(table, ["test_cross_entropy"]).to_dict("records")
    wide = table.pivot(index="seed", columns="method", values="test_cross_entropy")
    expected = (wide["tuned"] - wide["feature_l2"]).mean()
    assert row["Cross-entropy"].startswith(f"{expected:+.3f}".replace("-", "\u2212"))
    assert {name for _, *pair in rivals.CONTRASTS for name in pair} <= set(rivals.METHODS)


@pytest.mark.usefixtures("strengths")
def test_strengths_at_the_edge_of_the_range_are_named(monkeypatch):
    chosen = {"tuned": 2.5, "feature_l2": 0.1, "logit_l2": 0.009, "dropout": 0.8, "mixup": 0.0}
    monkeypatch.setattr(rivals, "chosen_strengths", lambda block, results: chosen)
    told = rivals.facts([(BLOCK, runs({"baseline": 0.0, "feature_l2": -0.03}))])
    assert told["rivals_breastmnist_edge"] == "feature L2 and dropout on the features"
    assert told["rivals_breastmnist_times_published"] == "250"


def test_numbers_of_images_in_names_are_those_of_medmnist():
    for flag in ("breastmnist", "pneumoniamnist"):
        assert f"{INFO[flag]['n_samples']['train']:,} images" in rivals.DATA[flag]


def test_every_source_of_a_method_is_in_the_references():
    bib = (Path(__file__).parents[2] / "book" / "references.bib").read_text()
    keys = re.findall(r"^@\w+\{(\w+),", bib, re.M)
    for method in METHODS.values():
        if method.source:
            author, year = re.match(r"(\w+).*\((\d{4})\)$", method.source).groups()
            assert any(key.startswith(author.lower() + year) for key in keys), method.source
    assert len(rivals.methods_table()) == len(CANDIDATES)


def test_augmentation_is_a_method_where_both_blocks_are_recorded():
    plain, augmented = runs({"baseline": 0.0}), runs({"augmented": -0.1, "dropout": -0.2})
    sibling = dataclasses.replace(BLOCK, augment=True)
    every = [(BLOCK, plain), (sibling, augmented)]
    assert set(rivals._with_augmentation(BLOCK, plain, every)["method"]) == {
        "baseline",
        "augmented",
    }
    assert rivals._with_augmentation(sibling, augmented, every) is augmented


@pytest.fixture(scope="module")
def few_images():
    """The recorded block of the page *verdict*: differences, and the runs themselves."""
    for block, table in rivals.recorded_blocks():
        if block == BLOCKS[0]:
            found = rivals.differences(block, table)
            return found.set_index(["method", "measure"]), table
    pytest.skip("the comparison on BreastMNIST is not recorded")


def test_what_the_verdict_says_of_few_images_follows_from_the_runs(few_images):
    found, _ = few_images
    loss, area = "test_cross_entropy", "test_auroc"
    for method in ("tuned", "self_setting", "feature_l2"):
        assert found.loc[(method, loss), "p_holm"] < 0.05
        assert found.loc[(method, loss), "high"] < 0 < found.loc[(method, area), "low"]
        assert found.loc[(method, "scaled_cross_entropy"), "high"] < 0  # not only confidence
    published = found.loc[("penalized", loss)]
    bound = rivals.NEGLIGIBLE[loss]
    assert -bound < published["low"] < published["high"] < bound
    for rival in ("dropout", "label_smoothing", "weight_decay"):
        assert found.loc[(rival, loss), "mean"] > found.loc[("tuned", loss), "high"]
    assert found.loc[("tuned", "corrupted_cross_entropy"), "low"] > 0
    assert found.loc[("sharpness_aware", "corrupted_cross_entropy"), "high"] < 0


def test_what_the_verdict_says_of_augmentation_follows_from_the_runs(few_images):
    found, _ = few_images
    strengths = chosen_strengths(BLOCKS[1])
    assert strengths["tuned"] == strengths["within_class"] == strengths["head_weighted"] == 0
    augmented, penalized = (
        found.loc[(method, "test_cross_entropy")] for method in ("augmented", "tuned")
    )
    assert penalized["high"] < augmented["low"] < augmented["high"] < 0


def test_what_the_variants_say_of_pairs_follows_from_the_runs(few_images):
    _, table = few_images
    wide = table.pivot_table(index="seed", columns="method", values="test_cross_entropy")

    def apart(first: str, second: str) -> PairedDifference:
        return paired_difference(wide[first], wide[second])

    small = rivals.NEGLIGIBLE["test_cross_entropy"]
    assert 0 < apart("tuned", "feature_l2").mean < small  # a little better
    for same in (("within_class", "tuned"), ("self_setting", "tuned")):
        assert -small < apart(*same).low < apart(*same).high < small
    for less in ("learning_rate", "head_decay", "label_smoothing", "logit_l2", "logit_variance"):
        assert apart("tuned", less).high < 0
    for part in ("head_weighted", "relative_within"):
        assert apart(part, "tuned").low > 0
        assert apart(part, "baseline").high < 0
