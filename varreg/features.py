"""Features of any model, without changing the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor, nn

from varreg.checks import in_backward, shows_values

__all__ = ["FeatureTap"]

DATA_PARALLEL = (
    "nn.DataParallel runs copies of the model at the same time, and a tap would hand over the "
    "features of one of them: use torch.nn.parallel.DistributedDataParallel with a tap on the "
    "model inside, or a model that returns its features"
)


class FeatureTap:
    """Hands over what goes into, or comes out of, one layer of a model.

    By default that is what enters the linear layer whose output are the logits: the penultimate
    features on which the paper computes its penalty. Which layer that is shows in the first pass
    through the model: it is the one whose output the model returns, as it is or as a view, or
    the only one that runs. Where that leaves none or several, :meth:`take` refuses to guess.

    The tap is a forward hook, so register it before ``torch.compile``, and on the model inside
    ``DistributedDataParallel``, whose output can be a copy. It holds at most the
    features of the latest forward pass, and nothing once :meth:`take` has handed them over: no
    graph outlives its step. What activation checkpointing computes again during a backward pass
    can be taken within it and is let go of at its end. A copy of the model, or a file it is
    saved in, holds no features, and no tap; a copy of the tap is a tap on the copied model.

    Args:
        model: Any module.
        layer: Name of the layer as in ``model.named_modules()``; by default the ``nn.Linear``
            that made the logits.
        capture: ``"input"`` (first positional argument of the layer) or ``"output"``.

    Attributes:
        layer: Name of the layer; by default ``None`` until the model has run.
        capture: As given.

    Raises:
        ValueError: If ``model`` is no module, or is ``nn.DataParallel``, if there is no such layer,
            no linear layer to default to, or ``capture`` is unknown.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> with FeatureTap(model) as tap:
        ...     logits = model(torch.zeros(2, 4))
        ...     tap.layer, tap.take().shape
        ('2', torch.Size([2, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | None = None,
        *,
        capture: Literal["input", "output"] = "input",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
        if isinstance(model, nn.DataParallel):
            raise ValueError(DATA_PARALLEL)
        layers = dict(model.named_modules())
        linear = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
        if layer is None and not linear:
            raise ValueError(
                f"{type(model).__name__} has no nn.Linear layer; name the layer whose "
                f"input are the features: {', '.join(name for name in layers if name)}"
            )
        if layer is not None and not (isinstance(layer, str) and layer in layers):
            raise ValueError(
                f"{type(model).__name__} has no layer {layer!r}; it has "
                f"{', '.join(name for name in layers if name)}"
            )
        if capture not in ("input", "output"):
            raise ValueError(f"capture is {capture!r}; allowed are 'input' and 'output'")
        self.layer = layer
        self.capture = capture
        self._model = model
        self._features: object = None
        self._version: int | None = None
        # While the layer is sought: what a pass would have for features, the version of that, and
        # what came out, of each linear layer.
        self._passed: dict[str, tuple[object, int | None, Tensor]] = {}
        self._returned: object = None
        self._doubt = ""
        self._handles = []
        if layer is None:
            for name in linear:
                hook = _Hook(partial(self._keep_both, name))
                self._handles.append(layers[name].register_forward_hook(hook))
            self._handles.append(model.register_forward_hook(_Hook(self._keep_returned)))
        else:
            self._watch()

    def _watch(self) -> None:
        """Hook on the layer alone."""
        for handle in self._handles:
            handle.remove()
        module = self._model.get_submodule(self.layer)
        if self.capture == "input":
            self._handles = [module.register_forward_pre_hook(_Hook(self._keep_input))]
        else:
            self._handles = [module.register_forward_hook(_Hook(self._keep_output))]

    def _keep_input(self, module: nn.Module, args: tuple) -> None:
        self._keep(*_noted(args[0] if args else None))

    def _keep_output(self, module: nn.Module, args: tuple, output: object) -> None:
        self._keep(*_noted(output))

    def _keep_both(self, name: str, module: nn.Module, args: tuple, output: Tensor) -> None:
        features = output if self.capture == "output" else args[0] if args else None
        self._passed[name] = (*_noted(features), output)
        self._end_with_backward(self._passed.clear)

    def _keep_returned(self, module: nn.Module, args: tuple, output: object) -> None:
        if torch.compiler.is_compiling():  # no memory to look at yet
            self._returned = output
        else:
            self._find_layer(output)

    def _find_layer(self, output: object) -> None:
        """Keep the features of the linear layer whose output became that of the model."""
        passed, self._passed, self._returned = self._passed, {}, None
        returned = list(_tensors(output))
        found = [
            name
            for name, (_, _, logits) in passed.items()
            if any(_same_memory(logits, tensor) for tensor in returned)
        ]
        if not found and len(passed) == 1:  # the logits, scaled or cast
            found = [
                name
                for name, (_, _, logits) in passed.items()
                if any(logits.numel() == tensor.numel() for tensor in returned)
            ]
        if len(found) == 1:
            self.layer, self._doubt = found[0], ""
            self._keep(*passed[self.layer][:2])
            return
        self.layer, self._features = None, None
        if found:
            self._doubt = f"the model returns what {len(found)} linear layers make"
        elif passed:
            self._doubt = "the model returns what no linear layer makes"
        else:
            self._doubt = "no linear layer ran, or the tap came after torch.compile"
        self._doubt += f" ({', '.join(repr(name) for name in found or passed)})" if passed else ""

    def _keep(self, features: object, version: int | None) -> None:
        if features is None:
            raise ValueError(
                f"layer {self.layer!r} was called with keyword arguments only; the tap takes its "
                "first positional argument, or use capture='output'"
            )
        self._features, self._version = features, version
        self._end_with_backward(self._let_go)

    def _end_with_backward(self, let_go: Callable[[], None]) -> None:
        """What is computed once more during a backward pass is not kept beyond it."""
        if not torch.compiler.is_compiling() and in_backward():
            torch.autograd.Variable._execution_engine.queue_callback(let_go)

    def _let_go(self) -> None:
        self._features, self._version, self._returned = None, None, None
        self._passed.clear()

    def take(self) -> Tensor:
        """Return the features of the latest forward pass and let go of them.

        Raises:
            RuntimeError: If the layer has not run since the last call.
            ValueError: If it is in doubt which layer made the logits, if what the layer takes
                or gives is no tensor, or if it was changed in place since.
        """
        if self._returned is not None:
            self._find_layer(self._returned)
        features, version, ran = self._features, self._version, list(self._passed)
        self._let_go()
        if features is None and (ran or self._doubt):
            names = [name for name, _ in self._model.named_modules() if name]
            doubt = self._doubt or f"{type(self._model).__name__} was not called, but parts of it"
            raise ValueError(
                f"{doubt}: which layer the features enter is in doubt; name it: "
                f"FeatureTap(model, layer), where layer is one of {', '.join(names)}"
            )
        if features is None:
            raise RuntimeError(
                f"{f'layer {self.layer!r}' if self.layer is not None else 'the model'} has not run "
                "since the last take(); call the model first, and register the tap before "
                "torch.compile"
            )
        if len(self._handles) > 1:  # the layer is found
            self._watch()
        if not isinstance(features, Tensor):
            raise ValueError(
                f"features are a {type(features).__name__}, the {self.capture} of layer "
                f"{self.layer!r}; tap a layer that has a tensor there"
            )
        if version is not None and features._version != version:
            raise ValueError(
                f"the {self.capture} of layer {self.layer!r} was changed in place after the tap "
                "had taken it; build what follows with inplace=False, or tap behind it"
            )
        return features

    def remove(self) -> None:
        """Unhook from the model and let go of any features."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def __reduce__(self) -> tuple:
        return _copied, (self._model, self.layer, self.capture, bool(self._handles))


class _Hook:
    """What stands in a module for a tap. The module's copies get one that does nothing."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call

    def __call__(self, module: nn.Module, *arguments: object) -> None:
        if getattr(module, "_is_replica", False):  # which nn.DataParallel makes of the model
            raise ValueError(DATA_PARALLEL)
        self.call(module, *arguments)

    def __reduce__(self) -> tuple:
        return _Hook, (_do_nothing,)


def _copied(
    model: nn.Module, layer: str | None, capture: Literal["input", "output"], watching: bool
) -> FeatureTap:
    """The copy of a tap, on the copy of its model."""
    if "_modules" not in vars(model):
        raise ValueError(
            f"{type(model).__name__} holds a tap on itself, which cannot be copied with it; tap "
            "the part of it that makes the logits, or remove the tap first"
        )
    tap = FeatureTap(model, layer, capture=capture)
    if not watching:
        tap.remove()
    return tap


def _noted(features: object) -> tuple[object, int | None]:
    """Features and their version, which counts changes in place; a copy where nothing counts."""
    if not isinstance(features, Tensor):
        return features, None
    if torch.compiler.is_compiling() or features.is_inference():
        return features.clone(), None
    return features, features._version


def _do_nothing(*arguments: object) -> None:
    pass


def _tensors(output: object) -> Iterator[Tensor]:
    """Every tensor in what a model returns: in tuples, lists and dictionaries too."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)


def _same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether one tensor is the other, or a view of it."""
    if first is second or not shows_values():
        return first is second
    return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
