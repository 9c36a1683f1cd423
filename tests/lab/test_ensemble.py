from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from varreg import VariancePenalizedLoss
from varreg.lab import ensemble
from varreg.lab.ensemble import can_ensemble, fit_ensemble, predict_ensemble
from varreg.lab.models import MODELS, build
from varreg.lab.training import Fit, NonFiniteLossError, fit, predict

SETTINGS = {"epochs": 2, "batch_size": 16, "device": "cpu"}
on_each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
)


def members(dataset, seeds, *, model="small_cnn", weight=0.0, ratio=1.0, lambda_=1.0):
    """Models and criteria as new for each seed: the same at every call."""
    models, criteria = [], []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(
            build(
                model,
                in_channels=dataset.channels,
                size=dataset.size,
                n_outputs=dataset.n_outputs,
            )
        )
        generator = torch.Generator().manual_seed(seed)
        criteria.append(
            VariancePenalizedLoss(dataset.task, weight, ratio, lambda_, generator=generator)
        )
    return models, criteria


def alone(dataset, seeds, settings, **kind):
    models, criteria = members(dataset, seeds, **kind)
    together = zip(models, criteria, seeds, strict=True)
    return models, [fit(m, dataset, c, seed=seed, **settings) for m, c, seed in together]


def together(dataset, seeds, settings, **kind):
    models, criteria = members(dataset, seeds, **kind)
    return models, fit_ensemble(models, dataset, criteria, seeds=seeds, **settings)


def assert_same(one, other, *, tolerance=2e-5):
    """Round-off of float32 (6e-8), grown over some ten steps; seeds differ by 0.01 and more."""
    for model, twin, result, expected in zip(one[0], other[0], one[1], other[1], strict=True):
        assert isinstance(result, Fit)
        assert result.best_epoch == expected.best_epoch
        assert result.scaling == expected.scaling
        assert [list(row) for row in result.history] == [list(row) for row in expected.history]
        for row, wanted in zip(result.history, expected.history, strict=True):
            assert row == pytest.approx(wanted, rel=tolerance, abs=tolerance, nan_ok=True)
        torch.testing.assert_close(
            model.state_dict(), twin.state_dict(), rtol=0, atol=tolerance, check_device=False
        )
        assert not model.training


# ---------------------------------------------------------------- each is what it is alone


CASES = {
    "baseline": ({}, {}),
    "penalized": ({"weight": 0.5, "ratio": 0.2, "lambda_": 0.5}, {}),
    "all features": ({"weight": 2.0}, {"optimizer": "adamw", "weight_decay": 0.1}),
    "unweighted": ({"ratio": 0.3}, {"optimizer": "sgd", "learning_rate": 0.1}),
    "augmented": ({"model": "paper_cnn"}, {"augment": True, "adam_epsilon": 1e-7}),
    "deep": ({"model": "paper_cnn_deep", "weight": 1.0}, {"normalize": "unit"}),
}


@on_each_device
@pytest.mark.parametrize("case", CASES)
def test_every_member_is_what_it_is_alone(make_dataset, case, device):
    data = make_dataset(counts=(65, 33, 8))  # a last batch of one joins the one before it
    kind, settings = CASES[case]
    settings = SETTINGS | settings | {"device": device}
    # TensorFloat-32 keeps three digits, which is not the rounding that is meant here.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        first = together(data, (3, 5), settings, **kind)
        assert_same(first, alone(data, (3, 5), settings, **kind))
    weights = [nn.utils.parameters_to_vector(model.parameters()) for model in first[0]]
    assert (weights[0] - weights[1]).abs().max() > 0.01


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_every_task_with_colours(make_dataset, task):
    data = make_dataset(task, channels=3)
    kind = {"weight": 0.1, "ratio": 0.5}
    first = together(data, (0, 1, 2), SETTINGS, **kind)
    assert_same(first, alone(data, (0, 1, 2), SETTINGS, **kind))


