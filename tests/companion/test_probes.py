from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.probes import (
    PROBES,
    Unit,
    bits,
    carried,
    inside,
    layers,
    leakage,
    norms,
    nuisance,
    predictions,
    reliability,
    scales,
    thresholds,
    units,
)
from companion.studies import specs
from companion.studies.few_images import settings
from companion.studies.rivals_tuning import BLOCKS, chosen_strengths
from varreg import FeatureTap
from varreg.lab import representations, runs
from varreg.lab.columns import PROVENANCE_COLUMNS
from varreg.lab.corruptions import corrupt
from varreg.lab.datasets import phantom
from varreg.lab.datasets.core import Subset
from varreg.lab.ledger import Ledger
from varreg.lab.metrics import classification_metrics
from varreg.lab.models import build
from varreg.lab.predictions import Predictions
from varreg.lab.runs import run_all
from varreg.lab.specs import RunSpec
from varreg.lab.training import batches, predict

# ---------------------------------------------------------------- units and their record


def measured(probe, **setting):
    """The row of a unit, and those that it found."""
    return Unit(probe, tuple(setting.items())).execute()


@pytest.mark.parametrize("probe", PROBES)
def test_units_are_different_and_keep_their_keys(probe):
    listed = units(probe)
    assert len({unit.key for unit in listed}) == len(listed) > 1
    assert {unit.study for unit in listed} == {probe}


def test_recorded_keys_stay_as_they_are():
    # In results/: another key would orphan what was recorded.
    unit = Unit("carried", (("mode", "fresh"), ("seed", 0)))
    assert unit.key == "8b1fc401ab66"
    assert Unit("norms", unit.settings).key != unit.key


def test_an_unknown_probe():
    with pytest.raises(ValueError, match="probe is 'pulse'; allowed are predictions, carried"):
        units("pulse")


@pytest.fixture
def small(monkeypatch, make_dataset):
    """Every data set is a small one in memory, every training two epochs."""

    def use(task: str = "binary", channels: int = 1):
        data = make_dataset(task, size=12, channels=channels, classes=7, counts=(64, 32, 32))
        train = dataclasses.replace(data.train, groups=torch.arange(64))
        test = dataclasses.replace(data.test, groups=torch.arange(48, 80))
        data = dataclasses.replace(data, train=train, test=test)
        monkeypatch.setattr(runs.datasets, "load", lambda *_, **__: data)
        runs._prepared.cache_clear()
        build, fit = runs.models.build, runs.fit
        monkeypatch.setattr(
            runs.models, "build", lambda name, **given: build(name, **given | {"size": 12})
        )

        def short(model, data, criterion, settings, **given):
            return fit(model, data, criterion, dataclasses.replace(settings, epochs=2), **given)

        monkeypatch.setattr(runs, "fit", short)
        return data

    yield use
    runs._prepared.cache_clear()


def test_a_probe_is_recorded_like_a_study(small, tmp_path):
    small()
    wanted = units("norms")[:2]
    table = run_all(wanted, results=tmp_path, progress=False)
    assert table["key"].tolist() == [unit.key for unit in wanted]
    assert table[list(PROVENANCE_COLUMNS)].notna().all(axis=None)
    assert table["model"].tolist() == ["paper_cnn", "paper_cnn"]
    details = Ledger("norms", tmp_path).curves()
    assert details["epoch"].tolist() == [0, 1, 2, 0, 1, 2]
    before = (tmp_path / "norms" / "runs.csv").read_bytes()
    run_all(wanted, results=tmp_path, progress=False)
    assert (tmp_path / "norms" / "runs.csv").read_bytes() == before


# ---------------------------------------------------------------- what each one measures


def test_norms_by_hand(small):
    data = small()
    row, details = units("norms")[1].execute()
    assert (row["variance_weight"], len(details)) == (0.01, 3)
    settings = {"model": "paper_cnn", "variance_weight": 0.01, "seed": 0, "epochs": 2}
    run = runs.train_run(
        RunSpec(study="x", dataset="pneumoniamnist", method="penalized", **settings)
    )
    assert run.fit.best_epoch == 2  # so the weights kept are those of the last look
    with torch.inference_mode():
        features = run.model.features(run.fit.scaling(data.val.images)).double().numpy()
    last = details[-1]
    assert last["feature_rms"] == pytest.approx(np.sqrt((features**2).mean()), rel=1e-5)
    assert last["feature_variance"] == pytest.approx(features.var(0).mean(), rel=1e-5)
    relative = features.var(0).mean() / (features**2).mean()
    assert last["relative_variance"] == pytest.approx(relative, rel=1e-5)
    assert last["head_norm"] == pytest.approx(run.model.head.weight.norm().item(), rel=1e-6)


