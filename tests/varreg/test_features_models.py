"""The tap on models as other libraries build them, and on several layers at once."""

from __future__ import annotations

import copy
import gc
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from varreg import FeatureTap, VariancePenalizedLoss, feature_variance

torch.manual_seed(0)  # with bad luck a network is born without a living unit
IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def backbone(width: int = 6) -> nn.Sequential:
    """(N, 1, 8, 8) to (N, width)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


# ---------------------------------------------------------------- as other libraries build them


class TorchvisionVGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(True), nn.MaxPool2d(2))
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            nn.Linear(16, 8), nn.ReLU(True), nn.Dropout(), nn.Linear(8, 6), nn.ReLU(True),
            nn.Dropout(), nn.Linear(6, 3),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


class TorchvisionInception(nn.Module):
    """Auxiliary logits beside the logits while it trains, in a tuple with names."""

    class Outputs(NamedTuple):
        logits: Tensor
        aux_logits: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aux = backbone(), nn.Linear(6, 3)
        self.dropout, self.fc = nn.Dropout(), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Outputs | Tensor:
        features = self.body(images)
        aux = self.aux(features)
        logits = self.fc(self.dropout(features))
        return self.Outputs(logits, aux) if self.training else logits


class TorchvisionResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(True)
        self.layer1, self.avgpool = nn.Conv2d(6, 6, 3, padding=1), nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.relu(self.layer1(maps) + maps)
        return self.fc(torch.flatten(self.avgpool(maps), 1))


class Timm(nn.Module):
    """`forward_features` and `forward_head`, with an MLP as head."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.global_pool, self.norm = nn.AdaptiveAvgPool2d(1), nn.LayerNorm(6)
            self.flatten = nn.Flatten()
            self.pre_logits = nn.Sequential(OrderedDict(fc=nn.Linear(6, 5), act=nn.GELU()))
            self.drop, self.fc = nn.Dropout(0.0), nn.Linear(5, 3)

        def forward(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
            features = self.drop(self.pre_logits(self.norm(self.flatten(self.global_pool(maps)))))
            return features if pre_logits else self.fc(features)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 6, 3), self.Head()

    def forward_features(self, images: Tensor) -> Tensor:
        return self.stem(images).relu()

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(maps, pre_logits=pre_logits)

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


@dataclass
class ModelOutput(OrderedDict):
    """As that of Hugging Face: a dictionary, a dataclass and, by `to_tuple`, a tuple."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("loss", "logits", "hidden_states"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


@dataclass
class PlainOutput:
    prediction: Tensor
    hidden: Tensor


class HuggingFace(nn.Module):
    """What it returns has names. A linear layer makes its hidden state."""

    def __init__(self, output) -> None:
        super().__init__()
        self.vit = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
        self.classifier, self.output = nn.Linear(6, 3), output

    def forward(self, pixel_values: Tensor) -> object:
        hidden = self.vit(pixel_values)
        return self.output(self.classifier(hidden), hidden)


class Lightning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(OrderedDict(body=backbone(), head=nn.Linear(6, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class PeftLinear(nn.Module):
    """As the linear layer of PEFT: what it makes is a sum."""

    def __init__(self, base_layer: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base_layer, self.disabled = base_layer, False
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(0.0)})
        narrow = nn.Linear(base_layer.in_features, rank, bias=False)
        self.lora_A = nn.ModuleDict({"default": narrow})
        wide = nn.Linear(rank, base_layer.out_features, bias=False)
        self.lora_B = nn.ModuleDict({"default": wide})

    def forward(self, features: Tensor) -> Tensor:
        result = self.base_layer(features)
        if self.disabled:
            return result
        low = self.lora_A["default"](self.lora_dropout["default"](features))
        return result + self.lora_B["default"](low) * 0.5


class ModulesToSave(nn.Module):
    """As PEFT trains a head in full: a copy of it, beside the original."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original_module = original
        self.modules_to_save = nn.ModuleDict({"default": copy.deepcopy(original)})

    def forward(self, features: Tensor) -> Tensor:
        return self.modules_to_save["default"](features)


class OwnLora(nn.Module):
    """An adapter that does not name its base layer as PEFT does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.down, self.up = nn.Linear(6, 3), nn.Linear(6, 2), nn.Linear(2, 3)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features) + self.up(self.down(features))


class Siamese(nn.Module):
    """One network for two images, which share its head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = backbone(), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.body(images)), self.head(self.body(images.flip(0) * 2))


