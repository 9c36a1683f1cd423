import itertools

import numpy as np
import pandas as pd
import pytest

from companion import predictions, published
from companion.published_numbers import progress_bar
from tests.companion.synthetic_numbers import ANSWERS, CHEST, PROTOCOL, shown_by_hand


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predictions.progress_bar([]), "0 scores"),
        (lambda: predictions.progress_bar([1], 0), "batches of 0"),
        (lambda: progress_bar.compatible(1.2), "between 0 and 1"),
        (lambda: progress_bar.constant_probability(0.1), "shows 0.6931 up"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_map_is_that_of_all_patterns_of_errors():
    counts, batch_size = (3, 2), 2
    table = progress_bar.attainable(counts, batch_size).set_index("right")
    patterns = pd.DataFrame(
        {
            "right": sum(pattern),
            "first": sum(pattern[:3]),
            "shown": predictions.progress_bar(pattern, batch_size, closing=True),
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
    shown = round(predictions.progress_bar(right, closing=True), 4)
    low, high = progress_bar.compatible(shown, even=False)
    assert low <= right.mean() <= high
    near, far = progress_bar.compatible(shown)
    assert low <= near <= far <= high


def test_the_printed_baseline_has_no_higher_accuracy_than_always_pneumonia():
    value = published.find("chest", "baseline", "accuracy", source=published.TABLES["chest"]).value
    right = [0] * 234 + [1] * 390
    assert round(predictions.progress_bar(right, closing=True), 4) == value
    assert round(predictions.progress_bar(right), 4) == 0.2821
    for even in (True, False):
        assert progress_bar.compatible(value, even=even)[1] == 0.625


def test_one_probability_explains_the_printed_accuracy_and_loss_of_the_baseline():
    chance = progress_bar.constant_probability(0.8814)
    scores = np.repeat([-np.log(1 - chance), -np.log(chance)], (234, 390))
    assert shown_by_hand(list(scores), 32, True) == pytest.approx(0.8814)
    facts = progress_bar.constant_facts()
    assert facts["constant_probability"] == chance
    assert (facts["constant_shown"], facts["constant_loss"]) == pytest.approx(
        (0.2984, 0.8814), abs=5e-5
    )
    assert (facts["constant_printed"], facts["constant_printed_loss"]) == (0.2984, 0.8814)


def test_two_recalls_follow_from_accuracy_and_bar():
    share = 234 / 624
    recalls = 0.5, 0.97
    weight = predictions.bar_weights(624)[:234].sum()
    accuracy, shown = (part * recalls[0] + (1 - part) * recalls[1] for part in (share, weight))
    assert progress_bar.implied_recalls(accuracy, shown) == pytest.approx(recalls)


def test_a_shuffled_bar_shows_the_metric_and_a_sorted_one_does_not():
    rows = progress_bar.bars(CHEST, shuffles=400).set_index(["method", "measure"])
    right = CHEST.loc[CHEST["method"] == "baseline", "right"].to_numpy()
    accuracy = rows.loc["baseline", "accuracy"]
    assert accuracy["metric"] == right.mean()
    assert accuracy["closing"] == pytest.approx(shown_by_hand(list(right), 32, True))
    assert accuracy["shuffled"] == pytest.approx(accuracy["metric"], abs=0.005)
    assert accuracy["closing"] < accuracy["low"] < accuracy["metric"] < accuracy["high"]
    loss = rows.loc["baseline", "cross-entropy"]
    assert loss["closing"] > loss["high"] > loss["metric"]
    pd.testing.assert_frame_equal(progress_bar.bars(CHEST), progress_bar.bars(CHEST))


def test_numbers_are_traced_to_the_bar_or_the_metric():
    table = progress_bar.traced().set_index(["experiment", "method", "metric"])["fits"]
    assert len(table) == 10
    assert table["chest", "augmented", "accuracy"] == "the bar"
    assert table["skin", "penalized", "accuracy"] == "both"
    assert table["chest", "baseline", "loss"] == "neither"


def test_our_recall_fixes_the_accuracy_behind_a_printed_number():
    table = progress_bar.compatible_table(PROTOCOL).set_index("Model")
    weight = predictions.bar_weights(624)[:234].sum()
    of_normal = (0.7164 - (1 - weight) * 0.97) / weight
    wanted = (234 * of_normal + 390 * 0.97) / 624
    assert float(table.loc["Penalized", "Accuracy at that recall"]) == pytest.approx(
        wanted, abs=1e-4
    )
    lower = PROTOCOL.assign(test_recall="0.5;1.0")  # then no normal image is left to be right
    shown = progress_bar.compatible_table(lower).set_index("Model")["Accuracy at that recall"]
    assert shown["Baseline"] == "\u2013"


def marks(ax, marker):
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in ax.lines
        if line.get_marker() == marker
    ]


def test_the_map_marks_models_at_their_accuracy_and_their_bar():
    chest = predictions.images(ANSWERS, "chest_paper")
    below = progress_bar.figure(chest).axes[1]
    rows = progress_bar.bars(chest).query("measure == 'accuracy'")
    wanted = list(zip(rows["metric"], rows["closing"], strict=True))
    assert marks(below, "o") == wanted
    assert marks(below, "*") == [(0.625, pytest.approx(0.2984, abs=5e-5))]
    assert len(marks(below, "P")) == 3


def test_the_bar_above_ends_where_keras_has_it_after_the_last_batch():
    chest = predictions.images(ANSWERS, "chest_paper")
    above = progress_bar.figure(chest).axes[0]
    bar = next(line for line in above.lines if line.get_label() == "the bar, in file order")
    right = chest.loc[chest["method"] == "baseline", "right"]
    assert bar.get_ydata()[-1] == pytest.approx(predictions.progress_bar(right))


def test_facts_are_those_of_the_rows():
    facts = progress_bar.facts(CHEST)
    rows = progress_bar.bars(CHEST).query("measure == 'accuracy'")
    points = 100 * (rows["metric"] - rows["closing"])
    assert (facts["bar_least"], facts["bar_most"]) == (points.min(), points.max())
    assert (facts["bar_shown"], facts["bar_numbers"]) == (4, 10)
    assert (facts["bar_printed"], facts["bar_high"]) == (0.2984, 0.625)