def test_the_penalty_on_both_layers_by_hand(make_dataset):
    torch.manual_seed(0)
    model = build("small_cnn", in_channels=1, size=12, n_outputs=1)
    images, target = torch.rand(16, 1, 12, 12), torch.arange(16) % 2
    with FeatureTap(model, layers.ENTERS["first"]) as first, FeatureTap(model) as last:
        criterion = layers.BothLayers("binary", 2.0, first, 3.0)
        logits = model(images)
        parts = criterion(logits, target, last.take())
        hidden = model.features[:3](images)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.flatten(), target.float())
    of_first, of_last = (
        each.detach().double().flatten(1).numpy().var(0).mean()
        for each in (hidden, model.features(images))
    )
    assert parts.total.item() == pytest.approx(loss.item() + 2 * of_last + 3 * of_first, rel=1e-5)
    assert parts.penalty.item() == pytest.approx(of_last, rel=1e-5)


@pytest.mark.parametrize("weight", layers.WEIGHTS)
def test_a_penalty_on_the_last_layer_is_that_of_the_study(small, monkeypatch, weight):
    small()
    monkeypatch.setattr(layers, "fit", runs.fit)
    row, details = measured("layers", weight=weight, layers="last", seed=3)
    run = runs.train_run(settings("x", "breastmnist", weight, 3))
    expected = classification_metrics(
        predict(run.model, run.data.test.images, run.fit.scaling), run.data.test.labels, "binary"
    )
    for metric in layers.METRICS:
        assert row[metric] == pytest.approx(expected[metric], rel=1e-4)
    with torch.inference_mode():
        seen = run.model.features(run.fit.scaling(run.data.val.images)).double().numpy()
    assert details[1]["layer"] == "last"
    assert details[1]["variance"] == pytest.approx(seen.var(0).mean(), rel=1e-3)


def test_which_layers_pay_shows_in_their_variances(small, monkeypatch):
    small()
    monkeypatch.setattr(layers, "fit", runs.fit)
    found = {
        which: {
            row["layer"]: row["variance"]
            for row in measured("layers", weight=weight, layers=which, seed=0)[1]
        }
        for weight, which in (
            ("none", "none"),
            *(("fixed", which) for which in ("first", "last", "both")),
        )
    }
    assert found["first"]["first"] < found["none"]["first"]
    assert found["last"]["last"] < found["none"]["last"]
    for layer in layers.ENTERS:
        assert found["both"][layer] < found["none"][layer]


def test_inside_by_hand(small, monkeypatch):
    data = small()
    monkeypatch.setattr(inside, "SEEDS", range(3))
    _, details = measured("inside", dataset="breastmnist", method="dropout")
    table = pd.DataFrame(details)
    kinds = {kind: rows.dropna(axis=1, how="all") for kind, rows in table.groupby("kind")}
    assert {kind: len(rows) for kind, rows in kinds.items()} == {"epochs": 3, "seed": 3, "pair": 3}
    features, answers = [], []
    for seed in range(3):
        run = runs.train_run(inside.spec_of("breastmnist", "dropout", seed))
        with torch.inference_mode():
            batch = run.fit.scaling(data.test.images)
            features.append(run.model.features(batch).double().numpy())
            answers.append(run.model(batch).flatten().numpy() > 0)
        row, its = kinds["seed"].iloc[seed], features[-1]
        assert row["best_epoch"] == run.fit.best_epoch
        assert row["head_norm"] == pytest.approx(run.model.head[1].weight.norm().item(), rel=1e-6)
        assert row["feature_rms"] == pytest.approx(np.sqrt((its**2).mean()), rel=1e-6)
        assert row["within"] + row["between"] == pytest.approx(its.var(0).mean(), rel=1e-6)
        assert row["between_share"] == pytest.approx(row["between"] / its.var(0).mean(), rel=1e-6)
        assert row["dead"] == (its == 0).all(0).mean()
        covariance = np.linalg.eigvalsh(np.cov(its.T))[::-1]
        assert row["share_1"] == pytest.approx(covariance[0] / covariance.sum(), rel=1e-6)
        assert row["test_accuracy"] == (answers[-1] == data.test.labels.numpy()).mean()
    for row in (row for row in details if row["kind"] == "pair"):
        one, other = row["seed"], row["other_seed"]
        assert row["disagree"] == (answers[one] != answers[other]).mean()
        likeness = representations.linear_cka(features[one], features[other])
        assert row["cka"] == pytest.approx(likeness, rel=1e-6)
    start = kinds["epochs"].iloc[0]
    model = runs.initial_model(inside.spec_of("breastmnist", "dropout", 0), data).eval()
    seen = run.fit.scaling(data.val.images)
    assert start["epochs"] == 0
    assert start["head_norm"] == norms.sizes(model, seen)[0]["head_norm"]


