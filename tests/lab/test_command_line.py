from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from varreg.__main__ import main
from varreg.lab import datasets
from varreg.lab.ledger import Ledger

pytestmark = pytest.mark.usefixtures("nothing_here")


def fails(capsys, *arguments: str) -> str:
    """Run a command that is refused; return its one sentence."""
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("varreg: ")
    assert "Traceback" not in err
    return err


def misused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_data_list_names_every_data_set(capsys):
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(datasets.names())
    assert lines[0].endswith("drawn by the package")
    assert sum("not here" in line for line in lines) == len(lines) - 2
    assert all("CC BY" in line or "MIT" in line for line in lines)  # what one may do with it


def test_data_fetch_and_check(capsys):
    assert main(["data", "fetch", "phantom"]) == 0
    assert capsys.readouterr().out == "phantom is drawn by the package: nothing to fetch\n"
    assert main(["data", "check", "phantom", "--size", "16"]) == 0
    assert "as it should be" in capsys.readouterr().out


def test_data_check_compares_with_the_recorded_results(capsys, tmp_path):
    row = {"dataset": "phantom", "size": 16, "split": "", "dataset_sha256": "0" * 16}
    Ledger("chest", tmp_path / "results").append({"key": "k"} | row, [])
    told = fails(capsys, "data", "check", "phantom", "--size", "16")
    assert "the recorded results were made from 0000000000000000" in told
    assert main(["data", "check", "phantom", "--size", "17"]) == 0


def test_data_in_the_home_folder(capsys, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "data" / "breastmnist.npz").write_bytes(b"PK")
    told = fails(capsys, "data", "check", "breastmnist", "--root", "~/data")
    assert f"{tmp_path / 'data' / 'breastmnist.npz'} is not a complete .npz file" in told


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert "device: " in out
    assert err == ""


STOPPED_WHILE_IMPORTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.Signals[sys.argv[1]])
sys.meta_path.insert(0, Finder())
sys.argv[0] = "-m"  # as Python has it while it looks for the module
import varreg
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stop_while_the_package_is_imported(name):
    call = [sys.executable, "-c", STOPPED_WHILE_IMPORTING, name]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.stderr == "varreg: stopped; every finished run is recorded\n"
    assert done.returncode == 128 + signal.Signals[name]


def test_a_reader_that_goes_away_is_no_error():
    call = [sys.executable, "-m", "varreg", "data", "list"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "fetch", "cats"], "no data set 'cats'; allowed are phantom"),
        (["data", "check", "cats"], "no data set 'cats'"),
        (["data", "check", "phantom", "--size", "3"], "any size from 16 pixels"),
        (["data", "check", "pneumoniamnist"], "pneumoniamnist"),
        (["data", "list", "--root", "no/such/folder"], "the given root is no/such/folder"),
        (["doctor", "--root", "no/such/folder"], "not a folder; correct it or leave it out"),
    ],
)
def test_refuses_in_one_sentence(capsys, arguments, message):
    assert message in fails(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["bake"], "invalid choice: 'bake'"),
        (["run", "chest"], "invalid choice: 'run'"),  # the book's: python -m companion
        (["data"], "the following arguments are required: ACTION"),
        (["data", "check"], "the following arguments are required: name"),
    ],
)
def test_misuse(capsys, arguments, message):
    assert message in misused(capsys, *arguments)


def test_a_command_that_is_stopped(capsys, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "fetch", stop)
    assert main(["data", "fetch", "phantom"]) == 130
    assert capsys.readouterr().err == "varreg: stopped; every finished run is recorded\n"


def test_help_shows_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("data", "doctor", "python -m companion"))


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "varreg", "data", "fetch", "cats"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("varreg: there is no data set 'cats'")
