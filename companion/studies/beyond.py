"""Beyond small images and convolutions: volumes, and a vision transformer.

The plan is the page *The plan of the comparison*. Every method has the strength that validation
chose on BreastMNIST in ``rivals_tuning``: nothing is tuned on these data or networks.
"""

from __future__ import annotations

from companion.studies.few_images import settings
from varreg.lab.specs import RunSpec

STUDY = "beyond"
COMPARED = ("none", "fixed", "self_setting", "feature_l2")
#: Zoom and shift are for images: volumes are not augmented here.
AUGMENTED = (*COMPARED, "augmented")


def volumes() -> list[RunSpec]:
    """AdrenalMNIST3D, a quarter of its training volumes, ten draws of them: seed by seed.

    A small network and few volumes, so that a run takes about a minute; with batches of 32 the 20
    epochs are some 200 steps.
    """
    return [
        settings(
            STUDY,
            "adrenalmnist3d",
            name,
            seed,
            model="small_cnn_half",
            train_share=0.25,
            draw=seed,
            epochs=20,
            batch_size=32,
        )
        for seed in range(10)
        for name in COMPARED
    ]


def transformer() -> list[RunSpec]:
    """BreastMNIST with a small vision transformer: seed by seed."""
    return [
        settings(STUDY, "breastmnist", name, seed, model="small_vit", epochs=30)
        for seed in range(10)
        for name in AUGMENTED
    ]


def specs() -> list[RunSpec]:
    """List the runs, the volumes first."""
    return volumes() + transformer()
