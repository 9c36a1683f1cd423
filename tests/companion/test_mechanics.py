import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from companion import mechanics, tables
from companion.studies import specs
from companion.studies.inert_lambda import FAMILIES as RECORDED
from tests.companion.synthetic import row
from tests.companion.synthetic_mechanics import FAMILIES, carried, edges, inert, norms, sampling
from varreg.lab.augment import shuffle_blocks
from varreg.lab.models import build
from varreg.loss import feature_variance

EMPTY = pd.DataFrame()
METRICS = ["test_accuracy", "test_auroc", "test_cross_entropy"]


def network(name="paper_cnn", size=16):
    return build(name, in_channels=1, size=size, n_outputs=3).double()


def some_images(size=16):
    return torch.rand(6, 1, size, size, dtype=torch.float64)


# lambda


def test_lambda_scales_every_gradient_and_adam_divides_it_out():
    same = mechanics.few_steps("Adam", 1.0, steps=6)
    assert torch.equal(mechanics.few_steps("Adam", 0.25, steps=6), same)
    # 3 is no power of two: equal up to rounding only.
    assert torch.allclose(mechanics.few_steps("Adam", 3.0, steps=6), same, rtol=1e-9)
    other = mechanics.few_steps("SGD", 3.0, steps=6)
    assert other[0] == same[0]  # before any step
    assert not torch.allclose(other, mechanics.few_steps("SGD", 1.0, steps=6), rtol=1e-6)


def test_lambda_alone_is_a_learning_rate_for_gradient_descent(monkeypatch):
    monkeypatch.setitem(
        mechanics.OPTIMIZERS, "SGD / 4", lambda weights: torch.optim.SGD(weights, lr=1e-2 / 4)
    )
    faster = mechanics.few_steps("SGD", 1.0, steps=5)
    assert torch.equal(mechanics.few_steps("SGD / 4", 4.0, steps=5), faster)


