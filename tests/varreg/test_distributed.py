"""Two real processes give what one gives with the whole batch."""

from __future__ import annotations

import copy
import inspect
import json
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from varreg import (
    FeatureTap,
    NonFiniteFeaturesError,
    PenalizedLoss,
    SmallBatchError,
    VariancePenalizedLoss,
    feature_variance,
    penalties,
    weights,
)
from varreg.distributed import gather
from varreg.lab.methods import METHODS

WIDTH, CLASSES, CENTERS = 5, 3, torch.arange(15.0).sin().reshape(3, 5).double()
PENALTIES: dict[str, Callable[..., Tensor]] = {
    name: function
    for name, function in vars(penalties).items()
    if getattr(function, "__module__", "") == penalties.__name__ and not name.startswith("_")
} | {
    "feature_variance": feature_variance,
    "class-wise": partial(penalties.within_class_variance, equal_classes=True),
    "center_loss-centers": partial(penalties.center_loss, centers=CENTERS),
    "excess_variance-low": partial(penalties.excess_variance, threshold=0.05),
    "variance_constancy-small": partial(penalties.variance_constancy, sample_size=3),
    "three views": partial(penalties.view_variance, views=3),
    "own": lambda logits, features: logits.logsumexp(0).square().sum() * features.std(),
}
# Those that the registry of methods makes of them, some with a state of their own.
DATA = SimpleNamespace(task="multiclass", n_outputs=CLASSES)
PENALTIES |= {
    f"method {name}": changes.penalty
    for name, method in METHODS.items()
    if (changes := method.changes(0.1, DATA)).penalty not in {None, *PENALTIES.values()}
}
#: Rows of the whole batch in each process. Images 0 to 5 come in two views, or 0 to 3 in three.
SHARES = {
    "equal": {1: (range(6), range(6, 12)), 2: ([0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11])},
    "unequal": {
        1: (range(1), range(1, 12)),
        2: ([0, 1, 2, 3, 6, 7, 8, 9], [4, 5, 10, 11]),
        3: ([0, 4, 8], [1, 2, 3, 5, 6, 7, 9, 10, 11]),
    },
}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh())
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return self.head(features), features


def network() -> Network:
    torch.manual_seed(3)
    return Network().double()


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.tensor([0, 1, 0, 2, 0, 1]).repeat(2)


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters()]


def same(found: object, expected: object, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=1e-12)


def refused(message: str, call: Callable, *arguments: object, kind: type = ValueError) -> None:
    with pytest.raises(kind, match=message):
        call(*arguments)


# ---------------------------------------------------------------- what both processes run


def whole_batch(rank: int, name: str, share: str, weight: float | nn.Module = 0.7) -> None:
    """Value and gradient are those of one process with the whole batch."""
    penalty = PENALTIES[name]
    asked = inspect.signature(getattr(penalty, "forward", penalty)).parameters
    views = asked.get("views")
    views = views.default if views else 1
    shares = SHARES[share].get(views, SHARES["unequal"][views])
    order = list(range(12)) if views > 1 else [row for rows in shares for row in rows]
    (inputs, target), model = images(), network()
    alone = copy.deepcopy(model)
    ddp = DistributedDataParallel(model)
    penalty, weight = copy.deepcopy((penalty, weight))
    reference = PenalizedLoss("multiclass", copy.deepcopy(penalty), 1.0)
    together = PenalizedLoss("multiclass", penalty, copy.deepcopy(weight), 0.5, sync=True)
    own, takes_head = list(shares[rank]), "head_weight" in asked
    changes = isinstance(weight, nn.Module) or isinstance(penalty, nn.Module)
    for scale in (1, 2, 3) if changes else (1,):
        logits, features = ddp(inputs[own] * scale)
        head = (model.head.weight,) if takes_head else ()
        parts = together(logits, target[own], features, *head)
        ddp.zero_grad()
        parts.total.backward()

        logits, features = alone(inputs[order] * scale)
        head = (alone.head.weight,) if takes_head else ()
        _, cross_entropy, value = reference(logits, target[order], features, *head)
        # The mean over the processes of their means, as averaged gradients have it.
        places = [[order.index(row) for row in rows] for rows in shares]
        means = [reference.cross_entropy(logits[at], target[order][at]) for at in places]
        mean = sum(means) / 2
        strength = weight(mean, value, features) if isinstance(weight, nn.Module) else weight
        alone.zero_grad()
        (0.5 * mean + strength * value).backward()
        same(parts.penalty, value)
        same(parts.cross_entropy, means[rank])
        same(parts.total, 0.5 * means[rank] + strength * value)
        same(gradients(model), gradients(alone))
        if share == "equal":
            same(mean, cross_entropy)