class Tied(nn.Module):
    """Two names of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = backbone(), nn.Linear(6, 3)
        self.classifier = self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.body(images))


class Vit(nn.Module):
    """As MONAI's: a token of classes, an activation behind the head, hidden states beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mlp = nn.Linear(16, 6), nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.classification_head = nn.Sequential(nn.Linear(6, 3), nn.Tanh())

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        tokens = self.embed(images.unfold(2, 4, 4).unfold(3, 4, 4).reshape(len(images), -1, 16))
        hidden = tokens + self.mlp(tokens)
        return self.classification_head(self.norm(hidden)[:, 0]), [hidden]


def with_head(*head: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(body=backbone(), head=nn.Sequential(*head)))


def disabled(module: PeftLinear) -> PeftLinear:
    module.disabled = True
    return module


FOUND = {
    "torchvision VGG": (TorchvisionVGG(), "classifier.6"),
    "torchvision Inception": (TorchvisionInception(), "fc"),
    "torchvision ResNet": (TorchvisionResNet(), "fc"),
    "timm": (Timm(), "head.fc"),
    "Hugging Face": (
        HuggingFace(lambda logits, hidden: ModelOutput(logits.sum(), logits, (hidden,))),
        "classifier",
    ),
    "Hugging Face, a tuple": (
        HuggingFace(lambda logits, hidden: (logits.sum(), logits, hidden.relu())),
        "classifier",
    ),
    "logits in a dictionary": (
        HuggingFace(lambda logits, hidden: {"hidden": hidden, "logits": logits}),
        "classifier",
    ),
    "a dataclass": (
        HuggingFace(lambda logits, hidden: PlainOutput(logits, hidden * 1)),
        "classifier",
    ),
    "Lightning": (Lightning(), "net.head"),
    "nested": (nn.Sequential(Lightning(), nn.Identity()), "0.net.head"),
    "PEFT": (with_head(nn.Dropout(0.0), PeftLinear(nn.Linear(6, 3))), "head.1"),
    "PEFT, disabled": (with_head(disabled(PeftLinear(nn.Linear(6, 3)))), "head.0"),
    "PEFT, a head in full": (
        with_head(ModulesToSave(nn.Linear(6, 3))),
        "head.0.modules_to_save.default",
    ),
    "two names": (Tied(), "head"),
    "a transformer": (Vit(), "classification_head.0"),
    "softmax behind it": (
        with_head(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(1)),
        "head.2",
    ),
    "activations in a row": (
        with_head(nn.Linear(6, 6), nn.Linear(6, 3), nn.Dropout(0.5), nn.Hardtanh(), nn.Identity()),
        "head.1",
    ),
    "weight norm": (with_head(parametrizations.weight_norm(nn.Linear(6, 3))), "head.0"),
    "spectral norm": (with_head(parametrizations.spectral_norm(nn.Linear(6, 3))), "head.0"),
    "lazy": (with_head(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3)), "head.2"),
}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_finds_the_head(name, context):
    model, layer = copy.deepcopy(FOUND[name][0]), FOUND[name][1]
    entered = {}
    with FeatureTap(model) as tap, context():
        model.get_submodule(layer).register_forward_pre_hook(
            lambda module, args: entered.update(features=args[0])
        )
        for _ in range(2):
            model(IMAGES)
            assert torch.equal(tap.take(), entered["features"])
            assert (tap.layer, tap.layers) == (layer, (layer,))
    if context is torch.enable_grad:
        model.train()(IMAGES)
        feature_variance(entered["features"]).backward()
        assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch looks, and hides its warning
@pytest.mark.parametrize("name", ["timm", "Hugging Face", "PEFT", "a transformer", "weight norm"])
def test_finds_the_head_of_a_model_that_is_compiled_afterwards(name):
    model, layer = copy.deepcopy(FOUND[name][0]), FOUND[name][1]
    with FeatureTap(model) as tap:
        compiled = torch.compile(model, backend="eager")
        for _ in range(2):
            compiled(IMAGES)
            features = tap.take()
            assert tap.layer == layer
    with FeatureTap(model, layer) as tap:
        model(IMAGES)
        torch.testing.assert_close(features, tap.take())
    torch._dynamo.reset()


