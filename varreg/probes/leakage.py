"""Test images of lesions that the training split shows too, and of lesions that it does not."""

from __future__ import annotations

from pathlib import Path

import torch

from varreg.probes import Measured
from varreg.runs import RunSpec, train_run
from varreg.studies.grid import DATASETS, MODELS
from varreg.training import predict

__all__ = ["measure", "settings"]


def settings() -> list[dict[str, object]]:
    """One unit a run: both networks, five seeds."""
    return [{"model": model, "seed": seed} for seed in range(5) for model in MODELS]


def measure(
    model: str, seed: int, *, root: str | Path | None = None, device: str | None = None
) -> Measured:
    """Train a baseline on the paper's split of HAM10000, which is by image, at 28 px.

    Args:
        model: Name of the network.
        seed: Of the run.
        root: Folder of the data.
        device: Default: CUDA if there is one.

    Returns:
        A row for each class and ``seen`` (whether the training split has another image of the
        lesion): ``images`` and how many of them were classified ``right``.
    """
    spec = RunSpec(
        study="leakage",
        method="baseline",
        model=model,
        seed=seed,
        **DATASETS["ham10000"] | {"split": "paper"},
    )
    run = train_run(spec, root=root, device=device)
    test, train = run.data.test, run.data.train
    right = predict(run.model, test.images, run.fit.scaling).argmax(1) == test.labels
    seen = torch.isin(test.groups, train.groups)
    details = []
    for label in range(run.data.n_outputs):
        for value in (False, True):
            mine = (test.labels == label) & (seen == value)
            details.append(
                {
                    "label": label,
                    "seen": int(value),
                    "images": int(mine.sum()),
                    "right": int(right[mine].sum()),
                }
            )
    row = {"dataset": spec.dataset, "size": spec.size, "split": spec.split}
    return Measured(run.data, row, details)
