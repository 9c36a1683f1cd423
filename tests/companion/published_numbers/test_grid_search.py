import numpy as np
import pytest

from companion import records
from companion.published_numbers import grid_search
from tests.companion.synthetic_mechanics import carried


def test_small_searches_draw_as_many_of_each_class_without_replacement():
    labels = np.arange(60) % 3 % 2  # 40 of class 0, 20 of class 1
    is_one = labels == 1
    right = np.stack([is_one, ~is_one, np.ones(60, bool), np.arange(60) == 0])
    hits = grid_search.small_searches(right, labels, draws=400)
    assert (hits[:, :3] == [8, 8, 16]).all()
    assert set(hits[:, 3]) == {0, 1}
    assert hits[:, 3].mean() == pytest.approx(8 / 40, abs=0.06)  # image 0 is one of 40
    assert (hits == grid_search.small_searches(right, labels, draws=400)).all()
    assert (hits != grid_search.small_searches(right, labels, draws=400, seed=1)).any()


def released_loop(scores):
    """The rule of the released notebook, word for word."""
    best, winner = -1.0, None
    for place, score in enumerate(scores):
        if score > best:
            best, winner = score, place
    return winner


def test_first_best_is_the_released_rule():
    scores = np.random.default_rng(0).integers(10, 14, (200, 12))
    counts = np.bincount([released_loop(each) for each in scores], minlength=12)
    assert grid_search.first_best(scores).tolist() == (counts / 200).tolist()


def test_with_nothing_to_choose_the_first_wins_and_a_lot_is_fair():
    scores = np.full((5, 12), 15)
    assert grid_search.first_best(scores).tolist() == [1] + [0] * 11
    assert grid_search.best_at_random(scores) == pytest.approx(np.full(12, 1 / 12))


def test_choices_of_a_search_without_differences():
    shares = grid_search.choice_shares(records.details(*carried()), draws=20)
    assert shares.groupby(["mode", "seed", "rule"])["share"].sum().to_numpy() == pytest.approx(1)
    picked = shares.set_index(["rule", "place"])["share"].groupby(level=[0, 1]).mean()
    assert picked["small", 1] == picked["accuracy", 1] == 1
    assert picked["small_random", 7] == pytest.approx(1 / 12)
    assert picked["cross_entropy", 5] == 1
    assert (shares.loc[shares["rule"] == "small", "tied"] == 12).all()
    assert (shares.loc[shares["rule"] == "cross_entropy", "ties"] == 0).all()

    table = grid_search.choices(shares).set_index(["mode", "rule"])
    small = table.loc[("fresh", "accuracy")]
    assert (small["ties"], small["place"], small["share"]) == (1, 1, 1)
    assert small["setting"] == "0.01, 0.2, 0.5"
    # place 1 against the mean of 1 to 12, 0.01 each: 0.01 * (1 - 6.5)
    assert small["gain"].mean == pytest.approx(-0.055)
    facts = grid_search.facts(shares)
    assert (facts["search_fresh_small"], facts["search_fresh_ties"]) == (100, 100)
    assert facts["search_fresh_tied"] == 12
    assert facts["search_fresh_small_random"] == pytest.approx(100 / 12)
    assert facts["search_fresh_blind"] == pytest.approx(100 / 12)


def test_a_clearly_better_combination_is_found_by_every_rule_on_accuracy():
    def right_of(place):
        return np.full(40, place == 9)

    shares = grid_search.choice_shares(records.details(*carried(right_of=right_of)), draws=5)
    nine = shares[(shares["place"] == 9) & (shares["rule"] != "cross_entropy")]
    assert (nine["share"] == 1).all()
    assert (nine["ties"] == 0).all()


def test_halves_compare_the_places_within_a_seed():
    rows = records.details(*carried(seeds=3))
    found = grid_search.halves(rows, "val_accuracy")
    one = rows[(rows["seed"] == 2) & (rows["mode"] == "carried")].set_index("place")
    expected = one.loc[7:, "val_accuracy"].mean() - one.loc[:6, "val_accuracy"].mean()
    assert found.loc[2, "carried"] == pytest.approx(expected)
    table = grid_search.carried_over(rows, ["val_accuracy", "test_accuracy"])
    assert table["metric"].tolist() == ["val_accuracy", "test_accuracy"]
    assert table["difference"][0].mean == pytest.approx(0.06)  # 0.01 a place, six places
    assert table["carried"][0].mean == pytest.approx(found["carried"].mean())
    assert table["carried"][1].mean == pytest.approx(0)
    assert grid_search.carried_over(rows[rows["mode"] == "fresh"], ["val_accuracy"]).empty


def test_the_search_shows_every_seed_and_their_mean():
    rows = records.details(*carried(3))
    ax = grid_search.search_places(rows, ["val_accuracy"]).axes[0]
    assert len(ax.lines) == 2 * (3 + 1)
    first = rows[rows["mode"] == "carried"].groupby("place")["val_accuracy"].mean()
    assert ax.lines[3].get_ydata() == pytest.approx(first.to_numpy())


def test_heat_map_writes_percent_in_the_order_of_the_search():
    rows = records.details(*carried(2))
    figure = grid_search.choice_heat(grid_search.choice_shares(rows, draws=10))
    left = figure.axes[0]
    values = np.array([float(text.get_text()) for text in left.texts]).reshape(12, 4)
    assert values[0].tolist() == [100, 8, 100, 0]  # every combination is right everywhere
    assert values[4, 3] == 100  # the lowest cross-entropy
    assert left.get_yticklabels()[0].get_text() == "0.01, 0.2, 0.5"
