from __future__ import annotations

import math
import re
import shutil
import warnings
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from varreg import FeatureTap, VariancePenalizedLoss
from varreg.lab import training
from varreg.lab.datasets import load
from varreg.lab.metrics import METRICS
from varreg.lab.models import build
from varreg.lab.training import (
    Fit,
    NonFiniteLossError,
    Scaling,
    Settings,
    as_device,
    batches,
    evaluate,
    fit,
    predict,
)


def train(
    dataset,
    *,
    weight=0.0,
    ratio=1.0,
    lambda_=1.0,
    model=None,
    seed=0,
    validate=True,
    **settings,
) -> tuple:
    torch.manual_seed(seed)
    if model is None:
        model = build(
            "small_cnn",
            in_channels=dataset.channels,
            size=dataset.size,
            n_outputs=dataset.n_outputs,
        )
    generator = torch.Generator().manual_seed(seed)
    criterion = VariancePenalizedLoss(
        dataset.task, weight, ratio, lambda_, generator=generator, validate=validate
    )
    settings = {"epochs": 2, "batch_size": 16, "device": "cpu", "seed": seed} | settings
    return model, fit(model, dataset, criterion, **settings)


# ---------------------------------------------------------------- what it returns


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_history_and_metrics_of_every_task(make_dataset, task):
    data = make_dataset(task, channels=3)
    model, result = train(data, weight=0.1, ratio=0.5)
    parts = ("total", "cross_entropy", "feature_variance", "accuracy", "auroc")
    expected = ["epoch", *(f"{split}_{name}" for split in ("train", "val") for name in parts)]
    assert [list(row) for row in result.history] == [expected, expected]
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert all(math.isfinite(value) for row in result.history for value in row.values())
    metrics = evaluate(model, data.test, result.scaling, task)
    assert tuple(metrics) == METRICS
    assert metrics["auroc"] > 0.5


def test_same_seed_same_numbers(make_dataset):
    data = make_dataset()
    settings = {"weight": 0.5, "ratio": 0.3, "augment": True, "epochs": 3}
    (first, one), (second, two) = train(data, **settings), train(data, **settings)
    assert one.history == two.history
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    _, other = train(data, **settings, seed=1)
    assert other.history != one.history


def test_recorded_total_is_made_of_its_parts(make_dataset):
    _, result = train(make_dataset(), weight=0.3, lambda_=0.5)
    for row in result.history:
        for split in ("train", "val"):
            total = 0.5 * row[f"{split}_cross_entropy"] + 0.3 * row[f"{split}_feature_variance"]
            assert row[f"{split}_total"] == pytest.approx(total, rel=1e-6)


def test_the_penalty_lowers_the_feature_variance(make_dataset):
    data = make_dataset()
    plain, penalized = (train(data, weight=weight, epochs=4)[1] for weight in (0.0, 10.0))
    last = "val_feature_variance"
    assert penalized.history[-1][last] < 0.5 * plain.history[-1][last]


def test_volumes(make_dataset):
    data = make_dataset(size=8, dims=3, counts=(16, 8, 8))
    model = nn.Sequential(
        nn.Conv3d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 27, 1)
    )
    model, result = train(data, model=model, weight=0.1, epochs=1)
    assert data.spatial_dims == 3
    assert predict(model, data.test.images, result.scaling).shape == (8, 1)


def test_features_of_a_named_layer(make_dataset):
    data = make_dataset(counts=(16, 8, 8))
    model = build("small_cnn", in_channels=1, size=12, n_outputs=1)
    with FeatureTap(model, "features.2", capture="output") as tap:
        _, result = train(data, model=model, weight=1.0, epochs=1, learning_rate=1e-12, tap=tap)
        model(result.scaling(data.val.images))
        expected = tap.take().detach().flatten(1).var(0, correction=0).mean()
    assert result.history[0]["val_feature_variance"] == pytest.approx(expected.item(), rel=1e-5)


def test_leaves_no_hook_behind(make_dataset):
    model, _ = train(make_dataset(counts=(16, 8, 8)), epochs=1)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_predicts_in_order_whatever_the_batch_size(make_dataset):
    data = make_dataset(counts=(16, 8, 21))
    model, result = train(data, epochs=1)
    whole = predict(model, data.test.images, result.scaling)
    parts = predict(model, data.test.images, result.scaling, batch_size=4)
    torch.testing.assert_close(whole, parts)
    assert whole.shape == (21, 1)
    assert not model.training


