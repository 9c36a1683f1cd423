"""What several test modules of the lab share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def nothing_here(tmp_path, monkeypatch) -> Path:
    """A folder of data that is empty, an empty cache, no results: whatever this machine has."""
    (tmp_path / "data").mkdir()
    for name in ("data", "cache", "results"):
        monkeypatch.setenv(f"VARREG_{name.upper()}", str(tmp_path / name))
    return tmp_path / "data"
