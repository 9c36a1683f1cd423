from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from varreg import FeatureTap, VariancePenalizedLoss, feature_variance
from varreg.lab.models import build


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def test_takes_what_enters_the_last_linear_layer():
    model, batch = network(), torch.randn(3, 6)
    tap = FeatureTap(model)
    logits = model(batch)
    features = tap.take()
    assert (tap.layer, tap.capture) == ("4", "input")
    assert torch.equal(features, model[:4](batch))
    assert torch.equal(model[4](features), logits)


@pytest.mark.parametrize(("capture", "upto"), [("input", 2), ("output", 3)])
def test_named_layer(capture, upto):
    model, batch = network(), torch.randn(3, 6)
    tap = FeatureTap(model, "2", capture=capture)
    model(batch)
    assert torch.equal(tap.take(), model[:upto](batch))


def test_nested_layer():
    model, batch = nn.Sequential(network(), nn.Linear(2, 1)), torch.randn(3, 6)
    tap = FeatureTap(model, "0.1", capture="output")
    model(batch)
    assert torch.equal(tap.take(), model[0][:2](batch))


def test_hands_over_the_latest_pass():
    model = network()
    tap = FeatureTap(model)
    first, second = torch.randn(3, 6), torch.randn(8, 6)
    model(first)
    model(second)
    assert torch.equal(tap.take(), model[:4](second))


def test_keeps_nothing_once_taken():
    model = network()
    tap = FeatureTap(model)
    logits = model(torch.randn(3, 6))
    features = tap.take()
    tensor = weakref.ref(features)
    (feature_variance(features) + logits.sum()).backward()
    del features, logits
    gc.collect()
    assert tensor() is None
    with pytest.raises(RuntimeError, match=r"layer '4' has not run since the last take\(\)"):
        tap.take()


def test_keeps_no_more_than_one_pass():
    model = network()
    tap = FeatureTap(model)
    model(torch.randn(3, 6))
    first = weakref.ref(tap._features["4"][0])
    model(torch.randn(3, 6))
    gc.collect()
    assert first() is None
    tap.remove()
    assert not tap._features


def test_gradient_reaches_the_layers_before_the_tap():
    model = network()
    with FeatureTap(model) as tap:
        model(torch.randn(3, 6))
        feature_variance(tap.take()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model[:4].parameters())
    assert all(parameter.grad is None for parameter in model[4].parameters())


def test_removal_leaves_the_model_as_it_was():
    model = network()
    tap = FeatureTap(model)
    model(torch.randn(3, 6))
    tap.remove()
    with pytest.raises(RuntimeError, match="has not run"):
        tap.take()
    model(torch.randn(3, 6))
    with pytest.raises(RuntimeError, match="has not run"):
        tap.take()
    assert not model[4]._forward_pre_hooks


def test_context_removes_the_tap_after_an_error_too():
    model = network()
    with pytest.raises(RuntimeError, match="has not run"), FeatureTap(model, "3") as tap:
        tap.take()
    assert not model[3]._forward_pre_hooks


def test_two_taps_on_one_model():
    model, batch = network(), torch.randn(3, 6)
    with FeatureTap(model, "1", capture="output") as early, FeatureTap(model) as late:
        model(batch)
        assert early.take().shape == (3, 5)
        assert late.take().shape == (3, 4)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context):
    model = network()
    tap = FeatureTap(model)
    with context():
        model(torch.randn(3, 6))
        features = tap.take()
    assert features.grad_fn is None
    assert features.shape == (3, 4)


@pytest.mark.parametrize("layer", [None, "4"])
def test_under_the_transforms_of_torch_func(layer):
    model, images, target = network(), torch.randn(2, 8, 6), torch.randint(2, (8,))
    tap, criterion = FeatureTap(model, layer), VariancePenalizedLoss("multiclass", 5.0, 1.0)

    def loss(parameters: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(model, parameters, (images,))
        return criterion(logits, target, tap.take()).total

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, images)
    for at in range(2):
        total = loss(dict(model.named_parameters()), images[at])
        expected = torch.autograd.grad(total, list(model.parameters()))
        for gradient, wanted in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(gradient[at], wanted)


# ---------------------------------------------------------------- the layer by default


class Gated(nn.Module):
    """Squeeze and excitation made after the head, which is what a subclass does."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), head
        self.gate = nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.Sigmoid())

    def features(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        return (maps * self.gate(maps.mean((2, 3)))[:, :, None, None]).mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


class Attentive(nn.Module):
    """The output layer of attention is made last and never called: its weights are used."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def features(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.attention(tokens, tokens, tokens)[0].mean(1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(tokens))