class OutOfMemory(nn.Module):
    """Has memory for so many images at a time and no more; notes how many it was given."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.head, self.room, self.given = nn.Linear(16, 1), room, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.given.append(len(images))
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError
        return self.head(images.flatten(1))


@pytest.fixture
def starts_with_64(monkeypatch):
    monkeypatch.setitem(training.EVALUATED_AT_ONCE, "cpu", 64)


def test_predicts_as_many_at_once_as_fit(starts_with_64):
    images = torch.randint(0, 256, (100, 1, 4, 4), dtype=torch.uint8)
    model, scaling = OutOfMemory(20), Scaling.of(images)
    logits = predict(model, images, scaling)
    assert model.given == [64, 32, 16, 16, 16, 16, 16, 16, 4]
    torch.testing.assert_close(logits, model.head(scaling(images).flatten(1)).detach())


@pytest.mark.parametrize(("room", "batch_size", "given"), [(0, None, 7), (2, 3, 1)])
def test_predicts_nothing_where_not_enough_fit(starts_with_64, room, batch_size, given):
    images = torch.zeros(100, 1, 4, 4, dtype=torch.uint8)
    model = OutOfMemory(room)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        predict(model, images, Scaling((0.0,), (1.0,)), batch_size=batch_size)
    assert len(model.given) == given  # 64 down to 1; a size that was given is kept


@pytest.mark.parametrize(
    ("images", "batch_size", "message"),
    [
        (torch.rand(4, 1, 4, 4), None, "images are torch.float32; they must be uint8, 0 to 255"),
        (torch.zeros(4, 1, 4, 4).long(), None, "images are torch.int64; they must be uint8"),
        (
            np.zeros((4, 1, 4, 4), np.uint8),
            None,
            "images is a ndarray; it must be",
        ),
        (torch.zeros(4, 4).byte(), None, r"images have shape \(4, 4\); they must be \(N, C, ...\)"),
        (torch.zeros(4, 3, 4, 4).byte(), None, "images have 3 channels; this scaling is for 1"),
        (torch.zeros(4, 1, 4, 4).byte(), 0, "batch_size is 0; it must be 1 or more"),
        (torch.zeros(4, 1, 4, 4).byte(), 2.5, "batch_size is 2.5; it must be an integer"),
    ],
)
def test_predicts_nothing_of_what_are_no_images(images, batch_size, message):
    with pytest.raises(ValueError, match=message):
        predict(OutOfMemory(100), images, Scaling((0.0,), (1.0,)), batch_size=batch_size)


def test_predicts_with_a_scaling_and_nothing_else():
    images, scaling = torch.zeros(4, 1, 2, 2).byte(), Scaling((0.5,), (0.5,))
    with pytest.raises(ValueError, match="scaling is a Fit; it must be a Scaling, as a Fit has"):
        predict(nn.Flatten(), images, training.Fit([], 1, scaling, 0.0))
    assert torch.equal(predict(nn.Flatten(), images, scaling), torch.full((4, 4), -1.0))


def test_scaling_and_result_are_loaded_by_the_safe_default(tmp_path):
    scaling = Scaling((0.5, 0.1, 0.2), (0.2, 0.3, 0.4))
    fit = training.Fit([{"epoch": 1, "val_auroc": 0.5}], 1, scaling, 2.5)
    torch.save({"scaling": scaling, "fit": fit}, tmp_path / "saved.pt")
    loaded = torch.load(tmp_path / "saved.pt")
    assert loaded == {"scaling": scaling, "fit": fit}
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(loaded["scaling"](images), scaling(images))


# ---------------------------------------------------------------- precision and compilation


def test_bfloat16_trains_like_float32(make_dataset):
    data = make_dataset()
    exact, rounded = (
        train(data, weight=0.1, ratio=0.5, epochs=4, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert rounded[1].history != exact[1].history
    for row, wanted in zip(rounded[1].history, exact[1].history, strict=True):
        assert all(type(value) is type(wanted[name]) for name, value in row.items())
        for name in ("train_total", "val_total", "val_cross_entropy", "val_feature_variance"):
            assert row[name] == pytest.approx(wanted[name], rel=0.05)
    assert {value.dtype for value in rounded[0].state_dict().values()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler on this machine")
@pytest.mark.filterwarnings("ignore")  # what torch.compile warns of is not ours
def test_a_compiled_model_is_the_same_model(make_dataset):
    data = make_dataset(counts=(34, 18, 8))  # batches of two sizes

    def trained(compile: bool) -> tuple:
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 1)
        return train(data, model=nn.Sequential(*layers), weight=0.1, compile=compile)

    plain, compiled = trained(False), trained(True)
    for row, wanted in zip(compiled[1].history, plain[1].history, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)
    torch.testing.assert_close(
        compiled[0].state_dict(), plain[0].state_dict(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.cuda
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_bfloat16_on_a_gpu(make_dataset, compile):
    data = make_dataset()
    _, exact = train(data, weight=0.1, device="cuda")
    _, rounded = train(data, weight=0.1, device="cuda", precision="bfloat16", compile=compile)
    last, wanted = rounded.history[-1], exact.history[-1]
    assert last["val_total"] == pytest.approx(wanted["val_total"], rel=0.05)


@pytest.mark.cuda
def test_images_that_do_not_fit_on_the_gpu_stay_on_the_host(make_dataset, monkeypatch):
    data = make_dataset(channels=3)
    settings = {"weight": 0.1, "device": "cuda"}
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        _, resident = train(data, **settings)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 10**9))
        assert training.Source(data.train, as_device("cuda")).home == torch.device("cpu")
        _, fed = train(data, **settings)
    assert fed.history == resident.history


@pytest.mark.cuda
@pytest.mark.parametrize("augment", [False, True])
def test_no_step_waits_for_the_gpu(make_dataset, augment):
    def waits(batch_size: int) -> int:
        settings = {"validate": False, "device": "cuda", "augment": augment, "epochs": 1}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                train(make_dataset(), weight=0.1, ratio=0.2, batch_size=batch_size, **settings)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(each.message) for each in caught)

    waits(8)  # combs and scaling are made once
    once_an_epoch = waits(32)
    assert once_an_epoch > 0  # else none was counted
    assert waits(8) == once_an_epoch


# ---------------------------------------------------------------- optimizers, by hand


@pytest.mark.parametrize(
    ("optimizer", "decay", "epsilon"),
    [
        *(("adam", decay, epsilon) for decay in (0.0, 0.1) for epsilon in (1e-8, 1e-2)),
        *(("adamw", 0.1, epsilon) for epsilon in (1e-8, 1e-2)),
        *(("sgd", decay, 1e-8) for decay in (0.0, 0.1)),
    ],
)
def test_two_steps_equal_those_by_hand(make_dataset, optimizer, decay, epsilon):
    data = make_dataset(size=4, counts=(8, 8, 8))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.linspace(-0.2, 0.2, 16))
        model[1].bias.fill_(0.1)
    data = replace(data, val=data.train)  # so that the second step is the better one
    x = np.c_[data.train.images.double().numpy().reshape(8, 16) / 255, np.ones(8)]
    y = data.train.labels.numpy()
    theta = np.append(np.linspace(-0.2, 0.2, 16), 0.1)
    rate, first, second = 0.05, np.zeros(17), np.zeros(17)
    for step in (1, 2):
        gradient = x.T @ (1 / (1 + np.exp(-x @ theta)) - y) / 8
        if optimizer == "adamw":
            theta = theta * (1 - rate * decay)
        else:
            gradient = gradient + decay * theta
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = np.sqrt(second / (1 - 0.999**step))
        adam = first / (1 - 0.9**step) / (unbiased + epsilon)
        theta = theta - rate * (gradient if optimizer == "sgd" else adam)

    model, result = train(
        data,
        model=model,
        batch_size=8,
        optimizer=optimizer,
        learning_rate=rate,
        weight_decay=decay,
        adam_epsilon=epsilon,
        normalize="unit",
    )
    assert result.best_epoch == 2
    parameters = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_allclose(parameters, theta, atol=2e-6)


# ---------------------------------------------------------------- a look at every epoch


def test_on_epoch_sees_the_model_before_and_after_every_epoch(make_dataset):
    data = make_dataset()
    seen = []

    def look(epoch: int, model: nn.Module) -> None:
        weights = torch.cat([value.detach().flatten() for value in model.parameters()])
        seen.append((epoch, model.training, weights))

    _, result = train(data, epochs=3, on_epoch=look)
    assert [epoch for epoch, _, _ in seen] == [0, 1, 2, 3]
    assert not any(training for _, training, _ in seen)
    assert all(not torch.equal(a[2], b[2]) for a, b in pairwise(seen))
    _, unseen = train(data, epochs=3)
    assert unseen.history == result.history


# ---------------------------------------------------------------- early stopping


def test_holds_the_weights_of_the_best_epoch(make_dataset):
    data = make_dataset(noisy_val=True)  # validation gets worse as training gets better
    model, result = train(data, epochs=8, learning_rate=3e-3, patience=3)
    recorded = [row["val_cross_entropy"] for row in result.history]
    assert result.best_epoch == 1 + int(np.argmin(recorded))
    assert result.best_epoch < len(recorded)
    again = evaluate(model, data.val, result.scaling, data.task)
    assert again["cross_entropy"] == pytest.approx(min(recorded), rel=1e-5)


@pytest.mark.parametrize(("monitor", "best"), [("cross_entropy", 3), ("total", 1)])
def test_watches_what_it_is_told_to(make_dataset, monkeypatch, monitor, best):
    # The total rises while the unscaled cross-entropy falls.
    script(monkeypatch, val_cross_entropy=[0.6, 0.5, 0.4], val_total=[1.0, 2.0, 3.0])
    _, result = train(make_dataset(counts=(8, 8, 8)), epochs=3, monitor=monitor)
    assert result.best_epoch == best


def test_watches_the_unscaled_cross_entropy_by_default(make_dataset, monkeypatch):
    script(monkeypatch, val_cross_entropy=[0.6, 0.5, 0.7], val_total=[3.0, 2.0, 1.0])
    assert train(make_dataset(counts=(8, 8, 8)), epochs=3)[1].best_epoch == 2


@pytest.mark.parametrize(
    ("losses", "patience", "epochs_run", "best"),
    [
        ([5, 4, 4, 4, 3, 2], 2, 4, 2),  # equal is not better
        ([5, 4, 6, 3, 6, 6, 1], 2, 6, 4),  # counted anew from each improvement
        ([5, 6, 4, 3, 2, 1], 1, 2, 1),
        ([5, 6, 7, 8, 4, 9], None, 6, 5),
        ([5, 6, 7, 8, 9, 9], 10, 6, 1),
    ],
)
def test_patience(make_dataset, monkeypatch, losses, patience, epochs_run, best):
    script(monkeypatch, val_cross_entropy=losses)
    _, result = train(make_dataset(counts=(8, 8, 8)), epochs=len(losses), patience=patience)
    assert (len(result.history), result.best_epoch) == (epochs_run, best)


def script(monkeypatch, **columns: list[float]) -> None:
    """Let validation return these values, epoch by epoch."""
    epochs = (
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    )
    monkeypatch.setattr(training, "_validate", lambda *_: next(epochs))


# ---------------------------------------------------------------- pairing of the methods


def seen_batches(dataset, **settings) -> list[torch.Tensor]:
    """One number an image, batch by batch, as the model sees it in training."""
    model, seen = build("small_cnn", in_channels=1, size=12, n_outputs=1), []

    def look(module: nn.Module, arguments: tuple) -> None:
        if module.training:
            seen.append(arguments[0].mean((1, 2, 3)))

    model.register_forward_pre_hook(look)
    train(dataset, model=model, **settings)
    return seen


def test_every_method_sees_the_same_samples_in_the_same_order(make_dataset):
    data = make_dataset()
    # Constant images, which no zoom or shift can change.
    images = torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1).expand(64, 1, 12, 12)
    data = replace(data, train=replace(data.train, images=images))
    baseline = seen_batches(data)
    assert len(baseline) == 8
    assert not torch.equal(torch.cat(baseline[:4]), torch.cat(baseline[4:]))  # shuffled anew
    for settings in ({"weight": 1.0, "ratio": 0.2}, {"augment": True}, {"lambda_": 0.5}):
        torch.testing.assert_close(seen_batches(data, **settings), baseline)
    assert not torch.equal(torch.cat(seen_batches(data, seed=1)), torch.cat(baseline))


def test_augmentation_changes_training_images_only(make_dataset):
    data = make_dataset()
    plain, moved = seen_batches(data), seen_batches(data, augment=True)
    assert not torch.allclose(torch.cat(plain), torch.cat(moved))
    rows = [
        train(data, augment=augment, learning_rate=1e-12)[1].history[0] for augment in (True, False)
    ]
    assert rows[0]["val_cross_entropy"] == pytest.approx(rows[1]["val_cross_entropy"], rel=1e-6)
    assert rows[0]["train_cross_entropy"] != rows[1]["train_cross_entropy"]


@given(st.integers(2, 200), st.integers(2, 50), st.one_of(st.none(), st.integers(0, 99)))
def test_batches_hold_every_sample_once_and_none_alone(count, batch_size, seed):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    parts = list(batches(count, batch_size, generator))
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    assert all(2 <= len(part) <= batch_size + 1 for part in parts)
    assert all(len(part) == batch_size for part in parts[:-1])
    if seed is None:
        assert torch.cat(parts).tolist() == list(range(count))


# ---------------------------------------------------------------- scaling


@pytest.mark.parametrize("shape", [(1100, 3, 5, 4), (20, 1, 4, 3, 5)])
def test_scaling_equals_numpy(shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    axes = (0, *range(2, len(shape)))
    pixels = images.double().numpy() / 255
    scaling = Scaling.of(images)
    assert scaling.mean == pytest.approx(pixels.mean(axes))
    assert scaling.std == pytest.approx(pixels.std(axes))
    column = (1, -1) + (1,) * (len(shape) - 2)
    expected = (pixels - pixels.mean(axes).reshape(column)) / pixels.std(axes).reshape(column)
    np.testing.assert_allclose(scaling(images).numpy(), expected, atol=2e-6)
    unit = Scaling.of(images, "unit")
    np.testing.assert_allclose(unit(images).numpy(), pixels, atol=1e-6)


def test_scaling_takes_expanded_images_and_constant_channels():
    images = torch.full((4, 1, 3, 3), 51, dtype=torch.uint8).expand(4, 3, 3, 3)
    scaling = Scaling.of(images)
    assert scaling == Scaling(mean=(0.2,) * 3, std=(1.0,) * 3)
    scaled = scaling(images)
    torch.testing.assert_close(scaled, torch.zeros(4, 3, 3, 3), atol=1e-6, rtol=0)
    assert scaled.is_contiguous(memory_format=torch.channels_last)
    assert (images == 51).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "last", "expanded"])
def test_a_batch_is_taken_and_scaled_as_plainly_written(channels, dims, kind):
    size = (5, 6, 7)[:dims]
    images = torch.randint(0, 256, (20, channels, *size), dtype=torch.uint8)
    if kind == "last":
        images = images.movedim(1, -1).contiguous().movedim(-1, 1)
    if kind == "expanded":
        images = images[:, :1].expand(-1, 3, *size)
    labels, chosen = torch.arange(20), torch.tensor([3, 19, 0, 3])
    subset = SimpleNamespace(images=images, labels=labels)
    taken, found = training.Source(subset, torch.device("cpu")).take(chosen)
    assert torch.equal(taken, images[chosen])
    assert torch.equal(found, chosen)
    scaling = Scaling.of(images)
    # Exactly: what is recorded depends on it.
    column = (1, -1) + (1,) * dims
    std, mean = torch.tensor(scaling.std).view(column), torch.tensor(scaling.mean).view(column)
    scaled = scaling(taken)
    assert torch.equal(scaled, images[chosen].float() * (1 / (255 * std)) - mean / std)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert scaled.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("images", "normalize", "message"),
    [
        (torch.zeros(2, 1, 3, 3), "standard", "images are torch.float32; they must be uint8"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), "half", "normalize is 'half'; allowed are"),
    ],
)
def test_scaling_refuses(images, normalize, message):
    with pytest.raises(ValueError, match=message):
        Scaling.of(images, normalize)


# ---------------------------------------------------------------- losses that are not finite


class Diverging(nn.Module):
    """Features or logits that stop being finite at one of the forward passes."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.ones(144)), nn.Linear(144, 1)
        self.at, self.what, self.calls = at, what, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        bad = torch.nan if self.calls == self.at else 1.0
        features = self.scale * images.flatten(1) * (bad if self.what == "features" else 1.0)
        return self.head(features) * (bad if self.what == "logits" else 1.0)


