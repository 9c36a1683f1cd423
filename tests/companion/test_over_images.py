from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from companion import over_images
from varreg.lab.ledger import Ledger
from varreg.lab.statistics import crossed_difference

AREA = "test_auroc"


@pytest.mark.parametrize("metric", over_images.METRICS)
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_mean_over_the_images_is_the_metric(metric, task):
    random = np.random.default_rng(0)
    logits = random.normal(size=(60, 1 if task == "binary" else 4))
    truth = random.integers(0, 2 if task == "binary" else 4, 60)
    found = over_images.by_image(logits, truth, metric)
    assert found.shape == (60,)
    if task == "binary":
        p = 1 / (1 + np.exp(-logits[:, 0]))
        chances, area = np.stack([1 - p, p], 1), lambda: roc_auc_score(truth, p)
    else:
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        area = lambda: roc_auc_score(truth, chances, multi_class="ovr")  # noqa: E731
    expected = {
        "test_accuracy": lambda: (chances.argmax(1) == truth).mean(),
        "test_cross_entropy": lambda: log_loss(truth, chances, labels=range(chances.shape[1])),
        "test_auroc": area,
    }
    assert found.mean() == pytest.approx(expected[metric](), abs=1e-9)


@pytest.mark.parametrize("study", ["chest", "skin"])
def test_recorded_predictions_and_labels_give_the_recorded_metrics(study):
    runs = Ledger(study).runs().sample(12, random_state=0)
    said = Ledger(study).all_predictions(runs["key"], ("test",))
    for row in runs.to_dict("records"):
        logits = said[row["key"]]["test"].logits
        split = None if pd.isna(row["split"]) else row["split"]
        truth = over_images.labels(row["dataset"], split, "test")
        for metric in over_images.METRICS:
            found = over_images.by_image(logits, truth, metric).mean()
            assert found == pytest.approx(row[metric], abs=2e-3)  # float16


def test_differences_over_images_have_the_mean_of_those_over_seeds():
    runs = Ledger("chest").runs()
    runs = runs[(runs["model"] == "small_cnn")]
    found = over_images.differences(runs).set_index(["method", "metric"])
    wide = runs.pivot(index="seed", columns="method", values="test_cross_entropy")
    expected = (wide["augmented"] - wide["baseline"]).mean()
    row = found.loc[("augmented", "test_cross_entropy")]
    assert row["mean"] == pytest.approx(expected)
    said = Ledger("chest").all_predictions(runs["key"], ("test",))
    truth = over_images.labels("pneumoniamnist", None, "test")
    keys = runs.pivot(index="seed", columns="method", values="key")
    added = {
        method: np.stack(
            [
                np.logaddexp(0, np.where(truth == 1, -1, 1) * said[k]["test"].logits[:, 0])
                for k in of
            ]
        )
        for method, of in keys.items()
    }
    crossed = crossed_difference(added["augmented"] - added["baseline"])
    assert row["high"] - row["low"] == pytest.approx(crossed.high - crossed.low, rel=1e-4)


def test_labels_that_are_not_recorded(tmp_path):
    with pytest.raises(LookupError, match="labels of nothing, split official, are not recorded"):
        over_images.labels("nothing", "official", "test", tmp_path)


@pytest.mark.slow
def test_crossed_intervals_of_an_auroc_cover_as_they_say():
    random, seeds, images, draws = np.random.default_rng(0), 8, 156, 6000
    covered = 0
    for _ in range(draws):
        truth = np.arange(images) < random.binomial(images, 0.7)
        shared = 1.2 * truth + random.normal(size=images)
        # Two methods of the same law: each has its own view of an image, and more by each seed.
        added = [
            [
                over_images.by_image(
                    (own + 0.5 * random.normal(size=images))[:, None], truth.astype(int), AREA
                )
                for _ in range(seeds)
            ]
            for own in (shared + 0.5 * random.normal(size=(2, images)))
        ]
        covered += 0 in crossed_difference(np.subtract(*added))
    assert covered / draws == pytest.approx(0.95, abs=0.01)
