"""The criterion under every penalty, in the ways in which people train."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.varreg.test_penalties import PENALTIES, TARGET
from varreg import FeatureTap, PenalizedLoss, VariancePenalizedLoss, feature_variance, penalties
from varreg.weights import GradientRatio, RunningQuantile, TargetWeight, WarmUp

FUNCTIONS: dict[str, Callable[..., Tensor]] = {"feature_variance": feature_variance} | {
    name: partial(getattr(penalties, case.name), **case.settings(5))
    for name, case in PENALTIES.items()
}
every_penalty = pytest.mark.parametrize("name", FUNCTIONS)


def network(**settings: object) -> nn.Sequential:
    torch.manual_seed(3)
    layers = nn.Linear(4, 5, **settings), nn.Tanh(), nn.Linear(5, 3, **settings)
    return nn.Sequential(*layers)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return 3 * torch.randn(12, 4, generator=torch.Generator().manual_seed(5), dtype=dtype)


def criterion_of(name: str, weight: float | nn.Module = 2.0) -> PenalizedLoss:
    return PenalizedLoss("multiclass", FUNCTIONS[name], weight)


def total(model: nn.Sequential, criterion: PenalizedLoss, inputs: Tensor) -> Tensor:
    """The loss of a step; the features are those that enter the last layer."""
    features = model[:-1](inputs)
    takes_head = "head_weight" in inspect.signature(criterion.penalty).parameters
    head = (model[-1].weight,) if takes_head else ()
    return criterion(model[-1](features), TARGET, features, *head).total


def slopes(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters()]


# ---------------------------------------------------------------- mixed precision


@every_penalty
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(name, dtype):
    model, criterion = network(), criterion_of(name)
    exact = copy.deepcopy(model)
    total(exact, criterion, images()).backward()
    # Scaling is for float16; a step of it in vain would lower the scale.
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16, init_scale=2.0**10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = copy.deepcopy(model.state_dict())
    with torch.autocast("cpu", dtype):
        loss = total(model, criterion, images())
    assert loss.dtype == torch.float32
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    for found, expected in zip(slopes(model), slopes(exact), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05 * expected.abs().max())
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == (1024 if dtype == torch.float16 else 1)
    assert not torch.equal(before["0.weight"], model[0].weight)


def test_a_small_gradient_survives_float16_by_scaling():
    features = (1e-2 * torch.randn(64, 2000)).half().requires_grad_()
    logits, target = torch.zeros(64), torch.zeros(64)
    loss = VariancePenalizedLoss("binary", 0.01)(logits, target, features).total
    (lost,) = torch.autograd.grad(loss, features, retain_graph=True)
    scaled = torch.amp.GradScaler("cpu").scale(loss)  # by 65536
    (kept,) = torch.autograd.grad(scaled, features)
    wide = features.detach().double()
    expected = 0.01 * 2 * (wide - wide.mean(0)) / wide.numel()
    assert not lost.any()  # below the smallest number of the type
    torch.testing.assert_close(kept.double() / 65536, expected, rtol=0.01, atol=1e-11)


# ---------------------------------------------------------------- compiled


@every_penalty
@pytest.mark.parametrize("layer", [None, "2"])
def test_criterion_and_tap_compile_into_one_graph(name, layer):
    model, criterion = network(), criterion_of(name)
    takes_head = "head_weight" in inspect.signature(criterion.penalty).parameters
    tap = FeatureTap(model, layer)

    def step(inputs: Tensor) -> Tensor:
        logits = model(inputs)
        head = (model[-1].weight,) if takes_head else ()
        return criterion(logits, TARGET, tap.take(), *head).total

    torch.compiler.reset()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    compiled(images()).backward()
    found = slopes(model)
    model.zero_grad()
    total(model, criterion, images()).backward()
    torch.testing.assert_close(found, slopes(model))


@pytest.mark.parametrize("options", [{"sync": True}, {"small_batch": "skip"}, {"ignore_index": 2}])
def test_options_compile_into_one_graph(options):
    criterion = VariancePenalizedLoss("multiclass", 3.0, **options)
    torch.compiler.reset()
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    logits, features = torch.randn(12, 3), torch.randn(12, 5)
    for count in (12, 1) if "small_batch" in options else (12,):
        given = logits[:count], TARGET[:count], features[:count]
        torch.testing.assert_close(tuple(compiled(*given)), tuple(criterion(*given)))


def test_a_generator_of_a_compiled_criterion_is_respected_or_refused():
    def criterion() -> VariancePenalizedLoss:
        own = torch.Generator().manual_seed(5)
        return VariancePenalizedLoss("multiclass", 1.0, 0.2, generator=own)

    given = torch.randn(12, 3), TARGET, torch.randn(12, 40)
    eager, compiled = criterion(), torch.compile(criterion(), backend="eager")
    torch.compiler.reset()
    for _ in range(3):
        torch.testing.assert_close(tuple(compiled(*given)), tuple(eager(*given)))
    torch.compiler.reset()
    with pytest.raises(Exception, match=r"leave generator out, .* compile without fullgraph=True"):
        torch.compile(criterion(), backend="eager", fullgraph=True)(*given)


# torch.compile itself looks at the gradient of what it finds after a break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    ("make", "breaks"),
    [
        (lambda: GradientRatio(0.3), True),
        (lambda: TargetWeight(2.0), False),
        (lambda: WarmUp(3.0, 1, 2), False),
    ],
)
def test_weights_that_set_themselves_compile(make, breaks):
    model, eager, criterion = network(), make(), make()
    eager, criterion = (criterion_of("feature_variance", weight) for weight in (eager, criterion))
    torch.compiler.reset()
    compiled = torch.compile(
        lambda inputs: total(model, criterion, inputs), backend="eager", fullgraph=not breaks
    )
    for scale in (1, 2, 3):
        expected = total(model, eager, scale * images())
        torch.testing.assert_close(compiled(scale * images()), expected)


# ---------------------------------------------------------------- checkpointed


@every_penalty
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_step(name, use_reentrant):
    model, criterion = network(), criterion_of(name)
    total(model, criterion, images()).backward()
    expected = slopes(model)
    model.zero_grad()
    step = partial(total, model, criterion)
    checkpoint(step, images().requires_grad_(), use_reentrant=use_reentrant).backward()
    torch.testing.assert_close(slopes(model), expected)


@every_penalty
def test_checkpointed_layers(name):
    model, criterion = network(), criterion_of(name)
    total(model, criterion, images()).backward()
    expected = slopes(model)
    model.zero_grad()
    features = checkpoint(model[:-1], images(), use_reentrant=False)
    takes_head = "head_weight" in inspect.signature(criterion.penalty).parameters
    head = (model[-1].weight,) if takes_head else ()
    criterion(model[-1](features), TARGET, features, *head).total.backward()
    torch.testing.assert_close(slopes(model), expected)


class Above(nn.Module):
    """A penalty that learns its threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = RunningQuantile(0.5)

    def forward(self, features: Tensor) -> Tensor:
        return penalties.excess_variance(features, self.threshold(features))


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: criterion_of("feature_variance", GradientRatio(0.3)),
        lambda: criterion_of("feature_variance", TargetWeight(1.0, 0.5)),
        lambda: criterion_of("feature_variance", WarmUp(GradientRatio(0.3), 1, 2)),
        lambda: criterion_of("feature_variance", WarmUp(3.0, 1, 2)),
        lambda: PenalizedLoss("multiclass", Above(), 2.0),
    ],
)
def test_a_weight_learns_once_from_a_step_that_is_computed_twice(make, use_reentrant):
    model, criterion, checkpointed = network(), make(), make()
    step = partial(total, model, checkpointed)
    for scale in (1, 2, 3):
        inputs = scale * images()
        value = total(model, criterion, inputs)
        value.backward()
        expected = slopes(model)
        model.zero_grad()
        again = checkpoint(step, inputs.clone().requires_grad_(), use_reentrant=use_reentrant)
        again.backward()
        torch.testing.assert_close(slopes(model), expected)
        model.zero_grad()
        if not use_reentrant:
            torch.testing.assert_close(again, value)
    torch.testing.assert_close(checkpointed.state_dict(), criterion.state_dict())