def own_draws(rank: int, given: bool) -> None:
    """All draw what the first process draws, and go on as far as it does."""
    own = torch.Generator().manual_seed(10 + rank) if given else None
    together = VariancePenalizedLoss("multiclass", 2.0, 0.4, generator=own, sync=True)
    first = torch.Generator().manual_seed(10)
    reference = VariancePenalizedLoss("multiclass", 2.0, 0.4, generator=first)
    (inputs, target), model = images(), network()
    alone, ddp = copy.deepcopy(model), DistributedDataParallel(model)
    torch.manual_seed(10 + rank)
    values = set()
    for _ in range(4):
        logits, features = ddp(inputs[rank::2])
        parts = together(logits, target[rank::2], features)
        ddp.zero_grad()
        parts.total.backward()
        order = [*range(0, 12, 2), *range(1, 12, 2)]
        logits, features = alone(inputs[order])
        expected = reference(logits, target[order], features)
        alone.zero_grad()
        expected.total.backward()
        same(parts.feature_variance, expected.feature_variance)
        same(gradients(model), gradients(alone))
        values.add(parts.feature_variance.item())
    assert len(values) > 1
    moved, still = own or torch.default_generator, torch.Generator().manual_seed(10 + rank)
    torch.randint(WIDTH, (4,), generator=still)
    assert torch.equal(moved.get_state(), still.get_state())


def running_quantile(rank: int) -> None:
    """A penalty with a state of its own sees the whole batch too."""

    class Above(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.threshold = weights.RunningQuantile(0.5)

        def forward(self, features: Tensor) -> Tensor:
            return penalties.excess_variance(features, self.threshold(features))

    (inputs, target), model = images(), network()
    together, reference = (PenalizedLoss("multiclass", Above(), 1.0, sync=s) for s in (True, False))
    for scale in (1, 2, 3):
        logits, features = model(inputs * scale)
        half = slice(6 * rank, 6 * rank + 6)
        parts = together(logits[half], target[half], features[half])
        same(parts.penalty, reference(logits, target, features).penalty)
    same(together.penalty.threshold.average, reference.penalty.threshold.average)


def without_sync(rank: int) -> None:
    (inputs, target), model = images(), network()
    half = slice(6 * rank, 6 * rank + 6)
    logits, features = model(inputs)
    parts = VariancePenalizedLoss("multiclass")(logits[half], target[half], features[half])
    same(parts.feature_variance, features[half].var(0, correction=0).mean())


def one_validates_alone(rank: int) -> None:
    if rank == 1:
        return
    (inputs, target), model = images(), network()
    logits, features = model(inputs)
    expected = features.var(0, correction=0).mean()
    for criterion in (
        VariancePenalizedLoss("multiclass", 1.0, 0.4, sync=True),
        PenalizedLoss("multiclass", feature_variance, weights.GradientRatio(), sync=True),
    ):
        same(criterion.eval()(logits, target, features)[2], expected)
        criterion.train()
        for mode in (torch.no_grad(), torch.inference_mode()):
            with mode:
                value = criterion(logits, target, features)[2]
            if isinstance(criterion.weight, nn.Module):
                same(value, expected)


def gathered(rank: int) -> None:
    """Any type, any layout, any number of samples, none too."""
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int16, torch.uint8):
        rows = torch.arange(5 * 6).reshape(5, 6).to(dtype)
        assert torch.equal(gather(rows[:2] if rank == 0 else rows[2:]), rows)
        column = rows.t()[::2, 1:3]  # not contiguous
        assert torch.equal(gather(column), torch.cat([column, column]))
    assert torch.equal(gather(torch.tensor([rank == 0])), torch.tensor([True, False]))
    assert torch.equal(gather(torch.ones(3 * rank, 2)), torch.ones(3, 2))
    maps = torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    layout = maps.contiguous(memory_format=torch.channels_last)[2 * rank : 2 * rank + 2]
    layout.requires_grad_()
    whole = gather(layout)
    assert torch.equal(whole, maps)
    (gradient,) = torch.autograd.grad((whole * maps).sum(), layout)
    same(gradient, 2 * maps[2 * rank : 2 * rank + 2])
    wide = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    gather(wide).sum().backward()
    assert wide.grad.dtype == torch.bfloat16
    assert torch.equal(wide.grad.float(), torch.full((2, 3), 2.0))


