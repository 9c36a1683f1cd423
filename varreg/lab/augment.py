"""Augmentation of a whole batch, on the device, and fixed changes of all images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from varreg.checks import check_range


def zoom_and_shift(
    images: Tensor,
    zoom: float = 0.1,
    shift: float = 0.1,
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
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
        generator: Source of the draws; the global one of PyTorch by default. With several, each
            draws for an equal block of the batch, one block after the other.

    Returns:
        A new batch of the same shape and type, contiguous whatever the input was.

    Raises:
        ValueError: If the batch is not four-dimensional and floating point, a range is outside
            [0, 1), or the batch does not divide into a block for each generator.

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
    draw = 2 * _uniform(len(images), generator, images.device) - 1
    # The grid says where each output pixel is read, in coordinates from -1 to 1: a view of
    # `scale` times the image, moved by twice the share of the image.
    scale = 1 + zoom * draw[:, 0]
    theta = torch.zeros(len(images), 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = 2 * shift * draw[:, 1:]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def mixup(
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    alpha: float,
    n_classes: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Mix each image with another of the batch, and its label alike.

    One share for the batch, :math:`\max(s, 1 - s)` with :math:`s \sim` Beta(``alpha``, ``alpha``),
    so that each image is above all itself.

    Args:
        images: Floating-point batch ``(N, ...)``.
        labels: Binary or multi-label: 0 and 1; multi-class: integers, ``(N,)`` or ``(N, 1)``.
        generator: Source of the draws, on the CPU.
        alpha: Above 0; the larger, the more is mixed.
        n_classes: Of a multi-class task.

    Returns:
        Mixed images, the labels as they were, and the mixed ones: ``(N, n_classes)`` for a
        multi-class task, else as ``labels``, float32.

    Raises:
        ValueError: If ``alpha`` is not positive.

    Source:
        Zhang, Cisse, Dauphin and Lopez-Paz (ICLR 2018), "mixup: Beyond Empirical Risk
        Minimization".

    Example:
        >>> labels, random = torch.tensor([0, 1]), torch.Generator().manual_seed(0)
        >>> _, _, mixed = mixup(torch.zeros(2, 1), labels, random, alpha=1.0, n_classes=3)
        >>> mixed.sum(1).tolist()
        [1.0, 1.0]
    """
    check_range("alpha", alpha, ends="()")
    # Beta from two gammas by Marsaglia and Tsang's method, which torch draws with a generator.
    gammas = torch._standard_gamma(torch.full((2,), float(alpha)), generator=generator)
    share = (gammas / gammas.sum()).max().item() if gammas.sum() > 0 else 1.0
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    if n_classes is not None:
        target = F.one_hot(labels.flatten().long(), n_classes).float()
    else:
        target = labels.float()
    mixed = torch.lerp(images[partner], images, share)
    return mixed, labels, torch.lerp(target[partner], target, share)


def two_views(
    images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Half of a batch, each image twice, zoomed and shifted in two ways.

    The second half of the batch is left out, so that a step costs what it does without views.

    Args:
        images: Floating-point batch ``(N, C, H, W)``, 4 images or more.
        labels: Of the images.
        generator: Source of the draws.

    Returns:
        All images in their first view, then all in their second; their labels, twice.
    """
    half = max(2, len(images) // 2)
    views = [zoom_and_shift(images[:half], generator=generator) for _ in range(2)]
    labels = torch.cat([labels[:half]] * 2)
    return torch.cat(views), labels, labels


def _uniform(
    count: int,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    device: torch.device,
) -> Tensor:
    """Three draws from [0, 1) for each of so many images."""
    if generator is None:
        return torch.rand(count, 3, device=device)
    generators = [generator] if isinstance(generator, torch.Generator) else generator
    if not generators or count % len(generators):
        raise ValueError(
            f"{count} images and {len(generators)} generators; every generator needs a block of "
            "the same size"
        )
    share = count // len(generators)
    draws = [torch.rand(share, 3, generator=own, device=own.device) for own in generators]
    return torch.cat(draws).to(device, non_blocking=True)


def equalize(images: Tensor) -> Tensor:
    """Enhance the contrast of every image by histogram equalization, channel by channel.

    A value becomes the share of pixels of its plane that are no brighter, stretched so that the
    darkest becomes 0 and the brightest 255. The paper's text speaks of contrast enhancement
    without saying which; the released notebooks have none. This is the plainest one.

    Args:
        images: ``uint8``, ``(N, C, H, W)``.

    Returns:
        New images of the same shape, channels-last in memory.

    Raises:
        ValueError: If the images are not ``uint8`` of four dimensions.

    Example:
        >>> image = torch.arange(100, 164, dtype=torch.uint8).view(1, 1, 8, 8)
        >>> found = equalize(image)
        >>> int(found.min()), int(found.max())
        (0, 255)
    """
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected uint8 (N, C, H, W)"
        )
    planes = images.reshape(images.shape[0] * images.shape[1], -1).long()
    counts = torch.zeros(len(planes), 256, dtype=torch.long)
    below = counts.scatter_add_(1, planes, torch.ones_like(planes)).cumsum(1)
    darkest = below.gather(1, planes.amin(1, keepdim=True))
    # A plane of one value has nothing to stretch: 0 / 1.
    reach = (planes.shape[1] - darkest).clamp(min=1)
    stretched = (255 * (below.gather(1, planes) - darkest) / reach).round().to(torch.uint8)
    return stretched.view(images.shape).contiguous(memory_format=torch.channels_last)


def shuffle_blocks(images: Tensor, block: int = 4, seed: int = 0) -> Tensor:
    """Shuffle the square blocks of every image by one permutation, the same for all images.

    Pixels within a block stay where they are, so that what has no wider view than a block, such
    as the paper's network, has as much to go by as before.

    Args:
        images: ``(N, C, H, W)`` of any type.
        block: Edge of a block in pixels; divides height and width.
        seed: Of the permutation.

    Returns:
        New images of the same shape, channels-last in memory.

    Raises:
        ValueError: If the images do not have four dimensions or blocks do not fill them.

    Example:
        >>> images = torch.arange(64).view(1, 1, 8, 8)
        >>> shuffled = shuffle_blocks(images)
        >>> torch.equal(shuffled.flatten().sort().values, images.flatten())
        True
    """
    if images.ndim != 4 or block < 1 or images.shape[2] % block or images.shape[3] % block:
        raise ValueError(
            f"images have shape {tuple(images.shape)} and block is {block}; images are "
            "(N, C, H, W), with a height and width that are multiples of block"
        )
    rows, columns = images.shape[2] // block, images.shape[3] // block
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(seed))
    blocks = F.pixel_unshuffle(images, block).flatten(2)[:, :, order]
    whole = F.pixel_shuffle(blocks.unflatten(2, (rows, columns)), block)
    return whole.contiguous(memory_format=torch.channels_last)
