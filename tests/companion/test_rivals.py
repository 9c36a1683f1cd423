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

from companion import rivals, verdicts, words
from companion.studies.rivals_tuning import BLOCKS, chosen_strengths
from varreg.lab.methods import METHODS
from varreg.lab.predictions import Predictions
from varreg.lab.statistics import PairedDifference, detectable, paired_difference

BLOCK = dataclasses.replace(BLOCKS[0], methods=("feature_l2", "logit_l2", "dropout"))


def runs(effects: dict[str, float], seeds: int = 20, spread: float = 0.02) -> pd.DataFrame:
    random = np.random.default_rng(0)
    of_seed = random.normal(0.5, 0.1, seeds)
    rows = []
    for method, effect in effects.items():
        for seed in range(seeds):
            loss = of_seed[seed] + effect + (random.normal(0, spread) if effect else 0)
            values = dict.fromkeys(rivals.MEASURES, loss)
            head = {"key": f"{method} {seed}", "method": method, "seed": seed}
            rows.append(head | values | {"test_auroc": 1 - loss})
    return pd.DataFrame(rows)


def compared(effects: dict[str, float], strengths=None, **made) -> rivals.Compared:
    chosen = strengths or {"feature_l2": 2.5, "logit_l2": 0.01, "dropout": 0.0}
    found, truth = runs(effects, **made), np.arange(40) % 2
    random = np.random.default_rng(1)
    logits = {key: random.normal(truth[:, None], 1.0, (40, 1)) for key in found["key"]}
    return rivals.Compared(BLOCK, found, chosen, logits, truth)


def wide(of: rivals.Compared, measure: str = rivals.PRIMARY) -> pd.DataFrame:
    return of.runs.pivot(index="seed", columns="method", values=measure)


def test_differences_are_paired_by_seed_and_corrected_over_the_methods():
    mine = compared({"baseline": 0.0, "feature_l2": -0.03, "logit_l2": 0.005})
    primary, raw = mine.of(rivals.PRIMARY), {}
    for method in ("feature_l2", "logit_l2"):
        gain = wide(mine)[method] - wide(mine)["baseline"]
        raw[method] = stats.ttest_1samp(gain, 0).pvalue
        assert primary.loc[method, "mean"] == pytest.approx(gain.mean())
        assert primary.loc[method, "p"] == pytest.approx(raw[method])
        assert primary.loc[method, "wins"] == (gain < 0).mean()
    low, high = sorted(raw.values())
    assert sorted(primary["p_holm"].dropna()) == pytest.approx([2 * low, max(2 * low, high)])
    area = mine.of("test_auroc").loc["feature_l2"]
    assert area["mean"] == pytest.approx(-primary.loc["feature_l2", "mean"])
    assert area["wins"] == primary.loc["feature_l2", "wins"]


def test_what_validation_turned_off_is_shown_as_off_and_not_tested():
    mine = compared({"baseline": 0.0, "feature_l2": -0.03})
    off = mine.differences.query("method == 'dropout'")
    assert off["n"].tolist() == [0]
    assert off["p_holm"].isna().all()
    shown = rivals.table(mine, [rivals.PRIMARY, "test_auroc"]).set_index("Method")
    assert shown.loc["Dropout on the features", ["Cross-entropy", "AUROC"]].tolist() == [
        "off",
        words.DASH,
    ]
    assert shown.index[0] == "Feature L2"
    assert shown["Reads"].to_dict() == {"Feature L2": "lower", "Dropout on the features": "off"}


@pytest.mark.parametrize(
    ("effect", "spread", "word"),
    [(0.03, 0.01, "higher"), (0.001, 0.004, "negligible"), (0.001, 0.1, "unclear")],
)
def test_what_a_difference_reads_as(effect, spread, word):
    mine = compared({"baseline": 0.0, "feature_l2": effect}, spread=spread)
    shown = rivals.table(mine, [rivals.PRIMARY]).set_index("Method")
    assert shown.loc["Feature L2", "Reads"] == word


def test_a_copy_of_another_method_has_no_effect():
    copy = compared({"baseline": 0.0, "feature_l2": 0.0}).of(rivals.PRIMARY).loc["feature_l2"]
    assert copy[["mean", "low", "high", "wins"]].tolist() == [0, 0, 0, 0.5]