def what_does_not_fit(rank: int) -> None:
    """Refused in both, so that none waits for the other."""
    for given, message in (
        (torch.zeros(3, 4 + rank), r"\(3, 4\) of torch.float32 in process 0, \(3, 5\)"),
        (torch.zeros((3, 4, 1)[: 2 + rank]), r"\(3, 4, 1\) of torch.float32 in process 1; to be"),
        (torch.zeros(()), r"the processes hold \(\) of torch.float32 in process 0"),
        (torch.zeros(3, 4).to((torch.float16, torch.float32)[rank]), r"the same autocast"),
        (torch.zeros(3, 4, requires_grad=rank == 0), r"needs a gradient in process 0.* frozen"),
    ):
        refused(message, gather, given)
    refused(r"\(3, 4\) .* process 1, which are not all multiples of views=2", gather, *(
        torch.zeros(2 + rank, 4), 2
    ))  # fmt: skip
    (inputs, target), model = images(), network()
    logits, features = model(inputs)
    criterion = VariancePenalizedLoss("multiclass", sync=True)
    one_frozen = features.detach() if rank else features
    refused(r"frozen layers in every process", criterion, logits, target, one_frozen)
    refused(r"features need no gradient", criterion, logits, target, features.detach())
    broken = features * torch.nan if rank else features
    kind = NonFiniteFeaturesError
    refused(r"hold 60 values that are NaN", criterion, logits, target, broken, kind=kind)


def small_batches(rank: int) -> None:
    """What counts is the batch of all processes."""
    (inputs, target), model = images(), network()
    logits, features = model(inputs[: 1 + rank])
    parts = VariancePenalizedLoss("multiclass", sync=True)(logits, target[: 1 + rank], features)
    same(parts.feature_variance, model(inputs[[0, 0, 1]])[1].var(0, correction=0).mean())
    for small in ("raise", "skip"):
        criterion = PenalizedLoss(
            "multiclass", penalties.variance_constancy, 1.0, small_batch=small, sync=True
        )
        given = logits, target[: 1 + rank], features
        if small == "raise":
            refused("small_batch='skip'", criterion, *given, kind=SmallBatchError)
        else:
            assert criterion(*given).penalty == 0
    skipping = PenalizedLoss(
        "multiclass", feature_variance, weights.GradientRatio(), small_batch="skip", sync=True
    )
    logits, features = model(inputs[rank : rank + 1])
    parts = skipping(logits, target[:1], features)  # two, of one each
    parts.total.backward()
    same(parts.penalty, model(inputs[:2])[1].var(0, correction=0).mean())


def second_derivatives(rank: int) -> None:
    features = torch.randn(3, 4, requires_grad=True)
    value = feature_variance(gather(features))
    with pytest.raises(ValueError, match=r"leave out create_graph=True, or use sync=False"):
        torch.autograd.grad(value, features, create_graph=True)


def transformed(rank: int) -> None:
    features = torch.randn(2, 3, 4)
    refused(r"torch.func, which .* one process alone: use sync=False", torch.vmap(gather), features)


def checkpointed(rank: int) -> None:
    (inputs, target), model = images(), network()
    criterion = VariancePenalizedLoss("multiclass", sync=True)

    def step(inputs: Tensor) -> Tensor:
        logits, features = model(inputs)
        return criterion(logits, target, features).total

    for reentrant in (True, False):
        total = checkpoint(step, inputs.clone().requires_grad_(), use_reentrant=reentrant)
        refused(r"call the criterion outside the checkpoint", total.backward)


