"""The search for the best setting: the paper's twelve, and a wide range of weights.

Every run starts from weights of its own. Settings are compared by the cross-entropy on a
sound validation set, over several seeds, and never by test results.

The studies ``chest`` and ``skin`` train with the best weight above zero, although no penalty is a
candidate and sometimes wins.
"""

import pandas as pd

from companion.studies import every
from varreg.lab.ledger import Ledger
from varreg.lab.runs import MissingRunsError
from varreg.lab.specs import RunSpec
from varreg.loss import PUBLISHED

SEEDS = range(100, 105)
"""Apart from those of ``chest`` and ``skin``, which use what is chosen with these."""

DATASETS = {
    "pneumoniamnist": {"dataset": "pneumoniamnist", "epochs": 15},
    "ham10000": {"dataset": "ham10000", "split": "lesion", "epochs": 10},
}
"""Both data sets at 28 px; the studies ``chest`` and ``skin`` train for as long."""

PAPER_GRID = {
    "variance_weight": (0.01, 0.1),
    "feature_sampling_ratio": (0.2, 0.5),
    "lambda_": (0.5, 1.0, 2.0),
}
"""The paper's 12 combinations."""

WEIGHTS = (0.0, 0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0)
"""The wide range, with all features and lambda 1; 0 is the baseline."""

MODELS = ("paper_cnn", "small_cnn")

CHOSEN = {
    ("pneumoniamnist", "paper_cnn"): 0.01,
    ("pneumoniamnist", "small_cnn"): 0.1,
    ("ham10000", "paper_cnn"): 0.1,
    ("ham10000", "small_cnn"): 1.0,
}
"""The best weights above zero by data set and network, as :func:`best_weight_above_zero` finds them
in the recorded results: written down, so that what ``chest`` and ``skin`` run needs no results."""


def specs() -> list[RunSpec]:
    """List the runs, seed by seed: first the wide range, then the paper's twelve."""
    wide = every(model=MODELS, variance_weight=WEIGHTS)
    twelve = every(model=MODELS[:1], **PAPER_GRID)
    for each in (*wide, *twelve):
        each["method"] = "penalized" if each["variance_weight"] else "baseline"
    return [
        RunSpec(study="grid", seed=seed, **data, **each)
        for search in (wide, twelve)
        for seed in SEEDS
        for data in DATASETS.values()
        for each in search
    ]


def mean_scores(dataset: str, model: str, results: str | None = None) -> pd.Series:
    """Mean validation cross-entropy over seeds for each weight of the wide range.

    Args:
        dataset: A key of :data:`DATASETS`.
        model: ``"paper_cnn"`` or ``"small_cnn"``.
        results: Folder of the ledgers.

    Raises:
        MissingRunsError: If one of the runs is not recorded.
    """
    wanted = [
        spec
        for spec in specs()
        if (spec.dataset, spec.model) == (dataset, model)
        and (spec.feature_sampling_ratio, spec.lambda_) == (1.0, 1.0)
    ]
    runs = Ledger("grid", results).runs()
    recorded = set() if runs.empty else set(runs["key"])
    missing = [spec for spec in wanted if spec.key not in recorded]
    if missing:
        raise MissingRunsError(
            f"{len(missing)} of {len(wanted)} runs that choose the weight for {model} on {dataset} "
            "are not recorded; run: python -m companion run grid"
        )
    runs = runs.set_index("key").loc[[spec.key for spec in wanted]]
    return runs.groupby("variance_weight")["val_cross_entropy"].mean()


def best_weight_above_zero(dataset: str, model: str, results: str | None = None) -> float:
    """The positive weight with the lowest mean validation cross-entropy over seeds.

    No penalty may be better still: :func:`companion.grid_search.chosen` has it among the
    candidates.
    """
    scores = mean_scores(dataset, model, results)
    return float(scores[scores.index > 0].idxmin())


def paired_methods(dataset: str, model: str) -> dict[str, dict[str, object]]:
    """Methods of a paired study with their settings: as published, and the best weight above 0."""
    best = CHOSEN[dataset, model]
    return {"baseline": {}, "penalized": PUBLISHED, "tuned": {"variance_weight": best}}
