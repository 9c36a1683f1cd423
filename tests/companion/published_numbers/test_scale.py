import math

import numpy as np
import pytest
import torch
from scipy import stats

from companion.published_numbers import scale
from tests.companion.synthetic_mechanics import network, norms, some_images
from varreg.lab.statistics import Interval


@pytest.mark.parametrize("name", ["paper_cnn", "small_cnn"])
@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_rescaling_keeps_the_function_and_moves_the_penalty(name, factor):
    model, images = network(name), some_images()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = scale.rescaled(model, images, [factor]).iloc[0]
    assert found["logits"] < 1e-12
    assert found["penalty"] == pytest.approx(factor**2)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_rescaling_refuses_what_relu_does_not_pass_on(factor):
    with pytest.raises(ValueError, match=r"factor is .*; it must be finite and greater than 0"):
        scale.rescale(network(), factor)


def test_the_variance_is_scale_times_shape():
    parts = scale.variance_parts(norms()).set_index(["model", "variance_weight"])
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
    facts = scale.facts(norms())
    share = facts["scale_small_cnn_1_share"]
    assert 90 <= int(share.removesuffix(" %")) <= 96  # log 0.25 / log 0.225
    assert facts["scale_small_cnn_0.01_variance"] == "is at most 1 % smaller or larger"
    assert facts["scale_small_cnn_0.01_share"] == "\u2013"
    assert facts["scale_small_cnn_1_variance"] == "is 4.4 times smaller"
    assert facts["scale_small_cnn_1_scale"] == "4 times smaller"
    assert facts["scale_small_cnn_1_head"] == "is 4 times larger"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.93, 1.01, "is at most 7 % smaller or larger"),
        (0.99, 1.0905, "is at most 10 % smaller or larger"),
        (0.32, 11.0, "may be smaller or larger (95 % interval 0.32 to 11 times)"),
        (0.98, 1.13, "may be smaller or larger (95 % interval 0.98 to 1.13 times)"),
        (0.2, 0.3, "is 4.1 times smaller"),
        (1.9, 2.25, "is 2.1 times larger"),
    ],
)
def test_no_change_is_said_only_with_a_bound(low, high, text):
    ends = math.log(low), math.log(high)
    assert scale._moved(Interval(sum(ends) / 2, *ends, 5)) == text
    assert scale._moved(Interval(math.log(0.5), math.nan, math.nan, 1)).endswith("(one seed)")


def test_collapsed_features_are_left_out():
    rows = norms()
    dead = (rows["variance_weight"] == 100) & (rows["model"] == "paper_cnn")
    rows.loc[dead, ["feature_variance", "relative_variance"]] = 0.0
    parts = scale.variance_parts(rows)
    assert len(parts) == 5
    assert (100.0, "paper_cnn") not in set(
        zip(parts["variance_weight"], parts["model"], strict=True)
    )


def test_scale_shows_geometric_means_and_survives_features_that_collapse():
    rows = norms(3)
    axes = scale.figure(rows).axes
    free = rows[(rows["model"] == "paper_cnn") & (rows["variance_weight"] == 0)]
    expected = np.exp(np.log(free["feature_rms"]).groupby(free["epoch"]).mean())
    assert axes[0].lines[0].get_ydata() == pytest.approx(expected.to_numpy())
    rows.loc[(rows["variance_weight"] == 100) & (rows["epoch"] == 2), "relative_variance"] = 0.0
    figure = scale.figure(rows)
    figure.canvas.draw()
    assert len(figure.axes[6].lines[3].get_xdata()) == 2
