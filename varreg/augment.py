"""Augmentation of a whole batch, on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["zoom_and_shift"]


def zoom_and_shift(
    images: Tensor,
    zoom: float = 0.1,
    shift: float = 0.1,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Zoom and shift every image at random: the paper's augmentation.

    Each image is zoomed by a factor drawn from [1 - ``zoom``, 1 + ``zoom``], the same in
    height and width, and shifted by up to ``shift`` of its height and of its width, all
    uniform. As in Keras, the border is reflected and pixels are interpolated bilinearly;
    Keras does it in two layers, here one interpolation does both.

    Args:
        images: Floating-point batch ``(N, C, H, W)``.
        zoom: Largest relative change of scale, in [0, 1).
        shift: Largest shift as a share of the image, in [0, 1).
        generator: Source of the draws; the global one of PyTorch by default.

    Returns:
        A new batch of the same shape and type, contiguous whatever the input was.

    Raises:
        ValueError: If the batch is not four-dimensional and floating point, or a range is
            outside [0, 1).

    Example:
        >>> batch = torch.rand(2, 1, 8, 8)
        >>> torch.allclose(zoom_and_shift(batch, zoom=0, shift=0), batch, atol=1e-6)
        True
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected floating "
            "point (N, C, H, W)"
        )
    if not (0 <= zoom < 1 and 0 <= shift < 1):
        raise ValueError(f"zoom={zoom}, shift={shift}; both must lie in [0, 1)")
    device = images.device if generator is None else generator.device
    draw = torch.rand(len(images), 3, generator=generator, device=device).to(images.device)
    draw = 2 * draw - 1
    # The grid says where each output pixel is read, in coordinates from -1 to 1: a view of
    # `scale` times the image, moved by twice the share of the image.
    scale = 1 + zoom * draw[:, 0]
    theta = torch.zeros(len(images), 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = 2 * shift * draw[:, 1:]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