def test_features_without_variance_have_no_shares():
    found = inside.of_features(np.zeros((6, 3)), np.arange(6) % 2)
    assert found["dead"] == 1
    assert set(found.values()) == {0.0, 1.0}


def test_methods_inside_are_at_the_strengths_that_breastmnist_chose():
    chosen = chosen_strengths(BLOCKS[0])
    for name, its in inside.ARMS.items():
        if name not in ("none", "published", "augmented"):
            assert its.get("strength", its.get("variance_weight")) == chosen[its["method"]], name
    seeds = {inside.spec_of("breastmnist", name, 4).seed for name in inside.ARMS}
    assert seeds == {4}


def test_a_network_that_reads_the_marker_is_found_out():
    labels, markers = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    by_marker = np.array([[-1.0] * 4, [1.0] * 4, [-0.5, 0.5, 0.5, -0.5]])
    found = nuisance.reliance(by_marker, labels, markers)
    assert found["flipped"] == 1
    assert found["flipped_removed"] == 0
    assert found["pull"] == 4
    assert (found["accuracy_aligned"], found["accuracy_conflicting"]) == (1, 0)
    assert (found["auroc_aligned"], found["auroc_conflicting"]) == (1, 0)
    by_lesion = np.tile([-2.0, -1.0, 1.0, -0.5], (3, 1))
    found = nuisance.reliance(by_lesion, labels, markers)
    assert (found["flipped"], found["flipped_removed"], found["pull"]) == (0, 0, 0)
    for name in ("aligned", "conflicting", "without"):
        assert (found[f"accuracy_{name}"], found[f"auroc_{name}"]) == (0.75, 1)
    assert nuisance.reliance(np.zeros((3, 4)), labels, markers)["pull"] == 0


def test_relevance_of_networks_that_look_at_one_half():
    images, lesions = torch.rand(5, 1, 8, 8), torch.zeros(5, 8, 8, dtype=torch.bool)
    lesions[:, 4:] = True  # the lower half
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 1, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 1)
    )
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.fill_(0)
        model[3].weight.copy_(lesions[0].float().flatten()[None])
    found = nuisance.relevance(model, images, lesions, ~lesions[0])
    assert (found["gradient_lesion"], found["gradient_marker"], found["gradient_points"]) == (
        1,
        0,
        1,
    )
    # One weight a map: Grad-CAM shows where the map is bright, whatever the head makes of it.
    bright = (images * lesions[:, None]).sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert found["cam_lesion"] == pytest.approx(bright.mean().item(), rel=1e-5)
    assert found["cam_lesion"] + found["cam_marker"] == pytest.approx(1)


def test_nuisance_asks_about_the_test_images(monkeypatch):
    monkeypatch.setattr(inside, "SEEDS", range(2))
    monkeypatch.setitem(inside.DATASETS, "phantom", {"dataset": "phantom", "epochs": 10})
    fit = runs.fit

    def short(model, data, criterion, settings, **given):
        return fit(model, data, criterion, dataclasses.replace(settings, epochs=1), **given)

    monkeypatch.setattr(runs, "fit", short)
    row, details = measured("nuisance", dataset="phantom_shortcut", method="fixed")
    assert row["lesions"] <= 300  # half of the test images
    assert row["marker_area"] == 2 * 6 / 28**2
    assert 0.04 < row["lesion_area"] < 0.25
    table = pd.DataFrame(details)
    seeds = table[table["kind"] == "seed"]
    # As drawn, the images are half and half aligned and conflicting.
    data = phantom.load("phantom", 28)
    _, _, markers = phantom.draw(**phantom.part_arguments("phantom", "test"))
    run = runs.train_run(
        inside.spec_of("phantom", "fixed", 1),
        data=phantom.load("phantom", 28, nuisance.SHORTCUTS["phantom_shortcut"]),
    )
    right = (predict(run.model, data.test.images, run.fit.scaling).flatten() > 0).numpy() == (
        data.test.labels.numpy()
    )
    aligned = markers == data.test.labels.numpy()
    found = seeds.iloc[1]
    assert found["test_accuracy"] == right.mean()
    both = (found["accuracy_aligned"] + found["accuracy_conflicting"]) / 2
    assert both == pytest.approx(right.mean(), abs=0.1)
    assert right[aligned].mean() == pytest.approx(found["accuracy_aligned"], abs=0.1)


