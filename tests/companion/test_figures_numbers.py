import matplotlib
import pandas as pd
import pytest

from companion import explained, figures
from tests.companion.synthetic import study
from tests.companion.synthetic_numbers import leakage, predictions, thresholds

matplotlib.use("Agg")
plt = matplotlib.pyplot

EMPTY = pd.DataFrame()
RUNS, DETAILS = predictions()
CHEST_RUNS = study({"baseline": 0.0, "penalized": 0.1, "tuned": 0.2, "augmented": -0.1}, seeds=3)


@pytest.fixture(autouse=True)
def _style_and_no_open_figures():
    figures.use_style()
    yield
    plt.close("all")


def drawn(full):
    runs, details = (RUNS, DETAILS) if full else (EMPTY, EMPTY)
    chest, skin = (explained.images(runs, details, name) for name in ("chest_paper", "skin_paper"))
    effects = explained.leakage_table(*(leakage() if full else (EMPTY, EMPTY)))
    panels = {"a": CHEST_RUNS if full else EMPTY, "b": EMPTY}
    yield figures.progress_bar(chest)
    yield figures.six_sevenths(skin)
    yield figures.half()
    yield figures.four_images(panels)
    yield figures.leakage(effects)
    yield figures.class_shift(thresholds() if full else EMPTY)


@pytest.mark.parametrize("full", [True, False])
def test_every_figure_is_drawn_with_rows_and_without(full):
    for figure in drawn(full):
        figure.canvas.draw()
        assert figure.axes


def marks(ax, marker):
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in ax.lines
        if line.get_marker() == marker
    ]


def test_the_map_marks_models_at_their_accuracy_and_their_bar():
    chest = explained.images(RUNS, DETAILS, "chest_paper")
    below = figures.progress_bar(chest).axes[1]
    rows = explained.bars(chest).query("measure == 'accuracy'")
    wanted = list(zip(rows["metric"], rows["closing"], strict=True))
    assert marks(below, "o") == wanted
    assert marks(below, "*") == [(0.625, pytest.approx(0.2984, abs=5e-5))]
    assert len(marks(below, "P")) == 3


def test_the_bar_above_ends_where_keras_has_it_after_the_last_batch():
    chest = explained.images(RUNS, DETAILS, "chest_paper")
    above = figures.progress_bar(chest).axes[0]
    bar = next(line for line in above.lines if line.get_label() == "the bar, in file order")
    right = chest.loc[chest["method"] == "baseline", "right"]
    assert bar.get_ydata()[-1] == pytest.approx(explained.progress_bar(right))


def test_solid_and_hatched_bars_compare_total_and_cross_entropy():
    ax = figures.half().axes[0]
    widths = sorted(patch.get_width() for patch in ax.patches)
    rows = explained.decomposition()
    assert widths == pytest.approx(sorted([*rows["baseline"], *rows["total"], *rows["most"]]))


def test_runs_are_dots_of_the_papers_network_only():
    top, panel, empty = figures.four_images({"a": CHEST_RUNS, "b": EMPTY}).axes
    dots = [line for line in panel.lines if line.get_marker() == "o"]
    assert [len(dot.get_xdata()) for dot in dots] == [3, 3, 3]
    assert [text.get_text() for text in top.texts] == ["500", "504", "496"]
    assert [text.get_text() for text in empty.texts] == ["no runs to show"]