# ---------------------------------------------------------------- transformed


@every_penalty
def test_criterion_under_torch_func(name):
    model, criterion = network(dtype=torch.float64), criterion_of(name)
    parameters = dict(model.named_parameters())
    takes_head = "head_weight" in inspect.signature(criterion.penalty).parameters

    def loss(parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        features = torch.func.functional_call(model[:-1], body(parameters), (inputs,))
        logits = features @ parameters["2.weight"].T + parameters["2.bias"]
        head = (parameters["2.weight"],) if takes_head else ()
        return criterion(logits, TARGET, features, *head).total

    def body(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in parameters.items() if name.startswith("0")}

    inputs = images(torch.float64)
    total(model, criterion, inputs).backward()
    found = torch.func.grad(loss)(parameters, inputs)
    torch.testing.assert_close(list(found.values()), slopes(model))
    stack = torch.stack([inputs, 2 * inputs])
    several = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, stack)
    torch.testing.assert_close([value[0] for value in several.values()], slopes(model))


@pytest.mark.parametrize("make", [GradientRatio, TargetWeight, lambda: WarmUp(3.0)])
def test_a_weight_that_sets_itself_does_not_learn_under_torch_func(make):
    model, criterion = network(), criterion_of("feature_variance", make())

    def loss(inputs: Tensor) -> Tensor:
        features = model[:-1](inputs)
        return criterion(model[-1](features), TARGET, features).total

    refused = pytest.raises(ValueError, match=r"learns from each step.*call eval\(\) on it")
    with refused:
        torch.func.grad(loss)(images())
    with refused:
        torch.vmap(torch.func.grad(loss))(torch.stack([images()] * 2))
    loss(images())  # one step of its own
    criterion.weight.eval()
    inputs = images().requires_grad_()
    (expected,) = torch.autograd.grad(loss(inputs), inputs)
    torch.testing.assert_close(torch.func.grad(loss)(images()), expected)


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"relative_within_class_variance"}))
def test_second_derivatives_of_the_criterion(name):
    model, criterion = network(dtype=torch.float64), criterion_of(name)
    inputs = images(torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda inputs: total(model, criterion, inputs), inputs, fast_mode=True
    )


