"""Does the best weight move with the number of images, and does the self-setting one follow?

The strengths of ``rivals_tuning`` over shares of the training images, and no penalty; judged on
validation images only.
"""

from __future__ import annotations

from companion.studies.few_images import SHARES, epochs
from companion.studies.rivals_tuning import CANDIDATES, DATASETS, SEEDS
from varreg.lab.specs import RunSpec

STUDY = "few_images_weights"
SETTING_OF = {"tuned": "variance_weight", "self_setting": "strength"}
"""With the setting that is varied."""


def specs() -> list[RunSpec]:
    """List the runs: data set by data set, seed by seed."""
    varied = [{"method": "baseline"}] + [
        {"method": method, name: strength}
        for method, name in SETTING_OF.items()
        for strength in CANDIDATES[method]
    ]
    return [
        RunSpec(
            study=STUDY,
            seed=seed,
            train_share=share,
            draw=draw if share < 1 else 0,
            **DATASETS[dataset] | {"epochs": epochs(DATASETS[dataset]["epochs"], share)} | settings,
        )
        for dataset in ("pneumoniamnist", "ham10000")
        for draw, seed in enumerate(SEEDS)
        for share in SHARES
        for settings in varied
    ]
