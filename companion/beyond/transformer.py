"""A vision transformer."""

from __future__ import annotations

from pathlib import Path

from companion.beyond.effects import Section, of_specs, pairs
from companion.studies import beyond


def sections(results: Path | None = None) -> list[Section]:
    """It is there where every run is recorded."""
    compared = pairs(*beyond.AUGMENTED[1:])
    return of_specs("transformer", "transformer", beyond.transformer(), compared, results)