class Ending(nn.Module):
    """A head whose logits are handed on in one way or another."""

    def __init__(self, end, heads=1) -> None:
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(heads))
        self.end = end

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        return self.body(batch).relu()

    def forward(self, batch: torch.Tensor) -> object:
        features = self.features(batch)
        return self.end(*[head(features) for head in self.heads])


class Adapter(nn.Linear):
    """Low-rank adapter within a linear layer, as a subclass has it."""

    def __init__(self) -> None:
        super().__init__(5, 3)
        self.down, self.up = nn.Linear(5, 2), nn.Linear(2, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features) + self.up(self.down(features))


FOUND = {
    "head registered first": (Gated(nn.Linear(8, 2)), "head", (4, 1, 8, 8)),
    "layer that never runs": (Attentive(), "head", (4, 3, 8)),
    "squeezed": (Ending(lambda logits: logits.squeeze(1)), "heads.0", (4, 6)),
    "in a tuple": (Ending(lambda logits: (logits, {"hidden": None})), "heads.0", (4, 6)),
    "in a dictionary": (Ending(lambda logits: {"logits": logits[:, 0]}), "heads.0", (4, 6)),
    "one of two heads": (Ending(lambda first, second: first, heads=2), "heads.0", (4, 6)),
    "a head that adapts itself": (Gated(nn.Sequential(nn.Linear(8, 5), Adapter())), "head.1", None),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch looks, and hides its warning
@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_finds_the_layer_that_makes_the_logits(name, compiled, context):
    model, layer, shape = FOUND[name]
    batch = torch.rand(shape or (4, 1, 8, 8))
    with FeatureTap(model) as tap, context():
        run = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        for _ in range(3):
            run(batch)
            features = tap.take()
            assert tap.layer == layer
            expected = model.features(batch)
            if shape is None:
                expected = model.head[0](expected)
            torch.testing.assert_close(features, expected)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    torch._dynamo.reset()


def test_the_logits_of_a_single_layer_may_be_scaled_or_cast():
    model = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten(), nn.Linear(3, 2))
    scaled = nn.Sequential(model, nn.Softmax(1))
    with FeatureTap(scaled) as tap:
        scaled(torch.rand(4, 1, 8, 8))
        assert tap.take().shape == (4, 3)
        assert tap.layer == "0.2"


IN_DOUBT = {
    "several heads": Ending(lambda first, second: (first, second), heads=2),
    "heads put together": Ending(lambda first, second: torch.cat([first, second], 1), heads=2),
    "heads averaged": Ending(lambda first, second: (first + second) / 2, heads=2),
    "adapter beside the head": Ending(lambda base, adapter: base + adapter, heads=2),
    "scaled": Ending(lambda logits: logits * 2),
    "nothing of a tensor": Ending(lambda logits: logits.tolist()),
}


@pytest.mark.parametrize("name", IN_DOUBT)
def test_refuses_to_guess(name):
    model = IN_DOUBT[name]
    with FeatureTap(model) as tap:
        for _ in range(2):
            model(torch.rand(4, 6))
            with pytest.raises(ValueError, match=r"the model returns .*'heads\.0'.*: which layer"):
                tap.take()
        assert tap.layer is None
    with FeatureTap(model, "heads.0") as tap:
        model(torch.rand(4, 6))
        assert tap.take().shape == (4, 5)


def test_linear_layers_beside_a_convolution_are_not_guessed():
    model = Gated(nn.Sequential(nn.Unflatten(1, (8, 1, 1)), nn.Conv2d(8, 2, 1), nn.Flatten()))
    with FeatureTap(model) as tap:
        model(torch.rand(4, 1, 8, 8))
        with pytest.raises(ValueError, match=r"returns what no linear layer makes \('gate\.0'"):
            tap.take()


def test_a_part_of_the_model_alone_does_not_say_which_layer():
    model = nn.Sequential(network(), nn.Linear(2, 1))
    with FeatureTap(model) as tap:
        model[0](torch.rand(4, 6))
        with pytest.raises(ValueError, match="Sequential was not called, but parts of it: which"):
            tap.take()
        model(torch.rand(4, 6))
        assert tap.take().shape == (4, 2)


