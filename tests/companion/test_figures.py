import numpy as np
import pandas as pd
import pytest

import varreg
from companion import figures, grid_search, published, sensitivity, style, tables
from companion.studies import ambiguities
from tests.companion.synthetic import curves, grid, row, study
from tests.companion.test_sensitivity import made_up, repeated
from varreg.lab import datasets

EMPTY = pd.DataFrame()
RUNS = study({"baseline": 0.0, "penalized": -0.05, "tuned": -0.1}, seeds=3)
PAPER = RUNS[RUNS["model"] == "paper_cnn"]
METRICS = ["test_cross_entropy", "test_accuracy", "gap_accuracy"]


def drawn(runs):
    """Every figure that takes rows of a ledger."""
    mine = runs[runs["model"] == "paper_cnn"] if len(runs) else runs
    epochs = curves(mine) if len(mine) else EMPTY
    found = tables.differences(runs, METRICS)
    wide, twelve = grid_search.split_grid(grid([(1.0, 1.0, 1.0)]) if len(runs) else runs)
    yield figures.learning_curves(mine, epochs, "baseline")
    yield figures.auroc_curves(mine, epochs)
    yield figures.forest(found, METRICS)
    yield figures.comparison({"a": found, "b": found}, METRICS)
    yield figures.combinations(twelve)
    yield figures.weights(wide, ["cross_entropy", "auroc"], {"paper_cnn": 1.0})
    yield figures.picks(grid_search.pick_counts(wide))
    yield figures.recall(tables.recalls(mine))
    seeds = mine["seed"].nunique() if len(mine) else 0
    yield sensitivity.forest(sensitivity.effects(made_up(keep=lambda spec: spec.seed < seeds)))


@pytest.mark.parametrize("runs", [RUNS, RUNS[RUNS["seed"] == 0], EMPTY], ids=["3", "1", "0"])
def test_every_figure_is_drawn_with_three_seeds_one_and_none(runs):
    for figure in drawn(runs):
        figure.canvas.draw()  # as saving would: lays out, renders
        said = {text.get_text() for ax in figure.axes for text in ax.texts}
        assert ("no runs to show" in said) == (not len(runs))


@pytest.mark.parametrize("runs", [PAPER, EMPTY])
def test_published_numbers_are_drawn_with_runs_and_without(runs):
    accuracy = figures.against_published(runs, published.select("chest")).axes[0]
    marks = [line.get_xdata()[0] for line in accuracy.lines if line.get_marker() in "XP"]
    numbers = published.select("chest")
    assert sorted(marks) == sorted(n.value for n in numbers if n.metric == "accuracy")


def test_methods_keep_their_colours():
    figure = figures.recall(tables.recalls(PAPER))
    found = {text.get_text(): line.get_color() for text, line in legend(figure)}
    assert found == {tables.METHOD_NAMES[m]: style.COLORS[m] for m in set(PAPER["method"])}
    shown = [style.COLORS[method] for method in set(PAPER["method"])]
    assert len(set(shown)) == len(shown)


def legend(figure):
    (found,) = figure.legends
    return zip(found.get_texts(), found.get_lines(), strict=True)


def test_curves_show_the_mean_as_far_as_all_seeds_went():
    epochs = curves(PAPER, epochs=4)
    short = PAPER.loc[(PAPER["seed"] == 0), "key"]
    epochs = epochs[~(epochs["key"].isin(short) & (epochs["epoch"] > 2))]
    ax = figures.learning_curves(PAPER, epochs, "baseline").axes[0]
    lengths = {np.isfinite(line.get_ydata()).sum() for line in ax.lines}
    assert lengths == {2, 4}  # the mean; single seeds
    thick = [line for line in ax.lines if line.get_linewidth() > 1]
    assert {len(line.get_xdata()) for line in thick} == {2}


@pytest.mark.parametrize(("weight", "place"), [(1.0, 2), (0.0, 0)])
def test_weight_zero_stands_at_the_left_and_the_choice_is_marked(weight, place):
    wide, _ = grid_search.split_grid(grid([(weight, 1.0, 1.0)]))
    picked = grid_search.chosen_weights(wide, ["pneumoniamnist"])
    ax = figures.weights(wide, ["cross_entropy"], picked).axes[0]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["0", "$10^{-2}$", "$10^{0}$", "$10^{2}$"]
    assert ax.lines[-1].get_xdata()[0] == place


def test_no_band_reaches_beyond_what_the_metric_can_be():
    wide, _ = grid_search.split_grid(grid([(1.0, 1.0, 1.0)]))
    wide["val_auroc"] = np.where(wide["seed"] == 0, 0.5, 1.0)  # the interval ends above 1
    ax = figures.weights(wide, ["auroc"]).axes[0]
    ends = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in ax.collections])
    assert ends.max() == 1.0


@pytest.mark.parametrize(("best", "corner"), [((0.0, 1.0, 1.0), (1, 0)), ((0.1, 0.5, 2.0), (2, 4))])
def test_the_box_marks_the_chosen_setting_no_penalty_in_the_first_row(best, corner):
    _, twelve = grid_search.split_grid(grid([best]))
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
    assert style.front_page(figures.forest(EMPTY, METRICS)) is None  # no checkout here
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "varreg"')
    (tmp_path / "book" / "_static").mkdir(parents=True)
    first, second = (
        style.front_page(figures.forest(tables.differences(RUNS, METRICS), METRICS)).read_bytes()
        for _ in range(2)
    )
    assert first == second
    assert b"matplotlib" not in first


def test_every_choice_is_labelled_and_drawn_where_it_is():
    found = sensitivity.effects(made_up())
    left, right, *_ = sensitivity.forest(found).axes
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
        ax = sensitivity.forest(found, metric).axes[1]
        spans = [patch.get_x() + patch.get_width() / 2 for patch in ax.patches]
        assert side * 5 == pytest.approx(max(spans, key=abs))


def test_a_choice_that_changes_nothing_is_grey_and_says_so():
    found = sensitivity.effects(repeated(made_up(), "25 for both", ambiguities.AS_RELEASED))
    left, *_ = sensitivity.forest(found).axes
    place = found["choice"].tolist().index("25 for both")
    (said,) = left.texts
    assert (said.get_text(), said.xy[1]) == (sensitivity.SAME, place)
    (mark,) = (
        line for line in left.lines if line.get_marker() == "o" and line.get_ydata()[0] == place
    )
    assert mark.get_color() == "#999999"