def test_members_that_stop_at_different_epochs(make_dataset):
    data = make_dataset(counts=(48, 24, 8))
    labels = torch.cat([1 - data.val.labels[:6], data.val.labels[6:]])  # soon fits no better
    data = replace(data, val=replace(data.val, labels=labels))
    settings = SETTINGS | {"epochs": 8, "patience": 1}
    seeds = (0, 1, 2, 3)
    first = together(data, seeds, settings)
    assert_same(first, alone(data, seeds, settings))
    assert len({len(result.history) for result in first[1]}) > 1
    assert min(len(result.history) for result in first[1]) < 8


@pytest.mark.parametrize("seeds", [(3,), (3, 8, 9), (9, 8, 3, 4, 7)])
def test_a_seed_is_the_same_whoever_trains_beside_it(make_dataset, seeds):
    data = make_dataset()
    kind = {"weight": 0.5, "ratio": 0.2}
    settings = SETTINGS | {"augment": True}
    models, results = together(data, (5, 3), settings, **kind)
    others, found = together(data, seeds, settings, **kind)
    at = seeds.index(3)
    assert_same((models[1:], results[1:]), ([others[at]], [found[at]]))


def test_predictions_are_those_of_each_model(make_dataset):
    data = make_dataset("multiclass", channels=3, counts=(32, 16, 21))
    models, results = together(data, (0, 1), SETTINGS)
    logits = predict_ensemble(models, data.test.images, results[0].scaling, batch_size=4)
    expected = [predict(model, data.test.images, results[0].scaling) for model in models]
    torch.testing.assert_close(logits, torch.stack(expected), rtol=0, atol=1e-5)


