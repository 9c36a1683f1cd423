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


def record(study: str, keys: list[str], seconds: float, commits: tuple[str, ...] = ("c1",)) -> None:
    path = Ledger(study).runs_path
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"key": keys, "seconds": seconds, "device": "a CPU"})
    table["commit"] = [commits[place % len(commits)] for place in range(len(keys))]
    table.to_csv(path, index=False)


def test_status():
    record("chest_paper", [spec.key for spec in specs("chest_paper")[:4]], 900.0)
    record("skin_paper", [spec.key for spec in specs("skin_paper")[:4]], 900.0, ("c1", "c2", "c1"))
    record("grid", ["a run of an earlier version"], 5.0)
    lines = dict(line.split(": ", 1) for line in status().splitlines())
    states = ("rows from commit c1", "rows from commit c2")
    assert tuple(lines) == (*STUDIES, *PROBES, *states)
    assert [lines[state] for state in states] == ["7", "1"]
    assert lines["sampling"] == "0 of 6 runs recorded"
    assert lines["chest_paper"] == (
        "4 of 30 runs recorded, 1.00 hours of training on a CPU, from commit c1"
    )
    assert lines["skin_paper"].endswith(
        "from commit c1 and c2; IT MIXES STATES: record it anew from one, in a folder of its own"
    )
    assert lines["grid"].startswith("0 of 280 runs recorded")
