from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import varreg
from varreg.lab import ledger as module
from varreg.lab.columns import CURVE_COLUMNS
from varreg.lab.ledger import Ledger, LedgerError, default_results
from varreg.lab.predictions import Predictions
from varreg.lab.specs import RunSpec, key_of_row


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


def test_rows_of_different_kinds_keep_all_of_their_columns(tmp_path):
    ledger = Ledger("probe", tmp_path)
    ledger.append(
        run("aaa"), [{"kind": "seed", "rank": 3.5}, {"kind": "pair", "cka": 0.25, "other": 1}]
    )
    found = ledger.curves()
    assert found.columns.tolist() == ["key", "kind", "rank", "cka", "other"]
    assert found["rank"].tolist()[0] == 3.5
    assert found["cka"].tolist()[1] == 0.25
    assert found[["cka", "other"]].iloc[0].isna().all()


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


def lines(edit: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    """An edit of the lines of a table."""
    return lambda text: "".join(edit(text.splitlines(keepends=True)))


@pytest.mark.parametrize("name", ["runs", "curves"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-9], r"line \d is cut short"),
        (
            lines(lambda rows: [*rows[:2], rows[2][:12] + "\n"]),
            r"line 3 has \d fields where the header has \d+",
        ),
        (lambda text: text + "\n", r"line \d has 0 fields"),
        (
            lines(lambda rows: [rows[0], rows[1].rstrip("\n")[:20], rows[2]]),
            r"line 2 has \d+ fields where the header has",
        ),
    ],
)
def test_a_damaged_line_is_refused_and_left_alone(ledger, name, damage, message):
    advice = ".*Nothing was changed. Restore the file from version control, or delete that line"
    path, read = getattr(ledger, f"{name}_path"), getattr(ledger, name)
    refused(ledger, path, damage, f"{message}{advice}", read)


