import pandas as pd
import pytest
import torch

from companion import records
from companion.published_numbers import lambda_inert
from companion.studies import specs
from companion.studies.inert_lambda import FAMILIES as RECORDED
from tests.companion.synthetic_mechanics import FAMILIES, inert


def inert_epochs(seeds):
    runs, curves = inert(seeds)
    return records.details(lambda_inert.with_family(runs, FAMILIES), curves)


def test_lambda_scales_every_gradient_and_adam_divides_it_out():
    same = lambda_inert.few_steps("Adam", 1.0, steps=6)
    assert torch.equal(lambda_inert.few_steps("Adam", 0.25, steps=6), same)
    # 3 is no power of two: equal up to rounding only.
    assert torch.allclose(lambda_inert.few_steps("Adam", 3.0, steps=6), same, rtol=1e-9)
    other = lambda_inert.few_steps("SGD", 3.0, steps=6)
    assert other[0] == same[0]  # before any step
    assert not torch.allclose(other, lambda_inert.few_steps("SGD", 1.0, steps=6), rtol=1e-6)


def test_lambda_alone_is_a_learning_rate_for_gradient_descent(monkeypatch):
    monkeypatch.setitem(
        lambda_inert.OPTIMIZERS, "SGD / 4", lambda weights: torch.optim.SGD(weights, lr=1e-2 / 4)
    )
    faster = lambda_inert.few_steps("SGD", 1.0, steps=5)
    assert torch.equal(lambda_inert.few_steps("SGD / 4", 4.0, steps=5), faster)


def test_few_steps_hold_the_quotient_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    first = lambda_inert.few_steps("Adam", 1.0, steps=3, quotient=0.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(lambda_inert.few_steps("Adam", 1.0, steps=3, quotient=10.0), first)


def test_steps_table_tells_the_optimizers_apart():
    table = lambda_inert.steps_table(steps=4).set_index("Optimizer")
    assert set(table.loc["Adam"]) == set(table.loc["AdamW, decoupled weight decay"]) == {"the same"}
    broken = table.drop(["Adam", "AdamW, decoupled weight decay"])
    assert len(broken) == 3
    assert set(broken.to_numpy().ravel()) == {"differs"}


def test_every_recorded_run_of_the_study_has_one_family():
    runs = pd.DataFrame([vars(spec) for spec in specs("inert_lambda")])
    found = lambda_inert.with_family(runs, RECORDED)
    assert sorted(found.index) == list(range(len(runs)))
    assert found.groupby(["family", "lambda_"]).size().nunique() == 1
    assert set(found["family"]) == set(RECORDED)


def test_lambda_distance_is_the_largest_over_epochs():
    runs, curves = inert()
    epochs = records.details(lambda_inert.with_family(runs, FAMILIES), curves)
    found = lambda_inert.distances(epochs).set_index(["family", "kind", "lambda_", "seed"])
    distance = found["distance"].to_dict()
    assert distance[("Adam", "lambda", 4.0, 0)] == 0
    assert distance[("gradient descent", "lambda", 4.0, 1)] == pytest.approx(0.1)
    assert distance[("gradient descent", "lambda", 0.25, 1)] == 0
    assert distance[("Adam", "seed", 1.0, 1)] == pytest.approx(0.5)
    assert len(distance) == 2 * (2 * 2 + 1)

    table = lambda_inert.table(epochs).set_index("Optimizer")
    assert table.loc["gradient descent", "lambda = 4 against 1"] == "0.1"
    assert table.loc["Adam", "One seed against another"] == "0.5"
    share = table["Lambda, as a share of that"]
    assert share.to_dict() == {"Adam": "0 %", "gradient descent": "20 %"}
    alone = lambda_inert.table(epochs[epochs["seed"] == 0]).set_index("Optimizer")
    assert (alone.iloc[:, -2:] == "\u2013").all(axis=None)


def test_a_seed_without_the_reference_is_left_out():
    runs, curves = inert()
    runs = runs[~((runs["seed"] == 0) & (runs["lambda_"] == 1))]
    epochs = records.details(lambda_inert.with_family(runs, FAMILIES), curves)
    assert set(lambda_inert.distances(epochs)["seed"]) == {1}


def test_lambda_has_a_panel_an_optimizer_and_lines_that_stay_visible():
    figure = lambda_inert.figure(inert_epochs(2))
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == ["Adam", "Gradient descent"]
    assert all(len(ax.lines) == 3 * 2 for ax in panels)
    widths = [line.get_linewidth() for line in panels[0].lines]
    assert widths == sorted(widths, reverse=True)  # the widest at the bottom
