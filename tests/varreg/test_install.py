"""What a stranger gets: the wheel, installed by pip into an environment with nothing but
PyTorch."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import varreg

ROOT = Path(__file__).parents[2]
OFFLINE = ("--quiet", "--disable-pip-version-check", "--no-index")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=300)
    (wheel,) = folder.glob(f"varreg-{varreg.__version__}-*.whl")
    return wheel


def needed(name: str, found: dict[str, object]) -> dict[str, object]:
    """A distribution and those that it requires here, without extras, as pip would choose them."""
    if (key := canonicalize_name(name)) not in found:
        try:
            found[key] = distribution(name)
        except PackageNotFoundError:
            pytest.skip(f"{name}, which PyTorch requires, is not installed here")
        for text in found[key].requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found


@pytest.fixture(scope="module")
def stranger(tmp_path_factory, wheel):
    """The Python of an empty environment, into which PyTorch was linked and the wheel installed."""
    folder = tmp_path_factory.mktemp("stranger")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python3*/site-packages")
    assert not list(site.iterdir())
    for package in needed("torch", {}).values():
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(package.locate_file(top)).resolve())
    # pip has no index to go to: it fails if the wheel requires anything that PyTorch does not.
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", *OFFLINE]
    subprocess.run([*install, str(wheel)], check=True, timeout=300)
    return python


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run an isolated Python: no folder and no variable of this checkout reaches it."""
    return subprocess.run(
        [str(python), "-I", *arguments], cwd=python.parent, capture_output=True, text=True
    )


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    assert "License-Expression: MIT" in text
    required = re.findall(r"^Requires-Dist: (.+)", text, flags=re.M)
    assert [name for name in required if "extra ==" not in name] == ["torch>=2.6"]
    assert {Path(name).parts[0] for name in names} == {"varreg", Path(metadata).parent.as_posix()}
    assert "varreg/py.typed" in names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "varreg").rglob("*.py")}
    assert modules <= names


def test_the_example_of_the_readme_runs_with_nothing_but_torch(stranger):
    examples = re.findall(
        r"^```py(?:thon)?\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S
    )
    assert len(examples) == 2
    done = run(stranger, "-c", "\n".join(examples))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cross-entropy 0.")


def test_the_whole_method_imports_with_nothing_but_torch(stranger):
    code = """
import importlib, pkgutil, sys, varreg
names = [m.name for m in pkgutil.iter_modules(varreg.__path__) if m.name not in ("lab", "__main__")]
for name in names:
    importlib.import_module(f"varreg.{name}")
print(varreg.__version__, len(names), importlib.util.find_spec("numpy"))
"""
    done = run(stranger, "-W", "ignore", "-c", code)
    assert done.returncode == 0, done.stderr
    version, count, numpy = done.stdout.split()
    assert (version, numpy) == (varreg.__version__, "None")
    assert int(count) >= 3


@pytest.mark.parametrize("arguments", [("data", "list"), ("doctor",)])
def test_the_lab_says_how_it_is_installed(stranger, arguments):
    assert run(stranger, "-m", "varreg", "--help").returncode == 0
    done = run(stranger, "-m", "varreg", *arguments)
    assert done.returncode == 1
    (*_, said) = done.stderr.splitlines()  # before it, PyTorch remarks that NumPy is missing
    assert re.match(r"varreg: varreg\.lab needs .*, numpy, pandas, ", said)
    assert said.endswith("install what is missing with pip install 'varreg[lab]'")


def test_the_companion_is_not_in_it(stranger):
    done = run(stranger, "-m", "companion", "status")
    assert done.returncode == 1
    assert "No module named companion" in done.stderr