@pytest.mark.parametrize("bad", [b"\xff\xfe\xfd\n", b'"' + b"x" * 200_000 + b"\n"])
def test_a_file_that_is_no_table_is_refused_and_left_alone(ledger, bad):
    damaged = ledger.runs_path.read_bytes() + bad
    ledger.runs_path.write_bytes(damaged)
    with pytest.raises(
        LedgerError, match=r"runs\.csv(, line 4| is not a table in UTF-8).*Nothing was changed"
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


# ---------------------------------------------------------------- edited by hand

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def recorded(tmp_path: Path) -> Ledger:
    """A copy of nine runs that were recorded on real data."""
    shutil.copytree(RESULTS / "chest_paper", tmp_path / "chest_paper")
    return Ledger("chest_paper", tmp_path)


def cell(column: str, value: str, row: int = 1) -> Callable[[str], str]:
    """An edit that sets one cell."""

    def edit(text: str) -> str:
        lines = list(csv.reader(io.StringIO(text)))
        lines[row][lines[0].index(column)] = value
        return written(lines)

    return edit


def written(lines: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def columns(choose: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    """An edit that keeps the columns with the chosen names, in that order."""

    def edit(text: str) -> str:
        lines = list(csv.reader(io.StringIO(text)))
        places = [lines[0].index(name) for name in choose(lines[0])]
        return written([[line[place] for place in places] for line in lines])

    return edit


HARMLESS = {
    "byte order mark": lambda text: "\ufeff" + text,
    "lines of Windows": lambda text: text.replace("\n", "\r\n"),
    "columns reordered": columns(lambda names: [*names[20:], *names[:20]]),
    "columns by name": columns(sorted),
    "everything quoted": lambda text: "".join(
        '"' + '","'.join(line) + '"\n' for line in csv.reader(io.StringIO(text))
    ),
}


@pytest.mark.parametrize("name", ["runs_path", "curves_path"])
@pytest.mark.parametrize("edit", HARMLESS.values(), ids=HARMLESS)
def test_what_is_the_same_table_is_read_as_the_same(recorded, name, edit):
    runs, curves = recorded.runs(), recorded.curves()
    path: Path = getattr(recorded, name)
    path.write_bytes(edit(path.read_text()).encode())
    pd.testing.assert_frame_equal(recorded.runs(), runs, check_like=True)
    pd.testing.assert_frame_equal(recorded.curves(), curves, check_like=True)
    # And it goes on: what is appended stands beside what was there.
    new = runs.iloc[0].to_dict() | {"seed": 77, "split": None}
    new["key"] = key_of_row({name: "" if v is None else str(v) for name, v in new.items()})
    epochs = curves[curves["key"] == runs["key"][0]].drop(columns="key").to_dict("records")
    assert recorded.append(new, epochs)
    pd.testing.assert_frame_equal(recorded.runs().head(len(runs)), runs, check_like=True)
    pd.testing.assert_frame_equal(recorded.curves().head(len(curves)), curves, check_like=True)
    assert len(recorded.curves()) == len(curves) + len(epochs)


HEADER, *ROWS = (RESULTS / "chest_paper" / "runs.csv").read_text().splitlines()
COMMAS = "," * HEADER.count(",")
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n"
RUNS = {
    "semicolons": (lambda text: text.replace(",", ";"), r"line 1: .* stand between ';'.*commas"),
    "tabs": (lambda text: text.replace(",", "\t"), "line 1: .* stand between"),
    "header lost": (lambda text: text.partition("\n")[2], "line 1 is no header"),
    "header twice": (lambda text: f"{HEADER}\n{text}", "line 2 is the header again"),
    "one empty line": (lambda _: "\n", "line 1 is no header"),
    "emptied": (lambda _: "", "is empty.*Restore"),
    "a row of commas": (lambda text: f"{text}{COMMAS}\n", f"line {len(ROWS) + 2} has no key"),
    "NUL": (lambda text: text.replace("adam,", "ad\x00am,", 1), r"line \d+ holds the character"),
    "pointer": (lambda _: LFS, "pointer of Git LFS.*git lfs pull"),
    "column twice": (columns(lambda names: [*names, "seed"]), "the column 'seed' 2 times"),
    "nameless column": (
        lambda text: text.replace("\n", ",\n"),
        "line 1: the header has no name",
    ),
    "metric lost": (
        columns(lambda names: [name for name in names if name != "test_auroc"]),
        "line 1: the header has no test_auroc",
    ),
    "setting lost": (
        columns(lambda names: [name for name in names if name != "epochs"]),
        "line 2 is not what was recorded: its epochs is missing",
    ),
    "setting lost that is not at its default": (
        columns(lambda names: [name for name in names if name != "normalize"]),
        "line 2 was changed.*belong to the key",
    ),
    **{
        f"{name} {value!r}": (cell(name, value, 3), f"line 4 .*{message}")
        for name, value, message in (
            ("seed", "77", "was changed"),
            ("seed", "1.5", "is not what was recorded: its seed is '1.5'"),
            ("method", "tuned", "was changed"),
            ("study", "other", "was changed"),
            ("learning_rate", "0,001", "has the learning_rate|is not what was recorded"),
            ("learning_rate", "", "has no learning_rate"),
            ("key", "0123456789ab", "was changed"),
            ("test_auroc", "1.7", "has the test_auroc '1.7'; it is a number from 0 to 1"),
            ("test_auroc", "-0.2", "has the test_auroc"),
            ("test_auroc", "", "has no test_auroc"),
            ("test_accuracy", "95%", "has the test_accuracy '95%'"),
            ("val_ece", "0,05", "has the val_ece '0,05'"),
            ("test_recall", "0.5;1.2", "has the test_recall"),
            ("test_recall", "0.5 1", "has the test_recall"),
            ("test_cross_entropy", "1,5", "has the test_cross_entropy '1,5'"),
            ("test_cross_entropy", "53958303", "which lost its decimal point"),
            ("test_cross_entropy", "nan", "has the test_cross_entropy 'nan'"),
            ("test_cross_entropy", "inf", "has the test_cross_entropy 'inf'"),
            ("best_epoch", "99", "has its best epoch at 99"),
            ("epochs_run", "2.5", "has the epochs_run '2.5'; it is a whole number"),
            ("threads", "one", "has the threads 'one'"),
            ("seconds", "", "has no seconds"),
        )
    },
}


@pytest.mark.parametrize(("edit", "message"), RUNS.values(), ids=RUNS)
def test_an_edited_table_of_runs_is_refused_and_left_alone(recorded, edit, message):
    refused(recorded, recorded.runs_path, edit, message, recorded.runs)


CURVES = {
    **{
        name: RUNS[name]
        for name in ("semicolons", "tabs", "header lost", "one empty line", "emptied", "pointer")
    },
    "header again": (lambda text: text + text.partition("\n")[0] + "\n", "is the header again"),
    "a column lost": (
        columns(lambda names: [name for name in names if name != "val_auroc"]),
        "line 1: the header has no val_auroc",
    ),
    "a curve lost": (lambda text: text.rpartition(text.split("\n")[-2])[0], "some are lost"),
    "half of them lost": (
        lambda text: "".join(text.splitlines(keepends=True)[:90]),
        "holds 0 rows of run .*, and some are lost.*trained again",
    ),
    "an epoch twice": (lambda text: text + text.splitlines()[-1] + "\n", "a second time"),
    **{
        f"{name} {value!r}": (cell(name, value, 3), f"line 4 .*{message}")
        for name, value, message in (
            ("epoch", "7.5", "has the epoch"),
            ("val_auroc", "1.7", "has the val_auroc"),
            ("val_accuracy", "", "has no val_accuracy"),
            ("train_total", "0,7", "has the train_total"),
            ("train_feature_variance", "-1", "has the train_feature_variance"),
            ("val_cross_entropy", "53958303", "which lost its decimal point"),
        )
    },
}


@pytest.mark.parametrize(("edit", "message"), CURVES.values(), ids=CURVES)
def test_edited_curves_are_refused_and_left_alone(recorded, edit, message):
    refused(recorded, recorded.curves_path, edit, message, recorded.curves)


def refused(ledger: Ledger, path: Path, edit, message: str, read: Callable[[], object]) -> None:
    """Reading, appending and the look before the training all refuse the file, and leave it."""
    path.write_bytes(edit(path.read_text()).encode())
    before = {one: one.read_bytes() for one in ledger.folder.glob("*[!k]")}  # all but the lock
    row = {"key": "a new run", "study": "chest_paper"}
    for call in (read, lambda: ledger.append(row, curve()), ledger.check_writable):
        with pytest.raises(LedgerError, match=f"{path.name}.*{message}"):
            call()
    assert {one: one.read_bytes() for one in ledger.folder.glob("*[!k]")} == before


def test_curves_that_were_deleted_are_missed(recorded):
    recorded.curves_path.unlink()
    for call in (recorded.curves, lambda: recorded.append(run("new"), curve())):
        with pytest.raises(
            LedgerError, match=rf"curves.csv is not there, and .* holds {len(ROWS)} runs"
        ):
            call()
    assert not recorded.curves_path.exists()


@pytest.mark.parametrize("study", ["norms", "carried", "thresholds", "sampling", "predictions"])
def test_a_setting_of_a_probe_that_was_changed(tmp_path, study):
    shutil.copytree(RESULTS / study, tmp_path / study)
    ledger = Ledger(study, tmp_path)
    assert len(ledger.runs()) == len(Ledger(study, RESULTS).runs())
    edit = cell("seed", "77", 2)
    ledger.runs_path.write_text(edit(ledger.runs_path.read_text()))
    with pytest.raises(LedgerError, match="line 3 was changed: its settings do not belong"):
        ledger.runs()


def test_a_number_of_a_benchmark_in_the_way_of_a_spreadsheet(tmp_path):
    shutil.copytree(RESULTS / "benchmarks" / "overhead", tmp_path / "overhead")
    ledger = Ledger("overhead", tmp_path)
    ledger.curves_path.write_text(cell("step_ms", "10,03", 2)(ledger.curves_path.read_text()))
    with pytest.raises(LedgerError, match="line 3 has the step_ms '10,03'; it is a number with a"):
        ledger.curves()


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("runs.csv")), ids=lambda p: p.parent.name)
def test_every_recorded_ledger_is_read_as_pandas_reads_it(path):
    ledger = Ledger(path.parent.name, path.parent.parent)
    names = ["key", "commit", "dataset_sha256", *(f"{s}_recall" for s in ("train", "val", "test"))]
    for frame, file in ((ledger.runs(), path), (ledger.curves(), path.with_name("curves.csv"))):
        plain = pd.read_csv(file, dtype=dict.fromkeys(names, str))
        pd.testing.assert_frame_equal(frame, plain, check_exact=True)


def test_a_row_that_would_be_refused_is_not_recorded(recorded):
    before = recorded.runs_path.read_bytes(), recorded.curves_path.read_bytes()
    rows = recorded.runs()
    new = rows.iloc[0].to_dict() | {"key": "0123456789ab", "split": None}
    with pytest.raises(LedgerError, match=r"the new row was changed.*It was not recorded"):
        recorded.append(new, curve())
    assert (recorded.runs_path.read_bytes(), recorded.curves_path.read_bytes()) == before


def test_a_setting_of_many_digits_is_read_back_as_it_was(tmp_path):
    given = {"study": "try", "dataset": "phantom", "method": "baseline", "seed": 0, "epochs": 1}
    spec = RunSpec(**given, learning_rate=1 / 3, weight_decay=float(np.float32(0.1)))
    ledger = Ledger("try", tmp_path)
    assert ledger.append({"key": spec.key, **dataclasses.asdict(spec)}, curve())
    assert ledger.runs()["learning_rate"].tolist() == [1 / 3]
    assert ledger.keys() == {spec.key}


def test_data_that_changed_on_the_way_are_told(recorded):
    (sha,) = recorded.runs()["dataset_sha256"].unique()
    recorded.runs_path.write_text(
        cell("dataset_sha256", "f" * 16, 9)(recorded.runs_path.read_text())
    )
    with pytest.warns(UserWarning, match=rf"{sha} \(line 2\), f{{16}} \(line 10\); keep those of"):
        assert len(recorded.runs()) == len(ROWS)


def test_a_run_on_other_data_is_not_recorded_beside_the_others(tmp_path):
    ledger, other = Ledger("s", tmp_path), {"dataset": "d", "size": 28}
    ledger.append(run("a", **other, dataset_sha256="1" * 16), curve())
    ledger.append(run("b", **other | {"size": 64}, dataset_sha256="2" * 16), curve())
    with pytest.raises(
        LedgerError, match=r"saw other data than those before it: d 28 .*1111.*2222"
    ):
        ledger.append(run("c", **other, dataset_sha256="2" * 16), curve())
    assert ledger.keys() == {"a", "b"}


# ---------------------------------------------------------------- files that are none, and links


def test_what_is_no_file_is_named(recorded):
    kept = recorded.runs_path.rename(recorded.folder / "kept")
    recorded.runs_path.mkdir()
    with pytest.raises(LedgerError, match=r"runs\.csv is not a file"):
        recorded.runs()
    recorded.runs_path.rmdir()
    recorded.runs_path.symlink_to("nowhere")
    for call in (recorded.runs, lambda: recorded.append(run("new"), curve())):
        with pytest.raises(LedgerError, match=r"runs\.csv is a link to nowhere, where no file is"):
            call()
    recorded.runs_path.unlink()
    kept.rename(recorded.runs_path)
    assert len(recorded.runs()) == len(ROWS)


def test_a_file_that_may_not_be_read(recorded, monkeypatch):
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(LedgerError, match=r"runs\.csv cannot be read: Permission denied; let"):
        recorded.runs()


def test_a_linked_ledger_stays_linked_and_grows_for_all(ledger, tmp_path):
    other = Ledger("s", tmp_path / "other")
    other.folder.mkdir(parents=True)
    for name in ("runs.csv", "curves.csv"):
        (other.folder / name).symlink_to(ledger.folder / name)
    assert other.append(run("new"), curve())
    assert other.runs_path.is_symlink()
    assert other.curves_path.is_symlink()
    assert ledger.keys() == other.keys() == {"aaa", "00012345", "new"}
    assert set(ledger.curves()["key"]) == ledger.keys()


def test_a_link_in_place_of_the_new_file_is_not_followed(ledger, tmp_path):
    letter = tmp_path / "letter"
    letter.write_text("dear reader")
    ledger.runs_path.with_suffix(".new").symlink_to(letter)
    assert ledger.append(run("new"), curve())
    assert letter.read_text() == "dear reader"
    assert not ledger.runs_path.is_symlink()
    assert len(ledger.runs()) == 3


def test_a_tilde_is_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VARREG_RESULTS", "~/mine")
    assert Ledger("s").folder == tmp_path / "mine" / "s"
    assert Ledger("s", "~/other").folder == tmp_path / "other" / "s"
    monkeypatch.setenv("VARREG_RESULTS", "~nobody-of-that-name/runs")
    with pytest.raises(ValueError, match=r"\$VARREG_RESULTS is '~nobody-of-that-name/runs'"):
        Ledger("s")


@pytest.mark.parametrize("study", ["", ".", "..", "a/b", "a\0b", 3, None])
def test_a_study_is_the_name_of_a_folder(study, tmp_path):
    with pytest.raises(ValueError, match=r"study is .*; give a name that a folder can have"):
        Ledger(study, tmp_path)


@pytest.mark.parametrize("results", ["", 3, True])
def test_results_is_a_folder(results):
    with pytest.raises(ValueError, match=r"results is .*; give the name of a folder"):
        Ledger("s", results)


def test_what_others_raise_is_told_as_an_error_of_the_ledger(ledger):
    before = ledger.runs_path.read_bytes()
    for row, rows in (({}, curve()), (run("new"), [None]), (run("new"), 3)):
        with pytest.raises(LedgerError, match=r"cannot record a run in .*Error"):
            ledger.append(row, rows)
    assert ledger.runs_path.read_bytes() == before


# ---------------------------------------------------------------- folders that cannot be written


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device"), "make room on that disk, or"),
        (PermissionError(13, "Permission denied"), "make the folder writable, or name"),
    ],
)
def test_a_disk_that_is_full_or_refuses_to_write(ledger, monkeypatch, error, remedy):
    def refuse(_: int) -> None:
        raise error

    before = {path: path.read_bytes() for path in ledger.folder.glob("*.csv")}
    monkeypatch.setattr(module.os, "fsync", refuse)
    for call in (ledger.check_writable, lambda: ledger.append(run("new"), curve())):
        with pytest.raises(LedgerError, match=f"{error.strerror}; {remedy}"):
            call()
    assert {path: path.read_bytes() for path in ledger.folder.glob("*.csv")} == before
    monkeypatch.undo()
    assert ledger.append(run("new"), curve())


