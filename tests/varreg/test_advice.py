"""The probe, on cases where the right answer is known."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

import varreg.advice
from varreg import recommend
from varreg.__main__ import main
from varreg.advice import FAR
from varreg.evidence import EVIDENCE, NORMALIZED, PAPER, STRENGTH, Gain

BREAST, SMALLEST, LARGEST = EVIDENCE[0], EVIDENCE[1], EVIDENCE[-1]
DATA = {one.data for one in EVIDENCE}


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
    assert advice.weight == pytest.approx(STRENGTH * np.median(ratios), rel=1e-5)
    assert advice.mean_variance == pytest.approx(each.mean(), rel=1e-5)
    assert advice.median_variance == pytest.approx(np.sort(each)[2], rel=1e-5)
    assert advice.dead == pytest.approx(1 / 6)
    assert (advice.layer, advice.features, advice.batches) == ("1", 6, 3)
    report = str(advice)
    assert f"{advice.weight:.3g}" in report
    assert f"GradientRatio(rho={STRENGTH:g})" in report


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
    [(one.images, False, "try it") for one in EVIDENCE]
    + [
        (BREAST.images, True, "don't"),
        (BREAST.images // FAR - 1, True, "unclear"),
        (LARGEST.images, True, "unclear"),  # of two near ones it adds on one
        (LARGEST.images * FAR + 1, True, "unclear"),
        (LARGEST.images * FAR, False, "try it"),
        (LARGEST.images * FAR + 1, False, "unclear"),
        (SMALLEST.images // FAR - 1, False, "unclear"),
    ],
)
def test_the_answer_is_that_of_the_nearest_studies(count, augmented, answer):
    advice = recommend(network(), images(64), "multiclass", images=count, augmented=augmented)
    assert advice.answer == answer
    assert ("PenalizedLoss" in str(advice)) == (answer != "don't")
    measured = [one for one in EVIDENCE if one.beside is not None or not augmented]
    near = {one.data for one in measured if max(count, one.images) <= FAR * min(count, one.images)}
    assert {name for name in DATA if f"training images of {name}" in why(advice)} == (
        near or {min(measured, key=lambda one: abs(np.log(one.images / count))).data}
    )
    assert ("Nothing was measured" in why(advice)) == (not near)


@pytest.mark.parametrize("one", EVIDENCE)
def test_what_was_measured_at_that_size_is_quoted(one):
    advice = recommend(network(), images(64), "multiclass", images=one.images, batches=2)
    assert (advice.images, advice.batches) == (one.images, 2)
    assert f"{one.images:,} training images of {one.data}" in why(advice)
    for gain in (one.cross_entropy, one.auroc, one.augmentation, one.feature_l2):
        assert str(gain) in why(advice)
    assert str(PAPER.self_setting) in why(advice)
    (line,) = [reason for reason in advice.reasons if reason.startswith("Augment, too")]
    assert (one.data in line) == (one.augmentation.mean < one.cross_entropy.mean)


def test_where_no_study_gained_the_answer_is_no(monkeypatch):
    worse = Gain(0.02, 0.01, 0.03, 9)
    told = [one._replace(cross_entropy=worse) for one in EVIDENCE]
    monkeypatch.setattr(varreg.advice, "EVIDENCE", told)
    assert recommend(network(), images(64), "multiclass", images=500).answer == "don't"
    monkeypatch.setattr(varreg.advice, "EVIDENCE", [BREAST, *told[1:]])
    assert recommend(network(), images(64), "multiclass", images=500).answer == "unclear"


def test_where_it_adds_to_augmentation_on_all_that_is_near_the_answer_is_to_try(monkeypatch):
    def ask() -> str:
        given = {"images": LARGEST.images, "augmented": True}
        return recommend(network(), images(64), "multiclass", **given).answer

    for mean, answer in ((-0.05, "try it"), (-0.005, "don't")):
        gain = Gain(mean, mean - 0.01, mean + 0.01, 9)
        told = [one._replace(beside=one.beside and gain) for one in EVIDENCE]
        monkeypatch.setattr(varreg.advice, "EVIDENCE", told)
        assert ask() == answer


def test_a_frozen_backbone_makes_the_penalty_inert():
    model = network()
    model[0].requires_grad_(False)
    advice = recommend(model, images(BREAST.images), "multiclass")
    assert (advice.answer, advice.ratio, advice.weight) == ("don't", None, None)
    assert "frozen" in why(advice)
    model[0].bias.requires_grad_(True)
    assert recommend(model, images(BREAST.images), "multiclass").answer == "try it"


@pytest.mark.parametrize(
    ("between", "answer", "name"),
    [
        ([nn.BatchNorm1d(6)], "unclear", "1"),
        ([nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.1)], "unclear", "1"),
        ([nn.BatchNorm1d(6, affine=False)], "don't", "1"),
        ([nn.BatchNorm1d(6, affine=False, track_running_stats=False)], "don't", "without a name"),
        ([nn.BatchNorm1d(6, affine=False), nn.ReLU()], "unclear", "1"),
        ([nn.BatchNorm1d(6), nn.Tanh()], "unclear", "1"),
        ([nn.BatchNorm1d(6), nn.Mish()], "unclear", "1"),
        ([nn.BatchNorm1d(6), nn.Linear(6, 6)], "unclear", None),
        ([nn.LayerNorm(6)], "try it", None),
        ([nn.Unflatten(1, (2, 3)), nn.BatchNorm1d(2), nn.Flatten()], "unclear", "2"),
    ],
)
def test_batch_normalization_before_the_features_is_seen(between, answer, name):
    advice = recommend(network(*between), images(BREAST.images), "multiclass")
    assert (advice.answer, advice.normalization) == (answer, name)
    assert ("Batch normalization" in why(advice)) == (name is not None)
    if answer == "unclear":
        assert all(str(one.head_weighted) in why(advice) for one in NORMALIZED)


def test_normalization_by_what_is_remembered_is_none():
    class Fixed(nn.BatchNorm1d):
        def train(self, mode: bool = True):
            return super().train(False)

    advice = recommend(network(Fixed(6)), images(BREAST.images), "multiclass")
    assert (advice.answer, advice.normalization) == ("try it", None)


def test_a_mean_over_the_image_leaves_the_variance_free():
    body = [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    loader = [(torch.randn(8, 1, 8, 8), torch.randint(0, 2, (8,)))]
    advice = recommend(nn.Sequential(*body, nn.Linear(6, 2)), loader, "multiclass", images=500)
    assert (advice.answer, advice.normalization) == ("unclear", None)
    assert str(NORMALIZED[0].self_setting) in why(advice)


def test_frozen_scales_of_a_normalization_fix_the_variance():
    model = network(nn.BatchNorm1d(6))
    model[1].weight.requires_grad_(False)
    assert recommend(model, images(BREAST.images), "multiclass").answer == "don't"


def test_batches_of_one_have_no_variance():
    advice = recommend(network(), images(BREAST.images, 1), "multiclass")
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
    advice = recommend(model, images(BREAST.images), "multiclass")
    assert (advice.answer, advice.dead, advice.mean_variance) == ("don't", 1.0, 0.0)


@pytest.mark.parametrize("factor", [torch.inf, torch.nan])
def test_features_that_are_not_finite_are_told_as_such(factor):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, pixels):
            return self.head(self.body(pixels) * factor)

    advice = recommend(Broken(), images(64), "multiclass", images=500)
    assert advice.answer == "don't"
    assert advice.reasons[0].startswith("The features hold values that are NaN or infinite")
    assert "same for every image" not in why(advice)


def test_features_that_are_the_images_need_something_that_learns():
    for model, layer in ((network(), "0"), (nn.Linear(4, 2), None)):
        advice = recommend(model, images(64), "multiclass", layer=layer, images=500)
        assert advice.answer == "don't"
        assert "frozen or there is nothing" in why(advice)


def test_within_inference_mode_it_says_the_same():
    model, loader = network(), list(images(64))
    with torch.inference_mode():
        inside = recommend(model, loader, "multiclass", images=500)
    assert inside == recommend(model, loader, "multiclass", images=500)


def test_a_head_that_begins_at_zero_is_explained():
    model = network()
    nn.init.zeros_(model[1].weight)
    advice = recommend(model, images(64), "multiclass", images=500)
    assert (advice.answer, advice.weight) == ("try it", 0.0)
    assert "head begins at zero" in why(advice)


def test_labels_for_each_pixel_are_beyond_the_studies():
    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

        def forward(self, pixels):
            return self.head(self.body(pixels).relu())

    loader = [(torch.randn(8, 1, 6, 6), torch.randint(0, 2, (8, 6, 6)))]
    advice = recommend(Pixels(), loader, "multiclass", layer="head", images=500)
    assert advice.answer == "unclear"
    assert advice.reasons[0] == "Nothing was measured with labels for each pixel."


def test_what_forward_puts_in_place_of_a_buffer_is_put_back():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
            self.register_buffer("mean", torch.ones(6))

        def forward(self, pixels):
            features = self.body(pixels)
            self.mean = 0.9 * self.mean + 0.1 * features.detach().mean(0)
            return self.head(features)

    model, generator = Remembers(), torch.Generator().manual_seed(1)
    before, mean = generator.get_state(), model.mean
    recommend(model, images(64, shuffle=True, generator=generator), "multiclass")
    assert model.mean is mean
    assert torch.equal(mean, torch.ones(6))
    assert torch.equal(generator.get_state(), before)


def test_dictionaries_of_other_libraries():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, pixel_values, mask=None):
            shown = pixel_values if mask is None else pixel_values * mask
            return {"logits": self.inner(shown), "other": shown}

    pairs = list(images(64))
    expected = recommend(Named(), pairs, "multiclass", images=500)
    for label in ("labels", "label"):
        monai = [{"image": x, label: y, "path": ["a.png"] * len(y)} for x, y in pairs]
        model = Named()
        found = recommend(model, monai, "multiclass", images=500)
        assert (found.answer, found.layer) == (expected.answer, "inner.1")
        faces = [{"pixel_values": x, "mask": x * 0, label: y} for x, y in pairs]
        found = recommend(model, faces, "multiclass", images=500)
        assert found.mean_variance == 0  # the mask was given by its name
    with pytest.raises(ValueError, match="gives a dict; it must give"):
        recommend(Named(), [{"image": torch.zeros(2, 4)}], "multiclass")


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

    loader = [{"pixels": x, "answer": y} for x, y in images(64)]
    with pytest.raises(ValueError, match="give step="):
        recommend(Named(), loader, "multiclass")
    with pytest.raises(ValueError, match="a dict without logits; give step="):
        recommend(Named(), images(64), "multiclass")
    advice = recommend(
        Named(),
        loader,
        "multiclass",
        images=500,
        step=lambda model, batch: (model(batch["pixels"])["scores"], batch["answer"]),
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
        ({"layer": ["0", "1"]}, "it must be the name of one layer"),
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
def fails():
    return len(3)
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
    assert "Answer    don't" in said  # features that are the images
    assert main(["probe", "my_project:mine", "--augmented"]) == 0
    assert "Answer    don't" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("my_project", "MODULE:FUNCTION"),
        ("my_project:value", "names no function"),
        ("my_project:none", "names no function"),
        ("my_project:half", "it must return three"),
        ("my_project:fails", "my_project:fails ended with TypeError: object of type 'int'"),
        ("no_such_project:mine", "no_such_project"),
    ],
)
def test_the_command_says_what_it_needs(folder, capsys, factory, message):
    assert main(["probe", factory]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
