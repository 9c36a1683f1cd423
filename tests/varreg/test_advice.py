"""The probe, on cases where the right answer is known."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from varreg import recommend
from varreg.__main__ import main
from varreg.advice import FAR, RHO
from varreg.evidence import EVIDENCE

SMALL, MIDDLE, LARGE = EVIDENCE


def network(*between: nn.Module, width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), *between, nn.Linear(width, 2))


def images(count: int, batch: int = 32, **options: object) -> DataLoader:
    data = TensorDataset(torch.randn(count, 4), torch.arange(count) % 2)
    return DataLoader(data, batch, **options)


def why(advice) -> str:
    return " ".join(advice.reasons)


def test_what_is_measured_is_what_numpy_measures():
    model = network()
    with torch.no_grad():
        model[0].weight[2] = 0  # a feature that is its bias, whatever the image
    batches = [(torch.randn(16, 4), torch.randint(0, 2, (16,))) for _ in range(3)]
    first, head = (part.weight.detach().double().numpy() for part in (model[0], model[1]))
    biases = [part.bias.detach().double().numpy() for part in (model[0], model[1])]
    variances, ratios = [], []
    for x, y in batches:
        f = x.double().numpy() @ first.T + biases[0]
        p = np.exp(f @ head.T + biases[1])
        p /= p.sum(1, keepdims=True)
        pulls = (p - np.eye(2)[y]) @ head / len(f)
        ratios.append(np.linalg.norm(pulls) / np.linalg.norm(2 * (f - f.mean(0)) / f.size))
        variances.append(f.var(0))
    each = np.mean(variances, 0)
    advice = recommend(model, batches, "multiclass", images=500)
    assert advice.ratio == pytest.approx(np.median(ratios), rel=1e-5)
    assert advice.weight == pytest.approx(RHO * np.median(ratios), rel=1e-5)
    assert advice.mean_variance == pytest.approx(each.mean(), rel=1e-5)
    assert advice.median_variance == pytest.approx(np.sort(each)[2], rel=1e-5)
    assert advice.dead == pytest.approx(1 / 6)
    assert (advice.layer, advice.features, advice.batches) == ("1", 6, 3)
    report = str(advice)
    assert f"{advice.weight:.3g}" in report
    assert f"GradientRatio(rho={RHO:g})" in report


def test_nothing_of_the_model_changes():
    model = network(nn.BatchNorm1d(6), nn.Dropout(0.5)).eval()
    model[1].train()
    loader = images(64, shuffle=True)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    recommend(model, loader, "multiclass")
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [module.training for module in model] == [False, True, False, False]
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("count", "augmented", "answer"),
    [
        (SMALL.images, False, "try it"),
        (SMALL.images, True, "don't"),
        (MIDDLE.images, False, "try it"),
        (MIDDLE.images, True, "unclear"),
        (LARGE.images, False, "don't"),
        (LARGE.images, True, "unclear"),
        (FAR * LARGE.images + 1, False, "don't"),
        (SMALL.images // FAR - 1, False, "unclear"),
    ],
)
def test_the_number_of_images_decides_as_the_studies_do(count, augmented, answer):
    advice = recommend(network(), images(64), "multiclass", images=count, augmented=augmented)
    assert advice.answer == answer
    nearest = next((one for one in EVIDENCE if count <= one.images), LARGE)
    assert nearest.data in why(advice)
    assert ("PenalizedLoss" in str(advice)) == (answer != "don't")


def test_many_images_are_to_be_augmented_first():
    advice = recommend(network(), images(LARGE.images), "multiclass", batches=2)
    assert (advice.images, advice.batches) == (LARGE.images, 2)
    assert "Augment first" in why(advice)
    assert str(LARGE.augmentation) in why(advice)


def test_a_frozen_backbone_makes_the_penalty_inert():
    model = network()
    model[0].requires_grad_(False)
    advice = recommend(model, images(SMALL.images), "multiclass")
    assert (advice.answer, advice.ratio, advice.weight) == ("don't", None, None)
    assert "frozen" in why(advice)
    model[0].bias.requires_grad_(True)
    assert recommend(model, images(SMALL.images), "multiclass").answer == "try it"


@pytest.mark.parametrize(
    ("between", "answer", "name"),
    [
        ([nn.BatchNorm1d(6)], "unclear", "1"),
        ([nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.1)], "unclear", "1"),
        ([nn.BatchNorm1d(6, affine=False)], "don't", "1"),
        ([nn.BatchNorm1d(6, affine=False, track_running_stats=False)], "don't", "without a name"),
        ([nn.BatchNorm1d(6, affine=False), nn.ReLU()], "unclear", "1"),
        ([nn.BatchNorm1d(6), nn.Linear(6, 6)], "try it", None),
        ([nn.LayerNorm(6)], "try it", None),
        ([nn.Unflatten(1, (2, 3)), nn.BatchNorm1d(2), nn.Flatten()], "unclear", "2"),
    ],
)
def test_batch_normalization_before_the_features_is_seen(between, answer, name):
    advice = recommend(network(*between), images(SMALL.images), "multiclass")
    assert (advice.answer, advice.normalization) == (answer, name)
    assert ("Batch normalization" in why(advice)) == (name is not None)


def test_a_mean_over_the_image_leaves_the_variance_free():
    body = [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    loader = [(torch.randn(8, 1, 8, 8), torch.randint(0, 2, (8,)))]
    advice = recommend(nn.Sequential(*body, nn.Linear(6, 2)), loader, "multiclass", images=500)
    assert advice.normalization is None


def test_frozen_scales_of_a_normalization_fix_the_variance():
    model = network(nn.BatchNorm1d(6))
    model[1].weight.requires_grad_(False)
    assert recommend(model, images(SMALL.images), "multiclass").answer == "don't"


def test_batches_of_one_have_no_variance():
    advice = recommend(network(), images(SMALL.images, 1), "multiclass")
    assert (advice.answer, advice.batches) == ("don't", 0)
    assert "one image has no variance" in why(advice)


@pytest.mark.parametrize(("drop", "told"), [(False, True), (True, False)])
def test_a_last_batch_of_one_is_told(drop, told):
    advice = recommend(network(), images(513, 32, drop_last=drop), "multiclass")
    assert advice.answer == "try it"
    assert ("drop_last" in why(advice)) == told


def test_constant_features_pull_at_nothing():
    model = network()
    nn.init.zeros_(model[0].weight)
    advice = recommend(model, images(SMALL.images), "multiclass")
    assert (advice.answer, advice.dead, advice.mean_variance) == ("don't", 1.0, 0.0)


def test_images_are_counted_where_the_loader_says():
    subset = images(900, sampler=SubsetRandomSampler(range(300)))
    assert recommend(network(), subset, "multiclass").images == 300
    batches = list(images(100, 25))
    assert recommend(network(), batches, "multiclass").images == 100
    assert recommend(network(), batches, "multiclass", batches=2).images is None
    assert recommend(network(), iter(batches * 9), "multiclass").answer == "unclear"


def test_another_form_of_batch_and_model_needs_a_step():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, pixels):
            return {"scores": self.inner(pixels)}

    loader = [{"pixels": x, "label": y} for x, y in images(64)]
    with pytest.raises(ValueError, match="give step="):
        recommend(Named(), loader, "multiclass")
    with pytest.raises(ValueError, match="a dict without logits; give step="):
        recommend(Named(), images(64), "multiclass")
    advice = recommend(
        Named(),
        loader,
        "multiclass",
        images=500,
        step=lambda model, batch: (model(batch["pixels"])["scores"], batch["label"]),
    )
    assert (advice.answer, advice.layer) == ("try it", "inner.1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "regression"}, "task is 'regression'"),
        ({"batches": 0}, "batches is 0; it must be 1 or more"),
        ({"images": 0}, "images is 0; it must be 1 or more"),
        ({"augmented": 1}, "augmented is 1; it must be True or False"),
        ({"loader": []}, "gave no batch"),
        ({"layer": "nix"}, "no layer 'nix'"),
        ({"model": "net"}, "model is a str"),
    ],
)
def test_what_cannot_be_asked_is_refused(change, message):
    given = {"model": network(), "loader": images(64), "task": "multiclass"} | change
    with pytest.raises(ValueError, match=message):
        recommend(**given)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    (tmp_path / "my_project.py").write_text("""
import torch
def mine():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 1))
    data = torch.utils.data.TensorDataset(torch.randn(500, 4), torch.randint(0, 2, (500,)))
    return model, torch.utils.data.DataLoader(data, 50), "binary"
def half():
    return mine()[:2]
value = 3
""")
    yield tmp_path
    sys.modules.pop("my_project", None)


def test_the_command_prints_the_report(folder, capsys):
    assert main(["probe", "my_project:mine"]) == 0
    said = capsys.readouterr().out
    assert "Answer    try it" in said
    assert "8 batches; 500 training images" in said
    arguments = ["--images", "4708", "--batches", "2", "--layer", "0"]
    assert main(["probe", "my_project:mine", *arguments]) == 0
    said = capsys.readouterr().out
    assert "2 batches; 4,708 training images" in said
    assert "layer '0': 4 of each image" in said
    assert "Answer    don't" in said


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("my_project", "MODULE:FUNCTION"),
        ("my_project:value", "names no function"),
        ("my_project:none", "names no function"),
        ("my_project:half", "it must return three"),
        ("no_such_project:mine", "no_such_project"),
    ],
)
def test_the_command_says_what_it_needs(folder, capsys, factory, message):
    assert main(["probe", factory]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
