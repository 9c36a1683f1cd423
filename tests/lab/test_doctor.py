from __future__ import annotations

import numpy as np
import pytest

import varreg
from varreg.lab import doctor
from varreg.lab.datasets import DatasetNotFoundError

pytestmark = pytest.mark.usefixtures("nothing_here")


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
