"""Does it help in other networks? Methods of ``few_images`` on BreastMNIST, network by network.

Three widths of the small network, with batch normalization, the paper's, a small residual network
and a small vision transformer.
"""

from __future__ import annotations

from companion.studies import every
from companion.studies.few_images import settings
from varreg.lab.specs import RunSpec

STUDY = "networks"
SEEDS = range(10)
COMPARED = ("none", "fixed", "self_setting", "head_weighted", "feature_l2", "augmented")
NETWORKS = (
    "small_cnn_half",
    "small_cnn",
    "small_cnn_wide",
    "small_cnn_norm",
    "paper_cnn",
    "small_resnet",
    "small_vit",
)


def specs() -> list[RunSpec]:
    """List the runs, seed by seed."""
    return [
        settings(STUDY, "breastmnist", **each)
        for each in every(seed=SEEDS, model=NETWORKS, name=COMPARED)
    ]