@pytest.mark.parametrize(
    ("at", "place"), [(1, "epoch 1, step 1"), (8, "epoch 2, step 2"), (6, "the end of epoch 1")]
)
@pytest.mark.parametrize("validate", [True, False])
def test_a_loss_that_is_not_finite_says_where_and_of_what(make_dataset, at, place, validate):
    model = Diverging(at, "logits")
    with pytest.raises(NonFiniteLossError) as error:  # 4 steps and 2 validation batches an epoch
        train(make_dataset(), model=model, weight=0.25, lambda_=0.5, validate=validate)
    assert model.calls == (at if validate else {1: 4, 8: 10, 6: 6}[at])  # at once, or later
    message = str(error.value)
    assert f"the loss is nan at {place}" in message
    assert "cross-entropy nan x lambda 0.5, feature variance " in message
    assert "x weight 0.25; lower the learning rate" in message


@pytest.mark.parametrize(
    ("at", "place"), [(3, "epoch 1, step 3"), (5, "the end of epoch 1, on the validation split")]
)
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_features_that_are_not_finite_say_where(make_dataset, at, place, weight):
    with pytest.raises(
        NonFiniteLossError, match=f"feature variance is not finite at {place}: .*NaN"
    ):
        train(make_dataset(), model=Diverging(at, "features"), weight=weight)


