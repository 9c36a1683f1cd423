from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import varreg
from varreg import doctor
from varreg.datasets import DatasetNotFoundError
from varreg.ledger import Ledger
from varreg.probes import PROBES
from varreg.studies import STUDIES, specs


@pytest.fixture(autouse=True)
def _nothing_here(monkeypatch, tmp_path):
    monkeypatch.delenv("VARREG_DATA", raising=False)
    monkeypatch.setenv("VARREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path / "results"))


def record(study: str, keys: list[str], seconds: float, device: str = "a CPU") -> None:
    path = Ledger(study).runs_path
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"key": keys, "seconds": seconds, "device": device})
    table.to_csv(path, index=False)


def test_report(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", ("surely-not-a-package",))
    lines = doctor.report().splitlines()
    assert lines[0].startswith(f"varreg {varreg.__version__}, Python 3.")
    assert f"  numpy {np.__version__}" in lines
    assert "  surely-not-a-package not installed" in lines
    assert f"results: {tmp_path / 'results'}" in lines
    assert any(line.startswith("device: ") and "threads" in line for line in lines)
    data = lines[lines.index("data:") + 1 :]
    assert data == [
        "  phantom: drawn by the package",
        "  phantom7: drawn by the package",
        "  every other one: python -m varreg data list",
    ]


def test_report_of_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(
        DatasetNotFoundError, match=r"the given root is .*no-such, which is not a folder"
    ):
        doctor.report(str(tmp_path / "no-such"))


def test_status():
    record("chest_paper", [spec.key for spec in specs("chest_paper")[:4]], 900.0)
    record("grid", ["a run of an earlier version"], 5.0)
    lines = dict(line.split(": ", 1) for line in doctor.status().splitlines())
    assert tuple(lines) == (*STUDIES, *PROBES)
    assert lines["sampling"] == "0 of 6 runs recorded"
    assert lines["chest_paper"] == "4 of 9 runs recorded, 1.00 hours of training on a CPU"
    assert lines["skin_paper"] == "0 of 6 runs recorded"
    assert lines["grid"].startswith("0 of 280 runs recorded")
