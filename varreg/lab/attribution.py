"""Where in an image a logit comes from, and how well that agrees with a mask.

Two maps: Grad-CAM, coarse, of what a convolution found; and the gradient of the input, fine and
noisy. Neither proves what a network uses: what moves the logit does, see
:func:`varreg.lab.datasets.phantom.counterfactuals` for images of which that can be asked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


def last_convolution(model: nn.Module) -> str:
    """Name of the convolution that stands last in a model.

    Raises:
        ValueError: If it has none.

    Example:
        >>> last_convolution(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()))
        '0'
    """
    names: list[str] = [
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    ]
    if not names:
        raise ValueError(f"{type(model).__name__} has no nn.Conv2d; Grad-CAM needs a layer of maps")
    return names[-1]


def grad_cam(model: nn.Module, images: Tensor, layer: str | None = None, output: int = 0) -> Tensor:
    r"""Grad-CAM: the maps of a layer, weighted by what they do to a logit on average.

    With the maps :math:`A_k` and the logit :math:`z`, the positive part of
    :math:`\sum_k \alpha_k A_k`, where :math:`\alpha_k` is the mean over the positions of
    :math:`\partial z / \partial A_k`; interpolated to the size of the images.

    Args:
        model: Maps images to logits ``(N, n_outputs)``; it is run in eval mode and left as it was.
        images: As the model takes them, ``(N, C, H, W)``.
        layer: Name of the layer as in ``model.named_modules()``; default: the last convolution.
        output: Which logit.

    Returns:
        ``(N, H, W)``, 0 or more, in logits times a factor that is the same for all images.

    Raises:
        ValueError: If there is no such layer or output, or the layer gives no maps
            ``(N, K, h, w)``.

    References:
        R. R. Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based
        localization, ICCV 2017.

    Example:
        >>> from varreg.lab.models import SmallCNN
        >>> grad_cam(SmallCNN(1, 28, 1), torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 28, 28])
    """
    layer = last_convolution(model) if layer is None else layer
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(
            f"layer is {layer!r}; {type(model).__name__} has {', '.join(filter(None, modules))}"
        )
    found: list[Tensor] = []

    def keep(module: nn.Module, args: object, maps: Tensor) -> Tensor:
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise ValueError(f"layer {layer!r} gives {shape}; Grad-CAM needs maps (N, K, h, w)")
        found.append(maps if maps.requires_grad else maps.detach().requires_grad_())
        return found[0].clone()  # what comes next may write over it

    handle = modules[layer].register_forward_hook(keep)
    try:
        gradient = _gradient(model, images, lambda: found[0], output)
    finally:
        handle.remove()
    weights = gradient.mean((2, 3), keepdim=True)
    maps = (weights * found[0].detach()).sum(1, keepdim=True).relu()
    return interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def input_gradient(model: nn.Module, images: Tensor, output: int = 0) -> Tensor:
    """How fast a logit changes with each pixel: the absolute gradient, summed over the channels.

    Args:
        model: As for :func:`grad_cam`.
        images: As the model takes them, ``(N, C, H, W)``.
        output: Which logit.

    Returns:
        ``(N, H, W)``, in logits a unit of the input.

    Raises:
        ValueError: If there is no such output.

    References:
        K. Simonyan, A. Vedaldi, A. Zisserman, Deep inside convolutional networks, ICLR workshop
        2014; there the largest channel in place of the sum.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
        >>> map_ = input_gradient(model, torch.zeros(1, 1, 2, 2))
        >>> bool((map_.flatten() == model[1].weight.abs().flatten()).all())
        True
    """
    images = images.detach().clone().requires_grad_()
    return _gradient(model, images, lambda: images, output).abs().sum(1)


def _gradient(model: nn.Module, images: Tensor, of: Callable[[], Tensor], output: int) -> Tensor:
    """The gradient of a logit, image by image, which do not know of each other in eval mode."""
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            logits = model(images)
            if not 0 <= output < logits.shape[1]:
                raise ValueError(
                    f"output is {output}; the model has {logits.shape[1]}, counted from 0"
                )
            return torch.autograd.grad(logits[:, output].sum(), of())[0]
    finally:
        model.train(training)


def share_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of what is positive in each map that lies inside its mask.

    A map that does not know of the mask has the mask's share of the pixels on average.

    Args:
        maps: ``(N, H, W)``.
        masks: Boolean, ``(N, H, W)``, or one for all, ``(H, W)``.

    Returns:
        ``(N,)``, in [0, 1]; 0 where nothing is positive.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> maps = torch.tensor([[[1.0, 3.0], [-2.0, 0.0]]])
        >>> share_inside(maps, torch.tensor([[False, True], [True, True]]))
        tensor([0.7500])
    """
    positive, masks = maps.clamp_min(0).flatten(1), _fitting(maps, masks)
    return (positive * masks).sum(1) / positive.sum(1).clamp_min(torch.finfo(maps.dtype).tiny)


def points_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The pointing game: whether the largest value of each map lies inside its mask.

    Args:
        maps: ``(N, H, W)``.
        masks: Boolean, ``(N, H, W)``, or one for all, ``(H, W)``.

    Returns:
        Boolean, ``(N,)``; false where nothing is positive.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        J. Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016.

    Example:
        >>> maps = torch.tensor([[[1.0, 3.0], [-2.0, 0.0]]])
        >>> points_inside(maps, torch.tensor([[True, False], [True, True]]))
        tensor([False])
    """
    largest, at = maps.flatten(1).max(1, keepdim=True)
    return (_fitting(maps, masks).gather(1, at) & (largest > 0)).squeeze(1)


def _fitting(maps: Tensor, masks: Tensor) -> Tensor:
    if maps.ndim != 3 or tuple(masks.shape) not in {tuple(maps.shape), tuple(maps.shape[1:])}:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)} and masks {tuple(masks.shape)}; give (N, H, W) "
            "and one mask a map, or one for all"
        )
    if masks.dtype != torch.bool:
        raise ValueError(f"masks are {masks.dtype}; give true inside and false outside")
    return masks.expand_as(maps).flatten(1)