@pytest.mark.parametrize("batch_size", [7, 11, 16])
def test_a_divergence_found_late_is_dated_as_one_found_at_once(make_dataset, batch_size):
    settings = {"weight": 1.0, "learning_rate": 1e18, "epochs": 3, "batch_size": batch_size}
    places = []
    for validate in (True, False):
        with pytest.raises(NonFiniteLossError) as error:
            train(make_dataset(), validate=validate, **settings)
        places.append(re.search(r"at (epoch \d, step \d+|the end of epoch \d)", str(error.value)))
    assert places[0][1] == places[1][1]


@pytest.mark.parametrize("at", [1, 8, 9])
def test_the_step_of_a_divergence_where_a_last_sample_joined_a_batch(make_dataset, at):
    with pytest.raises(NonFiniteLossError, match=f"at epoch 1, step {at}:"):
        train(make_dataset(), model=Diverging(at, "logits"), batch_size=7, validate=False)


def test_labels_that_are_no_class_are_refused_before_the_first_step(make_dataset):
    data = make_dataset("multiclass")
    data.val.labels[3] = data.n_outputs
    with pytest.raises(ValueError, match=f"labels go from 0 to {data.n_outputs}"):
        train(data, validate=False)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
        ({"batch_size": 1}, "batch_size is 1; a variance over the batch needs 2 or more"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; allowed are adam, adamw, sgd"),
        ({"learning_rate": 0}, "learning_rate is 0.0; it must be finite and greater than 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be finite and at least 0"),
        ({"adam_epsilon": 0.0}, "adam_epsilon is 0.0; it must be finite and greater than 0"),
        ({"patience": 0}, "patience is 0; it must be 1 or more, or None"),
        ({"monitor": "accuracy"}, "monitor is 'accuracy'; allowed are cross_entropy, total"),
        ({"normalize": "half"}, "normalize is 'half'; allowed are standard, unit"),
        ({"precision": "half"}, "precision is 'half'; allowed are float32, bfloat16"),
        ({"seed": -1}, "seed is -1; it must be 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"seed": "1"}, "seed is '1'; give a whole number"),
        ({"seed": 1.5}, "seed is 1.5; give a whole number"),
        ({"seed": True}, "seed is True; give a whole number"),
        ({"seed": np.bool_(True)}, "seed is .*True.*; give a whole number"),
        ({"seed": None}, "seed is None; give a whole number"),
        ({"seed": [1]}, r"seed is \[1\]; give a whole number"),
        ({"seed": float("nan")}, "seed is nan; give a whole number"),
        ({"epochs": "None"}, "epochs is 'None'; give a whole number"),
        ({"batch_size": "64"}, "batch_size is '64'; give a whole number"),
        ({"patience": "3"}, "patience is '3'; give a whole number, or None"),
        ({"learning_rate": "1e-3"}, "learning_rate is '1e-3'; give a number"),
        ({"learning_rate": True}, "learning_rate is True; give a number"),
        ({"weight_decay": None}, "weight_decay is None; give a number"),
        ({"augment": "true"}, "augment is 'true'; give True or False"),
        ({"augment": 1}, "augment is 1; give True or False"),
        ({"optimizer": None}, "optimizer is None; give a text"),
    ],
)
def test_settings_outside_their_range_or_of_another_type(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{"epochs": 1} | settings)
    with pytest.raises(ValueError, match=message):
        fit(nn.Identity(), None, VariancePenalizedLoss("binary"), **{"epochs": 1} | settings)