def test_what_could_have_been_seen_is_seen_four_times_in_five():
    mine = compared({"baseline": 0.0, "feature_l2": 1e-9}, spread=0.05)
    spread = (wide(mine)["feature_l2"] - wide(mine)["baseline"]).std()
    random = np.random.default_rng(1)
    detectable = mine.of(rivals.PRIMARY).loc["feature_l2", "detectable"]
    drawn = random.normal(detectable, spread, (4000, 20))
    power = (stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)


def test_what_could_have_been_seen_after_holm_is_of_its_first_step():
    mine = compared({"baseline": 0.0, "feature_l2": -0.03, "logit_l2": 0.005})
    shown = rivals.variation([mine]).iloc[0]
    gains = [wide(mine)[method] - wide(mine)["baseline"] for method in ("feature_l2", "logit_l2")]
    alone, first = (np.median([detectable(g, confidence=c) for g in gains]) for c in (0.95, 0.975))
    assert (shown["Detectable, median"], shown["Median after Holm"]) == (
        words.number(alone),
        words.number(first),
    )


def test_how_often_a_run_is_better_with_the_same_seed_and_with_another():
    mine = compared({"baseline": 0.0, "feature_l2": -0.03})
    row = mine.of(rivals.PRIMARY).loc["feature_l2"]
    ours, theirs = wide(mine)["feature_l2"].to_numpy(), wide(mine)["baseline"].to_numpy()
    assert row["wins"] == (ours < theirs).mean()
    other = [a < b for i, a in enumerate(ours) for j, b in enumerate(theirs) if i != j]
    assert row["improves"] == pytest.approx(np.mean(other))
    assert mine.of("test_auroc").loc["feature_l2", "improves"] == pytest.approx(np.mean(other))
    shown = rivals.table(mine, [rivals.PRIMARY]).set_index("Method")["Better in"]
    expected = f"{words.percent(row['wins'])} ({words.percent(np.mean(other))})"
    assert shown.to_dict() == {"Feature L2": expected, "Dropout on the features": words.DASH}
    assert list(rivals.table(mine, ["test_auroc"])) == ["Method", "AUROC"]


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


def test_the_page_with_and_without_blocks():
    mine = compared({"baseline": 0.0, "feature_l2": -0.03, "logit_l2": 0.02})
    for blocks in ([], [mine]):
        assert len(rivals.variation(blocks)) == len(blocks)
        # Three of eleven methods are no block of the plan.
        assert rivals.facts(blocks)["rivals_recorded"] == 0
    assert rivals.confidence(mine)["Method"].tolist() == ["Feature L2"]
    whole = dataclasses.replace(mine, block=BLOCKS[0])
    assert rivals.facts([whole])["rivals_recorded"] == 1
    told = rivals.facts([mine])
    assert told["rivals_planned"] == len(BLOCKS)
    assert told["rivals_breastmnist_best"] == "feature L2"
    assert (told["rivals_breastmnist_stand"], told["rivals_breastmnist_worse"]) == (1, 1)


def test_contrasts_are_paired_differences_of_two_methods():
    chosen = {"tuned": 2.5, "feature_l2": 2.5}
    mine = compared({"baseline": 0.0, "tuned": -0.05, "feature_l2": -0.03}, chosen)
    (row,) = rivals.contrasts(mine, [rivals.PRIMARY]).to_dict("records")
    expected = (wide(mine)["tuned"] - wide(mine)["feature_l2"]).mean()
    assert row["Cross-entropy"].startswith(f"{expected:+.3f}".replace("-", "\u2212"))
    assert {name for _, *pair in rivals.CONTRASTS for name in pair} <= set(METHODS)


def test_what_is_off_is_its_reference_where_two_methods_are_compared():
    chosen = {"tuned": 0.0, "dropout": 0.0, "within_class": 0.1}
    mine = compared({"baseline": 0.0, "within_class": -0.03}, chosen)
    (row,) = rivals.contrasts(mine, [rivals.PRIMARY]).to_dict("records")  # not off minus off
    assert row["Difference"].endswith("\u2212 penalty, fixed weight (off)")
    gain = (wide(mine)["within_class"] - wide(mine)["baseline"]).mean()
    assert row["Cross-entropy"].startswith(f"{gain:+.3f}".replace("-", "\u2212"))


def test_strengths_at_the_edge_of_the_range_are_named():
    chosen = {"tuned": 2.5, "feature_l2": 0.1, "logit_l2": 0.009, "dropout": 0.8, "mixup": 0.0}
    told = rivals.facts([compared({"baseline": 0.0, "feature_l2": -0.03}, chosen)])
    assert told["rivals_breastmnist_edge"] == "feature L2 and dropout on the features"
    assert told["rivals_breastmnist_times_published"] == "125"
    assert told["rivals_breastmnist_weight"] == "2.5"


