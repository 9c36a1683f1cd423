"""The networks of the studies."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor, nn

from varreg.checks import check_choice, check_range

Init = Literal["default", "glorot"]


class PaperCNN(nn.Module):
    """The network of both released notebooks: four 1x1 convolutions of 10 channels.

    Every kernel is 1x1, so that nothing but the two poolings looks beyond a pixel. At
    224 x 224 x 3 with one output it has 31,731 parameters.

    Max pooling stands before the second ReLU of each pair, where Keras has it after: the
    two commute, values and gradients are the same, and ReLU has a quarter of the work.

    Args:
        in_channels: Channels of the image.
        size: Height and width in pixels, 4 or more.
        n_outputs: Logits: 1 for binary tasks, else the number of classes.
        pairs: Pairs of convolutions, each with a pooling behind it; 2 in the released notebooks.

    Example:
        >>> count_parameters(PaperCNN(in_channels=3, size=224, n_outputs=1))
        31731
    """

    def __init__(self, in_channels: int, size: int, n_outputs: int, pairs: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for pair in range(pairs):
            layers += [
                nn.Conv2d(10 if pair else in_channels, 10, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(10, 10, 1),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(10 * (size // 2**pairs) ** 2, n_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, size, size)`` to logits ``(N, n_outputs)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


class SmallCNN(nn.Module):
    """A small network that does see edges: two 3x3 convolutions of 16 and 32 channels.

    Args:
        in_channels: Channels of the image.
        size: Height and width (and depth) in pixels, 4 or more.
        n_outputs: Logits: 1 for binary tasks, else the number of classes.
        width: Times as many channels; 0.5 for half of them.
        norm: Batch normalization behind each convolution.
        spatial_dims: 2 for images, 3 for volumes.

    Example:
        >>> import torch
        >>> SmallCNN(in_channels=1, size=28, n_outputs=7)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        in_channels: int,
        size: int,
        n_outputs: int,
        width: float = 1,
        norm: bool = False,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        conv, pool, batch_norm = {
            2: (nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d),
            3: (nn.Conv3d, nn.MaxPool3d, nn.BatchNorm3d),
        }[spatial_dims]
        layers: list[nn.Module] = []
        first, second = int(16 * width), int(32 * width)
        for before, after in ((in_channels, first), (first, second)):
            layers.append(conv(before, after, 3, padding=1))
            if norm:
                layers.append(batch_norm(after))
            layers += [pool(2), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(second * (size // 4) ** spatial_dims, n_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, size, size)`` to logits ``(N, n_outputs)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


class PatchTransformer(nn.Module):
    """A small vision transformer on patches of a quarter of an edge: MONAI's, and its head apart.

    Three layers of four heads and 64 dimensions; the features are those of the class token.

    Args:
        in_channels: Channels of the image.
        size: Height and width (and depth) in pixels, a multiple of 4.
        n_outputs: Logits: 1 for binary tasks, else the number of classes.
        spatial_dims: 2 for images, 3 for volumes.

    Example:
        >>> import torch
        >>> model = PatchTransformer(in_channels=1, size=28, n_outputs=7)
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 7])
    """

    def __init__(self, in_channels: int, size: int, n_outputs: int, spatial_dims: int = 2) -> None:
        super().__init__()
        if size % 4:
            raise ValueError(
                f"size={size}; a transformer on 4 patches an edge takes multiples of 4"
            )
        from monai.networks.nets.vit import ViT

        self.features = ViT(
            in_channels,
            (size,) * spatial_dims,
            (size // 4,) * spatial_dims,
            hidden_size=64,
            mlp_dim=128,
            num_layers=3,
            num_heads=4,
            classification=True,
            spatial_dims=spatial_dims,
        )
        self.features.set_submodule("classification_head", nn.Identity())
        self.head = nn.Linear(64, n_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, size, size)`` to logits ``(N, n_outputs)``."""
        logits: Tensor = self.head(self.features(images)[0])
        return logits


def with_dropout(model: nn.Module, share: float) -> nn.Module:
    """Put dropout before the head of a network, on its features.

    Args:
        model: Its last layer is the linear one that makes the logits, as in every network of
            :func:`build`; it is changed.
        share: Of the features that are dropped at each training step, in (0, 1).

    Raises:
        ValueError: If ``share`` is outside its range or the last layer is not linear.

    Example:
        >>> with_dropout(SmallCNN(1, 8, 1), 0.5).head[0]
        Dropout(p=0.5, inplace=False)
    """
    check_range("share of dropout", share, 1, ends="()")
    name, head = [("", model), *model.named_children()][-1]
    if not isinstance(head, nn.Linear) or not name:
        raise ValueError(
            f"the last layer of the {type(model).__name__} is no linear one to put dropout before; "
            "build the model so that it ends with the layer that makes the logits"
        )
    setattr(model, name, nn.Sequential(nn.Dropout(share), head))
    return model


#: The names that :func:`build` knows.
MODELS = (
    "paper_cnn",
    "paper_cnn_deep",
    "small_cnn",
    "small_cnn_norm",
    "small_cnn_wide",
    "small_cnn_half",
    "small_resnet",
    "small_vit",
    "resnet18",
)


def build(
    name: str,
    *,
    in_channels: int,
    size: int,
    n_outputs: int,
    spatial_dims: int = 2,
    init: Init = "default",
) -> nn.Module:
    """Build a network by its name.

    Args:
        name: One of :data:`MODELS`. ``"paper_cnn_deep"`` has a third pair of convolutions: the
            paper's text calls the skin network deeper, the released one is not.
            ``"small_cnn_norm"`` has batch normalization, ``"small_cnn_wide"`` three times as
            many channels and ``"small_cnn_half"`` half as many. ``"resnet18"`` is MONAI's, and
            ``"small_resnet"`` a residual network of a block a stage of it, ``"small_vit"`` a
            :class:`PatchTransformer`. All but the paper's take volumes, too.
        in_channels: Channels of the image.
        size: Height and width (and depth) in pixels.
        n_outputs: Logits: 1 for binary tasks, else the number of classes.
        spatial_dims: 2 for images, 3 for volumes.
        init: ``"default"`` for PyTorch's initial weights, ``"glorot"`` for those of Keras:
            Glorot-uniform kernels and zero biases in every convolution and linear layer.

    Raises:
        ValueError: If the name, the size or the number of dimensions does not fit.

    Example:
        >>> count_parameters(build("small_cnn", in_channels=1, size=28, n_outputs=1))
        6369
    """
    check_choice("model", name, MODELS)
    check_choice("init", init, get_args(Init))
    least = 8 if name == "paper_cnn_deep" else 4
    if size < least or in_channels < 1 or n_outputs < 1:
        raise ValueError(
            f"size={size}, in_channels={in_channels}, n_outputs={n_outputs}; size must be {least} "
            "or more, the others 1 or more"
        )
    if name in ("resnet18", "small_resnet"):
        model = _resnet(name, in_channels, n_outputs, spatial_dims)
    elif name == "small_vit":
        model = PatchTransformer(in_channels, size, n_outputs, spatial_dims)
    elif name.startswith("small_cnn"):
        width = {"small_cnn_wide": 3, "small_cnn_half": 0.5}.get(name, 1)
        model = SmallCNN(
            in_channels, size, n_outputs, width, name == "small_cnn_norm", spatial_dims
        )
    else:
        if spatial_dims != 2:
            raise ValueError(f"{name} takes 2D images, not {spatial_dims}D; use 'small_cnn'")
        model = PaperCNN(in_channels, size, n_outputs, pairs=2 + (name == "paper_cnn_deep"))
    if init == "glorot":
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model


def _resnet(name: str, in_channels: int, n_outputs: int, spatial_dims: int) -> nn.Module:
    from monai.networks.nets.resnet import ResNet, resnet18

    given: dict[str, Any] = {
        "spatial_dims": spatial_dims,
        "n_input_channels": in_channels,
        "num_classes": n_outputs,
    }
    if name == "resnet18":
        return resnet18(**given)
    # As for images of a few dozen pixels: a first layer that halves nothing.
    small: dict[str, Any] = {"conv1_t_size": 3, "conv1_t_stride": 1, "no_max_pool": True}
    return ResNet("basic", [1, 1, 1, 1], [16, 32, 64, 64], **small, **given)


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
