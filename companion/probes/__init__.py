"""The probes: one module each, which takes a measurement that is not a row of metrics.

A probe is recorded as a study is: a row a unit in ``runs.csv``, with its provenance, and the rows
that it found in ``curves.csv``.

>>> [unit.setting["mode"] for unit in units("carried")][:2]
['fresh', 'carried']
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import Tensor

from varreg.checks import check_choice
from varreg.lab.datasets import Dataset
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import Trained, provenance
from varreg.lab.specs import digest
from varreg.lab.training import as_device, predict

PROBES = (
    "predictions",
    "carried",
    "norms",
    "sampling",
    "leakage",
    "thresholds",
    "temperature",
    "labels",
    "layers",
    "reliability",
    "phantom_volumes",
    "multimodal",
    "pretraining",
    "ablation",
    "inside",
    "nuisance",
    "scales",
)


OUTCOMES = ("cross_entropy", "auroc", "accuracy")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one unit of a probe found.

    Attributes:
        data: The data set that it was measured on.
        row: Values of the unit as a whole.
        details: As many rows as the probe has to tell.
    """

    data: Dataset
    row: Mapping[str, object]
    details: list[dict[str, object]]


@dataclasses.dataclass(frozen=True)
class Unit:
    """One call of a probe, written down.

    Attributes:
        study: Name of the probe, and of its folder in the results.
        settings: Names and values of its arguments.
    """

    study: str
    settings: tuple[tuple[str, object], ...]

    @property
    def setting(self) -> dict[str, object]:
        """The settings by name."""
        return dict(self.settings)

    @property
    def key(self) -> str:
        """Name in the ledger: 12 hexadecimal digits of a hash of probe and settings."""
        return digest([self.study, self.setting])

    def execute(
        self, *, root: str | Path | None = None, device: str | None = None
    ) -> tuple[dict[str, object], list[dict[str, object]]]:
        """Measure; record nothing."""
        start = time.perf_counter()
        found: Measured = _module(self.study).measure(**self.setting, root=root, device=device)
        seconds = time.perf_counter() - start
        row = {"key": self.key, "study": self.study, **self.setting, **found.row}
        return row | provenance(found.data, as_device(device), seconds), found.details


def units(probe: str) -> list[Unit]:
    """List the units of a probe, the most important first.

    Args:
        probe: One of :data:`PROBES`.

    Raises:
        ValueError: If there is no such probe.
    """
    check_choice("probe", probe, PROBES)
    return [Unit(probe, tuple(setting.items())) for setting in _module(probe).SETTINGS]


def answers(run: Trained, part: str) -> tuple[Tensor, Tensor]:
    """What a trained model says about ``"train"``, ``"val"`` or ``"test"``: logits, and labels."""
    subset = getattr(run.data, part)
    return predict(run.model, subset.images, run.fit.scaling), subset.labels


def outcomes(run: Trained) -> dict[str, float]:
    """Cross-entropy, AUROC and accuracy of a trained model on validation and test images."""
    found = {}
    for part in ("val", "test"):
        metrics = classification_metrics(*answers(run, part), run.data.task)
        found |= {f"{part}_{name}": metrics[name] for name in OUTCOMES}
    return found


def _module(probe: str) -> ModuleType:
    return import_module(f"companion.probes.{probe}")
