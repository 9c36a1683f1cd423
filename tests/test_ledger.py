from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import varreg
from varreg import ledger as module
from varreg.columns import CURVE_COLUMNS
from varreg.ledger import Ledger, LedgerError, default_results


def run(key: str, **values: object) -> dict[str, object]:
    row = {"key": key, "study": "s", "seed": 3, "val_cross_entropy": 0.123456789, "patience": None}
    return row | {"test_recall": [0.5, 1.0], "commit": "", "device": "one, with a comma"} | values


def curve(epochs: int = 2) -> list[dict[str, object]]:
    return [
        {"epoch": epoch} | dict.fromkeys(CURVE_COLUMNS[2:], epoch / 7)
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger("s", tmp_path)
    assert ledger.append(run("aaa"), curve())
    assert ledger.append(run("00012345"), curve(3))
    return ledger


# ---------------------------------------------------------------- reading and appending


def test_a_run_that_stands_twice_is_refused_and_left_alone(ledger):
    written = ledger.runs_path.read_text()
    doubled = written + written.splitlines()[-1] + "\n"
    ledger.runs_path.write_text(doubled)
    with pytest.raises(LedgerError, match=r"runs.csv holds run 00012345 twice.*Keep one"):
        ledger.runs()
    with pytest.raises(LedgerError, match="twice"):
        ledger.append(run("bbb"), curve())
    assert ledger.runs_path.read_text() == doubled


def test_round_trip(ledger):
    runs, curves = ledger.runs(), ledger.curves()
    assert runs["key"].tolist() == ["aaa", "00012345"]  # never read as a number
    first = runs.iloc[0]
    assert (first["seed"], first["test_recall"], first["device"]) == (
        3,
        "0.5;1",
        "one, with a comma",
    )
    assert first["val_cross_entropy"] == 0.12345679  # eight digits
    assert math.isnan(first["patience"])
    assert tuple(curves.columns) == CURVE_COLUMNS
    assert curves.groupby("key")["epoch"].apply(list).to_dict() == {
        "aaa": [1, 2],
        "00012345": [1, 2, 3],
    }
    assert curves["val_auroc"].tolist() == pytest.approx([e / 7 for e in (1, 2, 1, 2, 3)], rel=1e-7)


def test_nothing_recorded_yet(tmp_path):
    ledger = Ledger("none", tmp_path)
    assert ledger.runs().empty
    assert ledger.curves().empty
    assert ledger.keys() == set()
    assert not ledger.folder.exists()  # reading leaves no trace


def test_a_recorded_key_is_left_as_it_is(ledger):
    before = ledger.runs_path.read_bytes(), ledger.curves_path.read_bytes()
    assert not ledger.append(run("aaa", seed=99), curve(7))
    assert (ledger.runs_path.read_bytes(), ledger.curves_path.read_bytes()) == before


def test_a_curve_without_its_run_does_not_count_and_is_replaced(ledger):
    lines = ledger.runs_path.read_text().splitlines(keepends=True)
    ledger.runs_path.write_text("".join(lines[:-1]))  # killed before its run was written
    assert set(ledger.curves()["key"]) == {"aaa"}
    assert ledger.append(run("00012345"), curve(1))
    assert ledger.curves().groupby("key").size().to_dict() == {"aaa": 2, "00012345": 1}


def test_a_new_column_keeps_the_old_rows(ledger):
    ledger.append(run("bbb", loss_scale=2.5), [row | {"val_ece": 0.25} for row in curve()])
    runs, curves = ledger.runs(), ledger.curves()
    assert runs["key"].tolist() == ["aaa", "00012345", "bbb"]
    assert runs["loss_scale"].tolist()[2] == 2.5
    assert runs["loss_scale"].isna().tolist() == [True, True, False]
    assert runs["seed"].tolist() == [3, 3, 3]
    assert curves["val_ece"].notna().sum() == 2


def test_a_missing_column_stays_empty(ledger):
    row = run("bbb")
    del row["seed"]
    ledger.append(row, curve())
    assert ledger.runs()["seed"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.1, "0.1"),
        (1 / 3, "0.33333333"),
        (1e-8, "1e-08"),
        (float("nan"), "nan"),
        ([0.25, 1.0, float("nan")], "0.25;1;nan"),
        ((), ""),
        (12, "12"),
        ("two words", "two words"),
    ],
)
def test_how_values_are_written(value, text):
    assert module._text(value) == text