def test_the_penalty_behind_batch_normalization(small):
    data = small()
    row, details = measured("scales", model="small_cnn_norm", method="fixed", seed=0)
    assert row["dataset"] == "breastmnist"
    table = pd.DataFrame(details)
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["scale_rms"].iloc[0] == 1
    assert table["normalized_variance"].between(0, 1).all()
    network = runs.models.build("small_cnn_norm", in_channels=1, size=12, n_outputs=1).eval()
    seen = data.train.images / 255
    found = scales.normalized(network, seen, ("features.5",))
    with torch.no_grad():
        before = network.features[:5](seen).double().numpy()
    whitened = (before - before.mean((0, 2, 3), keepdims=True)) / before.std(
        (0, 2, 3), keepdims=True
    )
    assert found["normalized_variance"] == pytest.approx(whitened.var(0).mean(), rel=1e-5)
    # A factor before the normalization is taken out by it, and its own scale is what it says.
    with torch.no_grad():
        network.features[4].weight *= 3
        network.features[4].bias *= 3
        network.features[5].weight.fill_(-2)
    scaled = scales.normalized(network, seen, ("features.5",))
    assert scaled["scale_rms"] == 2
    assert scaled["normalized_variance"] == pytest.approx(found["normalized_variance"], rel=1e-5)
    assert scales.normalized(network, seen, ()) == {}


def test_parts_of_the_variance_multiply():
    random, rows = np.random.default_rng(0), []
    for model, seed, method in product(scales.NETWORKS, range(5), ("none", "fixed")):
        scale = np.exp(random.normal()) if model != "small_cnn" else np.nan
        row = {"model": model, "seed": seed, "method": method, "scale_rms": scale}
        for name in ("feature_variance", "relative_variance", "head_norm"):
            row[name] = np.exp(random.normal())
        rows.append(row | {"normalized_variance": scale and 0.5 * scale / scale, "epoch": 20})
    found = scales.parts(pd.DataFrame(rows)).set_index("model")
    assert list(found.index) == list(scales.NETWORKS)
    wide = pd.DataFrame(rows).pivot(index="seed", columns=["model", "method"])
    logs = np.log(wide["feature_variance"]["small_resnet"])
    expected = (logs["fixed"] - logs["none"]).mean()
    row = found.loc["small_resnet"]
    assert row["variance"].mean == pytest.approx(expected)
    assert row["scales"].mean + row["rest"].mean == pytest.approx(expected)
    assert row["normalized"].mean == pytest.approx(0, abs=1e-12)
    assert found.loc["small_cnn", "scales"] is found.loc["small_cnn", "rest"] is None


def test_carried_weights_go_on_from_where_they_were(small, monkeypatch):
    data = small()
    starts = []
    fit = runs.fit

    def watched(model, *arguments, **settings):
        starts.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone())
        result = fit(model, *arguments, **settings)
        starts.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone())
        return result

    monkeypatch.setattr(runs, "fit", watched)
    row, details = measured("carried", mode="carried", seed=0)
    before, after = starts[2::2], starts[1:-1:2]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [found["place"] for found in details] == list(range(1, 13))
    labels = bits.unpack(row["val_labels"], row["val_images"])
    np.testing.assert_array_equal(labels, data.val.labels.numpy())
    right = bits.unpack(details[-1]["val_right"], row["val_images"])
    assert right.mean() == pytest.approx(details[-1]["val_accuracy"])

    starts.clear()
    measured("carried", mode="fresh", seed=0)
    assert not any(torch.equal(a, b) for a, b in zip(starts[2::2], starts[1:-1:2], strict=True))