def test_few_steps_hold_the_quotient_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    first = mechanics.few_steps("Adam", 1.0, steps=3, quotient=0.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(mechanics.few_steps("Adam", 1.0, steps=3, quotient=10.0), first)


def test_steps_table_tells_the_optimizers_apart():
    table = mechanics.steps_table(steps=4).set_index("Optimizer")
    assert set(table.loc["Adam"]) == set(table.loc["AdamW, decoupled weight decay"]) == {"the same"}
    broken = table.drop(["Adam", "AdamW, decoupled weight decay"])
    assert len(broken) == 3
    assert set(broken.to_numpy().ravel()) == {"differs"}


def test_every_recorded_run_of_the_study_has_one_family():
    runs = pd.DataFrame([vars(spec) for spec in specs("inert_lambda")])
    found = mechanics.with_family(runs, RECORDED)
    assert sorted(found.index) == list(range(len(runs)))
    assert found.groupby(["family", "lambda_"]).size().nunique() == 1
    assert set(found["family"]) == set(RECORDED)


def test_lambda_distance_is_the_largest_over_epochs():
    runs, curves = inert()
    epochs = mechanics.details(mechanics.with_family(runs, FAMILIES), curves)
    found = mechanics.lambda_distances(epochs).set_index(["family", "kind", "lambda_", "seed"])
    distance = found["distance"].to_dict()
    assert distance[("Adam", "lambda", 4.0, 0)] == 0
    assert distance[("gradient descent", "lambda", 4.0, 1)] == pytest.approx(0.1)
    assert distance[("gradient descent", "lambda", 0.25, 1)] == 0
    assert distance[("Adam", "seed", 1.0, 1)] == pytest.approx(0.5)
    assert len(distance) == 2 * (2 * 2 + 1)

    table = mechanics.lambda_table(epochs).set_index("Optimizer")
    assert table.loc["gradient descent", "lambda = 4 against 1"] == "0.1"
    assert table.loc["Adam", "One seed against another"] == "0.5"
    assert "20 % of what another seed does" in mechanics.lambda_summary(epochs)


def test_a_seed_without_the_reference_is_left_out():
    runs, curves = inert()
    runs = runs[~((runs["seed"] == 0) & (runs["lambda_"] == 1))]
    epochs = mechanics.details(mechanics.with_family(runs, FAMILIES), curves)
    assert set(mechanics.lambda_distances(epochs)["seed"]) == {1}


# sampling


def test_all_draws_together_have_the_mean_and_variance_of_theory():
    features = torch.randn(9, 7, dtype=torch.float64) * torch.arange(1, 8)
    drawn = 3
    values = mechanics.every_draw(features, drawn)
    assert len(values) == math.comb(7, drawn)
    assert values.mean().item() == pytest.approx(feature_variance(features).item())
    spread = np.var(features.numpy(), axis=0).var(ddof=1)
    assert values.var(correction=0).item() == pytest.approx((1 / drawn - 1 / 7) * spread)


def test_theory_fits_one_constant_a_model_and_nothing_else():
    rows = sampling()
    theory = mechanics.with_theory(rows)
    assert set(theory["ratio"]) == {0.02, 0.05, 0.2, 0.5}
    assert theory["predicted"].to_numpy() == pytest.approx(theory["gradient_noise"].to_numpy())
    # Noise that does not depend on the ratio is not what the theory says.
    flat = mechanics.with_theory(rows.assign(gradient_noise=1.0))
    off = flat["predicted"].to_numpy()
    assert np.exp(np.log(off).mean()) == pytest.approx(1.0)
    assert off.max() / off.min() == pytest.approx(49)  # (1/20 - 1/1000) / (1/500 - 1/1000)


def test_sampling_table_and_summary():
    table = mechanics.sampling_table(sampling()).set_index(["Network", "Ratio"])
    small = table.loc[("small CNN", "0.2")]
    assert small["Features drawn"] == "200 of 1000"
    assert small["Noise, at random"] == small["In theory"] == "0.014"  # 3.5 * 0.004
    assert small["Noise, as a comb"] == "0.0035"
    assert small["Bias, at random / comb"] == "1.0 / 0.9"
    assert "time" not in " ".join(table.columns).lower()  # that is the benchmark's to say
    assert table.loc[("small CNN", "1"), "Bias, at random / comb"] == "\u2013"
    text = mechanics.sampling_summary(sampling())
    assert "never more than 0 % apart" in text
    assert "times" not in text


# scale


@pytest.mark.parametrize("name", ["paper_cnn", "small_cnn"])
@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_rescaling_keeps_the_function_and_moves_the_penalty(name, factor):
    model, images = network(name), some_images()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = mechanics.rescaling_table(model, images, [factor]).iloc[0]
    assert found["logits"] < 1e-12
    assert found["penalty"] == pytest.approx(factor**2)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_rescaling_refuses_what_relu_does_not_pass_on(factor):
    with pytest.raises(ValueError, match="positive and finite"):
        mechanics.rescale(network(), factor)


def test_the_variance_is_scale_times_shape():
    parts = mechanics.variance_parts(norms()).set_index(["model", "variance_weight"])
    strong = parts.loc[("paper_cnn", 1.0)]
    assert math.exp(strong["scale"].mean) == pytest.approx(0.25)
    assert math.exp(strong["shape"].mean) == pytest.approx(0.9, rel=0.02)
    assert math.exp(strong["head"].mean) == pytest.approx(4.0)
    for row_ in parts.itertuples():
        assert row_.variance.mean == pytest.approx(row_.scale.mean + row_.shape.mean)
    rows = norms()
    last = rows[(rows["epoch"] == 2) & (rows["model"] == "paper_cnn")]
    wide = last.pivot(index="seed", columns="variance_weight", values="feature_variance")
    logs = np.log(wide[1.0] / wide[0.0])
    low, high = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert (strong["variance"].low, strong["variance"].high) == pytest.approx((low, high))


def test_variance_in_words():
    table = mechanics.variance_table(norms()).set_index(["Network", "Weight"])
    assert table.loc[("small CNN", "0.01"), "Share of the scale"] == "\u2013"
    share = table.loc[("small CNN", "1"), "Share of the scale"]
    assert 90 <= int(share.removesuffix(" %")) <= 96  # log 0.25 / log 0.225
    text = mechanics.variance_summary(norms())
    assert "weight 0.01**: no fall of the variance" in text
    assert "The head's squared norm is 4 times larger." in text


def test_collapsed_features_are_left_out():
    rows = norms()
    dead = (rows["variance_weight"] == 100) & (rows["model"] == "paper_cnn")
    rows.loc[dead, ["feature_variance", "relative_variance"]] = 0.0
    parts = mechanics.variance_parts(rows)
    assert len(parts) == 5
    assert (100.0, "paper_cnn") not in set(
        zip(parts["variance_weight"], parts["model"], strict=True)
    )


# the search


def test_small_searches_draw_as_many_of_each_class_without_replacement():
    labels = np.arange(60) % 3 % 2  # 40 of class 0, 20 of class 1
    is_one = labels == 1
    right = np.stack([is_one, ~is_one, np.ones(60, bool), np.arange(60) == 0])
    hits = mechanics.small_searches(right, labels, draws=400)
    assert (hits[:, :3] == [8, 8, 16]).all()
    assert set(hits[:, 3]) == {0, 1}
    assert hits[:, 3].mean() == pytest.approx(8 / 40, abs=0.06)  # image 0 is one of 40
    assert (hits == mechanics.small_searches(right, labels, draws=400)).all()
    assert (hits != mechanics.small_searches(right, labels, draws=400, seed=1)).any()


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
    assert mechanics.first_best(scores).tolist() == (counts / 200).tolist()


def test_with_nothing_to_choose_the_first_wins_and_a_lot_is_fair():
    scores = np.full((5, 12), 15)
    assert mechanics.first_best(scores).tolist() == [1] + [0] * 11
    assert mechanics.best_at_random(scores) == pytest.approx(np.full(12, 1 / 12))


def test_choices_of_a_search_without_differences():
    shares = mechanics.choice_shares(mechanics.details(*carried()), draws=20)
    assert shares.groupby(["mode", "seed", "rule"])["share"].sum().to_numpy() == pytest.approx(1)
    picked = shares.set_index(["rule", "place"])["share"].groupby(level=[0, 1]).mean()
    assert picked["small", 1] == picked["accuracy", 1] == 1
    assert picked["small_random", 7] == pytest.approx(1 / 12)
    assert picked["cross_entropy", 5] == 1
    assert (shares.loc[shares["rule"] == "small", "tied"] == 12).all()
    assert (shares.loc[shares["rule"] == "cross_entropy", "ties"] == 0).all()

    table = mechanics.choice_table(shares).set_index(["Weights", "Rule"])
    small = table.loc[("fresh", "accuracy on 16, first of the best")]
    assert small["Ends in a tie"] == "100 %"
    assert small["Chosen most often"] == "0.01, 0.2, 0.5 (place 1)"
    # place 1 against the mean of 1 to 12, 0.01 each: 0.01 * (1 - 6.5)
    assert small.iloc[-1].startswith("\u22120.055 [")
    assert "tried first in 100 %" in mechanics.choice_summary(shares)
    assert "a lot among the tied would in 8 %" in mechanics.choice_summary(shares)


def test_a_clearly_better_combination_is_found_by_every_rule_on_accuracy():
    def right_of(place):
        return np.full(40, place == 9)

    shares = mechanics.choice_shares(mechanics.details(*carried(right_of=right_of)), draws=5)
    nine = shares[(shares["place"] == 9) & (shares["rule"] != "cross_entropy")]
    assert (nine["share"] == 1).all()
    assert (nine["ties"] == 0).all()


def test_halves_compare_the_places_within_a_seed():
    rows = mechanics.details(*carried(seeds=3))
    found = mechanics.halves(rows, "val_accuracy")
    one = rows[(rows["seed"] == 2) & (rows["mode"] == "carried")].set_index("place")
    expected = one.loc[7:, "val_accuracy"].mean() - one.loc[:6, "val_accuracy"].mean()
    assert found.loc[2, "carried"] == pytest.approx(expected)
    table = mechanics.halves_table(rows, ["val_accuracy", "test_accuracy"])
    assert table["Carried minus fresh"][0].startswith("+0.060 [")  # 0.01 a place, six places
    assert (
        table["Carried over"][1].startswith("+0.000") or "\u22120.000" in table["Carried over"][1]
    )
    assert mechanics.halves_table(rows[rows["mode"] == "fresh"], ["val_accuracy"]).empty


# edges


def test_block_order_is_that_of_the_images():
    order = mechanics.block_order(16)
    images = some_images()
    blocks, shuffled = (
        each.unfold(2, 4, 4).unfold(3, 4, 4).reshape(6, 16, 4, 4)
        for each in (images, shuffle_blocks(images))
    )
    assert sorted(order.tolist()) == list(range(16))
    assert order.tolist() != list(range(16))
    assert torch.equal(shuffled, blocks[:, order])


def test_the_papers_network_cannot_tell_shuffled_images_and_the_small_cnn_can():
    images = some_images(28)
    order = mechanics.block_order(28)
    changes = {}
    for name in ("paper_cnn", "small_cnn"):
        model = network(name, 28)
        moved = mechanics.permute_head(model, order)
        changes[name] = (moved(shuffle_blocks(images)) - model(images)).abs().max().item()
        assert not torch.allclose(moved(images), model(images))
    assert changes["paper_cnn"] < 1e-12
    assert changes["small_cnn"] > 1e-3


def test_changed_predictions_are_counted():
    images = some_images(28)
    for name in ("paper_cnn", "small_cnn"):
        model = build(name, in_channels=1, size=28, n_outputs=1).double()
        # The threshold in the middle of the logits, so that any change shows.
        model.head.bias.data -= model(images).detach().median() - 1e-6
        changed = mechanics.changed_predictions(model, images)
        moved = mechanics.permute_head(model, mechanics.block_order(28))
        expected = (model(images) > 0) ^ (moved(shuffle_blocks(images)) > 0)
        assert changed == expected.sum()
        assert (changed == 0) == (name == "paper_cnn")


def test_shuffle_column_is_read_whatever_its_type():
    for values in ([True, False], ["True", ""], [True, None], ["True", "False"], [True, np.nan]):
        found = mechanics.by_blocks(pd.DataFrame({"shuffle_blocks": values}))
        assert found["method"].tolist() == [mechanics.SHUFFLED, mechanics.IN_PLACE]


def test_edges_are_paired_and_judged_by_their_intervals():
    runs = mechanics.by_blocks(edges({"paper_cnn": 0.0, "small_cnn": -0.05}))
    found = mechanics.edges(runs, METRICS).set_index(["model", "metric"])
    assert set(found.loc["paper_cnn", "verdict"]) == {"equal"}
    assert set(found.loc["small_cnn", "verdict"]) == {"worse"}  # also where lower is better
    wide = runs[runs["model"] == "small_cnn"].pivot(
        index="seed", columns="method", values="test_accuracy"
    )
    test = stats.ttest_rel(wide["shuffled"], wide["in place"])
    interval = test.confidence_interval()
    change = found.loc[("small_cnn", "test_accuracy"), "change"]
    assert (change.low, change.high) == pytest.approx((interval.low, interval.high))

    better = mechanics.by_blocks(edges({"paper_cnn": 0.03}))
    assert set(mechanics.edges(better, METRICS)["verdict"]) == {"better"}
    single = mechanics.by_blocks(edges({"paper_cnn": 0.03}, seeds=1))
    assert set(mechanics.edges(single, METRICS)["verdict"]) == {"open"}


def test_edges_that_straddle_zero_and_the_margin_stay_open():
    values = [0.03, -0.03, 0.02, -0.02]
    rows = [
        row(seed=seed, shuffle_blocks=shuffled, test_accuracy=0.8 + shuffled * value)
        for (seed, value), shuffled in itertools.product(enumerate(values), (False, True))
    ]
    runs = mechanics.by_blocks(pd.DataFrame(rows))
    assert mechanics.edges(runs, ["test_accuracy"])["verdict"].tolist() == ["open"]


def test_a_change_can_be_clear_and_small():
    runs = mechanics.by_blocks(edges({"paper_cnn": -0.005}))
    found = mechanics.edges(runs, METRICS)["verdict"]
    assert set(found) == {"worse, by less than 0.01"}


def test_edges_in_words():
    runs = mechanics.by_blocks(edges({"paper_cnn": 0.0, "small_cnn": -0.05}))
    table = mechanics.edges_table(runs, METRICS)
    assert table["Shuffled is"].tolist() == ["equal"] * 3 + ["worse"] * 3
    assert table["Pairs"].tolist() == [5] * 6
    text = mechanics.edges_summary(runs, ["test_accuracy"])
    assert "**Small CNN**: shuffling lowers test accuracy by 0.05" in text


def test_nothing_recorded_is_said_not_raised():
    none = mechanics.details(EMPTY, EMPTY)
    family = mechanics.details(mechanics.with_family(EMPTY, RECORDED), EMPTY)
    shares = mechanics.choice_shares(none)
    for table in (
        mechanics.lambda_table(family),
        mechanics.sampling_table(none),
        mechanics.variance_table(none),
        mechanics.choice_table(shares),
        mechanics.halves_table(none, ["val_accuracy"]),
        mechanics.edges_table(mechanics.by_blocks(EMPTY), METRICS),
    ):
        assert "No run is recorded yet" in tables.to_html(table)
    for text in (
        mechanics.lambda_summary(family),
        mechanics.sampling_summary(none),
        mechanics.variance_summary(none),
        mechanics.choice_summary(shares),
        mechanics.edges_summary(mechanics.by_blocks(EMPTY), METRICS),
    ):
        assert text == mechanics.NOTHING
