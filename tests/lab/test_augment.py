from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from varreg.lab.augment import equalize, shuffle_blocks, zoom_and_shift


def reference(images, draws, zoom: float, shift: float):
    """Bilinear, half-sample symmetric at the border: one image and channel at a time."""
    out = np.empty(images.shape)
    height, width = images.shape[2:]
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    for i, (of_scale, of_column, of_row) in enumerate(2 * draws - 1):
        # Read around the middle of the image, then moved by a share of its side.
        scale = 1 + zoom * of_scale
        y = (rows - (height - 1) / 2) * scale + (height - 1) / 2 + shift * of_row * height
        x = (columns - (width - 1) / 2) * scale + (width - 1) / 2 + shift * of_column * width
        for c, channel in enumerate(images[i]):
            out[i, c] = map_coordinates(channel, [y, x], order=1, mode="reflect")
    return out


@pytest.mark.parametrize(("zoom", "shift"), [(0.1, 0.1), (0.0, 0.3), (0.4, 0.0), (0.9, 0.9)])
def test_equals_the_reference(zoom, shift):
    images = torch.rand(5, 2, 9, 14)
    draws = torch.rand(5, 3, generator=torch.Generator().manual_seed(3)).double().numpy()
    moved = zoom_and_shift(images, zoom, shift, generator=torch.Generator().manual_seed(3))
    expected = reference(images.double().numpy(), draws, zoom, shift)
    np.testing.assert_allclose(moved.numpy(), expected, atol=2e-5)


def test_changes_nothing_at_zero():
    images = torch.rand(4, 3, 10, 10)
    torch.testing.assert_close(zoom_and_shift(images, 0, 0), images, rtol=0, atol=1e-6)


def test_a_constant_image_stays_constant():
    images = torch.full((4, 1, 8, 8), 0.7)
    torch.testing.assert_close(zoom_and_shift(images, 0.5, 0.5), images)


@pytest.mark.parametrize("shape", [(1, 1, 5, 5), (3, 3, 28, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_shape_and_type_and_leaves_its_input_alone(shape, dtype):
    images = torch.rand(shape).to(dtype)
    before = images.clone()
    moved = zoom_and_shift(images)
    assert (moved.shape, moved.dtype, moved.device) == (images.shape, dtype, images.device)
    assert torch.equal(images, before)
    assert not torch.equal(moved, images)


def test_channels_last_gives_the_same_values():
    images = torch.rand(3, 3, 12, 12)
    last = images.contiguous(memory_format=torch.channels_last)
    moved = [
        zoom_and_shift(batch, generator=torch.Generator().manual_seed(0))
        for batch in (images, last)
    ]
    torch.testing.assert_close(moved[0], moved[1])


def test_every_image_is_drawn_by_itself_and_repeats_with_the_seed():
    images = torch.rand(1, 1, 12, 12).expand(6, 1, 12, 12)

    def moved(seed: int) -> torch.Tensor:
        return zoom_and_shift(images, generator=torch.Generator().manual_seed(seed))

    assert len({tuple(image.flatten().tolist()) for image in moved(0)}) == 6
    assert torch.equal(moved(0), moved(0))
    assert not torch.equal(moved(0), moved(1))


def test_several_generators_draw_for_blocks_of_the_batch():
    images = torch.rand(6, 2, 8, 8)

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (5, 1, 4)]

    moved = zoom_and_shift(images, generator=generators())
    blocks = zip(images.split(2), generators(), strict=True)
    assert torch.equal(moved, torch.cat([zoom_and_shift(b, generator=g) for b, g in blocks]))


def test_stays_within_the_ranges():
    # A ramp shows where each pixel was read, away from the border.
    ramp = torch.arange(100.0).expand(200, 1, 100, 100)
    moved = zoom_and_shift(ramp, 0.1, 0.0)[:, 0, 50, 30:70]
    scale = (moved[:, -1] - moved[:, 0]) / 39
    assert 0.9 <= scale.min() < 0.92
    assert 1.08 < scale.max() <= 1.1
    centre = zoom_and_shift(ramp, 0.0, 0.1)[:, 0, 50, 50] - 50
    assert -10 <= centre.min() < -9.5
    assert 9.5 < centre.max() <= 10


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), {}, "images are torch.uint8 of shape"),
        (torch.zeros(2, 4, 4), {}, r"shape \(2, 4, 4\); expected floating point \(N, C, H, W\)"),
        (torch.zeros(2, 1, 4, 4, 4), {}, r"shape \(2, 1, 4, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4), {"zoom": 1.0}, r"zoom=1.0, shift=0.1; both must lie in \[0, 1\)"),
        (torch.zeros(2, 1, 4, 4), {"shift": -0.1}, r"shift=-0.1; both must lie in"),
        (torch.zeros(2, 1, 4, 4), {"zoom": float("nan")}, "zoom=nan"),
        (torch.zeros(2, 1, 4, 4), {"generator": []}, "2 images and 0 generators; every"),
        (torch.zeros(3, 1, 4, 4), {"generator": [torch.Generator()] * 2}, "3 images and 2 gen"),
    ],
)
def test_refuses(images, arguments, message):
    with pytest.raises(ValueError, match=message):
        zoom_and_shift(images, **arguments)


# ---------------------------------------------------------------- contrast


def test_equalize_is_the_textbook_formula():
    random = np.random.default_rng(0)
    images = random.integers(30, 90, (3, 2, 7, 9), dtype=np.uint8)
    found = equalize(torch.from_numpy(images)).numpy()
    for plane, its in zip(images.reshape(6, -1), found.reshape(6, -1), strict=True):
        ranks = np.array([(plane <= value).sum() for value in plane], dtype=float)
        lowest = (plane == plane.min()).sum()
        expected = np.round(255 * (ranks - lowest) / (plane.size - lowest))
        np.testing.assert_array_equal(its, expected)
        assert (its.min(), its.max()) == (0, 255)


def test_equalize_leaves_nothing_to_stretch_at_zero():
    assert equalize(torch.full((1, 1, 4, 4), 7, dtype=torch.uint8)).sum() == 0


def test_equalize_refuses():
    with pytest.raises(ValueError, match=r"torch.float32 of shape \(1, 1, 4, 4\); expected uint8"):
        equalize(torch.zeros(1, 1, 4, 4))


# ---------------------------------------------------------------- blocks


def test_blocks_move_as_a_whole_and_alike_in_all_images():
    images = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12)
    shuffled = shuffle_blocks(images, seed=1)

    def blocks(image: torch.Tensor) -> list[tuple]:
        parts = image.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 0, 3, 4).flatten(0, 1)
        return [tuple(part.flatten().tolist()) for part in parts]

    moved = []
    for before, after in zip(images, shuffled, strict=True):
        old, new = blocks(before), blocks(after)
        moved.append([old.index(block) for block in new])  # every new block is an old one
    assert moved[0] == moved[1]
    assert sorted(moved[0]) == list(range(6))
    assert moved[0] != list(range(6))
    assert torch.equal(shuffled, shuffle_blocks(images, seed=1))
    assert not torch.equal(shuffled, shuffle_blocks(images, seed=2))


@pytest.mark.parametrize(
    ("shape", "block"), [((2, 1, 10, 8), 4), ((1, 8, 8), 4), ((1, 1, 8, 8), 0)]
)
def test_shuffle_blocks_refuses(shape, block):
    with pytest.raises(ValueError, match=r"images are \(N, C, H, W\), with a height and width"):
        shuffle_blocks(torch.zeros(shape), block)