def test_no_linear_layer_that_runs():
    model = nn.Sequential(nn.Flatten())
    model.unused = nn.Linear(3, 2)
    model.forward = lambda batch: batch
    with FeatureTap(model) as tap:
        model(torch.rand(4, 3))
        with pytest.raises(ValueError, match=r"no linear layer ran, .* torch\.compile: which"):
            tap.take()


def test_holds_the_features_of_one_layer_only_once_the_model_has_run():
    model = network()
    with FeatureTap(model) as tap:
        model(torch.randn(3, 6))
        assert not tap._passed
        tap.take()
        assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == 1


# ---------------------------------------------------------------- changes in place


class InPlace(nn.Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.first, self.head, self.change = nn.Linear(6, 5), nn.Linear(5, 1), change

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features = self.first(batch)
        self.change(features)
        return self.head(features.clone())


CHANGES = {
    "relu": lambda features: features.relu_(),
    "a view": lambda features: features[0].zero_(),
    "a slice": lambda features: features.view(-1)[::2].mul_(3),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad])
def test_changes_in_place_are_noticed(change, context):
    model = InPlace(CHANGES[change])
    tap = FeatureTap(model, "first", capture="output")
    with context():
        model(torch.randn(3, 6))
        with pytest.raises(ValueError, match="output of layer 'first' was changed in place after"):
            tap.take()
        model.change = lambda features: features.relu()
        model(torch.randn(3, 6))
        assert tap.take().shape == (3, 5)  # the next pass is another matter


@pytest.mark.parametrize("compiled", [False, True])
def test_changes_in_place_do_not_reach_features_without_a_counter(compiled):
    model, batch = InPlace(CHANGES["relu"]), torch.randn(3, 6)
    tap = FeatureTap(model, "first", capture="output")
    run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
    with torch.inference_mode():
        run(batch)
        torch.testing.assert_close(tap.take(), model.first(batch))
    if compiled:
        run(batch)
        features = tap.take()
        torch.testing.assert_close(features, model.first(batch))
        features.sum().backward()
        assert model.first.weight.grad.any()
        torch._dynamo.reset()


def test_a_layer_that_changes_its_own_input_is_noticed():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 1))
    with FeatureTap(model, "1") as tap:
        model(torch.randn(3, 6))
        with pytest.raises(ValueError, match="input of layer '1' was changed in place"):
            tap.take()


def test_changes_before_the_tap_are_none():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 1))
    batch = torch.randn(3, 6)
    with FeatureTap(model) as tap:
        model(batch)
        torch.testing.assert_close(tap.take(), model[:2](batch))


# ---------------------------------------------------------------- activation checkpointing


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("around", ["model", "step"])
def test_checkpointing_loses_no_gradient_and_leaves_nothing(use_reentrant, around):
    model = network()
    images, target = torch.randn(8, 6, requires_grad=True), torch.randint(2, (8,))
    criterion = VariancePenalizedLoss("multiclass", 5.0, 1.0)
    tap = FeatureTap(model)

    def step(images: torch.Tensor) -> torch.Tensor:
        return criterion(model(images), target, tap.take()).total

    def checkpointed(images: torch.Tensor) -> torch.Tensor:
        if around == "step":
            return checkpoint(step, images, use_reentrant=use_reentrant)
        logits = checkpoint(model, images, use_reentrant=use_reentrant)
        return criterion(logits, target, tap.take()).total

    (expected,) = torch.autograd.grad(step(images), model[0].weight)
    for _ in range(2):
        if around == "model" and use_reentrant:
            with pytest.raises(ValueError, match=r"features need no gradient .* use_reentrant"):
                checkpointed(images)
            continue
        model.zero_grad()
        checkpointed(images).backward()
        torch.testing.assert_close(model[0].weight.grad, expected)
        assert not tap._features
        assert not tap._passed
        with pytest.raises(RuntimeError, match="has not run"):
            tap.take()


def test_a_checkpointed_part_leaves_nothing_before_the_layer_is_found():
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 2)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.block, batch, use_reentrant=False))

    model = Blocks()
    tap = FeatureTap(model)
    model(torch.randn(3, 6)).sum().backward()  # nobody takes
    assert not tap._passed
    model(torch.randn(3, 6))
    assert tap.take().shape == (3, 6)
    assert tap.layer == "head"


# ---------------------------------------------------------------- copies


