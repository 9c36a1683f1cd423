"""The whole machinery where the answer is known: labels that are noise, and a method's copy."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from companion import rivals, when
from companion.studies.rivals_tuning import BLOCKS
from varreg.lab.datasets.core import Dataset, Subset
from varreg.lab.methods import METHODS
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import train_run
from varreg.lab.specs import RunSpec
from varreg.lab.statistics import mean_interval
from varreg.lab.training import predict

STRENGTHS = {"dropout": 0.5, "averaged_weights": 0.5, "learning_rate": 0.003}
TESTED, SEEDS = 400, 3


def run_of(method: str, seed: int, data: Dataset) -> dict[str, float]:
    """Train a method as a study does, and measure it on the test images."""
    entry = METHODS[method]
    spec = RunSpec(
        study="try",
        dataset="phantom",
        method=method,
        seed=seed,
        strength=STRENGTHS.get(method, 0.1) if entry.strength else 0.0,
        variance_weight=0.1 * entry.weighted,
        size=data.size,
        epochs=3,
        batch_size=16,
    )
    run = train_run(spec, data=data, device="cpu")
    logits = predict(run.model, data.test.images, run.fit.scaling)
    return classification_metrics(logits, data.test.labels, data.task)


def noise(seed: int, classes: int = 2) -> Dataset:
    """Images and labels that have nothing to do with each other; the test classes are balanced."""
    random = np.random.default_rng(seed)

    def subset(count: int) -> Subset:
        images = random.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
        labels = random.permutation(np.arange(count) % classes)
        return Subset(torch.tensor(images), torch.tensor(labels))

    task = "binary" if classes == 2 else "multiclass"
    parts = [subset(count) for count in (64, 32, TESTED)]
    names = tuple(f"class {label}" for label in range(classes))
    return Dataset("noise", task, names, 8, "official", *parts, "made in memory", "0" * 16)


def chance(classes: int) -> float:
    """Standard error of the mean AUROC over seeds of scores that know nothing.

    Of one class against the rest that of the Mann-Whitney statistic; averages over classes vary
    less.
    """
    of_class = TESTED // classes
    variance = (TESTED + 1) / (12 * of_class * (TESTED - of_class))
    return math.sqrt(variance / SEEDS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("classes", [2, 4])
def test_labels_that_are_noise_give_chance(method, classes):
    found = [run_of(method, seed, noise(seed, classes)) for seed in range(SEEDS)]
    mean = {name: np.mean([each[name] for each in found]) for name in found[0]}
    assert abs(mean["auroc"] - 0.5) < 4 * chance(classes)
    share = 1 / classes
    assert abs(mean["accuracy"] - share) < 4 * math.sqrt(share * (1 - share) / TESTED / SEEDS)
    # Nobody knows more than that classes are as frequent as each other.
    assert mean["cross_entropy"] > math.log(classes) - 0.01


def test_labels_that_are_not_noise_do_not_give_chance(make_dataset):
    data = make_dataset(size=8, counts=(64, 32, TESTED))
    assert run_of("baseline", 0, data)["auroc"] > 0.5 + 4 * chance(2)


# ---------------------------------------------------------------- a copy of a method


def test_a_copy_of_a_method_has_an_effect_of_zero_to_the_last_digit(monkeypatch, make_dataset):
    monkeypatch.setitem(METHODS, "copy", dataclasses.replace(METHODS["feature_l2"], title="copy"))
    data, rows = make_dataset(size=8, counts=(64, 32, 64)), []
    for method in ("baseline", "feature_l2", "copy"):
        for seed in range(3):
            found = run_of(method, seed, data)
            values = dict.fromkeys(rivals.MEASURES, found["cross_entropy"])
            rows.append({"method": method, "seed": seed} | values)
    block = dataclasses.replace(BLOCKS[0], methods=("feature_l2", "copy"))
    compared = rivals.Compared(block, pd.DataFrame(rows), {"feature_l2": 0.1, "copy": 0.1})
    assert (compared.change("copy", "feature_l2", rivals.PRIMARY) == 0).all()
    assert (compared.change("copy", "baseline", rivals.PRIMARY) != 0).any()
    found = compared.differences.set_index(["method", "measure"])
    mine, its = (found.loc[(name, rivals.PRIMARY)] for name in ("copy", "feature_l2"))
    assert (mine["mean"], mine["low"], mine["high"]) == (its["mean"], its["low"], its["high"])


@pytest.fixture(scope="module")
def losses(request) -> np.ndarray:
    """Test cross-entropies of one method, trained again and again: what only the seed changes."""
    data = noise(0)
    return np.array([run_of("feature_l2", seed, data)["cross_entropy"] for seed in range(60)])


def within(share: float, count: int, expected: float) -> bool:
    """Whether a share of simulated comparisons is as expected, to three standard errors."""
    return abs(share - expected) < 3 * math.sqrt(expected * (1 - expected) / count)


def test_a_copy_with_seeds_of_its_own_differs_as_often_as_stated(losses):
    random, count, seeds = np.random.default_rng(0), 4000, 10
    drawn = random.choice(losses, (count, 2, seeds))
    covers = [
        found.low <= 0 <= found.high for found in (mean_interval(mine - its) for mine, its in drawn)
    ]
    assert within(np.mean(covers), count, 0.95)
    assert np.mean(covers) == pytest.approx(0.95, abs=0.01)


def test_of_ten_copies_one_stands_after_holm_as_rarely_as_stated(losses, monkeypatch):
    random, count, seeds = np.random.default_rng(1), 120, 10
    monkeypatch.setattr(rivals, "MEASURES", {rivals.PRIMARY: rivals.MEASURES[rivals.PRIMARY]})
    names = tuple(f"copy {number}" for number in range(10))
    for name in names:
        monkeypatch.setitem(METHODS, name, METHODS["feature_l2"])
    block = dataclasses.replace(BLOCKS[0], methods=names)
    stands = 0
    for _ in range(count):
        runs = pd.DataFrame(
            {"method": method, "seed": seed, rivals.PRIMARY: random.choice(losses)}
            for method in ("baseline", *names)
            for seed in range(seeds)
        )
        found = rivals.Compared(block, runs, dict.fromkeys(names, 0.1)).differences
        stands += (found["p_holm"] < 0.05).any()
    # Copies that share what they are compared with err together: seldomer than 5 % of the time.
    assert stands / count < 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)
    assert stands > 0, "nothing ever stands: the check cannot fail"


def test_the_curves_call_a_copy_negligible(losses):
    rows = [
        {"level": "100 %", "method": name, "seed": seed, **dict.fromkeys(MEASURED, losses[seed])}
        for name in ("none", *when.REFERENCES)
        for seed in range(10)
    ]
    found = when.differences(pd.DataFrame(rows), MEASURED)
    assert (found[["mean", "low", "high"]] == 0).all(axis=None)
    assert not (found["p_holm"] < 0.05).any()


MEASURED = (when.PRIMARY,)
