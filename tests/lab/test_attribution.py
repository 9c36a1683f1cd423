"""Maps of where a logit comes from, against networks whose answer is known, and differences."""

import numpy as np
import pytest
import torch
from torch import nn

from varreg.lab import models
from varreg.lab.attribution import (
    grad_cam,
    input_gradient,
    last_convolution,
    points_inside,
    share_inside,
)


@pytest.fixture
def network():
    return models.build("small_cnn", in_channels=2, size=12, n_outputs=3).double().eval()


def test_the_gradient_of_a_linear_model_is_its_weight():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4, 2)).double()
    images = torch.rand(5, 2, 3, 4).double()
    for output in (0, 1):
        expected = model[1].weight[output].detach().abs().reshape(2, 3, 4).sum(0)
        found = input_gradient(model, images, output)
        torch.testing.assert_close(found, expected.expand(5, 3, 4))


def test_the_input_gradient_is_that_of_finite_differences(network):
    images, step = torch.rand(2, 2, 12, 12).double(), 1e-6
    found = input_gradient(network, images, 1)
    for y, x in ((0, 0), (5, 7), (11, 3)):
        change = torch.zeros(2).double()
        for channel in range(2):
            moved = images.clone()
            moved[:, channel, y, x] += step
            with torch.no_grad():
                change += ((network(moved) - network(images))[:, 1] / step).abs()
        torch.testing.assert_close(found[:, y, x], change, rtol=1e-4, atol=1e-7)


def test_grad_cam_by_hand():
    random = np.random.default_rng(0)
    images, kernel, head = (random.normal(size=s) for s in ((3, 2, 4, 4), (5, 2), (1, 5 * 16)))
    model = nn.Sequential(
        nn.Conv2d(2, 5, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(80, 1)
    ).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(kernel)[:, :, None, None])
        model[3].weight.copy_(torch.from_numpy(head))
    maps = np.einsum("kc,nchw->nkhw", kernel, images)
    weights = (head.reshape(1, 5, 4, 4) * (maps > 0)).mean((2, 3))
    expected = np.maximum(np.einsum("nk,nkhw->nhw", weights, maps), 0)
    found = grad_cam(model, torch.from_numpy(images))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)
    # Of the layer behind it, which overwrites what the first one gives.
    after = grad_cam(model, torch.from_numpy(images), "1")
    by_relu = np.einsum("k,nkhw->nhw", head.reshape(5, 16).mean(1), np.maximum(maps, 0))
    np.testing.assert_allclose(after.numpy(), np.maximum(by_relu, 0), rtol=1e-10, atol=1e-12)


def test_weights_of_grad_cam_are_what_lifting_a_map_does(network):
    images, layer, step = torch.rand(2, 2, 12, 12).double(), "features.3", 1e-6
    assert last_convolution(network) == layer
    lifted, kept = -1, []

    def lift(module, args, maps):
        kept.append(maps.detach().clone())
        if lifted >= 0:
            maps = maps.clone()
            maps[:, lifted] += step
        return maps

    handle = network.get_submodule(layer).register_forward_hook(lift)
    with torch.no_grad():
        plain, weights = network(images)[:, 2], []
        for lifted in range(32):  # noqa: B007 - the hook reads it
            weights.append((network(images)[:, 2] - plain) / step / 36)
    handle.remove()
    by_hand = torch.einsum("kn,nkhw->nhw", torch.stack(weights), kept[0]).relu()
    by_hand = nn.functional.interpolate(by_hand[:, None], (12, 12), mode="bilinear")[:, 0]
    found = grad_cam(network, images, output=2)
    torch.testing.assert_close(found, by_hand, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["small_cnn", "small_cnn_norm", "paper_cnn", "small_resnet"])
def test_looking_changes_nothing(name):
    model = models.build(name, in_channels=1, size=16, n_outputs=1)
    images = torch.rand(4, 1, 16, 16)
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(name != "paper_cnn")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():  # a caller who needs no gradients gets maps all the same
        cam, gradient = grad_cam(model, images), input_gradient(model, images)
    assert cam.shape == gradient.shape == (4, 16, 16)
    assert not cam.requires_grad
    assert not gradient.requires_grad
    assert (gradient > 0).any()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert images.grad is None


def test_captum_gives_the_same(network):
    attr = pytest.importorskip("captum.attr", reason="captum needs NumPy below 2")
    images = torch.rand(3, 2, 12, 12).double()
    layer = network.get_submodule("features.3")
    theirs = attr.LayerGradCam(network, layer).attribute(images, 1, relu_attributions=True)
    theirs = attr.LayerAttribution.interpolate(theirs, (12, 12), "bilinear")[:, 0]
    torch.testing.assert_close(grad_cam(network, images, output=1), theirs)
    saliency = attr.Saliency(network).attribute(images.clone().requires_grad_(), 1).sum(1)
    torch.testing.assert_close(input_gradient(network, images, 1), saliency)


def test_scores_of_maps_that_know_and_do_not_know_the_mask():
    torch.manual_seed(0)
    masks = torch.zeros(500, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 1:7] = True  # 18 of 64 pixels
    blind, knowing = torch.rand(500, 8, 8), masks + 0.0
    assert share_inside(blind, masks).mean() == pytest.approx(18 / 64, abs=0.01)
    assert points_inside(blind, masks).float().mean() == pytest.approx(18 / 64, abs=0.06)
    for score in (share_inside, points_inside):
        assert (score(knowing, masks) == 1).all()
        assert (score(1 - knowing, masks) == 0).all()
        assert (score(torch.zeros(500, 8, 8), masks) == 0).all()
        assert torch.equal(score(blind, masks[0]), score(blind, masks))
        assert torch.equal(score(4 * blind, masks), score(blind, masks))
    assert torch.equal(share_inside(knowing - 0.5, masks), torch.ones(500))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: grad_cam(m, x, "features.9"), "layer is 'features.9'; SmallCNN has features"),
        (lambda m, x: grad_cam(m, x, "head"), r"layer 'head' gives \(1, 3\); Grad-CAM needs maps"),
        (lambda m, x: grad_cam(m, x, output=3), "output is 3; the model has 3, counted from 0"),
        (lambda m, x: input_gradient(m, x, -1), "output is -1; the model has 3"),
        (lambda m, x: last_convolution(m.head), "Linear has no nn.Conv2d"),
        (lambda m, x: share_inside(x[0], torch.ones(2, 12)), r"masks \(2, 12\); give \(N, H, W\)"),
        (lambda m, x: points_inside(x[0], torch.ones(12, 12)), "masks are torch.float32; give"),
    ],
)
def test_refusals(network, call, message):
    with pytest.raises(ValueError, match=message):
        call(network, torch.rand(1, 2, 12, 12).double())
    assert not any(module._forward_hooks for module in network.modules())
