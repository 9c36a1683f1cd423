from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import varreg
from companion import style
from varreg.lab import machine


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A checkout with one commit, from which the package seems to run."""
    package = tmp_path / "varreg"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "varreg"\n')
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    who = ["-c", "user.name=n", "-c", "user.email=e@e"]
    for call in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *call], cwd=tmp_path, check=True)
    monkeypatch.setattr(varreg, "__file__", str(package / "__init__.py"))
    machine.commit.cache_clear()
    yield tmp_path
    machine.commit.cache_clear()


def head(project: Path) -> str:
    call = ["git", "-c", "safe.directory=*", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(call, cwd=project, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_the_checkout(project):
    assert machine.checkout() == project.resolve()
    assert len(head(project)) == 12
    assert machine.commit() == head(project)
    assert machine.stamp(torch.device("cpu"), 1.0)["commit"] == head(project)


def test_an_edited_package_is_marked(project):
    (project / "varreg" / "__init__.py").write_text("print()")
    assert machine.commit() == head(project) + "+"


def test_what_is_run_for_the_book_counts_as_well(project):
    (project / "companion").mkdir()
    (project / "companion" / "__init__.py").touch()
    assert machine.commit() == head(project) + "+"


def test_what_is_edited_beside_the_package_does_not_count(project):
    (project / "notes").touch()
    assert machine.commit() == head(project)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_checkout_of_another_owner(project):
    for path in (project, *project.rglob("*")):
        os.chown(path, 1001, 1001)
    assert machine.commit() == head(project) != ""


def test_a_commit_that_git_cannot_tell_is_missed_aloud(project):
    shutil.rmtree(project / ".git" / "objects")
    with pytest.warns(UserWarning, match="will not name its commit: in .* git says"):
        assert machine.commit() == ""


def test_no_git(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.warns(UserWarning, match="will not name its commit.*install git"):
        assert machine.commit() == ""


def test_a_hook_of_another_repository_does_not_mislead(project, monkeypatch, tmp_path_factory):
    expected, other = head(project), tmp_path_factory.mktemp("other")
    subprocess.run(["git", "init", "-q"], cwd=other, check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert machine.commit() == expected


def test_where_there_is_no_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(varreg, "__file__", str(tmp_path / "varreg" / "__init__.py"))
    machine.commit.cache_clear()
    assert machine.checkout() is None
    assert machine.commit() == ""  # and no warning: there is none to be had
    assert style.front_page(None) is None
    machine.commit.cache_clear()


def test_the_device_has_a_name():
    assert "CPU" in machine.device_name(torch.device("cpu"))