def test_values_that_need_quotes(ledger):
    device = 'a "GPU", of\nGöteborg'
    ledger.append(run("bbb", device=device), curve())
    assert ledger.runs()["device"].tolist()[2] == device


# ---------------------------------------------------------------- damaged files


def cut(text: str) -> str:
    return text[:-9]


def half_a_line(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:2], lines[2][:12] + "\n"])


def blank_line(text: str) -> str:
    return text + "\n"


def two_lines_in_one(text: str) -> str:
    first, second, third = text.splitlines(keepends=True)[:3]
    return first + second.rstrip("\n")[:20] + third


@pytest.mark.parametrize("name", ["runs_path", "curves_path"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"line \d is cut short"),
        (half_a_line, r"line 3 has \d fields where the header has \d+"),
        (blank_line, r"line \d has 0 fields"),
        (two_lines_in_one, r"line 2 has \d+ fields where the header has"),
    ],
)
def test_a_damaged_line_is_refused_and_left_alone(ledger, name, damage, message):
    path: Path = getattr(ledger, name)
    path.write_text(damage(path.read_text()))
    damaged, others = path.read_bytes(), sorted(ledger.folder.iterdir())
    advice = ".*Nothing was changed. Restore the file from version control, or delete that line"
    read = ledger.runs if name == "runs_path" else ledger.curves
    with pytest.raises(LedgerError, match=f"{path.name}, {message}{advice}"):
        read()
    with pytest.raises(LedgerError, match=f"{path.name}, {message}{advice}"):
        ledger.append(run("new"), curve())
    assert path.read_bytes() == damaged
    assert sorted(ledger.folder.iterdir()) == others


@pytest.mark.parametrize("bad", [b"\xff\xfe\xfd\n", b'"' + b"x" * 200_000 + b"\n"])
def test_a_file_that_is_no_table_is_refused_and_left_alone(ledger, bad):
    damaged = ledger.runs_path.read_bytes() + bad
    ledger.runs_path.write_bytes(damaged)
    with pytest.raises(
        LedgerError, match=r"runs\.csv is not a table in UTF-8: .*Nothing was changed"
    ):
        ledger.append(run("new"), curve())
    assert ledger.runs_path.read_bytes() == damaged


def test_the_line_of_a_damaged_row_can_be_deleted(ledger):
    lines = ledger.runs_path.read_text().splitlines(keepends=True)
    ledger.runs_path.write_text("".join([*lines[:2], lines[2][:12]]))
    with pytest.raises(LedgerError, match="delete that line: the run will be trained again"):
        ledger.keys()
    ledger.runs_path.write_text("".join(lines[:2]))
    assert ledger.keys() == {"aaa"}
    assert ledger.append(run("00012345"), curve())


# ---------------------------------------------------------------- folders that cannot be written


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "s").write_text("a file")
    for call in (
        Ledger("s", tmp_path).check_writable,
        lambda: Ledger("s", tmp_path).append(run("a"), curve()),
    ):
        with pytest.raises(
            LedgerError, match=r"cannot record a run in .*s: .*or name another with results="
        ):
            call()
    assert (tmp_path / "s").read_text() == "a file"