HOLDER = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(1)
"""


def test_a_lock_that_somebody_holds_is_named_while_it_is_waited_for(ledger, monkeypatch, capfd):
    monkeypatch.setattr(module, "SECONDS_UNTIL_A_WORD", 0.1)
    call = [sys.executable, "-c", HOLDER, str(ledger.folder / ".lock")]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert ledger.append(run("new"), curve())
    assert f"waiting for {ledger.folder / '.lock'}, which another process" in capfd.readouterr().err


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
from tests.lab.test_ledger import Ledger, curve, run

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


def python(script: str, folder: Path) -> str:
    """Run a script that forks, with one thread; return what it prints."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    call = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_every_step_of_appending_loses_nothing(tmp_path):
    points = range(1, 10)
    for point in points:
        Ledger("s", tmp_path / str(point)).append(run("old"), curve())
    assert python(KILLED, tmp_path).split() == ["-9"] * 8 + [
        "0"
    ]  # the ninth point is never reached
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
from tests.lab.test_ledger import Ledger, curve, run

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
    assert python(CROWD, tmp_path).split() == ["0", "0"]
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


def with_predictions(tmp_path: Path) -> Ledger:
    ledger = Ledger("try", tmp_path)
    said = {"test": Predictions(np.array([[1.5], [-70000.0]]), ["a", "b"])}
    assert ledger.append({"key": "one", "dataset_sha256": "f" * 16}, [{"epoch": 1}], said)
    return ledger


def test_predictions_come_back(tmp_path):
    found = with_predictions(tmp_path).predictions("one")
    assert list(found) == ["test"]
    assert found["test"].images == ["a", "b"]
    assert found["test"].logits.tolist() == [[1.5], [-65504.0]]  # the largest of float16


def test_predictions_left_by_a_kill_are_replaced(tmp_path):
    ledger = with_predictions(tmp_path)
    ledger.runs_path.unlink()
    ledger.curves_path.unlink()
    assert ledger.predictions("one") == {}
    with_predictions(tmp_path)
    assert len(ledger.predictions_path.read_text().splitlines()) == 2
    assert len(ledger.images_path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("predictions", "outputs,", "exits,"),
        ("predictions", "one,test,1,", "one,test,1,!"),
        ("predictions", "one,test,1,", "one,test,3,"),
        ("images", f"{'f' * 16},test,1,b\n", ""),
        ("images", "position", "place"),
    ],
)
def test_damaged_predictions_are_refused(tmp_path, table, old, new):
    ledger = with_predictions(tmp_path)
    path = ledger.folder / f"{table}.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(LedgerError, match=rf"{table if new else 'predictions'}\.csv, line"):
        ledger.predictions("one")
