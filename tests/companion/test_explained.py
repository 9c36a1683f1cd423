import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from companion import explained, published
from companion.explained.words import listed
from tests.companion.synthetic import row, study
from tests.companion.synthetic_numbers import leakage, predictions, temperatures, thresholds
from varreg.lab.statistics import paired_difference

RUNS, DETAILS = predictions()
CHEST = explained.images(RUNS, DETAILS, "chest_paper")
SKIN = explained.images(RUNS, DETAILS, "skin_paper")
LEAKS = leakage()
THRESHOLDS = thresholds()
EMPTY = pd.DataFrame()
NO_IMAGES = explained.images(EMPTY, EMPTY, "chest_paper")
PROTOCOL = pd.DataFrame(
    row(method, seed, dataset="chest_xray", size=224, study="chest_paper", best_epoch=2)
    | {"test_recall": f"0.5;{0.96 + 0.01 * seed}", "test_accuracy": (500 + 3 * seed) / 624}
    for method in ("baseline", "penalized", "augmented")
    for seed in range(3)
)


# --- The progress bar


def shown_by_hand(scores, batch_size, closing):
    """As Keras adds it up: a total and a count, batch by batch."""
    total = count = 0
    for start in range(0, len(scores), batch_size):
        so_far = scores[: start + batch_size]
        metric = sum(so_far) / len(so_far)
        total, count = total + metric, count + 1
    return (total + metric) / (count + 1) if closing else total / count


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (4, 4), (5, 2), (64, 32), (70, 32)])
def test_the_bar_is_a_weighted_mean_and_equals_the_running_sum(count, batch_size, closing):
    scores = np.random.default_rng(count).random(count)
    wanted = shown_by_hand(list(scores), batch_size, closing)
    assert explained.progress_bar(scores, batch_size, closing=closing) == pytest.approx(wanted)
    weights = explained.bar_weights(count, batch_size, closing=closing)
    assert weights @ scores == pytest.approx(wanted)
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(weights) <= 1e-15).all()


