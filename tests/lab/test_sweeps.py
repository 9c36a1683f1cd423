"""Sweeps on several processes and on a real Dask cluster of two workers."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import varreg
from tests.lab.test_runs import assert_same_numbers
from varreg.lab import sweeps
from varreg.lab.ledger import Ledger
from varreg.lab.runs import execute, run_all
from varreg.lab.specs import RunSpec
from varreg.lab.sweeps import carry_out

distributed = pytest.importorskip("distributed")

kept = []


# ---------------------------------------------------------------- one process


def test_one_task_after_the_other():
    told = []

    def perform(task: int) -> Iterator[str]:
        for part in "ab":
            told.append(f"make {task}{part}")
            yield f"{task}{part}"

    done = carry_out([1, 2], perform, lambda result: told.append(f"keep {result}"))
    assert next(done) == 2
    assert told == ["make 1a", "keep 1a", "make 1b", "keep 1b"]  # each the moment it is there
    assert list(done) == [2]
    assert list(carry_out([], perform, print)) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jobs": 0}, "jobs is 0; it must be 1 or more, or -1 for one a core"),
        ({"jobs": -2}, "jobs is -2"),
        ({"jobs": "2"}, "jobs is '2'; give a whole number"),
        ({"jobs": True}, "jobs is True; give a whole number"),
        ({"dask": 8786}, "dask is 8786; give the address"),
        ({"jobs": 2, "dask": "tcp://here:8786"}, "jobs is 2 and dask is .*; give one of them"),
    ],
)
def test_refuses_before_it_begins(given, message):
    with pytest.raises(ValueError, match=message):
        carry_out([1], abs, print, **given)


# ---------------------------------------------------------------- all cores


def swell(path: Path) -> list[str]:
    """Take 0.4 GB more than before, as the data set of a next task may do.

    It is one small file, mapped many times: it counts in full, and costs nothing.
    """
    for _ in range(50):
        kept.append(np.memmap(path, mode="r"))
        kept[-1][::1024].sum()
    time.sleep(0.6)  # memory is looked at once a second
    return [f"{os.getpid()} {torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']}"]


@pytest.mark.slow
def test_processes_that_grow_live_on_with_one_thread_each(tmp_path):
    told, data = tmp_path / "told", tmp_path / "data"
    data.write_bytes(bytes(2**23))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")  # an error in a thread of joblib would hang it
        done = carry_out([data] * 8, swell, Told(told), jobs=2)
        assert list(done) == [1] * 8
    assert [str(warning.message) for warning in seen] == []
    lines = told.read_text().splitlines()
    assert len(lines) == 8
    assert {line.partition(" ")[2] for line in lines} == {"1 1"}
    processes = {int(line.split()[0]) for line in lines}
    assert len(processes) == 2
    assert os.getpid() not in processes


@dataclasses.dataclass
class Told:
    """Record in a file, which all processes reach."""

    path: Path

    def __call__(self, result: str) -> None:
        with self.path.open("a") as file:
            file.write(result + "\n")


def fails_at_two(task: int) -> list[str]:
    if task == 2:
        raise RuntimeError("the power went off")
    return [str(task)]


@dataclasses.dataclass(frozen=True)
class FailsOnceTold:
    """Task 2 fails as soon as another one has been recorded."""

    path: Path

    def __call__(self, task: int) -> list[str]:
        last = time.monotonic() + 60
        while task == 2 and not self.path.exists() and time.monotonic() < last:
            time.sleep(0.01)
        return fails_at_two(task)


def test_a_failure_in_a_process_ends_the_call_with_its_error(tmp_path):
    told = tmp_path / "told"
    with pytest.raises(RuntimeError, match="the power went off"):
        list(carry_out([0, 2, 1], FailsOnceTold(told), Told(told), jobs=2))
    assert "0" in told.read_text().split()


ORPHANS = """
import os, sys, time
from tests.lab.test_sweeps import Told, note_and_sleep
from varreg.lab.sweeps import carry_out
print(list(carry_out(range(9), note_and_sleep, Told(sys.argv[1]), jobs=2)))
"""


def note_and_sleep(_: int) -> list[str]:
    Path(os.environ["TOLD"], str(os.getpid())).touch()
    time.sleep(30)
    return []


def is_alive(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes in /proc")
def test_worker_processes_end_with_their_parent(tmp_path):
    tests = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": tests, "TOLD": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", ORPHANS, "told"], env=environment)
    last = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < last:
        time.sleep(0.1)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    assert all(map(is_alive, workers))
    process.kill()  # SIGKILL: it cannot tell them
    process.wait()
    last = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < last:
        time.sleep(0.1)
    assert not any(map(is_alive, workers))


# ---------------------------------------------------------------- a Dask cluster


@dataclasses.dataclass(frozen=True)
class Watched:
    """A run that notes in a file who works on it, and then takes its time."""

    spec: RunSpec
    folder: str

    @property
    def study(self) -> str:
        return self.spec.study

    @property
    def key(self) -> str:
        return self.spec.key

    def execute(self, **given: object):
        begun = Path(self.folder, f"{self.key}-{os.getpid()}-{time.monotonic_ns()}")
        begun.touch()
        time.sleep(0.3)
        return execute(self.spec, **given)


def spec(seed: int) -> RunSpec:
    usual = {"dataset": "phantom", "method": "baseline", "epochs": 1, "size": 16}
    return RunSpec(study="try", seed=seed, model="paper_cnn", **usual)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        local_directory=str(tmp_path_factory.mktemp("dask")),
        silence_logs=50,
    ) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_worker_is_killed_and_no_run_is_lost_or_recorded_twice(cluster, tmp_path, monkeypatch):
    begun = tmp_path / "begun"
    begun.mkdir()
    specs = [spec(seed) for seed in range(6)]
    record, killed, told = Ledger.append, [], []

    def record_and_kill_once(ledger, row, details, predictions=None):
        told.append((row["key"], record(ledger, row, details, predictions)))
        while not killed:
            at_work = [path.name.split("-") for path in begun.iterdir()]
            for key, process, _ in at_work:
                if key not in set(ledger.runs()["key"]):
                    os.kill(int(process), signal.SIGKILL)
                    killed.append((key, process))
                    break

    monkeypatch.setattr(Ledger, "append", record_and_kill_once)
    rows = run_all(
        [Watched(spec, str(begun)) for spec in specs],
        dask=cluster.scheduler_address,
        results=tmp_path / "cluster",
        progress=False,
    )
    monkeypatch.undo()

    ((key, _),) = killed
    assert sum(path.name.startswith(key) for path in begun.iterdir()) >= 2  # it began anew
    assert sorted(told) == sorted((spec.key, True) for spec in specs)
    assert sorted(Ledger("try", tmp_path / "cluster").runs()["key"]) == sorted(
        spec.key for spec in specs
    )
    assert (rows["threads"] == 1).all()

    assert rows["key"].tolist() == [spec.key for spec in specs]
    run_all(specs, results=tmp_path / "alone", progress=False)
    assert_same_numbers(tmp_path / "cluster", tmp_path / "alone")


def test_a_cluster_that_is_named_by_its_scheduler_file(cluster, tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"address": cluster.scheduler_address}))
    told = []
    assert list(carry_out([0, 1], fails_at_two, told.append, dask=str(path))) == [1, 1]
    assert sorted(told) == ["0", "1"]


def test_a_failure_on_the_cluster_ends_the_call_with_its_error(cluster):
    told = []
    done = carry_out([0, 1, 2], fails_at_two, told.append, dask=cluster.scheduler_address)
    with pytest.raises(RuntimeError, match="the power went off"):
        list(done)
    assert set(told) <= {"0", "1"}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_scheduler_that_is_lost_is_told_in_a_sentence(tmp_path, capfd):
    path = tmp_path / "scheduler.json"
    daemon = [sys.executable, "-m", "distributed.cli.dask_"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    ours = ["--scheduler-file", str(path), "--no-dashboard"]
    tests = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    commands = (
        [*daemon[:2], f"{daemon[2]}scheduler", "--port", "0", *ours],
        [*daemon[:2], f"{daemon[2]}worker", "--nthreads", "1", *ours],
    )
    started = [subprocess.Popen(command, cwd=tmp_path, env=tests, **quiet) for command in commands]
    told = []

    def record(result: str) -> None:
        told.append(result)
        if len(told) == 1:
            started[0].kill()

    try:
        last = time.monotonic() + 120
        while time.monotonic() < last:
            try:
                with distributed.Client(scheduler_file=str(path), timeout=5) as client:
                    client.wait_for_workers(1, timeout=60)
                break
            except (OSError, ValueError):
                time.sleep(0.2)
        capfd.readouterr()
        with pytest.raises(ConnectionError, match=r"lost the Dask cluster at .*goes on from there"):
            list(carry_out([*range(3, 99)], note, record, dask=str(path)))
        assert "Traceback" not in capfd.readouterr().err
        assert told
    finally:
        for process in started:
            process.kill()
            process.wait()


def note(task: int) -> list[str]:
    time.sleep(0.2)
    return [str(task)]


def test_what_arrived_before_the_call_was_stopped_is_recorded(cluster):
    told = []

    def record(result: str) -> None:
        told.append(result)
        if len(told) == 1:
            time.sleep(1)  # the others arrive
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(carry_out([0, 1, 3, 4], fails_at_two, record, dask=cluster.scheduler_address))
    assert sorted(told) == ["0", "1", "3", "4"]


def test_a_device_that_no_worker_has(cluster, tmp_path):
    given = {"dask": cluster.scheduler_address, "results": tmp_path, "progress": False}
    with pytest.raises(ValueError, match="device is 'abacus', which cannot be used here"):
        run_all([spec(0)], device="abacus", **given)
    assert Ledger("try", tmp_path).runs().empty


def test_a_cluster_with_another_version(cluster, monkeypatch):
    monkeypatch.setattr(varreg, "__version__", "0.0.9")
    message = r"of the Dask cluster has varreg .* and this machine 0\.0\.9; install the same"
    with pytest.raises(ValueError, match=message):
        list(carry_out([0], fails_at_two, print, dask=cluster.scheduler_address))


def test_a_worker_that_joins_later_with_another_version():
    with pytest.raises(ValueError, match=r"has varreg .* and this machine 0\.0\.9"):
        sweeps._on_worker(0, perform=fails_at_two, version="0.0.9")


def test_a_cluster_without_the_package():
    with pytest.raises(ValueError, match=r"tcp://a:1 of the Dask cluster has no varreg and"):
        sweeps._check_version(None, "tcp://a:1", "0.1.0")


def test_a_cluster_without_workers(tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=0, dashboard_address=":0", local_directory=str(tmp_path)
        ) as cluster,
        pytest.raises(ValueError, match="has no workers; start some with dask worker tcp:"),
    ):
        list(carry_out([0], fails_at_two, print, dask=cluster.scheduler_address))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no/such/file", "ftp://127.0.0.1:80"])
def test_no_scheduler_answers(address, monkeypatch):
    monkeypatch.setattr(sweeps, "SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(ValueError, match=f"dask is '{address}', where no scheduler answers"):
        list(carry_out([0], fails_at_two, print, dask=address))


def test_the_extra_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"install it with pip install 'varreg\[dask\]'"):
        list(carry_out([0], fails_at_two, print, dask="tcp://127.0.0.1:1"))


def test_threads_of_one_worker_take_turns():
    at_work, most, threads = [], [], []

    def perform(task: int) -> list[int]:
        at_work.append(task)
        most.append(len(at_work))
        threads.append(torch.get_num_threads())
        time.sleep(0.05)
        at_work.remove(task)
        return [task]

    def work(task: int) -> None:
        sweeps._on_worker(task, perform=perform, version=varreg.__version__)

    crowd = [threading.Thread(target=work, args=(task,)) for task in range(4)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert most == threads == [1] * 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_a_worker_of_a_cluster_gives_its_memory_back():
    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    inside = []

    def perform(_: int) -> list[int]:
        blocks = [torch.ones(5_000_000) for _ in range(5)]  # 100 MB
        end = torch.ones(1)  # above them, so that the heap cannot simply shrink
        blocks.clear()
        inside.append(resident())
        return [len(end)]

    before = resident()
    sweeps._on_worker(0, perform=perform, version=varreg.__version__)
    assert inside[0] - before > 80e6
    assert resident() - before < 20e6