class Lightning(nn.Module):
    """Holds its network and the tap on it, as a LightningModule does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.tap = FeatureTap(self.net)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.net(batch)


def saved(module: nn.Module) -> bytes:
    torch.save(module, file := io.BytesIO())
    return file.getvalue()


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "save": lambda module: torch.load(io.BytesIO(saved(module)), weights_only=False),
}
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
@pytest.mark.parametrize("layer", [None, "1"])
def test_a_copied_model_has_no_tap_and_no_features(way, layer):
    model, batch = network(), torch.randn(3, 6)
    plain = len(saved(model)), len(pickle.dumps(model))
    tap = FeatureTap(model, layer)
    model(torch.randn(5000, 6))
    assert len(saved(model)) < plain[0] + 4000
    assert len(pickle.dumps(model)) < plain[1] + 4000
    assert list(model.state_dict()) == list(network().state_dict())
    twin = WAYS[way](model)
    assert torch.equal(twin(batch), model(batch))
    twin(torch.randn(7, 6))  # its passes are not the model's
    assert len(tap.take()) == 3
    with FeatureTap(twin) as own:
        twin(batch)
        assert own.take().shape == (3, 4)


@every_way
@pytest.mark.parametrize("found", [False, True])
def test_a_copied_tap_taps_the_copied_model(way, found):
    module, batch = Lightning(), torch.randn(3, 6)
    module(torch.randn(5000, 6))
    if found:
        module.tap.take()
        module(torch.randn(5000, 6))
    assert len(saved(module)) < 20_000
    twin = WAYS[way](module)
    twin(batch)
    features = twin.tap.take()
    torch.testing.assert_close(features, twin.net[:4](batch))
    feature_variance(features).backward()
    assert twin.net[0].weight.grad.any()
    assert module.net[0].weight.grad is None
    assert len(module.tap.take()) == 5000
    module.tap.remove()
    assert WAYS[way](module).tap._handles == []


def test_a_module_that_taps_itself_is_not_copied_with_its_tap():
    module = network()
    module.tap = FeatureTap(module)
    for way in WAYS.values():
        with pytest.raises(ValueError, match="Sequential holds a tap on itself, which cannot be"):
            way(module)


def test_averaged_model_of_a_tapped_one():
    model = network()
    tap = FeatureTap(model)
    model(torch.randn(3, 6))
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    average(torch.randn(5, 6))
    assert len(tap.take()) == 3


def test_registered_before_compiling():
    model, batch = network(), torch.randn(3, 6)
    tap = FeatureTap(model)
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        compiled(batch)
        features = tap.take()
        torch.testing.assert_close(features, model[:4](batch))
        feature_variance(features).backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_monai_resnet18():
    model = build("resnet18", in_channels=1, size=16, n_outputs=3)
    tap = FeatureTap(model)
    logits = model(torch.randn(2, 1, 16, 16))
    parts = VariancePenalizedLoss("multiclass")(logits, torch.tensor([0, 2]), tap.take())
    parts.feature_variance.backward()
    assert tap.layer == "fc"
    assert model.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()),
            {},
            "Sequential has no nn.Linear layer; .*: 0, 1",
        ),
        (network(), {"layer": "head"}, "Sequential has no layer 'head'; it has 0, 1, 2, 3, 4"),
        (
            network(),
            {"capture": "weights"},
            "capture is 'weights'; allowed are input, output",
        ),
        (network(), {"layer": 4}, "Sequential has no layer 4; it has 0, 1, 2, 3, 4"),
    ],
)
def test_refuses(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        FeatureTap(model, **arguments)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_that_is_none():
    with pytest.raises(ValueError, match=r"model is a function; it must be a torch\.nn\.Module"):
        FeatureTap(network)


def test_features_that_are_a_tuple():
    with FeatureTap(lstm := nn.LSTM(3, 5), "", capture="output") as tap:
        lstm(torch.rand(4, 6, 3))
        with pytest.raises(ValueError, match="features are a tuple, the output of layer ''; tap a"):
            tap.take()


def test_a_layer_that_gets_keywords_only_says_so():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 1)

        def forward(self, images):
            return self.head(input=images)

    with (
        FeatureTap(model := Keywords()),
        pytest.raises(ValueError, match=r"'head' was called with keyword .* capture='output'"),
    ):
        model(torch.zeros(2, 3))


@pytest.mark.cuda
def test_data_parallel_on_one_device_runs_the_model_itself():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)).cuda()
    with FeatureTap(model) as tap:
        nn.DataParallel(model, device_ids=[0])(torch.zeros(2, 4).cuda())
        assert tap.take().shape == (2, 3)