def test_a_disk_that_refuses_to_write(ledger, monkeypatch):
    before = ledger.runs_path.read_bytes(), ledger.curves_path.read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.os, "fsync", refuse)
    with pytest.raises(LedgerError, match="Permission denied; make the folder writable, or name"):
        ledger.append(run("new"), curve())
    assert (ledger.runs_path.read_bytes(), ledger.curves_path.read_bytes()) == before
    monkeypatch.undo()
    assert ledger.append(run("new"), curve())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder(ledger):
    ledger.folder.chmod(0o555)
    try:
        for call in (ledger.check_writable, lambda: ledger.append(run("new"), curve())):
            with pytest.raises(LedgerError, match="Permission denied; make the folder writable"):
                call()
        assert len(ledger.runs()) == 2
    finally:
        ledger.folder.chmod(0o755)


def test_a_folder_that_can_be_written_is_left_as_it_was(ledger):
    before = sorted(ledger.folder.iterdir())
    ledger.check_writable()
    assert sorted(ledger.folder.iterdir()) == before


# ---------------------------------------------------------------- kills and company

KILLED = """
import os, signal, sys
from pathlib import Path
from test_ledger import Ledger, curve, run

def die_at(point):
    steps = 0
    def step():
        nonlocal steps
        steps += 1
        if steps == point:
            os.kill(os.getpid(), signal.SIGKILL)
    def watched(function):
        def call(*arguments):
            step()
            function(*arguments)
            step()
        return call
    os.fsync = watched(os.fsync)
    Path.replace = watched(Path.replace)

for point in range(1, 10):
    if (child := os.fork()) == 0:
        die_at(point)
        Ledger("s", Path(sys.argv[1]) / str(point)).append(run("new"), curve())
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def python(script: str, folder: Path) -> list[str]:
    """Run a script that forks; return the words that it prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(call, env=environment, stdout=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 0
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_every_step_of_appending_loses_nothing(tmp_path):
    points = range(1, 10)
    for point in points:
        Ledger("s", tmp_path / str(point)).append(run("old"), curve())
    assert python(KILLED, tmp_path) == ["-9"] * 8 + ["0"]  # the ninth point is never reached
    for point in points:
        ledger = Ledger("s", tmp_path / str(point))
        finished = point >= 8
        assert ledger.keys() == ({"old", "new"} if finished else {"old"})
        assert set(ledger.curves()["key"]) == ledger.keys()
        assert ledger.append(run("new"), curve()) is not finished
        assert ledger.runs()["key"].tolist() == ["old", "new"]
        assert ledger.curves()["key"].tolist() == ["old", "old", "new", "new"]


def test_a_half_written_new_file_is_of_no_account(ledger):
    ledger.runs_path.with_suffix(".new").write_text("key,stu")
    assert ledger.append(run("new"), curve())
    assert len(ledger.runs()) == 3


CROWD = """
import os, sys
from test_ledger import Ledger, curve, run

for name in "ab":
    if os.fork() == 0:
        ledger = Ledger("s", sys.argv[1])
        for number in range(12):
            ledger.append(run(f"{name}{number}"), curve())
            ledger.append(run(f"shared{number}"), curve())
        os._exit(0)
for _ in "ab":
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_append_at_the_same_time_lose_nothing(tmp_path):
    assert python(CROWD, tmp_path) == ["0", "0"]
    ledger = Ledger("s", tmp_path)
    expected = sorted(f"{name}{number}" for name in ("a", "b", "shared") for number in range(12))
    assert sorted(ledger.runs()["key"]) == expected
    assert sorted(ledger.curves()["key"]) == sorted(expected * 2)


# ---------------------------------------------------------------- where results are


def test_where_results_are(monkeypatch, tmp_path):
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path))
    assert default_results() == tmp_path
    assert Ledger("s").folder == tmp_path / "s"
    assert Ledger("s", tmp_path / "other").folder == tmp_path / "other" / "s"
    monkeypatch.delenv("VARREG_RESULTS")
    monkeypatch.setattr(varreg, "__file__", str(tmp_path / "varreg" / "__init__.py"))
    assert default_results() == Path("results")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"')
    assert default_results() == Path("results")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "varreg"')
    assert default_results() == tmp_path.resolve() / "results"
