import matplotlib
import numpy as np
import pandas as pd
import pytest

from companion import figures, mechanics
from tests.companion.synthetic_mechanics import FAMILIES, carried, edges, inert, norms, sampling

matplotlib.use("Agg")
plt = matplotlib.pyplot

EMPTY = pd.DataFrame()
METRICS = ["test_accuracy", "test_cross_entropy"]


@pytest.fixture(autouse=True)
def _style_and_no_open_figures():
    figures.use_style()
    yield
    plt.close("all")


def inert_epochs(seeds):
    runs, curves = inert(seeds)
    return mechanics.details(mechanics.with_family(runs, FAMILIES), curves)


def drawn(seeds):
    """Every figure, for so many seeds."""
    some = seeds > 0
    rows = mechanics.details(*carried(seeds)) if some else EMPTY
    runs = edges({"paper_cnn": 0.0, "small_cnn": -0.05}, seeds) if some else EMPTY
    yield figures.lambda_trajectories(inert_epochs(seeds) if some else EMPTY)
    yield figures.sampling_noise(sampling(seeds) if some else EMPTY)
    yield figures.feature_scale(norms(seeds) if some else EMPTY)
    yield figures.search_places(rows)
    yield figures.choice_heat(mechanics.choice_shares(rows, draws=20))
    yield figures.block_shuffling(mechanics.by_blocks(runs), METRICS)


@pytest.mark.parametrize("seeds", [3, 1, 0])
def test_every_figure_is_drawn_with_three_seeds_one_and_none(seeds):
    for figure in drawn(seeds):
        figure.canvas.draw()  # as saving would: lays out, renders
        words = [text.get_text() for ax in figure.axes for text in ax.texts]
        assert ("no runs to show" in words) == (seeds == 0)


def test_one_network_alone_is_drawn():
    for draw, rows in (
        (figures.sampling_noise, sampling(2)),
        (figures.feature_scale, norms(2)),
    ):
        draw(rows[rows["model"] == "small_cnn"]).canvas.draw()


def test_lambda_has_a_panel_an_optimizer_and_lines_that_stay_visible():
    figure = figures.lambda_trajectories(inert_epochs(2))
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == ["Adam", "Gradient descent"]
    assert all(len(ax.lines) == 3 * 2 for ax in panels)
    widths = [line.get_linewidth() for line in panels[0].lines]
    assert widths == sorted(widths, reverse=True)  # the widest at the bottom


def test_noise_is_drawn_where_theory_has_it():
    noise = figures.sampling_noise(sampling(1)).axes[0]
    dots, comb, curve, batch = noise.lines[:4]
    assert comb.get_ydata() == pytest.approx(dots.get_ydata() / 4)
    assert curve.get_ydata() == pytest.approx(dots.get_ydata())
    assert set(batch.get_ydata()) == {0.7}
    assert (noise.get_xscale(), noise.get_yscale()) == ("log", "log")


def test_scale_shows_geometric_means_and_survives_features_that_collapse():
    rows = norms(3)
    axes = figures.feature_scale(rows).axes
    free = rows[(rows["model"] == "paper_cnn") & (rows["variance_weight"] == 0)]
    expected = np.exp(np.log(free["feature_rms"]).groupby(free["epoch"]).mean())
    assert axes[0].lines[0].get_ydata() == pytest.approx(expected.to_numpy())
    rows.loc[(rows["variance_weight"] == 100) & (rows["epoch"] == 2), "relative_variance"] = 0.0
    figure = figures.feature_scale(rows)
    figure.canvas.draw()
    assert len(figure.axes[6].lines[3].get_xdata()) == 2


def test_the_search_shows_every_seed_and_their_mean():
    rows = mechanics.details(*carried(3))
    ax = figures.search_places(rows, ["val_accuracy"]).axes[0]
    assert len(ax.lines) == 2 * (3 + 1)
    first = rows[rows["mode"] == "carried"].groupby("place")["val_accuracy"].mean()
    assert ax.lines[3].get_ydata() == pytest.approx(first.to_numpy())


def test_heat_map_writes_percent_in_the_order_of_the_search():
    rows = mechanics.details(*carried(2))
    figure = figures.choice_heat(mechanics.choice_shares(rows, draws=10))
    left = figure.axes[0]
    values = np.array([float(text.get_text()) for text in left.texts]).reshape(12, 4)
    assert values[0].tolist() == [100, 8, 100, 0]  # every combination is right everywhere
    assert values[4, 3] == 100  # the lowest cross-entropy
    assert left.get_yticklabels()[0].get_text() == "0.01, 0.2, 0.5"


def test_shuffling_shows_each_pair_and_the_mean():
    runs = mechanics.by_blocks(edges({"paper_cnn": 0.0, "small_cnn": -0.05}))
    ax = figures.block_shuffling(runs, METRICS).axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "."]
    (mean,) = [line for line in ax.lines if line.get_marker() == "D"]
    assert [len(line.get_xdata()) for line in dots] == [5, 5]
    assert mean.get_xdata()[0] == pytest.approx(dots[1].get_xdata().mean())