def test_monai():
    nets = pytest.importorskip("monai.networks.nets")
    for model, layer, size in [
        (nets.DenseNet121(2, 1, 3), "class_layers.out", (64, 64)),
        (nets.ResNet("basic", [1] * 4, [4] * 4, 3, 1, num_classes=3), "fc", (16, 16, 16)),
        (nets.SEResNet50(spatial_dims=2, in_channels=1, num_classes=3), "last_linear", (32, 32)),
        (nets.Classifier((1, 28, 28), 3, (4, 8), (2, 2)), "final.1", (28, 28)),
    ]:
        with FeatureTap(model) as tap:
            model(torch.rand(2, 1, *size))
            assert tap.take().shape == (2, model.get_submodule(layer).in_features)
            assert tap.layer == layer
    with pytest.raises(ValueError, match=r"UNet has no nn\.Linear .* 'model\.2\.conv', a ConvTr"):
        FeatureTap(unet := nets.UNet(2, 1, 2, (4, 8), (2,)))
    with FeatureTap(unet, "model.2.conv") as tap:
        unet(torch.rand(2, 1, 16, 16))
        assert tap.take().shape == (2, 12, 8, 8)


@pytest.mark.parametrize("post_activation", ["Tanh", None])
def test_monai_vit(post_activation):
    pytest.importorskip("einops")
    nets = pytest.importorskip("monai.networks.nets")
    model = nets.ViT(
        1, (28, 28), (7, 7), 24, 32, 2, 2, classification=True, num_classes=3, spatial_dims=2,
        post_activation=post_activation,
    )  # fmt: skip
    with FeatureTap(model) as tap:
        model(torch.rand(2, 1, 28, 28))
        assert tap.take().shape == (2, 24)
        assert tap.layer == "classification_head" + ".0" * (post_activation is not None)


# ---------------------------------------------------------------- refusals


class Functional(nn.Module):
    """Uses the weight of its head without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.neck, self.head = backbone(), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return F.linear(self.neck(self.body(images)), self.head.weight)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = backbone(), nn.Linear(6, 4), nn.Linear(6, 4)
        self.head = nn.Bilinear(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.head(self.one(features), self.two(features))


class Add(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second


class Wide(nn.Module):
    """A linear model of the images beside a deep one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.wide, self.deep = backbone(), nn.Linear(64, 3), nn.Linear(6, 3)
        self.add = Add()

    def forward(self, images: Tensor) -> Tensor:
        deep, wide = self.body(images), self.wide(images.flatten(1))
        return self.add(self.deep(deep), wide)


