import matplotlib
import pandas as pd
import pytest

from companion import figures, sensitivity
from companion.studies import ambiguities
from tests.companion.test_sensitivity import made_up, repeated

matplotlib.use("Agg")
plt = matplotlib.pyplot


@pytest.fixture(autouse=True)
def _style_and_no_open_figures():
    figures.use_style()
    yield
    plt.close("all")


@pytest.mark.parametrize("seeds", [5, 1, 0])
def test_is_drawn_with_five_seeds_one_and_none(seeds):
    runs = made_up(keep=lambda spec: spec.seed < seeds)
    figure = figures.sensitivity_forest(sensitivity.effects(runs))
    figure.canvas.draw()
    assert len(figure.axes) == (4 if seeds else 2)
    if not seeds:
        assert {text.get_text() for ax in figure.axes for text in ax.texts} == {"no runs to show"}


def test_every_choice_is_labelled_and_drawn_where_it_is():
    found = sensitivity.effects(made_up())
    left, right, *_ = figures.sensitivity_forest(found).axes
    chest = [each for each in ambiguities.ALTERNATIVES if each.experiment == "chest"]
    labels = [label.get_text().replace("\n", " ") for label in left.get_yticklabels()]
    assert labels[0] == ambiguities.AS_RELEASED
    assert labels[1:] == [f"{each.topic}: {each.choice}" for each in chest[1:]]
    marks = [line for line in right.lines if line.get_marker() == "o"]
    means = [effect.mean for effect in found["effect"][: len(chest)]]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx(means)
    assert left.yaxis_inverted()
    assert left.get_ylim() == right.get_ylim()


def test_better_side_follows_the_metric():
    for metric, side in (("test_cross_entropy", -1), ("test_accuracy", 1)):
        found = sensitivity.effects(made_up(), metric)
        ax = figures.sensitivity_forest(found, metric).axes[1]
        spans = [patch.get_x() + patch.get_width() / 2 for patch in ax.patches]
        assert side * 5 == pytest.approx(max(spans, key=abs))


def test_empty_table_of_effects_is_accepted():
    figures.sensitivity_forest(sensitivity.effects(pd.DataFrame())).canvas.draw()


def test_a_choice_that_changes_nothing_is_grey_and_says_so():
    found = sensitivity.effects(repeated(made_up(), "25 for both", ambiguities.AS_RELEASED))
    left, *_ = figures.sensitivity_forest(found).axes
    place = found["choice"].tolist().index("25 for both")
    (said,) = left.texts
    assert (said.get_text(), said.xy[1]) == (sensitivity.SAME, place)
    (mark,) = (
        line for line in left.lines if line.get_marker() == "o" and line.get_ydata()[0] == place
    )
    assert mark.get_color() == "#999999"
