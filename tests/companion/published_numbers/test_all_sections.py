"""What holds for every section: its figures are drawn, and nothing recorded is no error."""

import collections

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from companion import records
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
from tests.companion.notebooks import run
from tests.companion.synthetic import study
from tests.companion.synthetic_mechanics import FAMILIES, carried, edges, inert, norms, sampling
from tests.companion.synthetic_numbers import (
    CHEST,
    EMPTY,
    LEAKS,
    NO_IMAGES,
    PROTOCOL,
    SKIN,
    THRESHOLDS,
)

METRICS = ["test_accuracy", "test_cross_entropy"]
SAID = "no runs to show"


@pytest.mark.parametrize("seeds", [3, 1])
def test_figures_over_seeds_are_drawn_with_three_seeds_and_one(seeds):
    rows = records.details(*carried(seeds))
    known, curves = inert(seeds)
    blocks = no_edges.by_blocks(edges({"paper_cnn": 0.0, "small_cnn": -0.05}, seeds))
    for figure in (
        lambda_inert.figure(records.details(lambda_inert.with_family(known, FAMILIES), curves)),
        sampling_noise.figure(sampling(seeds)),
        scale.figure(norms(seeds)),
        grid_search.search_places(rows),
        grid_search.choice_heat(grid_search.choice_shares(rows, draws=20)),
        no_edges.figure(blocks, METRICS),
        progress_bar.figure(CHEST),
        six_sevenths.figure(SKIN),
        half_cross_entropy.figure(),
        four_images.figure({"a": study({"baseline": 0.0, "augmented": -0.1}, seeds)}),
        leakage.figure(leakage.worth(LEAKS)),
        the_data.figure(THRESHOLDS),
    ):
        figure.canvas.draw()  # as saving would: lays out, renders
        assert not any(text.get_text() == SAID for ax in figure.axes for text in ax.texts)


def test_one_network_alone_is_drawn():
    for draw, rows in ((sampling_noise.figure, sampling(2)), (scale.figure, norms(2))):
        draw(rows[rows["model"] == "small_cnn"]).canvas.draw()


def test_without_recorded_runs_the_notebook_still_says_what_is_published(tmp_path, monkeypatch):
    live = ("steps_table", "changed")  # trained on the spot, whatever is recorded
    shown, facts = run("04_published_numbers", tmp_path, monkeypatch, without=live)
    known = [table.astype(str) for table in shown if len(table)]
    assert [len(table) for table in known] == [2, 3, 3, 10, 9, 3, 3, 5, 3]
    assert len(shown) - len(known) == 16
    assert not any(table.map(lambda text: "nan" in text).any(axis=None) for table in known)
    by_section = collections.Counter(name.split("_")[0] for name in facts)
    published = {"constant": 6, "sampling": 1, "bar": 7, "sevenths": 6, "half": 7}
    assert by_section == published | {"four": 3, "shift": 2}
    assert (facts["bar_numbers"], facts["sevenths_models"]) == (10, 0)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    said = [SAID in {text.get_text() for ax in each.axes for text in ax.texts} for each in figures]
    assert (len(said), sum(said)) == (13, 11)  # half a cross-entropy, and images of phantoms


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
