"""Three dimensions: AdrenalMNIST3D, and volumes that are drawn."""

from __future__ import annotations

from pathlib import Path

from companion.beyond.effects import Section, of_specs, pairs, recorded_units
from companion.studies import beyond

COMPARED = pairs(*beyond.COMPARED[1:])


def sections(results: Path | None = None) -> list[Section]:
    """Those of which every run is recorded."""
    found = of_specs("volumes", "AdrenalMNIST3D", beyond.volumes(), COMPARED, results)
    drawn, _ = recorded_units("phantom_volumes", results)
    if len(drawn):
        found.append(Section("phantoms", "drawn volumes", drawn, COMPARED))
    return found
