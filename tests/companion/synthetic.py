"""Made-up rows of a ledger, small enough to check by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from companion.records import Record

PENALTY = {
    "baseline": (0.0, 1.0, 1.0),
    "penalized": (0.01, 0.2, 0.5),
    "tuned": (100.0, 1.0, 1.0),
    "augmented": (0.0, 1.0, 1.0),
}
EMPTY = pd.DataFrame()
#: Shifts of the test cross-entropy by method, for `study`.
HELPS = {"baseline": 0.0, "penalized": -0.05, "tuned": -0.1, "augmented": -0.02}
HARMS = {"baseline": 0.0, "penalized": 0.05, "tuned": 0.1, "augmented": -0.02}
METRICS = ("cross_entropy", "accuracy", "auroc", "balanced_accuracy", "ece")


def row(method="baseline", seed=0, setting=None, classes=2, **values):
    """One run; metrics not given follow from the seed alone."""
    weight, ratio, lambda_ = setting or PENALTY[method]
    run = {
        "key": f"{method}-{seed}-{weight}-{ratio}-{lambda_}",
        "dataset": "pneumoniamnist",
        "split": "",
        "size": 28,
        "model": "paper_cnn",
        "method": method,
        "seed": seed,
        "variance_weight": weight,
        "feature_sampling_ratio": ratio,
        "lambda_": lambda_,
        "seconds": 36.0,
        "device": "a CPU",
        "epochs_run": 3,
        "best_epoch": 2,
    }
    for split, metric in itertools.product(("train", "val", "test"), METRICS):
        run[f"{split}_{metric}"] = 0.5 + 0.01 * seed
    for split in ("train", "val", "test"):
        run[f"{split}_recall"] = ";".join(["0.5"] * classes)
    run |= values
    run["key"] = "-".join(str(run[name]) for name in ("key", "dataset", "split", "model"))
    return run


def study(effects, seeds=5, models=("paper_cnn", "small_cnn"), **common):
    """A run for each method, network and seed.

    ``effects`` maps a method to the shift of its test cross-entropy (accuracy moves the other
    way); a scatter that differs from run to run makes the intervals real.
    """
    rows = []
    for seed, model, (method, shift) in itertools.product(range(seeds), models, effects.items()):
        random = np.random.default_rng([seed, len(model), len(method)])
        level = 0.5 + 0.05 * np.sin(seed) + shift + 0.002 * random.standard_normal()
        rows.append(
            row(
                method,
                seed,
                model=model,
                test_cross_entropy=level,
                test_accuracy=1.3 - level,
                **common,
            )
        )
    return pd.DataFrame(rows)


def grid(best, dataset="pneumoniamnist", seeds=3, model="paper_cnn", test_best=None):
    """The grid with its lowest validation cross-entropy at the settings ``best``."""
    wide = [(weight, 1.0, 1.0) for weight in (0.0, 0.01, 1.0, 100.0)]
    twelve = list(itertools.product((0.01, 0.1), (0.2, 0.5), (0.5, 1.0, 2.0)))
    rows = []
    for seed, setting in itertools.product(range(seeds), wide + twelve):
        scatter = 0.001 * np.sin(seed + 10 * sum(setting))
        rows.append(
            row(
                "penalized" if setting[0] else "baseline",
                seed,
                setting,
                dataset=dataset,
                model=model,
                val_cross_entropy=(0.3 if setting in best else 0.4) + scatter,
                test_cross_entropy=(0.3 if setting == test_best else 0.4) + scatter,
            )
        )
    return pd.DataFrame(rows)


def curves(runs, epochs=3):
    """An epoch table for every run."""
    rows = []
    for key, epoch in itertools.product(runs["key"], range(1, epochs + 1)):
        values = {
            f"{part}_{name}": 1 / (1 + epoch)
            for part, name in itertools.product(
                ("train", "val"), ("total", "cross_entropy", "accuracy", "auroc")
            )
        }
        rows.append({"key": key, "epoch": epoch} | values)
    return pd.DataFrame(rows)


def records(**runs):
    """Recorded runs by study, each with an epoch table."""
    return {name: Record(rows, curves(rows), live=False) for name, rows in runs.items()}