@pytest.mark.parametrize("name", ["abacus"] + ["cuda"] * (not torch.cuda.is_available()))
def test_a_device_that_is_not_there(make_dataset, name):
    message = f"device is '{name}', which cannot be used here .*; use 'cpu'"
    for call in (lambda: as_device(name), lambda: train(make_dataset(), device=name)):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_default_device():
    assert as_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert as_device("cpu") == as_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(("split", "words"), [("train", "training"), ("val", "validation")])
@pytest.mark.parametrize("count", [0, 1])
def test_a_split_that_is_empty_or_holds_one_sample(make_dataset, split, words, count):
    data = make_dataset(counts=(8, 8, 8))

    class Part(SimpleNamespace):  # what a data set of one's own may look like
        def __len__(self) -> int:
            return len(self.labels)

    whole = getattr(data, split)
    data = replace(data, **{split: Part(images=whole.images[:count], labels=whole.labels[:count])})
    with pytest.raises(
        ValueError, match=f"the {words} split of tiny holds {count} samples; .* 2 or more"
    ):
        train(data)


def test_evaluating_an_empty_split(make_dataset):
    data = make_dataset(counts=(8, 8, 8))
    model, result = train(data, epochs=1)
    empty = SimpleNamespace(images=data.test.images[:0], labels=data.test.labels[:0])
    with pytest.raises(ValueError, match="there is no sample to evaluate: the split is empty"):
        evaluate(model, empty, result.scaling, data.task)