class Distilled(nn.Module):
    """As timm's distilled transformers: two heads, in evaluation their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.head_dist = backbone(), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        features = self.body(images)
        logits = self.head(features), self.head_dist(features)
        return logits if self.training else (logits[0] + logits[1]) / 2


class Shared(nn.Module):
    """One head, called for each of two views; what the model returns of both is given."""

    def __init__(self, returns: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.body, self.head, self.returns = backbone(), nn.Linear(6, 3), returns

    def forward(self, images: Tensor) -> object:
        first, second = self.body(images), self.body(images.flip(-1))
        return self.returns(self.head(first), self.head(second))


def convolutional(*end: nn.Module) -> nn.Sequential:
    gate = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.Unflatten(2, (2, 3)), nn.Flatten(2), nn.Linear(36, 36)
    )
    return nn.Sequential(OrderedDict(gate=gate, unflatten=nn.Unflatten(2, (6, 6)), **dict(end)))


CONV = ("head", nn.Conv2d(6, 3, 1))
POOL = (("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()))
IN_DOUBT = {
    "a convolution before pooling": (
        convolutional(CONV, *POOL),
        r"no linear layer makes \('gate.3'\); 'head', a Conv2d, makes it, and FeatureTap\(model, "
        r"'head'\) takes what enters there: which layer",
    ),
    "a convolution after pooling": (
        convolutional(POOL[0], CONV, ("relu", nn.ReLU(inplace=True)), POOL[1]),
        r"'head', a Conv2d, makes it",
    ),
    "a bilinear layer": (Bilinear(), r"\('one', 'two'\); 'head', a Bilinear, makes it"),
    "an adapter of its own": (with_head(OwnLora()), r"'head.0', a OwnLora, makes it"),
    "several heads": (Distilled(), r"what 2 linear layers make \('head', 'head_dist'\): which"),
    "the mean of two heads": (
        Distilled().eval(),
        r"no linear layer makes \('head', 'head_dist'\); FeatureTap\(model, "
        r"'head_dist'\) takes what enters the last of them to run: which",
    ),
    "one head for two views": (
        Shared(lambda first, second: (first, second)),
        r"returns what an earlier call of 'head' makes, and a tap takes .* return its features",
    ),
    "one head, of whose calls the first counts": (
        Shared(lambda first, second: first),
        r"returns what an earlier call of 'head' makes",
    ),
    "the mean of two calls of one head": (
        Shared(lambda first, second: (first + second) / 2),
        r"takes what enters the last of them to run, in the latest of its calls: which layer",
    ),
    "a head that is not called": (
        Functional(),
        r"what no linear layer makes \('neck'\); FeatureTap",
    ),
    "the latent code beside what it becomes": (
        HuggingFace(lambda logits, hidden: (logits, hidden)),
        r"what 2 linear layers make \('vit.1', 'classifier'\): which",
    ),
    "scaled logits beside the latent code": (
        HuggingFace(lambda logits, hidden: (logits * 2, hidden)),
        r"the model returns what 'vit.1' makes, but 'classifier' ran after it: which",
    ),
    "activated logits beside the latent code": (
        HuggingFace(lambda logits, hidden: {"scores": logits.softmax(1), "hidden": hidden}),
        r"the model returns what 'vit.1' makes, but 'classifier' ran after it: which",
    ),
    "a normalization behind the head": (
        with_head(nn.Linear(6, 6), nn.Linear(6, 3), nn.BatchNorm1d(3)),
        r"'head.2', a BatchNorm1d, makes it",
    ),
    "a mean over tokens": (
        with_head(nn.Linear(6, 6), nn.Unflatten(1, (2, 3)), nn.Linear(3, 4), nn.AvgPool1d(2)),
        r"\('head.0', 'head.2'\); 'head.2', a Linear, makes it, and FeatureTap\(model, 'head.2'\)",
    ),
    "a linear layer before, with as many outputs": (
        convolutional(CONV, ("pool", nn.AdaptiveAvgPool2d((18, 12))), ("more", nn.Conv2d(3, 1, 1))),
        r"\('gate.3'\); 'more', a Conv2d, makes it",
    ),
    "a sum that is a module": (Wide(), r"makes \('wide', 'deep'\); FeatureTap"),
    "ten layers": (
        nn.Sequential(nn.Flatten(), *[nn.Linear(64, 64) for _ in range(10)], nn.LayerNorm(64)),
        r"\(\.\.\., '7', '8', '9', '10'\); '11', a LayerNorm, makes it",
    ),
}


@pytest.mark.parametrize("name", IN_DOUBT)
def test_refuses_to_guess(name):
    model, message = IN_DOUBT[name]
    with FeatureTap(model) as tap:
        for _ in range(2):
            model(IMAGES)
            with pytest.raises(ValueError, match=message):
                tap.take()
            assert tap.layers == ()


@pytest.mark.parametrize(
    "model",
    [nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), nn.LSTM(3, 5), nn.Sequential(nn.Flatten())],
)
def test_models_without_a_linear_layer(model):
    with pytest.raises(ValueError, match=r"has no nn\.Linear layer; name the layer whose input"):
        FeatureTap(model)


@pytest.mark.filterwarnings("ignore:torch.quantize")  # which PyTorch means to remove
def test_a_quantized_head_is_no_linear_layer():
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this build of PyTorch does not quantize")
    with torch.no_grad():
        quantized = torch.ao.nn.quantized.dynamic.Linear(6, 3)
    model = with_head(nn.Linear(6, 6), quantized)
    with FeatureTap(model) as tap:
        model(IMAGES)
        with pytest.raises(ValueError, match=r"'head.1', a Linear, makes it"):
            tap.take()


def test_the_logits_of_the_only_linear_layer_may_be_scaled_within_a_part():
    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.scale = nn.Linear(6, 3), nn.Parameter(torch.ones(()))

        def forward(self, features: Tensor) -> Tensor:
            return self.fc(features) * self.scale

    model = with_head(Cosine())
    with FeatureTap(model) as tap:
        model(IMAGES)
        assert tap.take().shape == (4, 6)
        assert tap.layer == "head.0.fc"


def test_a_head_that_is_replaced_afterwards():
    model = with_head(nn.Linear(6, 3))
    with FeatureTap(model, "head.0") as tap:
        model.head[0] = nn.Linear(6, 2)
        model(IMAGES)
        with pytest.raises(RuntimeError, match=r"'head\.0' has not run .* any change of the model"):
            tap.take()


def test_a_model_that_is_a_linear_layer():
    with FeatureTap(model := nn.Linear(6, 2)) as tap:
        model(batch := torch.rand(3, 6))
        assert torch.equal(tap.take(), batch)
        assert tap.layer == ""


def test_a_part_that_is_called_instead_of_the_model():
    module = Lightning()
    with FeatureTap(module) as tap:
        module.net(IMAGES)  # as a training step may
        with pytest.raises(
            ValueError, match=r"Lightning was not called, .* tap the part that is c"
        ):
            tap.take()
    with FeatureTap(module.net) as tap:
        module.net(IMAGES)
        assert tap.take().shape == (4, 6)


# ---------------------------------------------------------------- wrappers


@pytest.fixture
def process_group():
    if not torch.distributed.is_available():
        pytest.skip("this build of PyTorch has no torch.distributed")
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    gc.collect()  # what still holds the group would end it with the interpreter locked, and wait
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("unused", [False, True])  # where it is, the wrapper returns copies
def test_distributed_data_parallel(process_group, unused):
    model = with_head(nn.Linear(6, 6), nn.Linear(6, 3))
    if unused:
        model.body.unused = nn.Parameter(torch.zeros(1))
    wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=unused)
    with (
        FeatureTap(wrapped) as outside,
        FeatureTap(model) as inside,
        FeatureTap(wrapped, ["module.body", "*.1"], capture="output") as several,
    ):
        logits = wrapped(IMAGES)
        features = outside.take()
        assert torch.equal(features, inside.take())
        assert list(several.take()) == ["module.body.1", "module.body", "module.head.1"]
        (logits.sum() + feature_variance(features)).backward()
    assert (outside.layer, inside.layer) == ("module.head.1", "head.1")
    assert model.body[0].weight.grad.any()


def test_data_parallel_is_refused():
    model = with_head(nn.Linear(6, 3))
    message = r"layer 'module\..*' is inside an nn\.DataParallel; .* use DistributedDataParallel"
    for layer in (None, "module.head", ["module.*"], nn.Linear):
        with pytest.raises(ValueError, match=message):
            FeatureTap(nn.DataParallel(model), layer)
    for layer in (None, "head.0", nn.Linear):  # tapped, and wrapped afterwards
        with FeatureTap(model, layer):
            replica = model.head[0]._replicate_for_data_parallel()
            replica._parameters = dict(model.head[0]._parameters)
            with pytest.raises(ValueError, match=r"Linear is tapped; nn\.DataParallel runs copies"):
                replica(torch.rand(2, 6))


def test_a_part_in_data_parallel_does_not_matter():
    model = nn.Sequential(nn.DataParallel(backbone()), nn.Linear(6, 3))
    with FeatureTap(model) as tap, FeatureTap(model, "0", capture="output") as whole:
        model(IMAGES)
        assert torch.equal(tap.take(), whole.take())
    assert tap.layer == "1"


def test_a_compiled_model_is_refused():
    model = with_head(nn.Linear(6, 3))
    compiled = torch.compile(model, backend="eager")
    message = r"layer '_orig_mod\.head.*' is inside what torch\.compile returned, .* tap the model "
    for layer in (None, "_orig_mod.head", ["*.head*"], nn.Linear):
        with pytest.raises(ValueError, match=message):
            FeatureTap(compiled, layer)
    model.body = torch.compile(model.body, backend="eager")
    with FeatureTap(model) as tap:  # the head is not inside
        model(IMAGES)
        assert tap.take().shape == (4, 6)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_torchscript_takes_no_tap():
    model = nn.Sequential(torch.jit.script(backbone()), nn.Linear(6, 3))
    with FeatureTap(model) as tap:  # the head is none
        model(IMAGES)
        assert tap.take().shape == (4, 6)
    for layer in ("0", ["0.*"]):
        with pytest.raises(ValueError, match=r"layer '0.*' is TorchScript, which takes no hooks"):
            FeatureTap(model, layer)


# ---------------------------------------------------------------- shared and repeated layers


def test_the_latest_of_several_calls():
    model = Siamese()
    with FeatureTap(model, "head") as tap, FeatureTap(model, "body.1", capture="output") as inner:
        model(IMAGES)
        assert torch.equal(tap.take(), model.body(IMAGES.flip(0) * 2))
        assert torch.equal(inner.take(), model.body[:2](IMAGES.flip(0) * 2))
    last = Shared(lambda first, second: second)
    with FeatureTap(last) as tap:
        last(IMAGES)
        assert torch.equal(tap.take(), last.body(IMAGES.flip(-1)))


def test_either_name_of_a_layer():
    model = Tied()
    with FeatureTap(model, "classifier") as tap:
        model(IMAGES)
        assert torch.equal(tap.take(), model.body(IMAGES))
    with FeatureTap(model, ["head", "classifier"]) as tap:
        model(IMAGES)
        assert list(tap.take()) == ["head", "classifier"]
    assert FeatureTap(model, nn.Linear).layers == FeatureTap(model, ["*[dr]"]).layers == ("head",)


# ---------------------------------------------------------------- several layers


def chain() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            a=nn.Linear(6, 5), act=nn.ReLU(), b=nn.Sequential(nn.Linear(5, 4), nn.ReLU()),
            head=nn.Linear(4, 2),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (["b", "a"], ("a", "b")),
        (("head", "act"), ("act", "head")),
        (nn.ReLU, ("act", "b.1")),
        ([nn.ReLU, nn.Linear], ("a", "act", "b.0", "b.1", "head")),
        (["b.*"], ("b.0", "b.1")),
        (["*.?"], ("b.0", "b.1")),
        (["[ab]", "*head*"], ("a", "b", "head")),
        (["head", nn.Linear], ("a", "b.0", "head")),
        (["*"], ("a", "act", "b.0", "b.1", "b", "head")),
        (["a"], ("a",)),
    ],
)
@pytest.mark.parametrize("capture", ["input", "output"])
def test_several_layers(layer, names, capture):
    model, batch = chain(), torch.rand(3, 6)
    with FeatureTap(model, layer, capture=capture) as tap:
        model(batch)
        taken = tap.take()
        assert (set(tap.layers), tap.layer) == (set(names), None)
        with pytest.raises(RuntimeError, match=r"layer 'a', 'act'|layer '.*' has not run"):
            tap.take()
    if capture == "output":  # what holds others ends after them, and begins before them
        assert tuple(taken) == names
    for name in names:
        with FeatureTap(model, name, capture=capture) as single:
            model(batch)
            assert torch.equal(taken[name], single.take())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_the_order_is_that_of_running():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.middle, self.first = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, batch: Tensor) -> Tensor:
            return self.last(self.middle(self.first(self.middle(batch))))

    model = Backwards()
    with FeatureTap(model, nn.Linear) as tap:
        model(torch.rand(2, 3))
        assert list(tap.take()) == ["first", "middle", "last"]
    assert tap.layers == ("last", "middle", "first")


def test_the_sum_of_penalties_reaches_every_layer_before():
    model, batch = chain(), torch.rand(8, 6)
    criterion = VariancePenalizedLoss("multiclass")
    with FeatureTap(model, ["b", "head"]) as tap:
        logits = model(batch)
        penalty = sum(feature_variance(features) for features in tap.take().values())
        loss = criterion.cross_entropy(logits, torch.arange(8) % 2) + 0.1 * penalty
    hidden = model.act(model.a(batch))
    expected = hidden.var(0, unbiased=False).mean() + model.b(hidden).var(0, unbiased=False).mean()
    torch.testing.assert_close(penalty, expected)
    loss.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


class Depth(nn.Module):
    """Leaves out a block at times, as stochastic depth does."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.skip = ()

    def forward(self, batch: Tensor) -> Tensor:
        for at, block in enumerate(self.blocks):
            batch = batch if at in self.skip else block(batch)
        return batch


