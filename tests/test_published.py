import pytest

from varreg import published


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
