"""The types that the package promises: those of its own code, and those that its users see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("mypy", reason="mypy, of the extra test, is not installed here")
pytestmark = pytest.mark.slow

USER = """
from typing import assert_type

from torch import Tensor, nn

from varreg import FeatureTap, LossParts, PenalizedLoss, VariancePenalizedLoss, feature_variance
from varreg.penalties import feature_l2

def step(model: nn.Module, images: Tensor, target: Tensor) -> None:
    tap = FeatureTap(model)
    assert_type(tap.take(), Tensor)
    assert_type(tap.layer, str | None)
    assert_type(FeatureTap(model, "head", capture="output").take(), Tensor)
    assert_type(FeatureTap(model, nn.ReLU).take(), dict[str, Tensor])
    assert_type(FeatureTap(model, ["a", "b*"]).take(), dict[str, Tensor])
    assert_type(FeatureTap(model, (nn.ReLU, "head")).take(), dict[str, Tensor])
    with FeatureTap(model) as same:
        assert_type(feature_variance(same.take()), Tensor)
    criterion = VariancePenalizedLoss("binary")
    parts = criterion.forward(model(images), target, tap.take())
    assert_type(parts, LossParts)
    PenalizedLoss("multiclass", feature_l2, weight=0.1)
    VariancePenalizedLoss("regression")
"""


def mypy(*arguments: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache"), *arguments],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.stdout + done.stderr


def test_the_package_is_typed():
    assert mypy().startswith("Success: no issues found in ")


def test_a_user_sees_the_types(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    said = mypy("--strict", "--follow-imports=silent", "user.py", folder=tmp_path)
    assert 'error: Argument 1 to "VariancePenalizedLoss" has incompatible' in said, said
    assert "Found 1 error in 1 file" in said