def test_layers_of_other_shapes():
    torch.manual_seed(0)

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 3, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
            nn.AvgPool2d(2),
            nn.Conv2d(3, 4, 1, stride=2, bias=False),
            nn.Conv2d(4, 4, 1, padding=1),
            nn.Flatten(),
            nn.Linear(4 * 3 * 5, 3, bias=False),
        )

    models = [make() for _ in range(3)]
    images = torch.randn(5, 2, 12, 13)
    stacked = ensemble._stacked(models)(images.repeat(1, 3, 1, 1))
    expected = torch.cat([model(images) for model in models], 1)
    torch.testing.assert_close(stacked, expected, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- a member that fails


def spoil(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.head.weight.fill_(math.inf)
    return model


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_member_that_diverges_leaves_the_others_alone(make_dataset, optimizer):
    data = make_dataset()
    settings = SETTINGS | {"optimizer": optimizer}
    models, criteria = members(data, (0, 1, 2), weight=0.5, ratio=0.2)
    spoil(models[1])
    results = fit_ensemble(models, data, criteria, seeds=(0, 1, 2), **settings)
    assert isinstance(results[1], NonFiniteLossError)
    message = str(results[1])
    assert "the loss is nan at epoch 1, step 1, of seed 1: cross-entropy nan x lambda" in message
    assert "x weight 0.5; lower the learning rate" in message
    assert models[1].head.weight.isinf().all()
    expected = alone(data, (0, 2), settings, weight=0.5, ratio=0.2)
    assert_same((models[::2], results[::2]), expected)


def test_a_later_divergence_is_dated_as_it_is_alone(make_dataset):
    data = make_dataset()
    settings = SETTINGS | {"learning_rate": 1e18, "epochs": 3}
    _, results = together(data, (0, 1), settings, weight=1.0)
    for seed, result in enumerate(results):
        with pytest.raises(NonFiniteLossError) as error:
            alone(data, (seed,), settings, weight=1.0)
        place = str(error.value).partition(" at ")[2].partition(":")[0]
        assert f"at {place}, of seed {seed}:" in str(result)


def test_a_loss_that_breaks_on_the_validation_split(make_dataset, monkeypatch):
    data = make_dataset()
    loss = ensemble._loss

    def broken(criterion, logits, labels, features):
        parts = loss(criterion, logits, labels, features)
        # The second member's first validation batch: batches of 32 are those of that split.
        spoilt = torch.tensor([0.0, math.inf]) if not torch.is_grad_enabled() else torch.zeros(2)
        return parts._replace(total=parts.total + spoilt[: len(parts.total)])

    monkeypatch.setattr(ensemble, "_loss", broken)
    _, results = together(data, (4, 6), SETTINGS)
    assert isinstance(results[0], Fit)
    assert "the loss is inf at the end of epoch 1, on the validation split, of seed 6" in str(
        results[1]
    )


# ---------------------------------------------------------------- what is refused


class Mixed(nn.Module):
    """Its own code takes the mean over channels, which a stack cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(100, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.conv(images)
        return self.head(
            (hidden - hidden.mean(1, keepdim=True))[:, :1]
            .repeat(1, images.shape[1], 1, 1)
            .flatten(1)
        )


def test_networks_that_cannot_be_stacked(make_dataset):
    unable = {n for n in MODELS if not can_ensemble(build(n, in_channels=1, size=32, n_outputs=1))}
    assert unable == {"resnet18", "small_resnet", "small_vit", "small_cnn_norm"}
    for layer in (
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv3d(4, 4, 3),
        nn.Dropout(),
        nn.GroupNorm(1, 4),
    ):
        assert not can_ensemble(nn.Sequential(layer, nn.Flatten(), nn.Linear(4, 1)))
    data = make_dataset(counts=(8, 8, 8))
    models, criteria = [Mixed(), Mixed()], members(data, (0, 1))[1]
    assert can_ensemble(models[0])
    with pytest.raises(ValueError, match="Mixed gives other logits beside others than alone"):
        fit_ensemble(models, data, criteria, seeds=(0, 1), **SETTINGS)
    normed = [nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(144, 1)) for _ in range(2)]
    with pytest.raises(ValueError, match=r"because of 0 \(BatchNorm2d\); train its seeds one"):
        fit_ensemble(normed, data, criteria, seeds=(0, 1), **SETTINGS)


def test_members_that_do_not_belong_together(make_dataset):
    data = make_dataset(counts=(8, 8, 8))
    models, criteria = members(data, (0, 1), weight=0.1, ratio=0.5)

    def refused(message, models=models, criteria=criteria, seeds=(0, 1), **settings):
        with pytest.raises(ValueError, match=message):
            fit_ensemble(models, data, criteria, seeds=seeds, **(SETTINGS | settings))

    refused("2 models, 2 criteria and 1 seeds; give one of each", seeds=(0,))
    refused("0 models, 0 criteria and 0 seeds", [], [], ())
    refused("a model stands in the list twice", models[:1] * 2)
    refused("a generator that members share", criteria=criteria[:1] * 2)
    other = members(data, (0,), weight=0.2, ratio=0.5)[1]
    refused("the criteria differ: .*0.1.* and .*0.2", criteria=criteria[:1] + other)
    own = VariancePenalizedLoss("binary", classification=nn.BCEWithLogitsLoss())
    refused("leave classification out, or train each member by itself", criteria=[own] * 2)
    deep = build("paper_cnn_deep", in_channels=1, size=12, n_outputs=1)
    refused("parameters of different names or shapes", models=[models[0], deep])
    refused("epochs is 0", epochs=0)
    refused("multiclass", criteria=members(make_dataset("multiclass"), (0, 1))[1])


def test_labels_without_an_output(make_dataset):
    data = make_dataset("multiclass", counts=(9, 9, 9))
    models, criteria = members(replace(data, class_names=("a", "b")), (0, 1))
    with pytest.raises(ValueError, match="labels go from 0 to 2; with 2 logits"):
        fit_ensemble(models, data, criteria, seeds=(0, 1), **SETTINGS)
