"""Features of any model, without changing the model."""

from __future__ import annotations

from typing import Literal, Self

from torch import Tensor, nn

__all__ = ["FeatureTap"]


class FeatureTap:
    """Hands over what goes into, or comes out of, one layer of a model.

    By default that is what enters the last linear layer: the penultimate features on which
    the paper computes its penalty. The tap is a forward hook, so register it before
    ``torch.compile``. It holds at most the features of the latest forward pass, and nothing
    once :meth:`take` has handed them over: no graph outlives its step.

    Args:
        model: Any module.
        layer: Name of the layer as in ``model.named_modules()``; by default the ``nn.Linear``
            that was registered last.
        capture: ``"input"`` (first positional argument of the layer) or ``"output"``.

    Raises:
        ValueError: If there is no such layer, no linear layer to default to, or ``capture``
            is unknown.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> with FeatureTap(model) as tap:
        ...     logits = model(torch.zeros(2, 4))
        ...     tap.take().shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | None = None,
        *,
        capture: Literal["input", "output"] = "input",
    ) -> None:
        layers = dict(model.named_modules())
        if layer is None:
            linear = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
            if not linear:
                raise ValueError(
                    f"{type(model).__name__} has no nn.Linear layer; name the layer whose "
                    f"input are the features: {', '.join(name for name in layers if name)}"
                )
            layer = linear[-1]
        elif layer not in layers:
            raise ValueError(
                f"{type(model).__name__} has no layer {layer!r}; it has "
                f"{', '.join(name for name in layers if name)}"
            )
        if capture not in ("input", "output"):
            raise ValueError(f"capture is {capture!r}; allowed are 'input' and 'output'")
        self.layer = layer
        self.capture = capture
        self._features: Tensor | None = None
        module = layers[layer]
        if capture == "input":
            self._handle = module.register_forward_pre_hook(self._keep_input)
        else:
            self._handle = module.register_forward_hook(self._keep_output)

    def _keep_input(self, module: nn.Module, args: tuple) -> None:
        if not args:
            raise ValueError(
                f"layer {self.layer!r} was called with keyword arguments only; the tap takes its "
                "first positional argument, or use capture='output'"
            )
        self._features = args[0]

    def _keep_output(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._features = output

    def take(self) -> Tensor:
        """Return the features of the latest forward pass and let go of them.

        Raises:
            RuntimeError: If the layer has not run since the last call.
        """
        if self._features is None:
            raise RuntimeError(
                f"layer {self.layer!r} has not run since the last take(); call the model first, "
                "and register the tap before torch.compile"
            )
        features, self._features = self._features, None
        return features

    def remove(self) -> None:
        """Unhook from the model and let go of any features."""
        self._handle.remove()
        self._features = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