def test_the_order_of_the_released_search():
    first, second = carried.ORDER[:2]
    assert first == {"feature_sampling_ratio": 0.2, "lambda_": 0.5, "variance_weight": 0.01}
    assert second["variance_weight"] == 0.1
    assert len({tuple(found.values()) for found in carried.ORDER}) == 12


def test_sampling_noise_falls_with_the_ratio(small):
    small()
    _, details = units("sampling")[1].execute()
    table = pd.DataFrame(details).set_index("ratio")
    assert table.loc[0.0, "step_ratio"] == 1.0
    assert (table["step_ratio"] > 0).all()
    assert table.loc[0.0, "comb_step_ratio"] == 1.0
    assert (table["comb_step_ratio"] > 0).all()
    for noise, bias in (("gradient_noise", "bias"), ("comb_noise", "comb_bias")):
        assert table.loc[0.05, noise] > table.loc[0.2, noise] > table.loc[1.0, noise]
        assert table.loc[1.0, noise] == pytest.approx(0, abs=1e-9)
        assert (table.loc[0.05:0.5, bias] < 2).all()  # unbiased: about one standard error


@pytest.mark.parametrize("unit", units("leakage")[:3], ids=lambda unit: unit.setting["training"])
def test_leakage_counts_every_test_image_once(small, unit):
    small("multiclass", channels=3)
    row, details = unit.execute()
    table = pd.DataFrame(details)
    assert table["images"].sum() == 32
    assert table.groupby("seen")["images"].sum().tolist() == [16, 16]  # groups 48 to 63 overlap
    assert (table["right"] <= table["images"]).all()
    assert row["training_images"] == (64 if unit.setting["training"] == "all images" else 48)


def test_what_is_left_out_of_training(small):
    data = small("multiclass", channels=3)  # lesions 48 to 63 of 64 are in test
    whole, without, others = (leakage.kept(data, name, 0) for name in leakage.TRAINING)
    assert whole.tolist() == list(range(64))
    assert without.tolist() == list(range(48))
    assert set(range(48, 64)) <= set(others.tolist())
    counts = [torch.bincount(data.train.labels[rows]).tolist() for rows in (without, others)]
    assert counts[0] == counts[1]  # equally many of each class
    assert not torch.equal(others, leakage.kept(data, leakage.TRAINING[2], 1))
    with pytest.raises(ValueError, match="training is 'half'; allowed are all images, without"):
        leakage.kept(data, "half", 0)


def test_thresholds(small):
    small()
    row, details = units("thresholds")[0].execute()
    table = pd.DataFrame(details).set_index("rule")
    assert row["train_share"] == row["test_share"] == 0.5
    assert table.loc["prior-corrected", "threshold"] == 0.5
    assert table.loc["hindsight", "accuracy"] >= table["accuracy"].max()
    recalls = table[["recall_normal", "recall_pneumonia"]].mean(axis=1)
    np.testing.assert_allclose(table["balanced_accuracy"], recalls)


@given(train=st.floats(0.05, 0.95), test=st.floats(0.05, 0.95), p=st.floats(0.05, 0.95))
def test_prior_correction_is_bayes(train, test, p):
    # Bayes' rule with the likelihood ratio that p implies, and the test share as the prior.
    likelihood = p / (1 - p) * (1 - train) / train
    posterior = likelihood * test / (likelihood * test + 1 - test)
    if abs(posterior - 0.5) > 1e-9:
        assert (p > thresholds.prior_corrected(train, test)) == (posterior > 0.5)


def test_best_threshold_tries_every_cut():
    random = np.random.default_rng(0)
    p, truth = random.random(40), random.random(40) < 0.6
    best = max(((p > cut) == truth).mean() for cut in np.linspace(0, 1, 5001))
    cut = thresholds.best_threshold(torch.tensor(p), torch.tensor(truth))
    assert ((p > cut) == truth).mean() == best


@pytest.mark.parametrize("source", ["chest", "skin"])
def test_temperature_of_a_baseline(small, source):
    data = small(*(("multiclass", 3) if source == "skin" else ("binary", 1)))
    row, details = measured("temperature", source=source, model="small_cnn", seed=1)
    table = pd.DataFrame(details)
    assert table["part"].tolist() == ["val", "val", "test", "test"]
    assert table["temperature_used"].tolist() == [1.0, row["temperature"]] * 2
    before, after = (table.iloc[place]["cross_entropy"] for place in (0, 1))
    assert after < before
    listed = specs(source, model="small_cnn", method="baseline", seed=1)
    (spec,) = (spec for spec in listed if spec.split != "paper")
    run = runs.train_run(spec)
    logits = predict(run.model, data.test.images, run.fit.scaling)
    expected = classification_metrics(logits, data.test.labels, data.task)
    for name in ("cross_entropy", "ece", "accuracy", "auroc"):
        assert table.iloc[2][name] == pytest.approx(expected[name], rel=1e-6)
    if source == "chest":  # one factor on one logit changes no order and no side of zero
        same = table.groupby("part")[["accuracy", "auroc"]].nunique()
        assert (same == 1).all(axis=None)