def test_the_bar_equals_the_metric_for_one_batch_only():
    right = [1, 0, 0, 1]
    assert explained.progress_bar(right, 4) == 0.5
    assert explained.progress_bar([1, 1, 0], 2) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explained.progress_bar([]), "0 scores"),
        (lambda: explained.progress_bar([1], 0), "batches of 0"),
        (lambda: explained.compatible(1.2), "between 0 and 1"),
        (lambda: explained.constant_probability(0.1), "shows 0.6931 up"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_map_is_that_of_all_patterns_of_errors():
    counts, batch_size = (3, 2), 2
    table = explained.attainable(counts, batch_size).set_index("right")
    patterns = pd.DataFrame(
        {
            "right": sum(pattern),
            "first": sum(pattern[:3]),
            "shown": explained.progress_bar(pattern, batch_size, closing=True),
        }
        for pattern in itertools.product((0, 1), repeat=5)
    )
    by_right = patterns.groupby("right")["shown"]
    np.testing.assert_allclose(table["low"], by_right.min())
    np.testing.assert_allclose(table["high"], by_right.max())
    even = patterns.groupby(["right", "first"])["shown"].mean().groupby("right")
    np.testing.assert_allclose(table["even_low"], even.min())
    np.testing.assert_allclose(table["even_high"], even.max())


@pytest.mark.parametrize("seed", range(5))
def test_compatible_accuracies_hold_the_true_one(seed):
    random = np.random.default_rng(seed)
    right = random.random(624) < np.repeat(random.random(2), (234, 390))
    shown = round(explained.progress_bar(right, closing=True), 4)
    low, high = explained.compatible(shown, even=False)
    assert low <= right.mean() <= high
    near, far = explained.compatible(shown)
    assert low <= near <= far <= high


def test_the_printed_baseline_has_no_higher_accuracy_than_always_pneumonia():
    value = published.find("chest", "baseline", "accuracy", source=published.TABLES["chest"]).value
    right = [0] * 234 + [1] * 390
    assert round(explained.progress_bar(right, closing=True), 4) == value
    assert round(explained.progress_bar(right), 4) == 0.2821
    for even in (True, False):
        assert explained.compatible(value, even=even)[1] == 0.625


def test_one_probability_explains_the_printed_accuracy_and_loss_of_the_baseline():
    chance = explained.constant_probability(0.8814)
    scores = np.repeat([-np.log(1 - chance), -np.log(chance)], (234, 390))
    assert shown_by_hand(list(scores), 32, True) == pytest.approx(0.8814)
    assert f"{chance:.3f}" in explained.constant_sentence()


def test_two_recalls_follow_from_accuracy_and_bar():
    share = 234 / 624
    recalls = 0.5, 0.97
    weight = explained.bar_weights(624)[:234].sum()
    accuracy, shown = (part * recalls[0] + (1 - part) * recalls[1] for part in (share, weight))
    assert explained.implied_recalls(accuracy, shown) == pytest.approx(recalls)


def test_images_are_scored_by_their_own_class():
    assert CHEST["method"].unique().tolist() == ["baseline", "penalized", "augmented"]
    assert SKIN["method"].unique().tolist() == ["baseline", "penalized", "untrained"]
    assert "p_2" not in CHEST
    first = CHEST.iloc[0]
    assert first["label"] == 0
    assert first["cross_entropy"] == pytest.approx(-math.log(first["p_0"]))
    assert (CHEST["right"] == ((CHEST["p_1"] > 0.5) == (CHEST["label"] == 1))).all()


def test_a_shuffled_bar_shows_the_metric_and_a_sorted_one_does_not():
    rows = explained.bars(CHEST, shuffles=400).set_index(["method", "measure"])
    right = CHEST.loc[CHEST["method"] == "baseline", "right"].to_numpy()
    accuracy = rows.loc["baseline", "accuracy"]
    assert accuracy["metric"] == right.mean()
    assert accuracy["closing"] == pytest.approx(shown_by_hand(list(right), 32, True))
    assert accuracy["shuffled"] == pytest.approx(accuracy["metric"], abs=0.005)
    assert accuracy["closing"] < accuracy["low"] < accuracy["metric"] < accuracy["high"]
    loss = rows.loc["baseline", "cross-entropy"]
    assert loss["closing"] > loss["high"] > loss["metric"]
    pd.testing.assert_frame_equal(explained.bars(CHEST), explained.bars(CHEST))


def test_numbers_are_traced_to_the_bar_or_the_metric():
    table = explained.traced_table().set_index(["Data", "Model", "Number"])["Fits"]
    assert len(table) == 10
    assert table["chest", "augmented", "accuracy"] == "the bar"
    assert table["skin", "penalized", "accuracy"] == "both"
    assert table["chest", "baseline", "loss"] == "neither"


def test_our_recall_fixes_the_accuracy_behind_a_printed_number():
    table = explained.compatible_table(PROTOCOL).set_index("Model")
    weight = explained.bar_weights(624)[:234].sum()
    of_normal = (0.7164 - (1 - weight) * 0.97) / weight
    wanted = (234 * of_normal + 390 * 0.97) / 624
    assert float(table.loc["Penalized", "Accuracy at that recall"]) == pytest.approx(
        wanted, abs=1e-4
    )
    lower = PROTOCOL.assign(test_recall="0.5;1.0")  # then no normal image is left to be right
    shown = explained.compatible_table(lower).set_index("Model")["Accuracy at that recall"]
    assert shown["Baseline"] == "\u2013"


# --- Six sevenths


@pytest.mark.parametrize("classes", [3, 7])
def test_the_released_metric_depends_on_the_last_column_only(classes):
    random = np.random.default_rng(0)
    chances = random.dirichlet(np.full(classes, 0.3), size=200)
    above = (chances[:, -1] > 0.5).mean()
    assert 0 < above < 1
    wanted = (1 - above) * (classes - 1) / classes + above / classes
    for _ in range(2):
        labels = random.integers(0, classes, size=200)
        assert explained.released_accuracy(chances, labels) == pytest.approx(wanted)


def test_constant_answers_get_six_sevenths_but_for_the_last_class():
    rows = explained.sevenths(SKIN).set_index("model")
    constant = rows[rows.index.str.startswith("always")]
    assert len(constant) == 7
    last = f"always {published.SKIN_CLASSES[-1]}"
    assert constant["released"].drop(last).tolist() == pytest.approx([6 / 7] * 6)
    assert constant.loc[last, "released"] == pytest.approx(1 / 7)
    labels = SKIN.loc[SKIN["method"] == "baseline", "label"]
    assert constant["accuracy"].sum() == pytest.approx(1)
    assert constant.loc["always melanoma", "accuracy"] == (labels == 5).mean()


def test_balanced_accuracy_is_that_of_scikit_learn():
    model = SKIN[SKIN["method"] == "baseline"]
    called = model[[f"p_{place}" for place in range(7)]].to_numpy().argmax(1)
    found = explained.sevenths(SKIN).set_index("model").loc["baseline", "balanced_accuracy"]
    assert found == pytest.approx(balanced_accuracy_score(model["label"], called))


def test_the_sentence_counts_the_models_that_score_six_sevenths():
    rows = explained.sevenths(SKIN)
    same = (rows["released"] - 6 / 7).abs() < 1e-9
    assert f"{same.sum()} of the {len(rows)} models" in explained.sevenths_sentence(SKIN)


# --- Half a cross-entropy


def test_every_published_penalized_loss_is_decomposed_once():
    table = explained.decomposition()
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
    table = explained.variance_table({"chest": (PROTOCOL, curves), "skin": (EMPTY, EMPTY)}, RUNS)
    assert table["Data"].tolist() == ["chest, training", "chest, validation", "chest, test"]
    assert table["Seeds"].tolist() == [3, 3, 1]
    assert table["Feature variance"].tolist() == ["2.00000", "20.00000", "0.00400"]
    assert table.iloc[0, -1] == "0.020000"


# --- Four images


def test_the_exact_test_is_a_fair_coin():
    for first, second in ((0, 0), (4, 0), (9, 2), (2, 9), (5, 5)):
        n = first + second
        tail = sum(math.comb(n, k) for k in range(max(first, second), n + 1)) / 2**n
        assert explained.mcnemar(first, second) == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize("net", range(1, 12))
def test_no_larger_disagreement_is_significant(net):
    found = explained.largest_disagreement(net)
    hits = [
        total
        for total in range(net, 400, 2)
        if stats.binomtest((total + net) // 2, total).pvalue < 0.05
    ]
    assert found == (max(hits) if hits else None)


def test_four_images_need_more_than_perfect_agreement():
    table = explained.agreement_table().set_index("Difference")
    assert table["Images"].tolist() == [4, 4, 8]
    assert table.loc["penalized over baseline", "Agreement needed"] == "\u2013"
    assert table.loc["penalized over augmented", "Agreement needed"] == "612 of 624"


def test_disagreement_is_counted_on_the_same_images():
    right = {
        method: group["right"].to_numpy() for method, group in CHEST.groupby("method", sort=False)
    }
    table = explained.disagreement_table(CHEST).set_index("Models")
    line = table.loc["penalized and augmented"]
    assert line.iloc[0] == ((right["penalized"] == 1) & (right["augmented"] == 0)).sum()
    net = line.iloc[0] - line.iloc[1]
    assert net == right["penalized"].sum() - right["augmented"].sum()


def test_seeds_are_counted_in_images():
    table = explained.seeds_table([PROTOCOL, EMPTY])
    assert table["Images right, mean"].tolist() == ["503.0"] * 3
    assert table["Standard deviation"].tolist() == ["3.0"] * 3
    assert table["Lowest to highest"].tolist() == ["500 to 506"] * 3
    assert "3.0 images at 224 pixels" in explained.four_sentence(PROTOCOL, EMPTY)


# --- Leakage


def test_leakage_is_what_the_same_images_lose():
    table = explained.leakage_table(*LEAKS).set_index(["model", "quantity"])
    mine = table.loc["small_cnn"]
    details = LEAKS[1][LEAKS[1]["key"] == LEAKS[0]["key"].iloc[0]]
    images = details.groupby("seen")["images"].sum()
    right = details.groupby("seen")["right"].sum()  # all images, seed 0; each seed adds 7
    for name, seen in (("seen", 1), ("unseen", 0)):
        assert mine.loc[name, "mean"] == pytest.approx((right[seen] + 7) / images[seen])
    assert mine.loc["raw", "mean"] < 0  # they are harder, and remembered all the same
    assert (mine.loc["memory", "mean"], mine.loc["memory", "n"]) == (pytest.approx(0.1), 3)
    assert mine.loc["control", "mean"] == 0
    share = images[1] / images.sum()
    assert mine.loc["worth", "mean"] == pytest.approx(0.1 * share)


def test_a_seed_without_all_three_models_does_not_count():
    runs, details = LEAKS
    fewer = explained.leakage_table(runs[runs["key"] != runs["key"].iloc[-1]], details)
    counts = fewer[fewer["quantity"] == "memory"].set_index("model")["n"]
    assert counts.to_dict() == {"paper_cnn": 3, "small_cnn": 2}


def test_the_overlap_counts_images_of_each_class():
    rows = explained.by_lesion(SKIN)
    table = explained.overlap_table(rows[rows["method"] == "baseline"]).set_index("Class")
    model = SKIN[SKIN["method"] == "baseline"]
    assert table.loc["all", "Test images"] == len(model)
    assert table.loc["all", "Lesion seen in training"] == model["seen"].sum()
    moles = model[model["label"] == 4]
    assert table.loc["melanocytic nevus", "Lesion seen in training"] == moles["seen"].sum()


def test_welch_by_hand():
    a, b = np.array([0.80, 0.82, 0.81, 0.85]), np.array([0.70, 0.74, 0.72])
    parts = [x.var(ddof=1) / len(x) for x in (a, b)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True)
    )
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    found = explained.unpaired_difference(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    assert found.n == 7
    assert math.isnan(explained.unpaired_difference([0.8], b).low)


def test_splits_are_compared_for_each_network():
    runs = pd.concat(
        study({"baseline": shift, "penalized": 0.3}, dataset="ham10000", split=split)
        for split, shift in (("lesion", 0.0), ("paper", -0.02))
    )
    table = explained.split_difference(runs)
    assert table["model"].tolist() == ["paper_cnn", "small_cnn"]
    assert table["mean"].tolist() == pytest.approx([0.02, 0.02], abs=0.004)
    assert explained.split_difference(runs[runs["split"] == "paper"]).empty


def test_everything_about_lesions_stands_in_one_table():
    effects = explained.leakage_table(*LEAKS)
    table = explained.lesion_table(effects)
    assert table["Network"].tolist() == ["Paper's network", "Small CNN"]
    assert "Image split minus lesion split" not in table
    assert table["Worth in test accuracy"].str.contains(r"[+\u2212]").all()


# --- The data


def test_the_prior_is_corrected_in_log_odds():
    rows = explained.threshold_rows(CHEST).set_index(["method", "rule"])
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
    table = explained.thresholds_table(THRESHOLDS, explained.threshold_rows(CHEST))
    assert len(table) == 6 + 3
    assert table.loc[0, "At 0.5"] == "0.801"
    assert table.loc[0, "Price of 0.5"].startswith("+0.021 [+0.019")
    assert table.loc[8, "Best on validation"] == "\u2013"
    balanced = explained.thresholds_table(
        THRESHOLDS, explained.threshold_rows(CHEST), "balanced_accuracy"
    )
    assert balanced.loc[0, "At 0.5"] == "0.751"
    assert "+0.021" in explained.shift_sentence(THRESHOLDS)


# --- All of it


def test_nothing_recorded_gives_empty_tables_and_whole_sentences():
    empty = [
        explained.bars_table(NO_IMAGES),
        explained.sevenths_table(NO_IMAGES),
        explained.variance_table({"chest": (EMPTY, EMPTY)}, EMPTY),
        explained.disagreement_table(NO_IMAGES),
        explained.seeds_table([EMPTY, EMPTY]),
        explained.overlap_table(explained.by_lesion(NO_IMAGES)),
        explained.lesion_table(explained.leakage_table(EMPTY, EMPTY)),
        explained.split_difference(EMPTY),
        explained.thresholds_table(EMPTY, explained.threshold_rows(NO_IMAGES)),
    ]
    assert all(table.empty for table in empty)
    sentences = [
        explained.bar_sentence(NO_IMAGES),
        explained.sevenths_sentence(NO_IMAGES),
        explained.four_sentence(EMPTY, EMPTY),
        explained.leakage_sentence(explained.leakage_table(EMPTY, EMPTY), EMPTY),
        explained.shift_sentence(EMPTY),
    ]
    for sentence in sentences:
        assert sentence.startswith("**")
        assert sentence.endswith(".")
        assert "nan" not in sentence


def test_sentences_follow_from_the_rows():
    drop = explained.bars(CHEST).query("measure == 'accuracy'")
    points = 100 * (drop["metric"] - drop["closing"])
    assert f"{points.min():.1f} to {points.max():.1f} points" in explained.bar_sentence(CHEST)
    alone = explained.bar_sentence(CHEST[CHEST["method"] == "baseline"])
    assert f"ends {points.iloc[0]:.1f} points" in alone
    overlap = explained.overlap_table(explained.by_lesion(SKIN).query("method == 'baseline'"))
    effects = explained.leakage_table(*LEAKS)
    assert f"{SKIN['seen'].sum() // 3:.0f} of the 300" in explained.leakage_sentence(
        effects, overlap
    )
    assert listed(["a"]) == "a"


def test_every_table_says_something_for_the_recorded_models():
    for table in (
        explained.bars_table(CHEST),
        explained.pairs_table(PROTOCOL),
        explained.compatible_table(EMPTY),
        explained.constant_table(),
        explained.decomposition_table(),
        explained.counts_table(),
        explained.prevalence_table(),
        explained.sevenths_table(SKIN),
    ):
        assert len(table)
        assert not table.astype(str).map(lambda text: "nan" in text).any(axis=None)


# --- Measured as the released notebooks did


def test_released_metrics_of_the_skin_models_by_hand():
    table = SKIN[SKIN["method"] == "baseline"]
    chances = table[[f"p_{place}" for place in range(7)]].to_numpy()
    truth = np.eye(7)[table["label"].to_numpy(int)]
    found = explained.released_metrics(table)
    micro = roc_auc_score(truth, chances, average="micro")
    assert found["keras_auc"] == pytest.approx(micro, abs=1e-3)
    hits = ((chances[:, 6:] > 0.5) == truth).mean(axis=1)
    assert found["last_column_accuracy"] == pytest.approx(hits.mean())
    right = list(chances.argmax(1) == table["label"])
    for name, scores in (("accuracy", right), ("last_column_accuracy", list(hits))):
        assert found[f"bar_{name}"] == pytest.approx(shown_by_hand(scores, 32, closing=True))
    assert "bar_auroc" not in found


def test_released_metrics_of_the_chest_models_by_hand():
    table = CHEST[CHEST["method"] == "augmented"]
    found = explained.released_metrics(table)
    chance, label = table["p_1"].to_numpy(), table["label"].to_numpy()
    assert found["keras_auc"] == pytest.approx(roc_auc_score(label, chance), abs=1e-3)
    areas = []
    for stop in (*range(32, 624, 32), 624):
        both = len(set(label[:stop])) == 2  # of one class alone there is no area: Keras says 0
        areas.append(roc_auc_score(label[:stop], chance[:stop]) if both else 0.0)
    assert areas[:7] == [0.0] * 7
    assert found["bar_auroc"] == pytest.approx(np.mean([*areas, areas[-1]]), abs=2e-3)
    assert "last_column_accuracy" not in found


def test_only_runs_whose_predictions_are_recorded_get_the_released_metrics():
    found = explained.with_released_metrics(PROTOCOL, RUNS, DETAILS)
    assert len(found) == len(PROTOCOL)
    first = found["seed"] == 0
    assert found.loc[first, "test_bar_accuracy"].notna().all()
    assert found.loc[~first, "test_bar_accuracy"].isna().all()
    mine = found[first & (found["method"] == "augmented")].iloc[0]
    wanted = explained.released_metrics(CHEST[CHEST["method"] == "augmented"])
    assert mine["test_bar_auroc"] == wanted["bar_auroc"]
    # What a run recorded itself stays.
    own = explained.with_released_metrics(PROTOCOL.assign(test_keras_auc=0.5), RUNS, DETAILS)
    assert (own["test_keras_auc"] == 0.5).all()
    # Another data set, size or study is another run.
    for other in ({"dataset": "phantom"}, {"size": 28}, {"study": "chest"}):
        same = explained.with_released_metrics(PROTOCOL.assign(**other), RUNS, DETAILS)
        assert list(same) == list(PROTOCOL)
    for runs in (EMPTY, PROTOCOL):
        pd.testing.assert_frame_equal(explained.with_released_metrics(runs, EMPTY, EMPTY), runs)


def test_what_the_thresholds_change():
    for table in (CHEST, SKIN):
        found = explained.threshold_effects(table)
        assert found["method"].tolist() == list(dict.fromkeys(table["method"]))
        assert (found["effect"] == found["keras"] - found["exact"]).all()
        assert found["effect"].abs().max() < 2e-3
    assert explained.threshold_effects(NO_IMAGES).empty


# --- The plainest facts


def test_changed_predictions_are_counted_one_by_one():
    found = explained.changed_by_penalty(SKIN)
    one, two = (
        SKIN[SKIN["method"] == name][[f"p_{place}" for place in range(7)]].to_numpy()
        for name in ("baseline", "penalized")
    )
    changed = sum(int(a.argmax() != b.argmax()) for a, b in zip(one, two, strict=True))
    assert found["changed"] == changed > 0
    assert found["images"] == len(one)
    assert found["largest"] == pytest.approx(max(abs(one - two).ravel()))
    mixed = explained.changed_by_penalty(SKIN.sample(frac=1, random_state=0))
    assert mixed == found
    assert explained.changed_by_penalty(SKIN, "augmented") == {}
    assert explained.changed_by_penalty(NO_IMAGES) == {}
    table = explained.changed_table({"chest": NO_IMAGES, "skin": SKIN})
    assert table["Data"].tolist() == ["skin"]
    assert table["Predictions that the penalty changes"].tolist() == [changed]


@pytest.mark.parametrize(
    ("loss", "auroc", "words"),
    [
        ((-0.1, 0.001), (0.0, 0.1), "helps:"),
        ((0.1, 0.001), (0.0, 0.1), "makes the model worse:"),
        ((0.0, 0.1), (-0.1, 0.001), "makes the model worse:"),
        ((-0.1, 0.001), (-0.1, 0.001), "helps in one thing and hurts in another:"),
        ((0.0, 0.1), (0.0, 0.1), "makes no clear difference:"),
    ],
)
def test_plain_words_follow_from_the_intervals(loss, auroc, words):
    def change(mean, spread):
        return paired_difference([mean - spread, mean, mean + spread], [0, 0, 0])

    text = explained.in_plain_words({"cross_entropy": change(*loss), "auroc": change(*auroc)})
    assert text.startswith(f"Here the penalty {words} it ")
    assert ("may lower or raise cross-entropy" in text) == (loss[0] == 0)
    single = explained.in_plain_words({"auroc": paired_difference([1.0], [0.5])})
    assert "cannot tell an effect from luck" in single


def test_the_effect_of_a_temperature_is_paired_by_seed():
    units, details = temperatures()
    mine = units[(units["source"] == "skin") & (units["model"] == "small_cnn")]
    found = explained.temperature_effect(mine, details, "cross_entropy")
    test = stats.ttest_1samp([-0.010, -0.011, -0.012], 0)
    assert (found.mean, found.n) == (pytest.approx(-0.011), 3)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    text = explained.temperature_phrase(units, details, "skin", "cross_entropy")
    assert text.startswith("lowers the test cross-entropy by 0.011")
    assert "raises the calibration error" in explained.temperature_phrase(
        units, details, "chest", "ece"
    )
    assert "too few" in explained.temperature_phrase(EMPTY, EMPTY, "chest", "ece")


def test_a_temperature_stands_beside_what_was_trained():
    units, details = temperatures()
    runs = study({"baseline": 0.0, "penalized": -0.1, "augmented": -0.2})
    table = explained.temperature_table(units, details, {"chest": runs})
    assert table["Data"].tolist() == ["chest"] * 6 + ["skin"] * 2
    assert table["What is done"].tolist()[:3] == [
        "temperature, 1.30 on average",
        "penalized, as published",
        "augmented",
    ]
    assert table["Test cross-entropy"].tolist()[0].startswith("\u22120.011 [")
    assert table["Pairs"].tolist()[:3] == [3, 5, 5]
    assert explained.temperature_table(EMPTY, EMPTY, {}).empty