def test_layers_that_did_not_run():
    model, batch = Depth(), torch.rand(2, 3)
    with FeatureTap(model, nn.Linear) as chosen, FeatureTap(model, ["blocks.1"]) as named:
        model(batch)
        model.skip = (1,)
        model(batch)  # nothing of the pass before it is left
        assert list(chosen.take()) == ["blocks.0", "blocks.2"]
        with pytest.raises(RuntimeError, match=r"layer 'blocks\.1' has not run since"):
            named.take()
        model.skip = (0, 1, 2)
        model(batch)
        with pytest.raises(RuntimeError, match=r"'blocks\.0', 'blocks\.1', 'blocks\.2' has not"):
            chosen.take()
    with FeatureTap(model, ["blocks.2", "blocks.0"]) as tap:
        model.skip = (0,)
        model(batch)
        with pytest.raises(RuntimeError, match=r"layer 'blocks\.0' has not run since"):
            tap.take()


def test_several_layers_are_let_go_of_and_copied():
    model, batch = chain(), torch.rand(3, 6)
    tap = FeatureTap(model, ["b*", nn.ReLU])
    model(batch)
    for way in (copy.deepcopy, lambda tap: pickle.loads(pickle.dumps(tap))):
        twin = way(tap)
        assert twin.layers == tap.layers
        assert not twin._features
        twin._model(torch.rand(7, 6))
        assert {len(features) for features in twin.take().values()} == {7}
    assert {len(features) for features in tap.take().values()} == {3}
    assert not tap._features


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch looks, and hides its warning
def test_several_layers_of_a_compiled_model():
    model, batch = chain(), torch.rand(3, 6)
    with FeatureTap(model, nn.ReLU, capture="output") as tap:
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        for _ in range(2):
            compiled(batch)
            taken = tap.take()
        model(batch)
        torch.testing.assert_close(taken, tap.take())
        assert list(taken) == ["act", "b.1"]
    torch._dynamo.reset()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_several_checkpointed_layers_leave_nothing(use_reentrant):
    model, batch = chain(), torch.rand(3, 6, requires_grad=True)
    with FeatureTap(model, nn.Linear) as tap:
        torch.utils.checkpoint.checkpoint(
            model, batch, use_reentrant=use_reentrant
        ).sum().backward()
        assert not tap._features


