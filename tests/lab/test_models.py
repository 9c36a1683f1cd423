from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from varreg.features import FeatureTap
from varreg.lab.models import MODELS, build, count_parameters, with_dropout


def test_the_papers_network_has_its_number_of_parameters():
    model = build("paper_cnn", in_channels=3, size=224, n_outputs=1)
    by_hand = (3 * 10 + 10) + 3 * (10 * 10 + 10) + (56 * 56 * 10 + 1)
    assert count_parameters(model) == 31_731 == by_hand
    assert model.head.in_features == 31_360
    assert {
        tuple(layer.kernel_size) for layer in model.features if isinstance(layer, nn.Conv2d)
    } == {(1, 1)}


def test_the_deep_network_has_a_third_pair():
    model = build("paper_cnn_deep", in_channels=3, size=28, n_outputs=7)
    by_hand = (3 * 10 + 10) + 5 * (10 * 10 + 10) + 7 * (3 * 3 * 10 + 1)
    assert count_parameters(model) == by_hand
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 7)
    with pytest.raises(ValueError, match=r"size=4, .*; size must be 8 or more"):
        build("paper_cnn_deep", in_channels=3, size=4, n_outputs=1)


def test_only_trainable_parameters_count():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6


class KerasOrder(nn.Module):
    """The paper's network as Keras has it: convolution, ReLU, and only then the pooling."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        first, second, third, fourth = (m for m in model.features if isinstance(m, nn.Conv2d))
        self.layers = nn.ModuleList([first, second, third, fourth])
        self.head = model.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth = self.layers
        half = nn.functional.max_pool2d(torch.relu(second(torch.relu(first(images)))), 2)
        quarter = nn.functional.max_pool2d(torch.relu(fourth(torch.relu(third(half)))), 2)
        return self.head(quarter.flatten(1))


@pytest.mark.parametrize("size", [12, 15])
def test_pooling_before_relu_changes_neither_values_nor_gradients(size):
    model = build("paper_cnn", in_channels=3, size=size, n_outputs=7, init="glorot").double()
    images = torch.randn(4, 3, size, size, dtype=torch.float64)
    labels = torch.tensor([0, 3, 6, 3])

    def step(network: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
        logits = network(images)
        loss = nn.functional.cross_entropy(logits, labels)
        return logits, list(torch.autograd.grad(loss, list(model.parameters())))

    torch.testing.assert_close(step(model), step(KerasOrder(model)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "dims"), [("paper_cnn", 2), ("small_cnn", 2), ("resnet18", 3)])
def test_glorot_is_that_of_keras(name, dims):
    model = build(name, in_channels=3, size=28, n_outputs=7, spatial_dims=dims, init="glorot")
    seen = 0
    for module in model.modules():
        if not isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            continue
        seen += 1
        # Keras: fan = receptive field times channels, limit = sqrt(6 / (fan_in + fan_out)).
        field = math.prod(getattr(module, "kernel_size", ()))
        limit = math.sqrt(6 / (field * (module.weight.shape[0] + module.weight.shape[1])))
        weight = module.weight.detach()
        assert weight.abs().max() <= limit
        assert weight.abs().max() > 0.85 * limit
        if weight.numel() > 1000:
            assert weight.std() == pytest.approx(limit / math.sqrt(3), rel=0.1)
        assert module.bias is None or not module.bias.any()
    assert seen >= 3


def test_default_weights_are_those_of_pytorch():
    torch.manual_seed(4)
    model = build("small_cnn", in_channels=1, size=28, n_outputs=1)
    torch.manual_seed(4)
    assert torch.equal(model.features[0].weight, nn.Conv2d(1, 16, 3, padding=1).weight)
    assert model.features[0].bias.any()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("channels", "size", "outputs"), [(1, 28, 1), (3, 13, 7)])
def test_maps_images_to_logits(name, channels, size, outputs):
    if name == "small_vit":
        size -= size % 4
    model = build(name, in_channels=channels, size=size, n_outputs=outputs)
    assert model(torch.randn(2, channels, size, size)).shape == (2, outputs)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("paper")])
def test_takes_volumes(name):
    model = build(name, in_channels=1, size=16, n_outputs=11, spatial_dims=3)
    assert model(torch.randn(2, 1, 16, 16, 16)).shape == (2, 11)


@pytest.mark.parametrize("name", MODELS)
def test_the_features_of_every_network_are_found(name):
    model = build(name, in_channels=1, size=28, n_outputs=1)
    tap = FeatureTap(model)
    model(torch.randn(2, 1, 28, 28))
    assert tap.take().ndim == 2
    assert tap.layer == ("fc" if "resnet" in name else "head")


def test_widths_are_half_one_and_three_times():
    counts = [
        build(name, in_channels=1, size=28, n_outputs=1).head.in_features
        for name in ("small_cnn_half", "small_cnn", "small_cnn_wide")
    ]
    assert counts == [16 * 49, 32 * 49, 96 * 49]


def test_the_same_seed_gives_the_same_weights():
    def weights() -> torch.Tensor:
        torch.manual_seed(9)
        model = build("paper_cnn", in_channels=1, size=8, n_outputs=1, init="glorot")
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "vgg"}, "model is 'vgg'; allowed are paper_cnn, paper_cnn_deep, small_cnn"),
        ({"init": "he"}, "init is 'he'; allowed are default, glorot"),
        ({"size": 3}, "size=3, .*size must be 4 or more"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"n_outputs": 0}, "n_outputs=0"),
        ({"name": "small_vit", "size": 30}, "size=30; a transformer on 4 patches an edge takes"),
        ({"name": "paper_cnn", "spatial_dims": 3}, "paper_cnn takes 2D images, not 3D; use"),
    ],
)
def test_refuses(given, message):
    usual = {"name": "small_cnn", "in_channels": 1, "size": 28, "n_outputs": 1}
    with pytest.raises(ValueError, match=message):
        build(**(usual | given))


@pytest.mark.parametrize("name", MODELS)
def test_dropout_stands_before_the_layer_that_makes_the_logits(name):
    model = build(name, in_channels=1, size=16, n_outputs=3).eval()
    images = torch.rand(4, 1, 16, 16)
    expected, parameters = model(images), count_parameters(model)
    model = with_dropout(model, 0.5).eval()
    torch.testing.assert_close(model(images), expected, rtol=0, atol=0)  # nothing when evaluated
    assert count_parameters(model) == parameters
    entered = []
    *_, dropout, last = model.modules()
    dropout.register_forward_hook(lambda _, before, after: entered.append((before[0], after)))
    dropout.train()
    logits = model(images)
    before, after = entered[0]
    kept = after != 0
    torch.testing.assert_close(after[kept], 2 * before[kept])
    assert 0 < kept.float().mean() < 1
    torch.testing.assert_close(logits, last(after))


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(2, 1), nn.ReLU()), nn.Linear(2, 1)])
def test_dropout_needs_a_linear_layer_at_the_end(model):
    with pytest.raises(ValueError, match=r"the last layer of the \w+ is no linear one to put"):
        with_dropout(model, 0.5)
