import pytest

from varreg import published


def test_every_number_has_a_known_source_and_is_stated_once():
    sources = {*published.TABLES.values(), published.RELEASED_LOG}
    places = [(n.experiment, n.method, n.split, n.metric, n.source) for n in published.NUMBERS]
    assert len(set(places)) == len(places)
    assert {number.source for number in published.NUMBERS} == sources


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


def test_progress_bar_equals_the_metric_for_one_batch_only():
    right = [1, 0, 0, 1]
    assert published.progress_bar(right, 4) == 0.5
    assert published.progress_bar(right, 2) == pytest.approx((0.5 + 0.5) / 2)
    assert published.progress_bar([1, 1, 0], 2) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: published.select("brain"), "allowed are chest, skin"),
        (lambda: published.progress_bar([]), "0 scores"),
        (lambda: published.progress_bar([1], 0), "batches of 0"),
        (
            lambda: published.find("skin", "augmented", "loss", source=published.RELEASED_LOG),
            "states no test loss of the augmented skin model",
        ),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
