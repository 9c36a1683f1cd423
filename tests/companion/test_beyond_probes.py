"""The probes of the wishes that the paper leaves: volumes, tables, no labels, features."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss, roc_auc_score

from companion.probes import Unit, ablation, multimodal, outcomes, phantom_volumes, pretraining
from companion.studies import beyond, specs
from companion.studies.few_images import ARMS
from varreg.lab import runs
from varreg.lab.metrics import classification_metrics
from varreg.lab.models import SmallCNN
from varreg.lab.runs import train_run
from varreg.lab.specs import RunSpec
from varreg.lab.subsets import nested_rows
from varreg.lab.training import Scaling
from varreg.variance import feature_variance


def measured(probe, **setting):
    """The row of a unit, and those that it found."""
    return Unit(probe, tuple(setting.items())).execute()


@pytest.fixture
def small(monkeypatch, make_dataset):
    """Every data set is a small one in memory, every network fits it, every training is short."""

    def use(task: str = "binary", channels: int = 1):
        data = make_dataset(task, size=28, channels=channels, classes=7, counts=(64, 32, 32))
        parts = {}
        for place, part in enumerate(("train", "val", "test")):
            subset = getattr(data, part)
            ids = tuple(f"{place}-{number}" for number in range(len(subset)))
            parts[part] = dataclasses.replace(subset, ids=ids)
        data = dataclasses.replace(data, **parts)
        monkeypatch.setattr(runs.datasets, "load", lambda *_, **__: data)
        runs._prepared.cache_clear()
        fit = runs.fit

        def short(model, data, criterion, settings, **given):
            return fit(model, data, criterion, dataclasses.replace(settings, epochs=2), **given)

        monkeypatch.setattr(runs, "fit", short)
        monkeypatch.setattr(multimodal, "fit", short)
        return data

    yield use
    runs._prepared.cache_clear()


def test_outcomes_are_those_of_scikit_learn(small):
    data = small()
    spec = RunSpec(study="x", dataset="breastmnist", method="baseline", seed=0, epochs=1)
    run = train_run(spec)
    found = outcomes(run)
    with torch.inference_mode():
        p = run.model(run.fit.scaling(data.test.images)).double().sigmoid().flatten().numpy()
    assert found["test_cross_entropy"] == pytest.approx(log_loss(data.test.labels, p), rel=1e-5)
    assert found["test_auroc"] == pytest.approx(roc_auc_score(data.test.labels, p))
    assert found["test_accuracy"] == ((p > 0.5) == data.test.labels.numpy()).mean()
    assert set(found) == {
        f"{part}_{name}"
        for part in ("val", "test")
        for name in ("cross_entropy", "auroc", "accuracy")
    }


# ---------------------------------------------------------------- what is run


def test_volumes_and_transformer_differ_in_the_method_alone():
    for listed, names in (
        (beyond.volumes(), beyond.COMPARED),
        (beyond.transformer(), beyond.AUGMENTED),
    ):
        same = {
            dataclasses.replace(
                spec,
                method="baseline",
                variance_weight=0,
                strength=0,
                augment=False,
                seed=0,
                draw=0,
            )
            for spec in listed
        }
        assert len(same) == 1
        found = {(spec.method, spec.strength or spec.variance_weight) for spec in listed}
        given = [ARMS[name] for name in names]
        assert found == {
            (each["method"], each.get("strength", each.get("variance_weight", 0))) for each in given
        }
    assert {spec.dataset: spec.model for spec in specs("beyond")} == {
        "adrenalmnist3d": "small_cnn_half",
        "breastmnist": "small_vit",
    }


# ---------------------------------------------------------------- volumes


def test_a_volume_has_the_lesion_of_its_class_and_one_marker():
    volumes, labels, markers = phantom_volumes.draw(400, seed=5, spurious=0.6)
    again = phantom_volumes.draw(400, seed=5, spurious=0.6)
    assert all(np.array_equal(a, b) for a, b in zip((volumes, labels, markers), again, strict=True))
    assert volumes.shape == (400, 16, 16, 16)
    assert labels.mean() == 0.5
    # As likely as the share says, and otherwise by chance: 0.6 + 0.4 / 2.
    assert (labels == markers).mean() == pytest.approx(0.8, abs=0.06)
    marked = (volumes[:, :3, :3, :3] == 230).all((1, 2, 3))
    np.testing.assert_array_equal(marked, markers == 0)
    np.testing.assert_array_equal((volumes[:, 13:, :3, :3] == 230).all((1, 2, 3)), markers == 1)
    # What is bright away from the marker tells the class: more of it where the lesion is large.
    bright = (volumes[:, 3:13] > 160).sum((1, 2, 3))
    assert roc_auc_score(labels, bright) > 0.9


def test_the_marker_tells_the_class_in_training_alone():
    data = phantom_volumes.load()
    assert [len(part) for part in (data.train, data.val, data.test)] == [200, 100, 400]
    assert data.spatial_dims == 3
    near = {
        part: (getattr(data, part).images[:, 0, :3, :3, :3] == 230).flatten(1).all(1)
        for part in ("train", "val", "test")
    }
    agree = {
        part: ((~seen).long() == getattr(data, part).labels).double().mean().item()
        for part, seen in near.items()
    }
    assert agree["train"] > 0.7
    assert agree["val"] == pytest.approx(0.5, abs=0.15)
    assert agree["test"] == pytest.approx(0.5, abs=0.08)


def test_a_unit_of_volumes_is_a_run(monkeypatch):
    tiny = phantom_volumes.load()
    rows = {part: getattr(tiny, part) for part in ("train", "val", "test")}
    few = {
        part: dataclasses.replace(subset, images=subset.images[:40], labels=subset.labels[:40])
        for part, subset in rows.items()
    }
    monkeypatch.setattr(phantom_volumes, "load", lambda: dataclasses.replace(tiny, **few))
    row, details = measured("phantom_volumes", seed=0, method="fixed")
    assert [found["epoch"] for found in details] == list(range(1, 16))
    best = details[row["best_epoch"] - 1]
    assert row["val_cross_entropy"] == pytest.approx(best["val_cross_entropy"], rel=1e-4)
    # The penalty is in the total, at the weight of the other studies.
    weight = ARMS["fixed"]["variance_weight"]
    total = best["val_cross_entropy"] + weight * best["val_feature_variance"]
    assert best["val_total"] == pytest.approx(total, rel=1e-5)


# ---------------------------------------------------------------- images and a table


def patients(data):
    """A table for the images of a data set in memory; every fourth image has no age."""
    ids = [name for part in ("train", "val", "test") for name in getattr(data, part).ids]
    age = [np.nan if number % 4 == 0 else float(number % 90) for number in range(len(ids))]
    sex = ["male" if number % 2 else "female" for number in range(len(ids))]
    rows = {"age": age, "sex": sex, "localization": "back", "image_id": ids}
    return pd.DataFrame(rows).set_index("image_id")


def test_the_network_sees_the_numbers_of_each_image(small):
    data = small("multiclass", channels=3)
    numbers = multimodal.coded(patients(data))
    assert list(numbers.columns) == [
        "age", "age_missing", "sex_female", "sex_male", "localization_back"
    ]  # fmt: skip
    whole = multimodal.with_numbers(data, numbers)
    assert torch.equal(whole.test.images[:, :3], data.test.images)
    model = multimodal.ImageAndTable(28, 5, 7)
    seen = []
    model.table.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    scaling = Scaling.of(whole.train.images)
    model(scaling(whole.test.images))
    mean, deviation = scaling.mean[3], scaling.std[3]
    expected = (np.rint(255 * numbers.loc[list(data.test.ids)].to_numpy()) / 255 - mean) / deviation
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-5)
    # What stands beside the image features are 32 of the table.
    assert model.head.in_features == SmallCNN(3, 28, 7).head.in_features + 32


def test_the_table_is_found_where_the_images_are(tmp_path, monkeypatch):
    rows = "lesion_id,image_id,dx,dx_type,age,sex,localization\nL,I,nv,histo,,male,back\n"
    kaggle = tmp_path / "kaggle"
    for folder in (tmp_path / "ham10000", kaggle):
        folder.mkdir()
        (folder / "HAM10000_metadata.csv").write_text(rows)
    multimodal.table.cache_clear()
    assert multimodal.table(tmp_path).loc["I", "sex"] == "male"
    monkeypatch.setattr(multimodal.folders, "find", lambda *_: None)
    monkeypatch.setattr(multimodal.folders, "download", lambda _: kaggle)
    multimodal.table.cache_clear()
    assert np.isnan(multimodal.table(None).loc["I", "age"])
    multimodal.table.cache_clear()


def test_numbers_that_do_not_fit_are_refused(small):
    data = small("multiclass", channels=3)
    numbers = multimodal.coded(patients(data))
    for wrong in (1.2, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"numbers go from .* give them from 0 to 1"):
            multimodal.with_numbers(data, numbers.assign(age=wrong))
    wide = pd.concat([numbers.add_suffix(str(copy)) for copy in range(6)], axis=1)
    with pytest.raises(ValueError, match="there are 30 numbers an image, and its rows hold 28"):
        multimodal.with_numbers(data, wide)


@pytest.mark.parametrize("arm", multimodal.ARMS, ids="-".join)
def test_what_the_penalty_is_on(small, monkeypatch, arm):
    data = small("multiclass", channels=3)
    monkeypatch.setattr(multimodal, "table", lambda root: patients(data))
    inputs, penalty = arm
    row, details = measured("multimodal", seed=0, inputs=inputs, penalty=penalty)
    assert len(details) == 2
    drawn = nested_rows(data.train.labels, 0.25, draw=0)
    assert (row["images"], row["without_age"]) == (len(drawn), (drawn % 4 == 0).sum())
    spec = RunSpec(
        study="x", dataset="ham10000", method="tuned", seed=0, variance_weight=2.5, epochs=1
    )
    model = multimodal.ImageAndTable(28, 5, 7)
    features = torch.randn(8, model.head.in_features, requires_grad=True)
    logits, labels = model.head(features), torch.arange(8) % 7
    if penalty == "fixed_images":
        only = multimodal.criterion_for(spec, data, model)(logits, labels, features)
        image = features[:, : model.image_features]
        by_hand = image.var(0, correction=0).sum() / model.head.in_features
        assert (only.total - only.cross_entropy).item() == pytest.approx(2.5 * by_hand.item())
    else:
        both = multimodal.criterion_for(spec, data, None)(logits, labels, features)
        by_hand = 2.5 * feature_variance(features).item()
        assert (both.total - both.cross_entropy).item() == pytest.approx(by_hand, rel=1e-5)


def test_images_alone_are_what_the_network_of_the_other_studies_sees(small, monkeypatch):
    data = small("multiclass", channels=3)
    monkeypatch.setattr(multimodal, "table", lambda root: patients(data))
    row, _ = measured("multimodal", seed=3, inputs="images", penalty="fixed")
    spec = RunSpec(
        study="x",
        dataset="ham10000",
        split="lesion",
        method="tuned",
        variance_weight=2.5,
        seed=3,
        draw=3,
        train_share=0.25,
        batch_size=32,
        epochs=2,
    )
    run = train_run(spec)
    assert row["test_cross_entropy"] == pytest.approx(outcomes(run)["test_cross_entropy"], rel=1e-6)


# ---------------------------------------------------------------- without labels


def test_the_objective_is_vicregs():
    random = torch.Generator().manual_seed(0)
    first, second = (torch.randn(20, 6, generator=random, dtype=torch.float64) / 2 for _ in "ab")
    parts = [F.mse_loss(first, second).item(), 0.0, 0.0]
    for view in (first.numpy(), second.numpy()):
        covariance = np.cov(view.T)
        spread = np.sqrt(np.diag(covariance) + 1e-4)
        parts[1] += np.maximum(0, 1 - spread).mean() / 2
        parts[2] += (covariance**2).sum() / 6 - (np.diag(covariance) ** 2).sum() / 6
    expected = 25 * parts[0] + 25 * parts[1] + parts[2]
    assert pretraining.objective(first, second).item() == pytest.approx(expected)


def test_pretraining_raises_the_variance_and_leaves_the_head(small):
    data = small()
    spec = pretraining.supervised("none", 0)
    model = runs.initial_model(spec, data)
    scaling = Scaling.of(data.train.images)
    head = model.head.weight.detach().clone()
    before = pretraining.variance(model.features, data, scaling)
    losses = pretraining.pretrain(model.features, data.train.images, scaling, 0, most=15)
    assert len(losses) == 15
    assert losses[-1] < losses[0]
    assert pretraining.variance(model.features, data, scaling) > 2 * before
    assert torch.equal(head, model.head.weight)
    with torch.inference_mode():
        by_hand = model.features(scaling(data.val.images)).double().var(0, correction=0).mean()
    assert pretraining.variance(model.features, data, scaling) == pytest.approx(by_hand.item())


def test_every_penalty_starts_from_the_same_features(small, monkeypatch):
    small()
    starts = []
    train = pretraining.train_run

    def watched(spec, **given):
        starts.append({name: each.clone() for name, each in given["model"].state_dict().items()})
        return train(spec, **given)

    monkeypatch.setattr(pretraining, "train_run", watched)
    monkeypatch.setattr(pretraining, "EPOCHS", 1)
    row, details = measured("pretraining", seed=1)
    assert [found["method"] for found in details] == ["none", "fixed", "self_setting"]
    for other in starts[1:]:
        assert all(torch.equal(starts[0][name], other[name]) for name in other)
    fresh = runs.initial_model(pretraining.supervised("none", 1), runs.datasets.load(""))
    assert torch.equal(starts[0]["head.weight"], fresh.head.weight)
    assert not torch.equal(starts[0]["features.0.weight"], fresh.features[0].weight)
    assert row["variance_pretrained"] != row["variance_random"]


def test_without_this_start_the_runs_are_those_of_few_images():
    listed = {spec.key for spec in specs("few_images")}
    for seed in range(10):
        for name in pretraining.COMPARED:
            assert pretraining.supervised(name, seed).key in listed


# ---------------------------------------------------------------- features


def test_areas_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    features = random.integers(0, 5, (40, 6)).astype(float)  # with ties
    labels = random.integers(0, 2, 40)
    expected = [roc_auc_score(labels, column) for column in features.T]
    np.testing.assert_allclose(ablation.areas(features, labels), expected)


def test_tenths_by_hand(small):
    data = small()
    row, details = measured("ablation", dataset="breastmnist", seed=0, method="fixed")
    table = pd.DataFrame(details).set_index(["order", "tenth"])
    assert table.index.is_unique
    assert len(table) == 3 * 10
    assert table.loc["variance", "variance"].is_monotonic_increasing
    spec = RunSpec(
        study="x",
        dataset="breastmnist",
        method="tuned",
        variance_weight=2.5,
        seed=0,
        epochs=2,
        batch_size=64,
    )
    run = train_run(spec)
    with torch.inference_mode():
        train, test = (
            run.model.features(run.fit.scaling(part.images)).double()
            for part in (data.train, data.test)
        )
    spread = train.numpy().var(0)
    moves = np.flatnonzero(spread)
    assert (row["features"], row["vary"]) == (len(spread), len(moves))
    highest = np.array_split(moves[np.argsort(spread[moves], kind="stable")], 10)[-1]
    assert table.loc[("variance", 10), "variance"] == pytest.approx(spread[highest].mean())
    left = test.clone()
    left[:, highest] = train.mean(0)[highest]
    logits = left @ run.model.head.weight.detach().double().T + run.model.head.bias.item()
    expected = classification_metrics(logits, data.test.labels, "binary")
    assert table.loc[("variance", 10), "test_cross_entropy"] == pytest.approx(
        expected["cross_entropy"], rel=1e-5
    )
    one_by_one = [roc_auc_score(data.train.labels, train[:, feature]) for feature in highest]
    towards = [roc_auc_score(data.test.labels, test[:, feature]) for feature in highest]
    pairs = list(zip(one_by_one, towards, strict=True))
    assert table.loc[("variance", 10), "train_area"] == pytest.approx(
        np.mean([max(there, 1 - there) for there, _ in pairs])
    )
    assert table.loc[("variance", 10), "test_area"] == pytest.approx(
        np.mean([here if there >= 0.5 else 1 - here for there, here in pairs])
    )