# ---------------------------------------------------------------- accumulated


def test_mean_over_the_parts_of_a_batch_is_what_is_said():
    """Over every part of 3 out of 7 samples: value and gradient have the stated expectation."""
    features = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    parts = [feature_variance(features[list(chosen)]) for chosen in combinations(range(7), 3)]
    mean, whole = torch.stack(parts).mean(), feature_variance(features)
    factor = (1 - 1 / 3) / (1 - 1 / 7)
    exact = features.detach().numpy().var(0).mean()
    assert mean.item() == pytest.approx(factor * exact, rel=1e-12)
    found, expected = (torch.autograd.grad(value, features)[0] for value in (mean, whole))
    torch.testing.assert_close(found, factor * expected)


def test_accumulated_steps_with_the_weight_divided_by_the_factor():
    """Within the noise of the split: the gradient of the whole batch."""
    torch.manual_seed(1)
    features = torch.randn(64, 300, dtype=torch.float64, requires_grad=True)
    factor = (1 - 1 / 8) / (1 - 1 / 64)
    criterion = VariancePenalizedLoss("binary", 1 / factor)
    logits, target = torch.zeros(64, dtype=torch.float64), torch.zeros(64)
    splits = 200
    for _ in range(splits):
        for part in torch.randperm(64).split(8):
            loss = criterion(logits[part], target[part], features[part]).total
            (loss / 8 / splits).backward()
    expected = torch.autograd.grad(feature_variance(features), features)[0]
    error = (features.grad - expected).norm() / expected.norm()
    assert error < 1.2 * np.sqrt(1 / 8 / splits)  # the noise of the means of 8 samples
    uncorrected = (features.grad * factor - expected).norm() / expected.norm()
    assert uncorrected > 3 * error
