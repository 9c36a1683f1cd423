from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from varreg.lab.corruptions import CORRUPTIONS, corrupt, corrupted


def images(channels: int = 1, size: int = 28) -> torch.Tensor:
    rows = np.random.default_rng(0).normal(size=(3, channels, size, size))
    smooth = ndimage.gaussian_filter(rows, (0, 0, 2, 2))
    scaled = 40 + 160 * (smooth - smooth.min()) / np.ptp(smooth)
    return torch.from_numpy(scaled).round().to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_and_repeats(name, channels):
    clean = images(channels)
    far = []
    for severity in range(1, 6):
        found = corrupt(clean, name, severity)
        assert (found.dtype, found.shape) == (clean.dtype, clean.shape)
        assert torch.equal(found, corrupt(clean, name, severity))
        far.append((found.float() - clean.float()).square().mean().item())
    assert far == sorted(far)
    assert far[0] > 0


def test_formulas_in_numpy():
    clean = images()
    x = clean.numpy() / 255
    mean = x.mean((1, 2, 3), keepdims=True)
    expected = {
        "contrast": mean + 0.3 * (x - mean),
        "brightness": np.minimum(x + 0.32, 1),
        "blur": ndimage.gaussian_filter(x, (0, 0, 1.1, 1.1), mode="mirror", radius=(0, 0, 4, 4)),
    }
    for name, values in expected.items():
        found = corrupt(clean, name, 4).numpy() / 255
        np.testing.assert_allclose(found, values, atol=0.51 / 255)
    noise = corrupt(clean, "noise", 1).numpy() / 255 - x
    assert noise.std() == pytest.approx(0.04, rel=0.05)


def test_pixels_are_means_of_blocks():
    clean = images(size=28)
    found = corrupt(clean, "pixelate", 5).float()  # to 7 pixels: blocks of 4 x 4
    blocks = torch.nn.functional.avg_pool2d(clean.float(), 4).round()
    torch.testing.assert_close(found[..., ::4, ::4], blocks, atol=1, rtol=0)
    assert torch.equal(found[..., ::4, ::4], found[..., 3::4, 3::4])


def test_all_are_named():
    seen = [(name, severity) for name, severity, _ in corrupted(images())]
    assert seen == [(name, severity) for name in CORRUPTIONS for severity in range(1, 6)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((images(), "fog", 1), "corruption is 'fog'; allowed are noise, blur"),
        ((images(), "blur", 6), "severity is 6; it must be 1 to 5"),
        ((images().float(), "blur", 1), "images are torch.float32"),
        ((images()[0], "blur", 1), "expected uint8"),
    ],
)
def test_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        corrupt(*given)
