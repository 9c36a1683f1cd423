"""The project around the package: one version, one list of dependencies, commands that exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import varreg

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = set(EXTRAS) - {"keras"}  # nothing but one test needs Keras
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").rglob("*.md"))]


def fenced(page: Path, language: str) -> list[str]:
    """The code blocks of one language in a Markdown page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.M | re.S)


def shell_commands() -> list[tuple[str, str]]:
    """Every command line that the written pages tell a reader to type, with its page."""
    return [
        (page.name, line.removeprefix("$ ").split("  #")[0].strip())
        for page in PAGES
        for block in fenced(page, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))


def test_version_stands_in_one_place():
    assert PROJECT["dynamic"] == ["version"]
    assert version("varreg") == varreg.__version__, "installed from another state: run pip again"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == varreg.__version__
    assert f"## [{varreg.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_direct_dependency_within_its_range():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {}
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert "+" not in specifier.version, f"{pin} has a local version"
        pinned[canonicalize_name(pin.name)] = specifier.version
    direct = [Requirement(text) for text in [*PROJECT["dependencies"], *chain(*EXTRAS.values())]]
    for requirement in direct:
        found = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(found), f"{requirement} is pinned to {found}"
    assert "torchvision" in pinned, "medmnist brings it in; unpinned, it would replace torch"


def test_environment_yml_installs_this_project_and_nothing_else():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, by_pip = environment["dependencies"]
    assert (
        Requirement(python).specifier
        == Requirement(f"python{PROJECT['requires-python']}").specifier
    )
    assert pip == "pip"
    constraints, project = by_pip["pip"]
    assert constraints == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[(.+)\]", project).group(1).split(",")
    assert set(extras) == INSTALLED


def test_make_installs_the_same_extras():
    (extras,) = re.findall(r'-c constraints.txt -e "\.\[(.+)\]"', (ROOT / "Makefile").read_text())
    assert set(extras.split(",")) == INSTALLED


def test_import_is_light_and_offline():
    code = """
import socket, sys
def refuse(*arguments, **keywords):
    raise AssertionError("import varreg opens a socket")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import varreg
heavy = {"torchvision", "torchmetrics", "timm", "matplotlib", "seaborn", "IPython", "medmnist",
         "monai", "pooch", "sklearn", "pandas", "tensorboard", "papermill"}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.strip() == "[]"
    assert result.stderr == ""


def test_citation_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["license"] == PROJECT["license"] == "MIT"


PYTHON = [ROOT / "README.md", ROOT / "book/method.md", ROOT / "book/training.md"]


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_python_in_the_pages_runs(page):
    blocks = fenced(page, "python")
    assert blocks
    for block in blocks:
        exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize(("page", "command"), shell_commands())
def test_commands_in_the_pages_exist(page, command):
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    match words:
        case ["make", *targets]:
            assert {target for target in targets if "=" not in target} <= make_targets()
        case ["python", "-m", "varreg" | "companion" as package, *arguments]:
            import_module(f"{package}.__main__")._parser().parse_args(arguments)
        case ["python", script]:
            assert (ROOT / script).is_file()
        case ["papermill", notebook, _, *options]:
            source = json.loads((ROOT / notebook).read_text())
            (cell,) = [c for c in source["cells"] if "parameters" in c["metadata"].get("tags", [])]
            known = set(re.findall(r"^(\w+)\s*[:=]", "".join(cell["source"]), flags=re.M))
            given = {options[i + 1] for i, word in enumerate(options) if word == "-p"}
            assert given <= known, f"{page}: {notebook} has no parameter {given - known}"
        case ["pytest", *arguments]:
            assert (ROOT / arguments[-1]).exists()
        case _:
            assert words[0] in {"conda", "git", "cd", "source", "pip", "export", "dask"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_executed_and_clean(path):
    notebook = json.loads(path.read_text())
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    text = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]

    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    tags = [tag for cell in code for tag in cell["metadata"].get("tags", [])]
    assert tags.count("parameters") == 1
    assert "injected-parameters" not in tags
    assert text[0].startswith("# "), "it opens with its title"
    assert any(re.match(r"## Summary", part) for part in text), "it ends with a summary"

    for output in [output for cell in code for output in cell["outputs"]]:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", "".join(output["text"])
        if "image/png" in output.get("data", {}):
            assert len(output["data"]["image/png"]) < 500_000, "a figure of this size is too heavy"
    figures = [c for c in code if any("image/png" in o.get("data", {}) for o in c["outputs"])]
    for cell in figures:
        shown = cell["metadata"].get("mystnb", {})
        assert shown["image"]["alt"], "a figure says in words what it shows"
        assert shown["figure"]["caption"], "a figure has a caption"


def test_table_of_contents_lists_every_page_once():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]
    assert len(listed) == len(set(listed))
    written = {path.relative_to(ROOT).with_suffix("").as_posix() for path in PAGES[1:] + NOTEBOOKS}
    assert set(listed) >= written


def test_actions_are_pinned_by_commit_and_say_their_tag():
    uses = [
        line.partition("uses:")[2].strip()
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]
    assert len(uses) >= 6
    assert [u for u in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", u)] == []


def test_the_book_is_served_to_this_machine_only():
    (line,) = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "http.server" in line
    ]
    assert "--bind 127.0.0.1" in line


def test_make_works_below_a_folder_with_a_space(tmp_path):
    project = tmp_path / "my project"
    (project / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (project / name).write_text((ROOT / name).read_text())
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$IPYTHONDIR"\n')
    python.chmod(0o755)
    (project / ".venv" / ".installed").touch()
    done = subprocess.run(
        ["make", "--no-print-directory", "nbval"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == str(project / "_build" / "ipython")
    assert (project / "_build/ipython/profile_default/ipython_kernel_config.py").is_file()
    assert list(tmp_path.iterdir()) == [project]


def test_both_packages_of_another_build_of_pytorch_are_named():
    text = " ".join((ROOT / "README.md").read_text().split())
    assert re.search(
        r"build of PyTorch .*install `torch` and `torchvision`, both in the version", text
    )


def test_nothing_names_a_folder_of_one_machine():
    pattern = re.compile(r"(?<![\w.$}])/(?:home|root|tmp|work|Users)/\w")
    texts = [*PAGES, *NOTEBOOKS, *ROOT.glob("*.yml"), *ROOT.glob("*.toml"), ROOT / "Makefile"]
    texts += chain((ROOT / "varreg").rglob("*.py"), (ROOT / "companion").rglob("*.py"))
    for path in texts:
        found = pattern.search(path.read_text())
        assert not found, f"{path.relative_to(ROOT)}: {found.group()}"


def test_the_verdict_stays_short_and_each_sentence_has_a_measured_number():
    """Apart from its table it is what one screen holds."""
    text = (ROOT / "book" / "verdict.md").read_text(encoding="utf-8")
    text = re.sub(r":::\{table\}.*?\n:::\n", "", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"\{glue:text\}`[^`]*`", "@", text))
    assert len(text.split()) < 260
    text = re.sub(r"\*\*[^*]*\*\*|^#.*$", "", text, flags=re.MULTILINE)  # titles
    sentences = [each for each in re.split(r"(?<=\.)\s+|\n\n|\n- ", text) if each.strip()]
    assert len(sentences) > 12
    for sentence in sentences:
        assert "@" in sentence, sentence
