"""What the benchmarks record, and from which code."""

import subprocess
import sys
from pathlib import Path

import pytest

from varreg.lab.ledger import Ledger

FOLDER = Path(__file__).parents[2] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("the benchmarks are not beside the tests", allow_module_level=True)


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import harness

    # What a benchmark sets up for its process is not for that of the tests.
    monkeypatch.setattr(harness, "set_up", lambda threads: None)
    return harness


@pytest.fixture
def checkout(tmp_path):
    """A repository with the two folders that hold what is measured."""

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    for folder in ("varreg", "benchmarks", "results"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "a")
    return tmp_path


def test_only_code_counts_as_uncommitted(harness, checkout):
    assert harness.uncommitted(checkout) == []
    (checkout / "results" / "a.py").write_text("2")  # which benchmarks themselves write
    assert harness.uncommitted(checkout) == []
    (checkout / "varreg" / "a.py").write_text("2")
    (checkout / "benchmarks" / "new.py").write_text("2")
    assert harness.uncommitted(checkout) == ["varreg/a.py", "benchmarks/new.py"]


def test_outside_a_checkout_nothing_is_uncommitted(harness, tmp_path):
    assert harness.uncommitted(tmp_path) == []


def test_changed_code_is_not_measured_unless_told_to(harness, monkeypatch, capsys):
    monkeypatch.setattr(harness, "uncommitted", lambda: ["varreg/loss.py"])
    monkeypatch.setattr(sys, "argv", ["overhead.py"])
    with pytest.raises(SystemExit) as stopped:
        harness.start("Measure")
    assert stopped.value.code == 2
    assert "varreg/loss.py" in (said := capsys.readouterr().err)
    assert "--uncommitted" in said
    monkeypatch.setattr(sys, "argv", ["overhead.py", "--uncommitted"])
    assert harness.start("Measure").type == "cpu"


@pytest.mark.parametrize("at", ["abc", "abc+"])
@pytest.mark.parametrize("changed", [["benchmarks/overhead.py"], []])
def test_the_row_says_whether_code_was_changed(at, changed, harness, monkeypatch, tmp_path):
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path))
    monkeypatch.setattr(harness, "uncommitted", lambda: changed)
    monkeypatch.setattr(harness, "stamp", lambda *_: {"commit": at, "device": "x", "threads": 1})
    harness.record("overhead", [{"ratio": 1.0}])
    (commit,) = Ledger("overhead", tmp_path / "benchmarks").runs()["commit"]
    assert commit == ("abc+" if changed else at)
