from __future__ import annotations

import pandas as pd
import pytest

from companion.probes import PROBES
from companion.status import status
from companion.studies import STUDIES, specs
from varreg.lab.ledger import Ledger


@pytest.fixture(autouse=True)
def _nothing_here(monkeypatch, tmp_path):
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path / "results"))


def record(study: str, keys: list[str], seconds: float, device: str = "a CPU") -> None:
    path = Ledger(study).runs_path
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"key": keys, "seconds": seconds, "device": device})
    table.to_csv(path, index=False)


def test_status():
    record("chest_paper", [spec.key for spec in specs("chest_paper")[:4]], 900.0)
    record("grid", ["a run of an earlier version"], 5.0)
    lines = dict(line.split(": ", 1) for line in status().splitlines())
    assert tuple(lines) == (*STUDIES, *PROBES)
    assert lines["sampling"] == "0 of 6 runs recorded"
    assert lines["chest_paper"] == "4 of 9 runs recorded, 1.00 hours of training on a CPU"
    assert lines["skin_paper"] == "0 of 20 runs recorded"
    assert lines["grid"].startswith("0 of 280 runs recorded")