def test_reliability_of_a_network_on_images_like_and_unlike_its_own(small):
    data = small()
    setting = {"dataset": "pneumoniamnist", "seed": 1, "method": "fixed"}
    row, details = measured("reliability", **setting)
    assert len(details) == 2 + 6 * 3
    table = pd.DataFrame(details).set_index(["condition", "severity"])
    run = runs.train_run(reliability.spec(**setting))
    asked = {
        ("val", 0): data.val.images,
        ("test", 0): data.test.images,
        ("blur", 5): corrupt(data.test.images, "blur", 5),
    }
    for condition, images in asked.items():
        logits = predict(run.model, images, run.fit.scaling).numpy().ravel().astype(float)
        found, truth = table.loc[condition], np.arange(32) % 2
        said = Predictions.from_text(found["logits"], 1, range(32)).logits.ravel()
        np.testing.assert_allclose(said, logits, rtol=1e-3, atol=1e-6)
        assert found["accuracy"] == ((logits > 0) == truth).mean()
        for head, scaled in (("", logits), ("scaled_", logits / row["temperature"])):
            p = 1 / (1 + np.exp(-scaled))
            assert found[f"{head}brier"] == pytest.approx(((p - truth) ** 2).mean())
            assert found[f"{head}confidence"] == pytest.approx(np.maximum(p, 1 - p).mean())
            entropy = -np.log(np.where(truth, p, 1 - p)).mean()
            assert found[f"{head}cross_entropy"] == pytest.approx(entropy)
            bins = np.ceil(15 * np.maximum(p, 1 - p))
            gaps = np.maximum(p, 1 - p) - ((p > 0.5) == truth)
            ece = sum(abs(gaps[bins == which].sum()) for which in set(bins)) / 32
            assert found[f"{head}ece"] == pytest.approx(ece)
    assert table.loc[("val", 0), "scaled_cross_entropy"] <= table.loc[("val", 0), "cross_entropy"]


def test_predictions_of_every_test_image(small):
    data = small("multiclass", channels=3)
    row, details = measured("predictions", source="skin_paper", method="baseline", seed=0)
    table = pd.DataFrame(details)
    assert table["index"].tolist() == list(range(32))
    assert table["label"].tolist() == data.test.labels.tolist()
    assert table["seen"].tolist() == [1] * 16 + [0] * 16
    p = table.filter(regex=r"p_\d").to_numpy()
    assert p.shape == (32, 7)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert row["test_accuracy"] == (p.argmax(1) == table["label"]).mean()
    entropy = -np.log(p[np.arange(32), table["label"]]).mean()
    assert row["test_cross_entropy"] == pytest.approx(entropy, rel=1e-5)


def test_untrained_predictions_are_those_of_the_initial_weights(small):
    small("multiclass", channels=3)
    row, details = measured("predictions", source="skin_paper", method="untrained", seed=0)
    assert len(details) == 32
    assert row["test_accuracy"] < 0.6


def test_binary_predictions_do_not_know_lesions(small, make_dataset, monkeypatch):
    small()
    data = make_dataset(size=12, channels=1)
    monkeypatch.setattr(runs.datasets, "load", lambda *_, **__: data)
    runs._prepared.cache_clear()
    row, details = measured("predictions", source="chest_paper", method="penalized", seed=0)
    table = pd.DataFrame(details)
    assert table["seen"].isna().all()
    assert ((table["p_1"] > 0.5) == table["label"]).mean() == row["test_accuracy"]


def test_the_penalty_of_the_predictions_is_a_mean_over_batches():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1, bias=False))
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (10, 1, 2, 2), dtype=np.uint8)
    subset = Subset(torch.from_numpy(images), torch.zeros(10, dtype=torch.int64))

    def scaling(batch: torch.Tensor) -> torch.Tensor:
        return batch.float()

    _, variance = predictions._predict(network, subset, scaling, 4)
    flat = images.reshape(10, 4).astype(float)
    parts = [flat[index] for index in batches(10, 4)]
    by_hand = sum(len(part) * part.var(0).mean() for part in parts) / 10
    assert variance == pytest.approx(by_hand, rel=1e-6)


