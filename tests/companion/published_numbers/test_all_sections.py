"""What holds for every section: its figures are drawn, and nothing recorded is no error."""

import pandas as pd
import pytest

from companion import predictions, records
from companion.published_numbers import (
    four_images,
    grid_search,
    half_cross_entropy,
    lambda_inert,
    leakage,
    no_edges,
    progress_bar,
    sampling_noise,
    scale,
    six_sevenths,
    the_data,
)
from tests.companion.notebooks import shown
from tests.companion.synthetic import study
from tests.companion.synthetic_mechanics import FAMILIES, carried, edges, inert, norms, sampling
from tests.companion.synthetic_numbers import (
    ANSWERS,
    CHEST,
    EMPTY,
    LEAKS,
    NO_IMAGES,
    PROTOCOL,
    THRESHOLDS,
)

METRICS = ["test_accuracy", "test_cross_entropy"]


def of_seeds(seeds):
    """Figures of sections 5 to 9, for so many seeds."""
    some = seeds > 0
    rows = records.details(*carried(seeds)) if some else EMPTY
    runs = edges({"paper_cnn": 0.0, "small_cnn": -0.05}, seeds) if some else EMPTY
    epochs = EMPTY
    if some:
        known, curves = inert(seeds)
        epochs = records.details(lambda_inert.with_family(known, FAMILIES), curves)
    yield lambda_inert.figure(epochs)
    yield sampling_noise.figure(sampling(seeds) if some else EMPTY)
    yield scale.figure(norms(seeds) if some else EMPTY)
    yield grid_search.search_places(rows)
    yield grid_search.choice_heat(grid_search.choice_shares(rows, draws=20))
    yield no_edges.figure(no_edges.by_blocks(runs), METRICS)


@pytest.mark.parametrize("seeds", [3, 1, 0])
def test_figures_over_seeds_are_drawn_with_three_seeds_one_and_none(seeds):
    for figure in of_seeds(seeds):
        figure.canvas.draw()  # as saving would: lays out, renders
        words = [text.get_text() for ax in figure.axes for text in ax.texts]
        assert ("no runs to show" in words) == (seeds == 0)


@pytest.mark.parametrize("full", [True, False])
def test_figures_of_the_published_numbers_are_drawn_with_rows_and_without(full):
    answers = ANSWERS if full else EMPTY
    runs = study({"baseline": 0.0, "augmented": -0.1}, seeds=3) if full else EMPTY
    for figure in (
        progress_bar.figure(predictions.images(answers, "chest_paper")),
        six_sevenths.figure(predictions.images(answers, "skin_paper")),
        half_cross_entropy.figure(),
        four_images.figure({"a": runs, "b": EMPTY}),
        leakage.figure(leakage.worth(LEAKS if full else EMPTY)),
        the_data.figure(THRESHOLDS if full else EMPTY),
    ):
        figure.canvas.draw()
        assert figure.axes


def test_one_network_alone_is_drawn():
    for draw, rows in ((sampling_noise.figure, sampling(2)), (scale.figure, norms(2))):
        draw(rows[rows["model"] == "small_cnn"]).canvas.draw()


def test_without_recorded_runs_the_notebook_still_says_what_is_published(tmp_path, monkeypatch):
    live = ("steps_table", "changed")  # trained on the spot, whatever is recorded
    found = shown("04_published_numbers", tmp_path, monkeypatch, without=live)
    known = [table.astype(str) for table in found if len(table)]
    assert [len(table) for table in known] == [2, 3, 3, 10, 9, 3, 3, 5, 3]
    assert len(found) - len(known) == 14
    assert not any(table.map(lambda text: "nan" in text).any(axis=None) for table in known)


def test_nothing_recorded_gives_no_facts():
    none = EMPTY
    shares = grid_search.choice_shares(none)
    blocks = no_edges.by_blocks(none)
    overlap = leakage.overlap(leakage.by_lesion(NO_IMAGES))
    for facts in (
        scale.facts(none),
        grid_search.facts(shares),
        no_edges.facts(blocks, METRICS),
        leakage.facts(leakage.worth(none), overlap),
    ):
        assert facts == {}
    # What is published stays known.
    assert set(sampling_noise.facts(none)) == {"sampling_ratio"}
    assert progress_bar.facts(NO_IMAGES)["bar_numbers"] == 10
    assert six_sevenths.facts(NO_IMAGES)["sevenths_models"] == 0
    assert set(four_images.facts(none, none)) == {"four_net", "four_total", "four_p"}
    assert set(the_data.facts(none)) == {"shift_train", "shift_test"}


def test_facts_can_be_glued():
    """Plain numbers and text: what another type looks like, glue would print."""
    found = progress_bar.facts(CHEST) | progress_bar.constant_facts()
    found |= half_cross_entropy.facts() | four_images.facts(PROTOCOL, EMPTY)
    found |= scale.facts(norms()) | sampling_noise.facts(sampling())
    found |= grid_search.facts(grid_search.choice_shares(records.details(*carried()), draws=5))
    overlap = leakage.overlap(leakage.by_lesion(NO_IMAGES))
    found |= leakage.facts(leakage.worth(LEAKS), overlap) | the_data.facts(THRESHOLDS)
    assert {type(value) for value in found.values()} == {int, float, str}
    assert not pd.isna(list(found.values())).any()
