"""Three rooms and one direction: the method <- the lab <- the companion <- everything else."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from varreg import lab

ROOT = Path(__file__).parents[1]
#: The command line, which imports the lab when a command is called.
DOOR = "varreg/__main__.py"
OPTIONAL = {"distributed", "kagglehub", "tensorboard"}  # of the lab, each named where it is missing


def imported(source: str) -> set[str]:
    """Every module that some code imports: anywhere in it, also by name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(level=level) if level:
                raise AssertionError("a relative import does not say which room it is from")
            case ast.ImportFrom(module=module, names=names):
                found |= {f"{module}.{alias.name}" for alias in names}
            case ast.Call(
                func=ast.Name("import_module" | "find_spec")
                | ast.Attribute(attr="import_module" | "find_spec"),
                args=[ast.Constant(str(name)) | ast.JoinedStr([ast.Constant(str(name)), *_]), *_],
            ):
                found.add(name)
    return found


def rooms(source: str) -> set[str]:
    """The rooms and the other packages that some code imports, without Python's own."""
    tops = {
        "varreg.lab" if f"{name}.".startswith("varreg.lab.") else name.partition(".")[0]
        for name in imported(source)
    }
    return tops - set(sys.stdlib_module_names)


def modules(room: str) -> dict[str, set[str]]:
    """What each module of a room imports; those of the method are not those of the lab."""
    found = {
        path.relative_to(ROOT).as_posix(): rooms(path.read_text("utf-8"))
        for path in (ROOT / room).rglob("*.py")
    }
    return {name: tops for name, tops in found.items() if room != "varreg" or "/lab/" not in name}


def test_the_method_imports_torch_and_nothing_else():
    found = modules("varreg")
    assert "varreg.lab" in found.pop(DOOR)
    assert len(found) > 3
    assert set().union(*found.values()) == {"torch", "varreg"}
    for name, tops in found.items():
        assert tops <= {"torch", "varreg"}, name


def test_the_lab_imports_no_companion_and_nothing_that_its_extra_does_not_bring():
    found = modules("varreg/lab")
    assert set().union(*found.values()) - OPTIONAL == {"torch", "varreg", "varreg.lab", *lab.NEEDS}


def test_the_companion_has_floors():
    """No module of it imports, anywhere in its code, what imports it."""
    code = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "companion").rglob("*.py")
    }
    above = {
        name: {
            max((each for each in code if f"{found}.".startswith(f"{each}.")), key=len)
            for found in imported(path.read_text("utf-8"))
            if found.startswith("companion.")
        }
        - {name}
        for name, path in code.items()
    }
    assert len(list(TopologicalSorter(above).static_order())) == len(code)


def test_the_companion_imports_nothing_that_uses_it():
    found = modules("companion")
    assert {"varreg", "varreg.lab", "companion"} <= set().union(*found.values())
    for name, tops in found.items():
        assert not tops & {"tests", "benchmarks", "notebooks"}, name


def test_benchmarks_measure_the_package_and_not_the_book():
    for name, tops in modules("benchmarks").items():
        assert not tops & {"companion", "tests"}, name


def test_examples_need_the_method_alone():
    for name, tops in modules("examples").items():
        assert "varreg" in tops, name
        assert not tops & {"varreg.lab", "companion", "tests"}, name


@pytest.mark.parametrize("room", ["tests/varreg", "tests/lab"])
def test_the_package_is_tested_without_the_book(room):
    found = modules(room)
    assert found
    for name, tops in found.items():
        assert "companion" not in tops, name


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("import varreg.lab.runs", "varreg.lab"),
        ("from varreg import lab", "varreg.lab"),
        ("from varreg.labels import one", "varreg"),
        ("def later():\n    from companion.claims import load", "companion"),
        ("if TYPE_CHECKING:\n    import pandas as pd", "pandas"),
        ("import_module(f'companion.studies.{study}')", "companion"),
        ("importlib.import_module('companion')", "companion"),
        ("importlib.util.find_spec('medmnist')", "medmnist"),
    ],
)
def test_no_import_is_overlooked(source, room):
    assert rooms(source) == {room}
