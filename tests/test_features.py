from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from varreg import FeatureTap, VariancePenalizedLoss, feature_variance
from varreg.models import build


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def test_takes_what_enters_the_last_linear_layer():
    model, batch = network(), torch.randn(3, 6)
    tap = FeatureTap(model)
    logits = model(batch)
    features = tap.take()
    assert (tap.layer, tap.capture) == ("4", "input")
    assert torch.equal(features, model[:4](batch))
    assert torch.equal(model[4](features), logits)


@pytest.mark.parametrize(("capture", "upto"), [("input", 2), ("output", 3)])
def test_named_layer(capture, upto):
    model, batch = network(), torch.randn(3, 6)
    tap = FeatureTap(model, "2", capture=capture)
    model(batch)
    assert torch.equal(tap.take(), model[:upto](batch))


def test_nested_layer():
    model, batch = nn.Sequential(network(), nn.Linear(2, 1)), torch.randn(3, 6)
    tap = FeatureTap(model, "0.1", capture="output")
    model(batch)
    assert torch.equal(tap.take(), model[0][:2](batch))


def test_hands_over_the_latest_pass():
    model = network()
    tap = FeatureTap(model)
    first, second = torch.randn(3, 6), torch.randn(8, 6)
    model(first)
    model(second)
    assert torch.equal(tap.take(), model[:4](second))


def test_keeps_nothing_once_taken():
    model = network()
    tap = FeatureTap(model)
    logits = model(torch.randn(3, 6))
    features = tap.take()
    tensor = weakref.ref(features)
    (feature_variance(features) + logits.sum()).backward()
    del features, logits
    gc.collect()
    assert tensor() is None
    with pytest.raises(RuntimeError, match=r"layer '4' has not run since the last take\(\)"):
        tap.take()


def test_keeps_no_more_than_one_pass():
    model = network()
    tap = FeatureTap(model)
    model(torch.randn(3, 6))
    first = weakref.ref(tap._features)
    model(torch.randn(3, 6))
    gc.collect()
    assert first() is None
    tap.remove()
    assert tap._features is None


def test_gradient_reaches_the_layers_before_the_tap():
    model = network()
    with FeatureTap(model) as tap:
        model(torch.randn(3, 6))
        feature_variance(tap.take()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model[:4].parameters())
    assert all(parameter.grad is None for parameter in model[4].parameters())


def test_removal_leaves_the_model_as_it_was():
    model = network()
    tap = FeatureTap(model)
    model(torch.randn(3, 6))
    tap.remove()
    with pytest.raises(RuntimeError, match="has not run"):
        tap.take()
    model(torch.randn(3, 6))
    with pytest.raises(RuntimeError, match="has not run"):
        tap.take()
    assert not model[4]._forward_pre_hooks


def test_context_removes_the_tap_after_an_error_too():
    model = network()
    with pytest.raises(RuntimeError, match="has not run"), FeatureTap(model, "3") as tap:
        tap.take()
    assert not model[3]._forward_pre_hooks


def test_two_taps_on_one_model():
    model, batch = network(), torch.randn(3, 6)
    with FeatureTap(model, "1", capture="output") as early, FeatureTap(model) as late:
        model(batch)
        assert early.take().shape == (3, 5)
        assert late.take().shape == (3, 4)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context):
    model = network()
    tap = FeatureTap(model)
    with context():
        model(torch.randn(3, 6))
        features = tap.take()
    assert features.grad_fn is None
    assert features.shape == (3, 4)


def test_registered_before_compiling():
    model, batch = network(), torch.randn(3, 6)
    tap = FeatureTap(model)
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        compiled(batch)
        features = tap.take()
        torch.testing.assert_close(features, model[:4](batch))
        feature_variance(features).backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_monai_resnet18():
    model = build("resnet18", in_channels=1, size=16, n_outputs=3)
    tap = FeatureTap(model)
    logits = model(torch.randn(2, 1, 16, 16))
    parts = VariancePenalizedLoss("multiclass")(logits, torch.tensor([0, 2]), tap.take())
    parts.feature_variance.backward()
    assert tap.layer == "fc"
    assert model.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()),
            {},
            "Sequential has no nn.Linear layer; .*: 0, 1",
        ),
        (network(), {"layer": "head"}, "Sequential has no layer 'head'; it has 0, 1, 2, 3, 4"),
        (
            network(),
            {"capture": "weights"},
            "capture is 'weights'; allowed are 'input' and 'output'",
        ),
    ],
)
def test_refuses(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        FeatureTap(model, **arguments)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_layer_that_gets_keywords_only_says_so():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 1)

        def forward(self, images):
            return self.head(input=images)

    with (
        FeatureTap(model := Keywords()),
        pytest.raises(ValueError, match=r"'head' was called with keyword .* capture='output'"),
    ):
        model(torch.zeros(2, 3))
