"""Does it help where images are few? Methods over shares of the training images.

The plan is the page *The plan of the comparison*. Every method has the strength that validation
chose on BreastMNIST in ``rivals_tuning``: nothing is tuned on these data.
"""

from __future__ import annotations

from companion.studies.rivals_tuning import DATASETS
from varreg.lab.specs import RunSpec

STUDY = "few_images"
SEEDS = range(10)
DRAWS = 5
"""Draws of the images; a seed has that of its number, modulo this."""

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
MOST_EPOCHS = 100

ARMS: dict[str, dict[str, object]] = {
    "none": {"method": "baseline"},
    "fixed": {"method": "tuned", "variance_weight": 2.5},
    "self_setting": {"method": "self_setting", "strength": 0.027},
    "head_weighted": {"method": "head_weighted", "strength": 0.32},
    "feature_l2": {"method": "feature_l2", "strength": 2.5},
    "dropout": {"method": "dropout", "strength": 0.35},
    "label_smoothing": {"method": "label_smoothing", "strength": 0.1},
    "augmented": {"method": "augmented"},
    "augmented_feature_l2": {"method": "feature_l2", "strength": 0.1, "augment": True},
    "augmented_smoothing": {"method": "label_smoothing", "strength": 0.1, "augment": True},
}
"""The last two are the best two on top of augmentation, at the strengths chosen there."""


def epochs(most: int, share: float) -> int:
    """Epochs for a share of the images: as many steps, up to 100 epochs.

    Example:
        >>> [epochs(20, share) for share in SHARES]
        [100, 100, 80, 40, 20]
    """
    return min(round(most / share), MOST_EPOCHS)


def settings(study: str, dataset: str, name: str, seed: int, **given: object) -> RunSpec:
    """A run of one of :data:`ARMS` on a data set of the comparison."""
    return RunSpec(study=study, seed=seed, **DATASETS[dataset] | ARMS[name] | given)


def specs() -> list[RunSpec]:
    """List the runs: data set by data set, seed by seed."""
    return [
        settings(
            STUDY,
            dataset,
            name,
            seed,
            train_share=share,
            draw=seed % DRAWS if share < 1 else 0,
            epochs=epochs(DATASETS[dataset]["epochs"], share),
        )
        for dataset in ("pneumoniamnist", "ham10000")
        for seed in SEEDS
        for share in SHARES
        for name in ARMS
    ]