def test_a_criterion_for_another_task(make_dataset):
    model = build("small_cnn", in_channels=1, size=12, n_outputs=3)
    with pytest.raises(
        ValueError, match=r"for a binary task and tiny is multiclass; .*'multiclass'"
    ):
        fit(model, make_dataset("multiclass"), VariancePenalizedLoss("binary"), epochs=1)


# ---------------------------------------------------------------- what it shows


def test_writes_tensorboard_events(make_dataset, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, result = train(make_dataset(counts=(8, 8, 8)), log_dir=tmp_path / "log")
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert "val/cross_entropy" in events.Tags()["scalars"]
    for event, row in zip(events.Scalars("train/feature_variance"), result.history, strict=True):
        assert event.step == row["epoch"]
        assert event.value == pytest.approx(row["train_feature_variance"], rel=1e-6)


def test_a_log_without_tensorboard(make_dataset, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"needs TensorBoard: pip install 'varreg\[tensorboard\]'"):
        train(make_dataset(counts=(8, 8, 8)), log_dir=tmp_path)


def test_prints_nothing_off_a_terminal(make_dataset, capfd):
    _, result = train(make_dataset(counts=(8, 8, 8)), progress=True)
    assert isinstance(result, Fit)
    assert capfd.readouterr() == ("", "")


def test_the_penalty_of_a_linear_model_is_a_constant_of_its_images():
    phantom = load("phantom")

    def trained(weight: float) -> tuple[nn.Module, Fit]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(phantom.train.images[0].numel(), 1))
        return model, fit(model, phantom, VariancePenalizedLoss("binary", weight), epochs=2)

    (plain, _), (penalized, result) = trained(0.0), trained(3.0)
    for first, second in zip(plain.parameters(), penalized.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert result.history[0]["train_feature_variance"] > 0
