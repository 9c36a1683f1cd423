import matplotlib
import numpy as np
import pandas as pd
import pytest

import varreg
from companion import figures, published, tables
from tests.companion.synthetic import curves, grid, row, study
from varreg.lab import datasets

matplotlib.use("Agg")
plt = matplotlib.pyplot

EMPTY = pd.DataFrame()
RUNS = study({"baseline": 0.0, "penalized": -0.05, "tuned": -0.1}, seeds=3)
PAPER = RUNS[RUNS["model"] == "paper_cnn"]
METRICS = ["test_cross_entropy", "test_accuracy", "gap_accuracy"]


@pytest.fixture(autouse=True)
def _style_and_no_open_figures():
    figures.use_style()
    yield
    plt.close("all")


def drawn(runs):
    """Every figure that takes rows of a ledger."""
    mine = runs[runs["model"] == "paper_cnn"] if len(runs) else runs
    epochs = curves(mine) if len(mine) else EMPTY
    found = tables.differences(runs, METRICS)
    wide, twelve = tables.split_grid(grid([(1.0, 1.0, 1.0)]) if len(runs) else runs)
    yield figures.learning_curves(mine, epochs, "baseline")
    yield figures.auroc_curves(mine, epochs)
    yield figures.against_published(mine, published.select("chest"))
    yield figures.forest(found, METRICS, {("penalized", "test_accuracy"): 0.418})
    yield figures.comparison({"a": found, "b": found}, METRICS)
    yield figures.combinations(twelve)
    yield figures.weights(wide, ["cross_entropy", "auroc"], {"paper_cnn": 1.0})
    yield figures.picks(tables.pick_counts(wide))
    yield figures.recall(tables.recalls(mine))


@pytest.mark.parametrize("runs", [RUNS, RUNS[RUNS["seed"] == 0], EMPTY], ids=["3", "1", "0"])
def test_every_figure_is_drawn_with_three_seeds_one_and_none(runs):
    for figure in drawn(runs):
        figure.canvas.draw()  # as saving would: lays out, renders
        assert figure.axes


def test_methods_keep_their_colours():
    figure = figures.recall(tables.recalls(PAPER))
    found = {text.get_text(): line.get_color() for text, line in legend(figure)}
    assert found == {tables.METHOD_NAMES[m]: figures.COLORS[m] for m in set(PAPER["method"])}
    shown = [figures.COLORS[method] for method in set(PAPER["method"])]
    assert len(set(shown)) == len(shown)


def legend(figure):
    (found,) = figure.legends
    return zip(found.get_texts(), found.get_lines(), strict=True)


def test_curves_show_the_mean_as_far_as_all_seeds_went():
    epochs = curves(PAPER, epochs=4)
    short = PAPER.loc[(PAPER["seed"] == 0), "key"]
    epochs = epochs[~(epochs["key"].isin(short) & (epochs["epoch"] > 2))]
    ax = figures.learning_curves(PAPER, epochs, "baseline", ["accuracy"]).axes[0]
    lengths = {np.isfinite(line.get_ydata()).sum() for line in ax.lines}
    assert lengths == {2, 4}  # the mean; single seeds
    thick = [line for line in ax.lines if line.get_linewidth() > 1]
    assert {len(line.get_xdata()) for line in thick} == {2}


def test_a_published_value_outside_the_panel_becomes_an_arrow():
    found = tables.differences(RUNS, METRICS)
    ax = figures.forest(found, METRICS, {("penalized", "test_accuracy"): 0.418}).axes[1]
    assert [text.get_text() for text in ax.texts] == ["paper +0.42"]


@pytest.mark.parametrize(("weight", "place"), [(1.0, 2), (0.0, 0)])
def test_weight_zero_stands_at_the_left_and_the_choice_is_marked(weight, place):
    wide, _ = tables.split_grid(grid([(weight, 1.0, 1.0)]))
    picked = tables.chosen_weights(wide, ["pneumoniamnist"])
    ax = figures.weights(wide, ["cross_entropy"], picked).axes[0]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["0", "$10^{-2}$", "$10^{0}$", "$10^{2}$"]
    assert ax.lines[-1].get_xdata()[0] == place


def test_no_band_reaches_beyond_what_the_metric_can_be():
    wide, _ = tables.split_grid(grid([(1.0, 1.0, 1.0)]))
    wide["val_auroc"] = np.where(wide["seed"] == 0, 0.5, 1.0)  # the interval ends above 1
    ax = figures.weights(wide, ["auroc"]).axes[0]
    ends = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in ax.collections])
    assert ends.max() == 1.0


@pytest.mark.parametrize(("best", "corner"), [((0.0, 1.0, 1.0), (1, 0)), ((0.1, 0.5, 2.0), (2, 4))])
def test_the_box_marks_the_chosen_setting_no_penalty_in_the_first_row(best, corner):
    _, twelve = tables.split_grid(grid([best]))
    ax = figures.combinations(twelve).axes[0]
    assert ax.get_yticklabels()[0].get_text() == "no penalty"
    assert [patch.get_xy() for patch in ax.patches] == [corner]


def test_images_and_pairs():
    stack = datasets.load("phantom").test.images[:6].numpy()
    assert len(figures.images({"a": stack, "b": stack}).axes) == 12
    assert len(figures.images({"a": np.zeros((6, 3, 16, 16), np.uint8)}).axes) == 6
    runs = pd.DataFrame([row("baseline"), row("penalized")]).rename(columns={"test_auroc": "auroc"})
    assert len(figures.pairs(runs, ["auroc"]).axes) == 1


def test_front_page_writes_the_same_bytes_every_time(tmp_path, monkeypatch):
    monkeypatch.setattr(varreg, "__file__", str(tmp_path / "varreg" / "__init__.py"))
    assert figures.front_page(plt.figure()) is None  # no checkout here
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "varreg"')
    (tmp_path / "book" / "_static").mkdir(parents=True)
    first, second = (
        figures.front_page(figures.forest(tables.differences(RUNS, METRICS), METRICS)).read_bytes()
        for _ in range(2)
    )
    assert first == second
    assert b"matplotlib" not in first
