"""Features of any model, without changing the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, cast, get_args, overload

import torch
from torch import Tensor, nn

from varreg.checks import check_choice, in_backward, shows_values

Capture = Literal["input", "output"]
Several: TypeAlias = (
    type[nn.Module] | list[str] | list[type[nn.Module]] | tuple[str | type[nn.Module], ...]
)
PARALLEL = (
    "nn.DataParallel runs copies of the model in threads, which share its hooks: use "
    "DistributedDataParallel, or let the model return its features and leave out the tap"
)
# What a tap hands over: a tensor, or a dictionary of them.
Taken = TypeVar("Taken")


class FeatureTap(Generic[Taken]):
    """Hands over what goes into, or comes out of, a layer of a model, or several layers.

    By default that is what enters the linear layer whose output are the logits: the penultimate
    features on which the paper computes its penalty. Which layer that is shows in the first pass
    through the model: it is the one whose output the model returns (as its ``logits``, where it
    names them), as it is, as a view or after an activation, or the only one that runs. Where that
    leaves none or several, or another ran later and the model returns more than one tensor,
    :meth:`take` refuses to guess. A linear layer in a wrapper that calls it ``base_layer``, as
    those of LoRA do, counts as one with its wrapper.

    The tap is a forward hook, so register it before ``torch.compile``, and once the model has the
    layers that it will be trained with. It holds at most the features of the latest forward pass,
    and nothing once :meth:`take` has handed them over: no graph outlives its step. Of a layer
    that runs several times in a pass, it has the latest call, and by default :meth:`take` refuses
    what the model made of an earlier one. What activation checkpointing computes again during a
    backward pass can be taken within it and is let go of at its end. A copy of the model, or a
    file it is saved in, holds no features, and no tap; a copy of the tap is a tap on the copied
    model.

    Args:
        model: Any module. Tap the one that is called: with ``DistributedDataParallel`` the
            wrapper or what it wraps, in a LightningModule the network that its step calls.
        layer: Name of the layer as in ``model.named_modules()``; by default the ``nn.Linear``
            that made the logits. For several layers a type of module, or a list of names,
            patterns (as in :mod:`fnmatch`; ``*`` goes across dots too) and types.
        capture: ``"input"`` (first positional argument of the layer) or ``"output"``.

    Attributes:
        layers: Names of the layers; by default empty until the model has run.
        capture: As given.

    Raises:
        ValueError: If ``model`` is no module, if there is no such layer, no linear layer to
            default to, or ``capture`` is unknown; if the layer is inside a compiled module or an
            ``nn.DataParallel``, where a hook does not see it or sees copies of it.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> with FeatureTap(model) as tap:
        ...     logits = model(torch.zeros(2, 4))
        ...     tap.layer, tap.take().shape
        ('2', torch.Size([2, 3]))

        Several layers, and the sum of their penalties:

        >>> from varreg import feature_variance
        >>> with FeatureTap(model, ["1", "2"]) as tap:
        ...     logits = model(torch.rand(8, 4))
        ...     penalty = sum(feature_variance(features) for features in tap.take().values())
        >>> tap
        FeatureTap(Sequential, layers=('1', '2'), capture='input')
    """

    @overload
    def __init__(
        self: FeatureTap[Tensor],
        model: nn.Module,
        layer: str | None = None,
        *,
        capture: Capture = "input",
    ) -> None: ...

    @overload
    def __init__(
        self: FeatureTap[dict[str, Tensor]],
        model: nn.Module,
        layer: Several,
        *,
        capture: Capture = "input",
    ) -> None: ...

    def __init__(
        self,
        model: nn.Module,
        layer: str | Several | None = None,
        *,
        capture: Capture = "input",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
        check_choice("capture", capture, get_args(Capture))
        self.layers = () if layer is None else _named(model, layer)
        self.capture = capture
        self._model = model
        self._given = layer
        # Of each layer its features and the version of these, in the order in which they ran.
        self._features: dict[str, tuple[object, int | None]] = {}
        # While the layer is sought: of each linear layer what a pass would have for features, the
        # version of that, and what came out, at first and after an activation; the same of the
        # latest layer of any kind; and what the model returned.
        self._passed: dict[str, tuple[object, int | None, list[Tensor]]] = {}
        # What came out of them in earlier calls of the same pass; not without end, where parts of
        # the model are called by themselves.
        self._earlier: dict[str, deque[Tensor]] = {}
        self._latest: tuple[str, list[Tensor]] | None = None
        self._returned: object = None
        self._doubt = ""
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        if layer is None:
            self._seek()
        else:
            self._watch()

    @property
    def layer(self) -> str | None:
        """Name of the layer; ``None`` until it is found, and for several."""
        return self.layers[0] if self.layers and not self._several else None

    @property
    def _several(self) -> bool:
        return not (self._given is None or isinstance(self._given, str))

    def _seek(self) -> None:
        """Hook on every layer, to see which one makes the logits."""
        layers = dict(self._model.named_modules())
        linear = [name for name, module in layers.items() if _is_linear(module)]
        if not linear:
            *_, last = "", *(name for name, one in layers.items() if hasattr(one, "weight"))
            last = (
                last and f" (the last with a weight is {last!r}, a {type(layers[last]).__name__})"
            )
            raise ValueError(
                f"{type(self._model).__name__} has no nn.Linear layer; name the layer whose "
                f"input are the features{last}: {', '.join(name for name in layers if name)}"
            )
        hidden = {name: why for name in layers if (why := _hidden(self._model, name))}
        if hidden.keys() >= set(linear):
            raise ValueError(hidden[linear[-1]])
        for name in layers.keys() - hidden.keys() - ({""} - set(linear)):
            keep = self._keep_linear if name in linear else self._keep_other
            hook = _Hook(partial(keep, name))
            self._handles.append(layers[name].register_forward_hook(hook))
        # DistributedDataParallel may return copies of what the model within it returns.
        model = self._model
        while isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        self._handles.append(model.register_forward_hook(_Hook(self._keep_returned)))

    def _watch(self) -> None:
        """Hook on the chosen layers alone."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._several:
            hook = _Hook(self._begin)
            self._handles.append(self._model.register_forward_pre_hook(hook))
        for name in self.layers:
            module = self._model.get_submodule(name)
            if self.capture == "input":
                hook = _Hook(partial(self._keep_input, name))
                self._handles.append(module.register_forward_pre_hook(hook))
            else:
                hook = _Hook(partial(self._keep_output, name))
                self._handles.append(module.register_forward_hook(hook))

    def _begin(self, module: nn.Module, args: tuple[object, ...]) -> None:
        """A layer that a pass leaves out does not keep what it had in the one before."""
        self._features.clear()

    def _keep_input(self, name: str, module: nn.Module, args: tuple[object, ...]) -> None:
        self._keep(name, *_noted(args[0] if args else None))

    def _keep_output(
        self, name: str, module: nn.Module, args: tuple[object, ...], output: object
    ) -> None:
        self._keep(name, *_noted(output))

    def _keep_linear(
        self, name: str, module: nn.Module, args: tuple[object, ...], output: Tensor
    ) -> None:
        features = output if self.capture == "output" else args[0] if args else None
        outputs = [output]
        before = self._passed.pop(name, None)  # in the order in which they ran
        if before is not None:
            self._earlier.setdefault(name, deque(maxlen=100)).extend(before[2])
        self._passed[name] = (*_noted(features), outputs)
        self._latest = name, outputs
        self._end_with_backward()

    def _keep_other(
        self, name: str, module: nn.Module, args: tuple[object, ...], output: object
    ) -> None:
        """Follow the latest output through what has nothing to learn, or put another in place."""
        if not isinstance(output, Tensor):
            return
        latest = self._latest[1] if self._latest else []
        if not module._modules and not module._parameters and not module._buffers:
            (entered,) = args if len(args) == 1 else (None,)
            if latest and isinstance(entered, Tensor) and _same(latest[-1], entered):
                latest.append(output)
        elif not (latest and _same(latest[-1], output)):  # not just handed on from within
            self._latest = name, [output]
            self._end_with_backward()

    def _keep_returned(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        if torch.compiler.is_compiling():  # no memory to look at yet
            self._returned = output
        else:
            self._find_layer(output)

    def _find_layer(self, output: object) -> None:
        """Keep the features of the linear layer whose output became that of the model."""
        passed, latest, earlier = self._passed, self._latest, self._earlier
        self._passed, self._latest, self._earlier, self._returned = {}, None, {}, None
        returned = list(_tensors(logits_of(output)))
        again = [name for name, made in earlier.items() if _any_same(list(made), returned)]
        outputs = {name: made for name, (_, _, made) in passed.items()}
        found = _makers(outputs, returned, latest[0] if latest and not earlier else None)
        last = next(reversed(passed), "")
        if not again and len(found) == 1 and (len(returned) == 1 or found == [last]):
            self.layers, self._doubt = (found[0],), ""
            self._keep(found[0], *passed[found[0]][:2])
            return
        self.layers = ()
        self._features.clear()
        names = [repr(name) for name in found or passed]
        listed = f"({', '.join(names if len(names) < 9 else ['...', *names[-4:]])})"
        if again:
            self._doubt = (
                f"the model returns what an earlier call of {again[0]!r} makes, and a tap takes "
                "what enters the latest call of a layer: let the model return its features, or "
                "give each call a layer of its own"
            )
        elif len(found) == 1:
            self._doubt = self._unknown(
                f"the model returns what {found[0]!r} makes, but {last!r} ran after it"
            )
        elif found:
            self._doubt = self._unknown(
                f"the model returns what {len(found)} linear layers make {listed}"
            )
        elif not passed:
            self._doubt = self._unknown("no linear layer ran, or the tap came after torch.compile")
        elif latest and _any_same(latest[1], returned):
            name, kind = latest[0], type(self._model.get_submodule(latest[0])).__name__
            self._doubt = self._unknown(
                f"the model returns what no linear layer makes {listed}; {name!r}, a {kind}, makes "
                f"it, and FeatureTap(model, {name!r}) takes what enters there"
            )
        else:
            call = ", in the latest of its calls" if last in earlier else ""
            self._doubt = self._unknown(
                f"the model returns what no linear layer makes {listed}; FeatureTap(model, "
                f"{last!r}) takes what enters the last of them to run{call}"
            )

    def _unknown(self, doubt: str, part: str = "") -> str:
        names = [name for name, _ in self._model.named_modules() if name]
        return (
            f"{doubt}: which layer the features enter is in doubt; {part}name it: "
            f"FeatureTap(model, layer), where layer is one of {', '.join(names)}"
        )

    def _keep(self, name: str, features: object, version: int | None) -> None:
        if features is None:
            raise ValueError(
                f"layer {name!r} was called with keyword arguments only; the tap takes its "
                "first positional argument, or use capture='output'"
            )
        self._features.pop(name, None)
        self._features[name] = features, version
        self._end_with_backward()

    def _end_with_backward(self) -> None:
        """What is computed once more during a backward pass is not kept beyond it."""
        if not torch.compiler.is_compiling() and in_backward():
            torch.autograd.Variable._execution_engine.queue_callback(self._let_go)

    def _let_go(self) -> None:
        self._latest, self._returned = None, None
        self._passed.clear()
        self._earlier.clear()
        self._features.clear()

    def take(self) -> Taken:
        """Return the features of the latest forward pass and let go of them.

        Returns:
            The features; for several layers those of each by its name, in the order in which they
            ran. A layer that a pattern or type chose and that did not run is left out.

        Raises:
            RuntimeError: If a layer has not run since the last call.
            ValueError: If it is in doubt which layer made the logits, if what a layer takes
                or gives is no tensor, or if it was changed in place since.
        """
        if self._returned is not None:
            self._find_layer(self._returned)
        kept, ran = dict(self._features), bool(self._passed)
        self._let_go()
        if not kept and (ran or self._doubt):
            raise ValueError(
                self._doubt
                or self._unknown(
                    f"{type(self._model).__name__} was not called, but parts of it",
                    "tap the part that is called, or ",
                )
            )
        given = self._given if isinstance(self._given, (list, tuple)) else ()
        missing = [name for name in self.layers if name not in kept and (not kept or name in given)]
        if missing or not kept:
            raise RuntimeError(
                f"{'layer ' + ', '.join(map(repr, missing)) if missing else 'the model'} has not "
                "run since the last take(); call the model first, and register the tap before "
                "torch.compile and after any change of the model's layers"
            )
        # The layer is found; while a pass is compiled its hooks stay as they are.
        if self._given is None and len(self._handles) > 1 and not torch.compiler.is_compiling():
            self._watch()
        taken = {name: self._unchanged(name, *noted) for name, noted in kept.items()}
        return cast(Taken, taken if self._several else taken[self.layers[0]])

    def _unchanged(self, name: str, features: object, version: int | None) -> Tensor:
        if not isinstance(features, Tensor):
            raise ValueError(
                f"features are a {type(features).__name__}, the {self.capture} of layer "
                f"{name!r}; tap a layer that has a tensor there"
            )
        if version is not None and features._version != version:
            raise ValueError(
                f"the {self.capture} of layer {name!r} was changed in place after the tap "
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

    def __repr__(self) -> str:
        layers = f"layers={self.layers}" if self._several else f"layer={self.layer!r}"
        return f"FeatureTap({type(self._model).__name__}, {layers}, capture={self.capture!r})"

    def __reduce__(self) -> tuple[object, ...]:
        layer = self.layer if self._given is None else self._given
        return _copied, (self._model, layer, self.capture, bool(self._handles))


class _Hook:
    """What stands in a module for a tap. The module's copies get one that does nothing."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call

    def __call__(self, module: nn.Module, *arguments: object) -> None:
        if getattr(module, "_is_replica", False):
            raise ValueError(f"{type(module).__name__} is tapped; {PARALLEL}")
        self.call(module, *arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return _Hook, (_do_nothing,)


def _copied(
    model: nn.Module, layer: str | Several | None, capture: Capture, watching: bool
) -> FeatureTap[Any]:
    """The copy of a tap, on the copy of its model."""
    if "_modules" not in vars(model):
        raise ValueError(
            f"{type(model).__name__} holds a tap on itself, which cannot be copied with it; tap "
            "the part of it that makes the logits, or remove the tap first"
        )
    tap: FeatureTap[Any] = FeatureTap(model, cast(Any, layer), capture=capture)
    if not watching:
        tap.remove()
    return tap


def _named(model: nn.Module, layer: str | Several) -> tuple[str, ...]:
    """Names of the layers that are asked for. A pattern or type chooses each layer once."""
    layers = dict(model.named_modules(remove_duplicate=False))
    several = isinstance(layer, (list, tuple))
    chosen: dict[str, nn.Module] = {}
    for one in layer if isinstance(layer, (list, tuple)) else [layer]:
        what = repr(one)
        if isinstance(one, type):
            what = f"of type {one.__name__}"
            names = [name for name, module in layers.items() if name and isinstance(module, one)]
        elif not isinstance(one, str):
            names = []
        elif one in layers:
            names = [one]
        else:
            names = [name for name in layers if several and name and fnmatchcase(name, one)]
        if not names:
            hint = f" (patterns go into a list: [{one!r}])" if not several and "*" in what else ""
            raise ValueError(
                f"{type(model).__name__} has no layer {what}{hint}; it has "
                f"{', '.join(name for name in layers if name)}"
            )
        for name in names:
            if name == one or layers[name] not in chosen.values():
                chosen[name] = layers[name]
    if not chosen:
        raise ValueError(f"layer is {layer!r}; give names, patterns or types of layers")
    for name in chosen:
        if why := _hidden(model, name):
            raise ValueError(why)
    return tuple(chosen)


def _hidden(model: nn.Module, name: str) -> str:
    """Why no hook can stand for a layer, if so: because of what it is, or of what is around it."""
    chain = [model]
    for part in filter(None, name.split(".")):
        chain.append(getattr(chain[-1], part))
    if any(isinstance(module, torch.jit.ScriptModule) for module in chain):
        return (
            f"layer {name!r} is TorchScript, which takes no hooks from outside; let the "
            "model return its features"
        )
    for around in chain[:-1]:
        if isinstance(around, nn.DataParallel):
            return f"layer {name!r} is inside an nn.DataParallel; {PARALLEL}"
        if hasattr(around, "_orig_mod"):
            return (
                f"layer {name!r} is inside what torch.compile returned, where a hook that comes "
                "later may never run; tap the model first and compile it then"
            )
    return ""


def _is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer, or an adapter around one as those of PEFT are."""
    return isinstance(module, nn.Linear) or isinstance(
        getattr(module, "base_layer", None), nn.Linear
    )


def _makers(
    outputs: dict[str, list[Tensor]], returned: list[Tensor], latest: str | None
) -> list[str]:
    """The linear layers of whose output something is returned.

    Args:
        outputs: What came out of each, at first and after what followed it.
        returned: What the model returned.
        latest: The latest layer to run, linear or not; ``None`` where one ran several times.
    """
    found = [name for name, (first, *_) in outputs.items() if _any_same([first], returned)]
    if not found:  # after an activation, which leaves as many numbers
        found = [
            name
            for name, (first, *after) in outputs.items()
            if _any_same([one for one in after if one.numel() == first.numel()], returned)
        ]
    # Scaled or cast, if it ran once and nothing but what is around it ran later.
    if not found and len(outputs) == 1 and latest is not None:
        found = [
            name
            for name, (first, *_) in outputs.items()
            if f"{name}.".startswith(f"{latest}.")
            and any(first.numel() == tensor.numel() for tensor in returned)
        ]
    # Of a layer within a layer that hands its output on, the outer one.
    return [name for name in found if not any(name.startswith(f"{outer}.") for outer in found)]


def _noted(features: object) -> tuple[object, int | None]:
    """Features and their version, which counts changes in place; a copy where nothing counts."""
    if not isinstance(features, Tensor):
        return features, None
    if torch.compiler.is_compiling() or features.is_inference():
        return features.clone(), None
    return features, features._version


def _do_nothing(*arguments: object) -> None:
    pass


def logits_of(output: object) -> object:
    """What the model calls its logits, where it names what it returns; otherwise all of it."""
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return output if named is None else named


def _tensors(output: object) -> Iterator[Tensor]:
    """Every tensor in what a model returns: in tuples, lists, dictionaries, dataclasses too."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
    elif is_dataclass(output):
        yield from _tensors(vars(output))


def _any_same(some: list[Tensor], others: list[Tensor]) -> bool:
    return any(_same(one, other) for one in some for other in others)


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether one tensor is the other, or a view of it."""
    if first is second or not shows_values():
        return first is second
    return bool(first.untyped_storage()._cdata == second.untyped_storage()._cdata)