def test_numbers_of_images_in_names_are_those_of_medmnist():
    for flag in ("breastmnist", "pneumoniamnist"):
        assert f"{INFO[flag]['n_samples']['train']:,} images" in rivals.DATA[flag]


def test_every_source_of_a_method_is_in_the_references():
    bib = (Path(__file__).parents[2] / "book" / "references.bib").read_text()
    keys = re.findall(r"^@\w+\{(\w+),", bib, re.M)
    for method in METHODS.values():
        if method.source:
            author, year = re.match(r"(?:\w+: )?(\w+).*\((\d{4})\)$", method.source).groups()
            assert any(key.startswith(author.lower() + year) for key in keys), method.source
    assert len(rivals.methods_table()) == len(METHODS) - 1


def test_augmentation_is_a_method_where_both_blocks_are_recorded():
    plain, augmented = compared({"baseline": 0.0}), compared({"augmented": -0.1, "dropout": -0.2})
    augmented = dataclasses.replace(augmented, block=dataclasses.replace(BLOCK, augment=True))
    every = [plain, augmented]
    found = rivals.with_augmentation(plain, every)
    assert set(found.runs["method"]) == {"baseline", "augmented"}
    assert rivals.with_augmentation(augmented, every) is augmented


@pytest.fixture(scope="module")
def few_images():
    """The recorded block of the page *verdict*."""
    for each in rivals.recorded_blocks():
        if each.block == BLOCKS[0]:
            return each
    pytest.skip("the comparison on BreastMNIST is not recorded")


def test_what_the_verdict_says_of_few_images_follows_from_the_runs(few_images):
    found = few_images.differences.set_index(["method", "measure"])
    loss, area = rivals.PRIMARY, "test_auroc"
    for method in ("tuned", "self_setting", "feature_l2"):
        assert found.loc[(method, loss), "p_holm"] < 0.05
        assert found.loc[(method, loss), "high"] < 0 < found.loc[(method, area), "low"]
        assert found.loc[(method, "scaled_cross_entropy"), "high"] < 0  # not only confidence
    published = found.loc[("penalized", loss)]
    small = verdicts.MARGIN
    assert -small < published["low"] < published["high"] < small
    for rival in ("dropout", "label_smoothing", "weight_decay"):
        assert found.loc[(rival, loss), "mean"] > found.loc[("tuned", loss), "high"]
    assert found.loc[("tuned", "corrupted_cross_entropy"), "low"] > 0
    assert found.loc[("sharpness_aware", "corrupted_cross_entropy"), "high"] < 0


def test_what_the_verdict_says_of_augmentation_follows_from_the_runs(few_images):
    strengths = chosen_strengths(BLOCKS[1])
    assert strengths["tuned"] == strengths["within_class"] == strengths["head_weighted"] == 0
    found = few_images.of(rivals.PRIMARY)
    augmented, penalized = (found.loc[method] for method in ("augmented", "tuned"))
    assert penalized["high"] < augmented["low"] < augmented["high"] < 0


def test_what_validation_turned_off_anew_follows_from_the_runs():
    """The verdict says so of the fixed weight, and that the phantom kept it."""
    chosen = {
        (block.dataset, block.augment): strengths
        for block in BLOCKS
        if block.model == "small_cnn" and block.methods[0] == "tuned"
        for strengths in [chosen_strengths(block)]
    }
    for method in ("tuned", "feature_l2"):
        assert chosen["pneumoniamnist", False][method] == 0
    assert chosen["pneumoniamnist", False]["self_setting"] > 0
    assert chosen["breastmnist", True]["tuned"] == 0
    assert chosen["phantom", False]["tuned"] > 0


def test_what_the_variants_say_of_pairs_follows_from_the_runs(few_images):
    losses, small = wide(few_images), verdicts.MARGIN

    def apart(first: str, second: str) -> PairedDifference:
        return paired_difference(losses[first], losses[second])

    assert 0 < apart("tuned", "feature_l2").mean < small  # a little better
    for same in (("within_class", "tuned"), ("self_setting", "tuned")):
        assert -small < apart(*same).low < apart(*same).high < small
    for less in ("learning_rate", "head_decay", "label_smoothing", "logit_l2", "logit_variance"):
        assert apart("tuned", less).high < 0
    for part in ("head_weighted", "relative_within"):
        assert apart(part, "tuned").low > 0
        assert apart(part, "baseline").high < 0