# ---------------------------------------------------------------- flags in a cell


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_flags_survive_the_way_through_the_table(flags):
    assert bits.unpack(bits.pack(flags), len(flags)).tolist() == flags


def test_a_cut_cell_is_refused():
    with pytest.raises(ValueError, match="2 digits do not hold 9 flags"):
        bits.unpack("ff", 9)


# ---------------------------------------------------------------- what is recorded


@pytest.fixture(params=PROBES)
def recorded(request):
    ledger = Ledger(request.param)
    table = ledger.runs()
    if table.empty:
        pytest.skip(f"{request.param} is not recorded in {ledger.folder.parent.name}/")
    return request.param, table, ledger.curves()


def test_recorded_units_are_those_listed(recorded):
    probe, table, details = recorded
    listed = {unit.key: unit for unit in units(probe)}
    assert set(table["key"]) <= set(listed)
    assert set(details["key"]) == set(table["key"])
    assert table[list(PROVENANCE_COLUMNS)].notna().all(axis=None)
    for row in table.to_dict("records"):
        assert {name: row[name] for name in listed[row["key"]].setting} == listed[
            row["key"]
        ].setting


def test_temperatures_are_of_the_recorded_models():
    units_, details = Ledger("temperature").runs(), Ledger("temperature").curves()
    compared = 0
    for row in [] if units_.empty else units_.to_dict("records"):
        study = Ledger(row["source"]).runs()
        same = study[["method", "model", "seed"]] == ["baseline", row["model"], row["seed"]]
        its = study[same.all(axis=1) & (study["split"] != "paper")]
        mine = details[(details["key"] == row["key"]) & (details["temperature_used"] == 1)]
        found = mine.set_index("part").loc["test"]
        if len(its) != 1 or its.iloc[0]["torch_version"] != row["torch_version"]:
            continue
        for metric in ("cross_entropy", "ece", "accuracy", "auroc"):
            # Another processor adds in another order, and training goes on from there.
            assert found[metric] == pytest.approx(its.iloc[0][f"test_{metric}"], abs=0.02)
        compared += 1
    if not compared:
        pytest.skip("no temperature is recorded with the PyTorch of its study")


def test_retrained_models_are_the_recorded_ones():
    table = Ledger("predictions").runs()
    compared = 0
    for row in [] if table.empty else table.to_dict("records"):
        study = Ledger(row["source"]).runs()
        its = study[(study["method"] == row["method"]) & (study["seed"] == row["seed"])]
        if its.empty:
            continue
        same = its.iloc[0]
        state = ["commit", "device", "torch_version"]
        if [same[name] for name in state] != [row[name] for name in state]:
            continue
        for metric in ("cross_entropy", "accuracy", "auroc"):
            assert row[f"test_{metric}"] == pytest.approx(same[f"test_{metric}"], rel=1e-6)
        compared += 1
    if not compared:
        pytest.skip("no retrained model is recorded on the machine of its study")


def test_what_reliability_is_measured_of_are_the_recorded_networks():
    units_, details = Ledger("reliability").runs(), Ledger("reliability").curves()
    if units_.empty:
        pytest.skip("reliability is not recorded")
    names = {"pneumoniamnist": "few_images", "breastmnist": "rivals"}
    studies = {data: Ledger(name).runs().set_index("key") for data, name in names.items()}
    rows = details[details["severity"] == 0].set_index(["key", "condition"])
    for unit in units_.to_dict("records"):
        spec = reliability.spec(unit["dataset"], unit["seed"], unit["method"])
        key = dataclasses.replace(spec, study=names[spec.dataset]).key
        its = studies[spec.dataset].loc[key]
        # Another processor adds in another order, and training goes on from there.
        same = [its[name] == unit[name] for name in ("device", "torch_version")]
        close = {"rel": 1e-6} if all(same) else {"abs": 0.1}
        for part in ("val", "test"):
            found = rows.loc[(unit["key"], part)]
            for metric in ("cross_entropy", "accuracy", "ece", "auroc"):
                assert found[metric] == pytest.approx(its[f"{part}_{metric}"], **close), unit["key"]
