import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from companion.published_numbers import no_edges
from tests.companion.synthetic import row
from tests.companion.synthetic_mechanics import edges
from varreg.lab.augment import shuffle_blocks
from varreg.lab.models import build

METRICS = ["test_accuracy", "test_auroc", "test_cross_entropy"]


def network(name="paper_cnn", size=16):
    return build(name, in_channels=1, size=size, n_outputs=3).double()


def some_images(size=16):
    return torch.rand(6, 1, size, size, dtype=torch.float64)


def test_block_order_is_that_of_the_images():
    order = no_edges.block_order(16)
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
    order = no_edges.block_order(28)
    changes = {}
    for name in ("paper_cnn", "small_cnn"):
        model = network(name, 28)
        moved = no_edges.permute_head(model, order)
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
        changed = no_edges.changed_predictions(model, images)
        moved = no_edges.permute_head(model, no_edges.block_order(28))
        expected = (model(images) > 0) ^ (moved(shuffle_blocks(images)) > 0)
        assert changed == expected.sum()
        assert (changed == 0) == (name == "paper_cnn")


def test_shuffle_column_is_read_whatever_its_type():
    for values in ([True, False], ["True", ""], [True, None], ["True", "False"], [True, np.nan]):
        found = no_edges.by_blocks(pd.DataFrame({"shuffle_blocks": values}))
        assert found["method"].tolist() == [no_edges.SHUFFLED, no_edges.IN_PLACE]


def test_edges_are_paired_and_judged_by_their_intervals():
    runs = no_edges.by_blocks(edges({"paper_cnn": 0.0, "small_cnn": -0.05}))
    found = no_edges.edges(runs, METRICS).set_index(["model", "metric"])
    assert set(found.loc["paper_cnn", "verdict"]) == {"equal"}
    assert set(found.loc["small_cnn", "verdict"]) == {"worse"}  # also where lower is better
    wide = runs[runs["model"] == "small_cnn"].pivot(
        index="seed", columns="method", values="test_accuracy"
    )
    test = stats.ttest_rel(wide["shuffled"], wide["in place"])
    interval = test.confidence_interval()
    change = found.loc[("small_cnn", "test_accuracy"), "change"]
    assert change.n == 5
    assert found.loc[("small_cnn", "test_accuracy"), "in_place"].mean == wide["in place"].mean()
    assert (change.low, change.high) == pytest.approx((interval.low, interval.high))

    better = no_edges.by_blocks(edges({"paper_cnn": 0.03}))
    assert set(no_edges.edges(better, METRICS)["verdict"]) == {"better"}
    single = no_edges.by_blocks(edges({"paper_cnn": 0.03}, seeds=1))
    assert set(no_edges.edges(single, METRICS)["verdict"]) == {"open"}


def test_edges_that_straddle_zero_and_the_margin_stay_open():
    values = [0.03, -0.03, 0.02, -0.02]
    rows = [
        row(seed=seed, shuffle_blocks=shuffled, test_accuracy=0.8 + shuffled * value)
        for (seed, value), shuffled in itertools.product(enumerate(values), (False, True))
    ]
    runs = no_edges.by_blocks(pd.DataFrame(rows))
    assert no_edges.edges(runs, ["test_accuracy"])["verdict"].tolist() == ["open"]


def test_a_change_can_be_clear_and_small():
    runs = no_edges.by_blocks(edges({"paper_cnn": -0.005}))
    found = no_edges.edges(runs, METRICS)["verdict"]
    assert set(found) == {"worse, by less than 0.01"}


def test_edges_in_words():
    runs = no_edges.by_blocks(edges({"paper_cnn": 0.0, "small_cnn": -0.05}))
    facts = no_edges.facts(runs, ["test_accuracy"])
    text = facts["edges_small_cnn_test_accuracy"]
    assert text.startswith("lowers test accuracy by 0.05")
    assert text.endswith(": worse")


def test_shuffling_shows_each_pair_and_the_mean():
    runs = no_edges.by_blocks(edges({"paper_cnn": 0.0, "small_cnn": -0.05}))
    ax = no_edges.figure(runs, METRICS).axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "."]
    (mean,) = [line for line in ax.lines if line.get_marker() == "D"]
    assert [len(line.get_xdata()) for line in dots] == [5, 5]
    assert mean.get_xdata()[0] == pytest.approx(dots[1].get_xdata().mean())