def test_a_change_in_place_in_one_of_several():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    with FeatureTap(model, nn.Linear, capture="output") as tap:
        model(torch.rand(3, 6))
        with pytest.raises(ValueError, match="output of layer '0' was changed in place"):
            tap.take()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (["a", "heads"], "Sequential has no layer 'heads'; it has a, act, b, b.0, b.1, head"),
        (["c*"], r"Sequential has no layer 'c\*'; it has a, act"),
        ("b.*", r"no layer 'b\.\*' \(patterns go into a list: \['b\.\*'\]\); it has a, act"),
        (nn.Conv2d, "Sequential has no layer of type Conv2d; it has a, act"),
        ([nn.ReLU, nn.Tanh], "Sequential has no layer of type Tanh; it has a, act"),
        (int, "Sequential has no layer of type int; it has a, act"),
        ([4], "Sequential has no layer 4; it has a, act"),
        (4, "Sequential has no layer 4; it has a, act"),
        ([], r"layer is \[\]; give names, patterns or types of layers"),
    ],
)
def test_layers_that_there_are_not(layer, message):
    model = chain()
    with pytest.raises(ValueError, match=message):
        FeatureTap(model, layer)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_the_tap_says_what_it_taps():
    model = chain()
    with FeatureTap(model) as tap, FeatureTap(model, nn.ReLU, capture="output") as several:
        assert repr(tap) == "FeatureTap(Sequential, layer=None, capture='input')"
        model(torch.rand(3, 6))
        assert repr(tap) == "FeatureTap(Sequential, layer='head', capture='input')"
        assert repr(several) == "FeatureTap(Sequential, layers=('act', 'b.1'), capture='output')"


# ---------------------------------------------------------------- without a tap


def test_a_model_that_returns_its_features_needs_no_tap():
    model, target = Timm(), torch.arange(4) % 3
    criterion = VariancePenalizedLoss("multiclass", 5.0)
    features = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
    logits = model.get_classifier()(features)
    without = torch.autograd.grad(
        criterion(logits, target, features).total, list(model.parameters())
    )
    with FeatureTap(model) as tap:
        total = criterion(model(IMAGES), target, tap.take()).total
    torch.testing.assert_close(torch.autograd.grad(total, list(model.parameters())), without)
