"""Made-up rows of the probes behind the published numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from companion import predictions as asked
from companion import records
from companion.probes.leakage import TRAINING
from companion.published import CHEST_IMAGES, SKIN_CLASSES
from companion.published_numbers.the_data import CUTOFFS
from tests.companion.synthetic import row

CHEST_MODELS = {"baseline": 0.05, "penalized": 0.06, "augmented": -0.2}
SKIN_MODELS = {"baseline": 1.0, "penalized": 1.1, "untrained": 0.0}


def predictions(skin_images=300):
    """Rows of the probe ``predictions``: units, and a row an image in file order."""
    runs, details = [], []
    labels = np.repeat([0, 1], CHEST_IMAGES["test"])
    for method, shift in CHEST_MODELS.items():
        key = f"chest-{method}"
        random = np.random.default_rng(0)
        chance = 1 / (1 + np.exp(-(shift + 2.5 * labels + random.normal(0, 1.2, len(labels)))))
        runs.append({"key": key, "source": "chest_paper", "method": method, "seed": 0})
        runs[-1] |= {"dataset": "chest_xray", "model": "paper_cnn", "size": 224}
        details.append(_images(key, labels, np.stack([1 - chance, chance], 1)))
    random = np.random.default_rng(1)
    labels = random.choice(7, size=skin_images, p=[0.04, 0.05, 0.11, 0.02, 0.65, 0.11, 0.02])
    seen = (random.random(skin_images) < 0.4).astype(int)
    for method, skill in SKIN_MODELS.items():
        key = f"skin-{method}"
        logits = random.normal(0, 0.6, (skin_images, 7))
        logits[np.arange(skin_images), labels] += skill * (1.5 + 0.5 * seen)
        logits[:, 4] += skill
        logits[:, 6] -= skill
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        runs.append({"key": key, "source": "skin_paper", "method": method, "seed": 0})
        runs[-1] |= {"dataset": "ham10000", "model": "paper_cnn", "size": 224}
        details.append(_images(key, labels, chances, seen))
    table = pd.DataFrame(runs).assign(test_feature_variance=0.004)
    return table, pd.concat(details, ignore_index=True)


def leakage(seeds=3, models=("paper_cnn", "small_cnn")):
    """Details of the probe ``leakage``: seen lesions are harder, and remembered.

    Without the test lesions, seen images lose ten points in every class; without as many others,
    none. The level moves with the seed.
    """
    runs, details = [], []
    for model, training, seed in itertools.product(models, TRAINING, range(seeds)):
        key = f"{model}-{training}-{seed}"
        runs.append({"key": key, "model": model, "training": training, "seed": seed})
        for label, seen in itertools.product(range(len(SKIN_CLASSES)), (0, 1)):
            images = 100 if label == 4 else 20 + 10 * seen
            forgotten = training == TRAINING[1] and seen
            right = images // 2 - images // 10 * (seen + forgotten) + seed
            line = {"key": key, "label": label, "seen": seen, "images": images, "right": right}
            details.append(line)
    return records.details(pd.DataFrame(runs), pd.DataFrame(details))


def thresholds(seeds=3, models=("paper_cnn", "small_cnn")):
    """Rows of the probe ``thresholds``, joined with their settings."""
    rows = []
    for model, method, seed in itertools.product(models, CHEST_MODELS, range(seeds)):
        for place, rule in enumerate(CUTOFFS):
            accuracy = 0.80 + 0.02 * place + 0.001 * seed * (place + 1)
            rows.append(
                {"model": model, "method": method, "seed": seed, "rule": rule}
                | {"accuracy": accuracy, "balanced_accuracy": accuracy - 0.05}
            )
    return pd.DataFrame(rows)


def temperatures(seeds=3, models=("paper_cnn", "small_cnn")):
    """Rows of the probe ``temperature``: one hundredth less cross-entropy, and a bit per seed."""
    runs, details = [], []
    for source, model, seed in itertools.product(("chest", "skin"), models, range(seeds)):
        key = f"{source}-{model}-{seed}"
        runs.append({"key": key, "source": source, "model": model, "seed": seed})
        runs[-1]["temperature"] = 1.2 + 0.1 * seed
        for part, used in itertools.product(("val", "test"), (1.0, runs[-1]["temperature"])):
            gain = 0.0 if used == 1.0 else 0.01 + 0.001 * seed
            line = {"key": key, "part": part, "temperature_used": used}
            line |= {"cross_entropy": 0.5 + 0.1 * seed - gain, "ece": 0.05 + gain}
            details.append(line | {"accuracy": 0.8, "auroc": 0.9})
    return pd.DataFrame(runs), pd.DataFrame(details)


def _images(key, labels, chances, seen=None):
    table = pd.DataFrame(chances.astype(float), columns=[f"p_{i}" for i in range(chances.shape[1])])
    return table.assign(key=key, index=range(len(labels)), label=labels, seen=seen)


def shown_by_hand(scores, batch_size, closing):
    """A progress bar as Keras adds it up: a total and a count, batch by batch."""
    total = count = 0
    for start in range(0, len(scores), batch_size):
        so_far = scores[: start + batch_size]
        metric = sum(so_far) / len(so_far)
        total, count = total + metric, count + 1
    return (total + metric) / (count + 1) if closing else total / count


EMPTY = pd.DataFrame()
PREDICTIONS, _DETAILS = predictions()
ANSWERS = records.details(PREDICTIONS, _DETAILS)
CHEST, SKIN = (asked.images(ANSWERS, source) for source in ("chest_paper", "skin_paper"))
NO_IMAGES = asked.images(EMPTY, "chest_paper")
LEAKS = leakage()
THRESHOLDS = thresholds()
PROTOCOL = pd.DataFrame(
    row(method, seed, dataset="chest_xray", size=224, study="chest_paper", best_epoch=2)
    | {"test_recall": f"0.5;{0.96 + 0.01 * seed}", "test_accuracy": (500 + 3 * seed) / 624}
    for method in ("baseline", "penalized", "augmented")
    for seed in range(3)
)
