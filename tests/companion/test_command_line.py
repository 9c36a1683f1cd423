from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from companion import __main__ as command_line
from companion.__main__ import main
from companion.probes import PROBES
from companion.studies import STUDIES
from varreg.lab import sweeps
from varreg.lab.ledger import Ledger
from varreg.lab.specs import RunSpec


@pytest.fixture(autouse=True)
def _nothing_here(monkeypatch, tmp_path):
    """No data, no results: whatever stands on this machine."""
    monkeypatch.delenv("VARREG_DATA", raising=False)
    monkeypatch.setenv("VARREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def small_studies(monkeypatch):
    """Let every study be two quick runs on the phantom."""

    def two(study: str) -> list[RunSpec]:
        usual = {"dataset": "phantom", "method": "baseline", "epochs": 1, "size": 16}
        return [RunSpec(study=study, seed=seed, model="paper_cnn", **usual) for seed in range(2)]

    monkeypatch.setattr(command_line, "specs", two)


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


def test_status_of_nothing(capsys):
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [*STUDIES, *PROBES]
    assert lines[0] == "chest_paper: 0 of 30 runs recorded"
    assert lines[1] == "chest: 0 of 160 runs recorded"
    (waiting,) = (line for line in lines if "waits for another study" in line)
    assert waiting.startswith("rivals: ")


def test_run_records_and_goes_on(capsys, tmp_path, small_studies):
    assert main(["run", "chest", "--limit", "1", "--device", "cpu"]) == 0
    ledger = Ledger("chest", tmp_path / "results")
    assert ledger.runs()["seed"].tolist() == [0]
    assert main(["run", "chest", "--device", "cpu"]) == 0
    assert ledger.runs()["seed"].tolist() == [0, 1]
    assert "chest_paper: 0 of 30 runs recorded" in capsys.readouterr().out


def test_results_of_another_folder(capsys, tmp_path, small_studies):
    other = str(tmp_path / "other")
    assert main(["run", "skin_paper", "--limit", "0", "--results", other]) == 0
    Ledger("skin_paper", other).append({"key": "k", "seconds": 36.0, "device": "d"}, [])
    capsys.readouterr()
    assert main(["status", "--results", other]) == 0
    assert "skin_paper: 0 of 20 runs recorded" in capsys.readouterr().out  # not one of its runs


def test_a_run_that_is_stopped(capsys, monkeypatch, small_studies):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "run_all", stop)
    assert main(["run", "chest"]) == 130
    assert capsys.readouterr().err == "varreg: stopped; every finished run is recorded\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_command_in_a_sentence(capsys, monkeypatch, small_studies, number):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    def stopped(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(command_line, "run_all", stopped)
    assert main(["run", "chest"]) == 128 + number
    assert capsys.readouterr().err == "varreg: stopped; every finished run is recorded\n"
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


SWEEP = """
from companion import __main__
from varreg.lab.specs import RunSpec
usual = {"dataset": "phantom", "method": "baseline", "epochs": 30, "size": 28}
__main__.specs = lambda study: [RunSpec(study=study, seed=seed, **usual) for seed in range(99)]
raise SystemExit(__main__.main(["run", "chest", "--jobs", "2", "--device", "cpu"]))
"""


def alive_in(group: int) -> list[str]:
    """Names of the processes of a group that have not ended."""
    names = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(") ")
        except OSError:  # it ended just now
            continue
        state, _, of = rest.split()[:3]
        if int(of) == group and state not in "ZX":
            names.append(name)
    return names


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_sweep_on_several_processes(tmp_path, number, to_all):
    path = tmp_path / "results" / "chest" / "runs.csv"
    call = [sys.executable, "-c", SWEEP]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True, start_new_session=True) as sweep:
        last = time.monotonic() + 120
        while not path.exists() and time.monotonic() < last:
            time.sleep(0.1)
        (os.killpg if to_all else os.kill)(sweep.pid, number)
        assert sweep.stderr.read() == "varreg: stopped; every finished run is recorded\n"
    assert sweep.returncode == 128 + number
    last = time.monotonic() + 10
    while alive_in(sweep.pid) and time.monotonic() < last:
        time.sleep(0.1)
    assert alive_in(sweep.pid) == []
    assert not Ledger("chest", tmp_path / "results").curves().empty


def test_an_error_that_nobody_foresaw_is_one_sentence(capsys, monkeypatch, small_studies):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the drum broke\nat its third turn")

    monkeypatch.setattr(command_line, "run_all", fail)
    told = fails(capsys, "run", "chest")
    assert told.startswith("varreg: RuntimeError: the drum broke. This was not foreseen; ")
    assert "with python -X dev" in told


def test_a_cluster_that_does_not_answer(capsys, monkeypatch, small_studies):
    pytest.importorskip("distributed")
    monkeypatch.setattr(sweeps, "SECONDS_TO_CONNECT", 0.3)
    told = fails(capsys, "run", "chest", "--dask", "tcp://127.0.0.1:1")
    assert "dask is 'tcp://127.0.0.1:1', where no scheduler answers" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "rivals"], "run: python -m companion run rivals_tuning"),
        (["run", "chest_paper", "--jobs", "0"], "jobs is 0; it must be 1 or more, or -1"),
        (["run", "chest_paper", "--limit", "-1"], "limit is -1; it must be 0 or more"),
        (["run", "chest_paper", "--device", "abacus"], "device is 'abacus', which cannot be used"),
    ],
)
def test_refuses_in_one_sentence(capsys, arguments, message):
    assert message in fails(capsys, *arguments)


def test_a_folder_of_results_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").touch()
    told = fails(capsys, "run", "skin_paper", "--results", str(tmp_path / "file"))
    assert "cannot record a run in" in told
    assert "make the folder writable" in told


def test_a_damaged_ledger(capsys, tmp_path):
    folder = tmp_path / "results" / "chest_paper"
    folder.mkdir(parents=True)
    (folder / "runs.csv").write_text("key,seconds\nabc")
    for command in (["status"], ["run", "chest_paper"]):
        assert "line 2 is cut short. Nothing was changed" in fails(capsys, *command)


def test_the_data_are_not_here(capsys, tmp_path):
    told = fails(capsys, "run", "chest_paper", "--limit", "1", "--device", "cpu")
    assert "chest_xray" in told
    assert not (tmp_path / "results" / "chest_paper" / "runs.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["bake"], "invalid choice: 'bake'"),
        (["run", "heart"], "invalid choice: 'heart' (choose from"),
        (["run", "chest", "--limit", "few"], "argument --limit: invalid int value: 'few'"),
        (["run", "chest", "--jobs", "2", "--dask", "tcp://host:8786"], "not allowed with argument"),
    ],
)
def test_misuse(capsys, arguments, message):
    assert message in misused(capsys, *arguments)


def test_help_shows_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("run", "status", "python -m varreg data"))


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "companion", "run", "grid", "--jobs", "0"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("varreg: jobs is 0; it must be 1 or more")