def tapped(rank: int, way: str) -> None:
    """The tap on the model inside, which runs under another wrapper."""
    model = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES)).double()
    if way == "unused":
        model[1].unused = nn.Linear(2, 2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(parameter.numel()).cos().view_as(parameter))
    (inputs, target), alone = images(), copy.deepcopy(model)
    if way == "checkpointed":
        model[0] = Checkpointed(model[0])
    unused = way == "unused"
    ddp = DistributedDataParallel(
        model, find_unused_parameters=unused, static_graph=way == "static"
    )
    layer = "2" if way == "named" else None
    criterion = VariancePenalizedLoss("multiclass", 3.0, sync=True)
    with FeatureTap(model, layer) as tap, FeatureTap(alone, "2") as other:
        for _ in range(2):
            parts = criterion(ddp(inputs[rank::2]), target[rank::2], tap.take())
            ddp.zero_grad()
            parts.total.backward()
            expected = VariancePenalizedLoss("multiclass", 3.0)(alone(inputs), target, other.take())
            alone.zero_grad()
            expected.total.backward()
            same(parts.feature_variance, expected.feature_variance)
            found = [p.grad for n, p in model.named_parameters() if "unused" not in n]
            wanted = [p.grad for n, p in alone.named_parameters() if "unused" not in n]
            same(found, wanted)


def tapped_outside(rank: int) -> None:
    """A tap on the wrapper finds the layer, also where the wrapper returns copies."""
    inputs, _ = images()
    for settings in ({}, {"find_unused_parameters": True}, {"static_graph": True}):
        model = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES)).double()
        ddp = DistributedDataParallel(model, **settings)
        with FeatureTap(ddp) as tap:
            logits = ddp(inputs)
            same(tap.take(), model[:2](inputs))
            assert tap.layer == "module.2"
        logits.sum().backward()


class Checkpointed(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        return checkpoint(self.layer, inputs, use_reentrant=False)


def autocast(rank: int) -> None:
    (inputs, target), model = images(), network().float()
    half = slice(6 * rank, 6 * rank + 6)
    with torch.autocast("cpu", torch.bfloat16):
        logits, features = model(inputs.float())
        parts = VariancePenalizedLoss("multiclass", sync=True)(
            logits[half], target[half], features[half]
        )
    assert features.dtype == torch.bfloat16
    same(parts.feature_variance, feature_variance(features))
    assert parts.feature_variance.dtype == torch.float32


def compiled(rank: int) -> None:
    """It works, and breaks the graph where the processes meet."""
    (inputs, target), model = images(), network()
    half = slice(6 * rank, 6 * rank + 6)
    logits, features = model(inputs)
    criterion = torch.compile(VariancePenalizedLoss("multiclass", sync=True), backend="eager")
    value = criterion(logits[half], target[half], features[half]).feature_variance
    same(value, feature_variance(features))


def destroyed(rank: int) -> None:
    """Without a process group each process is the only one. Comes last."""
    dist.destroy_process_group()
    rows = torch.ones(2, 2)
    assert gather(rows) is rows


CHECKS: dict[str, Callable[[int], None]] = {
    f"{name}, {share}": partial(whole_batch, name=name, share=share)
    for name in PENALTIES
    for share in SHARES
    if not (name == "three views" and share == "equal")
}
CHECKS |= {
    f"weight {number}, {share}": partial(whole_batch, name=name, share=share, weight=weight)
    for share in SHARES
    for number, (name, weight) in enumerate(
        [
            ("feature_variance", weights.GradientRatio(0.3)),
            ("head_weighted_variance", weights.WarmUp(weights.GradientRatio(0.3), 1, 2)),
            ("feature_variance", weights.TargetWeight(2.0, 1.5)),
            ("view_variance", weights.GradientRatio(0.1, smoothing=0.0)),
            ("feature_variance", weights.WarmUp(3.0, 1, 1)),
        ]
    )
}
CHECKS |= {f"draws, given {given}": partial(own_draws, given=given) for given in (True, False)}
CHECKS |= {
    f"tap {way}": partial(tapped, way=way)
    for way in ("found", "named", "unused", "static", "checkpointed")
}
CHECKS |= {
    check.__name__: check
    for check in (
        tapped_outside,
        running_quantile,
        without_sync,
        one_validates_alone,
        gathered,
        what_does_not_fit,
        small_batches,
        second_derivatives,
        transformed,
        checkpointed,
        autocast,
        compiled,
        destroyed,
    )
}


# ---------------------------------------------------------------- and what comes of it


def run_checks(rank: int, folder: str) -> None:
    torch.set_num_threads(1)  # which do not spin while another process computes
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=30),
    )
    found = {}
    for name, check in CHECKS.items():
        try:
            check(rank)
        except BaseException:
            found[name] = traceback.format_exc()
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> list[dict[str, str]]:
    """What went wrong in each of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(run_checks, (str(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", CHECKS)
def test_two_processes(failures, name):
    for rank, failed in enumerate(failures):
        assert name not in failed, f"in process {rank}:\n{failed[name]}"
