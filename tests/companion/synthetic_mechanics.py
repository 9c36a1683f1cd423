"""Made-up rows of the studies and probes behind the notebook on the published numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import torch

from companion.probes.bits import pack
from companion.probes.carried import ORDER
from tests.companion.synthetic import row
from varreg.lab.models import build

FAMILIES = {"Adam": {}, "gradient descent": {"optimizer": "sgd", "learning_rate": 0.05}}


def inert(seeds=2, epochs=3):
    """Lambda does nothing under Adam and moves the trajectories of gradient descent by 0.1."""
    runs, curves = [], []
    for seed, family, lambda_ in itertools.product(range(seeds), FAMILIES, (0.25, 1.0, 4.0)):
        key = f"{seed}-{family}-{lambda_}"
        sgd = family != "Adam"
        optimizer = {"optimizer": "sgd" if sgd else "adam", "learning_rate": 0.05 if sgd else 1e-3}
        runs.append({"key": key, "seed": seed, "lambda_": lambda_, **optimizer})
        for epoch in range(1, epochs + 1):
            level = 1 / epoch + 0.5 * seed + 0.1 * sgd * (lambda_ == 4) * (epoch == 2)
            values = {"train_cross_entropy": level, "val_cross_entropy": level}
            curves.append({"key": key, "epoch": epoch} | values)
    return pd.DataFrame(runs), pd.DataFrame(curves)


def sampling(seeds=2, features=1000):
    """Noise exactly as in theory, times a factor that differs from seed to seed."""
    rows = []
    for seed, model, ratio in itertools.product(
        range(seeds), ("paper_cnn", "small_cnn"), (0.0, 0.02, 0.05, 0.2, 0.5, 1.0)
    ):
        drawn = round(ratio * features)
        noise = (3 + seed) * (1 / drawn - 1 / features) if ratio else 0.0
        rows.append(
            {"key": f"{seed}{model}", "model": model, "seed": seed, "ratio": ratio}
            | {"features": features, "drawn": drawn, "gradient_noise": noise}
            | {"bias": 1.0 * (ratio > 0), "penalty_sd": 0.01, "batch_noise": 0.7}
            | {"step_ratio": 1 + 0.1 * (ratio > 0), "comb_step_ratio": 1 + 0.02 * (ratio > 0)}
            | {"comb_noise": noise / 4, "comb_bias": 0.9 * (ratio > 0), "comb_sd": 0.01}
        )
    return pd.DataFrame(rows)


def norms(seeds=3, epochs=2):
    """Weight 1 halves the features and lowers the relative variance to 0.9; 0.01 does nothing."""
    rows = []
    for seed, model, weight, epoch in itertools.product(
        range(seeds), ("paper_cnn", "small_cnn"), (0.0, 0.01, 1.0, 100.0), range(epochs + 1)
    ):
        strong = weight >= 1 and epoch > 0
        rms = (2.0 + 0.1 * seed) * (0.5 if strong else 1.0)
        relative = 0.4 * (0.9 if strong else 1.0) * (1 + 0.01 * np.sin(seed + 7 * weight))
        rows.append(
            {"key": f"{seed}{model}{weight}", "model": model, "variance_weight": weight}
            | {"seed": seed, "epoch": epoch, "feature_rms": rms, "relative_variance": relative}
            | {"feature_variance": relative * rms**2, "head_norm": 2.0 if strong else 1.0}
        )
    return pd.DataFrame(rows)


def carried(seeds=2, images=40, right_of=None):
    """Combinations that have the images right which ``right_of(place)`` says.

    Carried-over weights gain 0.01 of accuracy at each place, fresh ones nothing.
    """
    labels = np.arange(images) % 2
    runs, details = [], []
    for seed, mode in itertools.product(range(seeds), ("fresh", "carried")):
        key = f"{seed}{mode}"
        runs.append({"key": key, "mode": mode, "seed": seed, "val_labels": pack(labels)})
        for place, combination in enumerate(ORDER, 1):
            right = np.ones(images, bool) if right_of is None else right_of(place)
            gain = 0.01 * place * (mode == "carried")
            level = 0.9 + 0.001 * np.sin(seed + place)
            details.append(
                {"key": key, "place": place, **combination, "val_right": pack(right)}
                | {"val_accuracy": level + gain, "val_cross_entropy": 0.3 - 0.01 * (place == 5)}
                | {"test_accuracy": 0.8, "test_cross_entropy": 0.5 + 0.01 * place + 0.001 * seed}
            )
    return pd.DataFrame(runs).assign(val_images=images), pd.DataFrame(details)


def edges(effects, seeds=5):
    """Shuffling changes the test accuracy of each network by so much."""
    rows = []
    for seed, (model, effect), shuffled in itertools.product(
        range(seeds), effects.items(), (None, True)
    ):
        scatter = 0.001 * np.sin(3 * seed + len(model) + bool(shuffled))
        accuracy = 0.85 + 0.02 * np.sin(seed) + (effect if shuffled else 0.0) + scatter
        rows.append(
            row(
                seed=seed,
                model=model,
                shuffle_blocks=shuffled,
                test_accuracy=accuracy,
                test_auroc=accuracy + 0.1,
                test_cross_entropy=1.2 - accuracy,
            )
        )
    return pd.DataFrame(rows)


def network(name="paper_cnn", size=16):
    """In float64, with three outputs."""
    return build(name, in_channels=1, size=size, n_outputs=3).double()


def some_images(size=16):
    return torch.rand(6, 1, size, size, dtype=torch.float64)
