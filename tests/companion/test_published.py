import pytest

from companion import published

KERAS, LAST = "Keras AUC, 200 thresholds", "accuracy of the last of 7 columns"


def test_every_number_has_a_known_source_and_is_stated_once():
    sources = {*published.TABLES.values(), published.RELEASED_LOG}
    numbers = (*published.NUMBERS, *published.SHOWN)
    places = [(n.experiment, n.method, n.split, n.metric, n.source) for n in numbers]
    assert len(set(places)) == len(places)
    assert {number.source for number in published.NUMBERS} == sources
    assert {number.source for number in published.SHOWN} == {published.RELEASED_BAR}


def test_derived_changes_agree_with_the_tables():
    for shift in published.SHIFTS:
        source = published.TABLES[shift.experiment]
        new, old = (
            published.find(shift.experiment, method, shift.metric, source=source).value
            for method in (shift.method, shift.reference)
        )
        change = 100 * (new - old if shift.metric == "accuracy" else new / old - 1)
        assert change == pytest.approx(shift.value, abs=0.05)


@pytest.mark.parametrize(("accuracy", "count"), [(0.8012820482, 500), (0.8076922894, 504)])
def test_released_chest_accuracies_are_whole_images(accuracy, count):
    assert accuracy * 624 == pytest.approx(count, abs=1e-4)


def test_a_penalized_loss_is_put_on_the_scale_of_the_others():
    found = published.find("chest", "penalized", "loss", source=published.TABLES["chest"])
    assert found.comparable == pytest.approx(2 * found.value)
    other = published.find("chest", "baseline", "loss", source=published.TABLES["chest"])
    assert other.comparable == other.value


def test_what_the_progress_bar_showed_is_found_by_its_source_only():
    where = {"experiment": "chest", "method": "baseline", "metric": "accuracy"}
    assert published.find(**where, source=published.RELEASED_BAR).value == 0.6473
    assert published.RELEASED_BAR not in {number.source for number in published.select("chest")}


def test_class_counts_add_up_to_those_of_the_download():
    totals = {split: sum(counts) for split, counts in published.CHEST_IMAGES.items()}
    assert totals == {"train": 5216, "val": 16, "test": 624}


def test_every_number_says_what_it_is_and_what_it_is_judged_by():
    for number in (*published.NUMBERS, *published.SHOWN):
        is_bar = "progress bar: unweighted mean" in number.definition
        assert is_bar == (number.source != published.RELEASED_LOG)
        if number.metric == "loss":
            assert ("+ penalty" in number.definition) == (number.method == "penalized")
        if number.source in published.TABLES.values():
            # As the paper calls it; what is measured as it was is another quantity.
            assert number.column in ("accuracy", "cross_entropy")
            assert number.same.startswith("bar_")
        else:
            assert number.column.startswith("bar_") == is_bar
            assert number.same == ""
    traced = [each for each in published.NUMBERS if each.definition.startswith("progress bar")]
    for number in traced:  # those that the log shows, to the last printed digit
        shown = published.find(
            number.experiment, number.method, number.metric, source=published.RELEASED_BAR
        )
        assert shown.value == number.value
    assert len(traced) == 4


@pytest.mark.parametrize(
    ("experiment", "method", "metric", "definition", "column"),
    [
        ("chest", "baseline", "accuracy", "accuracy, threshold 0.5", "accuracy"),
        ("skin", "baseline", "accuracy", "accuracy, most probable class", "accuracy"),
        ("skin", "penalized", "accuracy", f"binary {LAST}", "last_column_accuracy"),
        ("chest", "augmented", "auroc", KERAS, "auroc"),
        ("skin", "baseline", "auroc", f"{KERAS}, micro average", "keras_auc"),
        ("skin", "penalized", "loss", "0.5 \u00d7 cross-entropy + penalty", "cross_entropy"),
    ],
)
def test_what_the_released_log_returned(experiment, method, metric, definition, column):
    found = published.find(experiment, method, metric, source=published.RELEASED_LOG)
    assert (found.definition, found.column) == (definition, column)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: published.select("brain"), "allowed are chest, skin"),
        (
            lambda: published.find("skin", "augmented", "loss", source=published.RELEASED_LOG),
            "states no test loss of the augmented skin model",
        ),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
