"""Images as a worse camera would have given them: six corruptions in five severities.

In the spirit of ImageNet-C (Hendrycks and Dietterich, ICLR 2019) and MedMNIST-C (Di Salvo, Doerrich
and Ledig, 2024), but neither of them: the functions and their parameters are this package's own,
and results are not to be compared with theirs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from varreg.checks import check_choice, check_integer

#: Parameters of the five severities.
CORRUPTIONS = {
    # Standard deviation of Gaussian noise, as a share of the range of values.
    "noise": (0.04, 0.08, 0.12, 0.18, 0.26),
    # Standard deviation of a Gaussian filter, in pixels of an image of 28.
    "blur": (0.4, 0.6, 0.8, 1.1, 1.5),
    # Factor of the distance from the mean of the image.
    "contrast": (0.75, 0.6, 0.45, 0.3, 0.2),
    # Added, as a share of the range of values.
    "brightness": (0.08, 0.16, 0.24, 0.32, 0.4),
    # Quality of the JPEG file.
    "jpeg": (70, 50, 35, 20, 10),
    # Edge of the image in between, as a share.
    "pixelate": (0.65, 0.57, 0.43, 0.32, 0.25),
}


def corrupt(images: Tensor, name: str, severity: int) -> Tensor:
    """Corrupt images; the same images always in the same way.

    Args:
        images: uint8 ``(N, C, H, W)``, with one channel or three.
        name: One of :data:`CORRUPTIONS`.
        severity: 1 to 5.

    Returns:
        New images of the same type and shape.

    Raises:
        ValueError: If there is no such corruption or severity, or images are of another type or
            shape.

    Example:
        >>> grey = torch.full((1, 1, 8, 8), 100, dtype=torch.uint8)
        >>> corrupt(grey, "brightness", 1).unique().tolist()  # 100 + 0.08 x 255
        [120]
    """
    check_choice("corruption", name, CORRUPTIONS)
    check_integer("severity", severity, 1, 5)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected uint8 "
            "(N, C, H, W) with one channel or three"
        )
    amount = CORRUPTIONS[name][severity - 1]
    if name == "jpeg":
        return _jpeg(images, int(amount))
    share = images.float() / 255
    if name == "noise":
        random = torch.Generator().manual_seed(severity)
        share = share + amount * torch.randn(share.shape, generator=random).to(share)
    elif name == "blur":
        share = _blurred(share, amount * images.shape[-1] / 28)
    elif name == "contrast":
        mean = share.mean((1, 2, 3), keepdim=True)
        share = mean + amount * (share - mean)
    elif name == "brightness":
        share = share + amount
    else:
        height, width = images.shape[2:]
        small = [max(1, round(amount * edge)) for edge in (height, width)]
        share = F.interpolate(share, small, mode="area")
        share = F.interpolate(share, (height, width), mode="nearest-exact")
    return (255 * share).round().clamp(0, 255).to(torch.uint8)


def corrupted(images: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """Images in every corruption and severity, with the names of these.

    Args:
        images: As for :func:`corrupt`.

    Example:
        >>> len(list(corrupted(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))))
        30
    """
    for name, amounts in CORRUPTIONS.items():
        for severity in range(1, len(amounts) + 1):
            yield name, severity, corrupt(images, name, severity)


def _blurred(share: Tensor, deviation: float) -> Tensor:
    reach = min(int(3 * deviation + 1), min(share.shape[2:]) - 1)
    x = torch.arange(-reach, reach + 1, dtype=share.dtype)
    row = torch.exp(-0.5 * (x / deviation) ** 2)
    row = (row / row.sum()).view(1, 1, 1, -1).to(share)
    planes = share.flatten(0, 1).unsqueeze(1)
    planes = F.conv2d(F.pad(planes, (reach, reach, 0, 0), mode="reflect"), row)
    planes = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="reflect"), row.transpose(2, 3))
    return planes.view(share.shape)


def _jpeg(images: Tensor, quality: int) -> Tensor:
    pixels = images.movedim(1, -1).cpu().numpy()
    found = np.empty_like(pixels)
    for place, image in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            file, "JPEG", quality=quality
        )
        found[place] = np.asarray(Image.open(file)).reshape(image.shape)
    return torch.from_numpy(found).movedim(-1, 1).to(images.device)
