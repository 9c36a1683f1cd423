from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.lab.test_ledger import python
from varreg.lab import datasets, runs
from varreg.lab.columns import CURVE_COLUMNS, OUTCOME_COLUMNS, PROVENANCE_COLUMNS
from varreg.lab.corruptions import corrupted
from varreg.lab.datasets import Dataset, UnknownDatasetError
from varreg.lab.ledger import Ledger, LedgerError
from varreg.lab.runs import MissingRunsError, execute, execute_many, groups, run_all
from varreg.lab.specs import SETTINGS, RunSpec, digest, key_of_row
from varreg.lab.subsets import nested_rows
from varreg.lab.training import NonFiniteLossError, Scaling, predict
from varreg.loss import PUBLISHED

PROVENANCE = ["seconds", "recorded_at"]


def spec(seed: int = 0, **given: object) -> RunSpec:
    usual = {"study": "try", "dataset": "phantom", "method": "baseline", "epochs": 1}
    return RunSpec(seed=seed, **(usual | {"size": 16, "model": "paper_cnn"} | given))


# ---------------------------------------------------------------- the key

OTHER = {
    "study": "again",
    "dataset": "pneumoniamnist",
    "method": "tuned",
    "seed": 1,
    "epochs": 3,
    "model": "resnet18",
    "size": 64,
    "split": "official",
    "variance_weight": 0.3,
    "feature_sampling_ratio": 0.5,
    "lambda_": 2.0,
    "patience": 4,
    "monitor": "total",
    "optimizer": "adamw",
    "learning_rate": 0.1,
    "weight_decay": 0.2,
    "adam_epsilon": 1e-7,
    "batch_size": 16,
    "normalize": "unit",
    "init": "glorot",
    "equalize": True,
    "shuffle_blocks": True,
    "precision": "bfloat16",
    "augment": True,
    "strength": 0.5,
    "train_share": 0.5,
    "wrong_labels": 0.2,
    "wrong_kind": "by_class",
    "draw": 1,
}


def test_keys_of_recorded_runs_stay_as_they_are():
    # These are in results/: another key for the same run would orphan what was recorded.
    grid = {"study": "grid", "dataset": "pneumoniamnist", "model": "paper_cnn", "epochs": 15}
    assert RunSpec(**grid, method="baseline", seed=0).key == "47949f987ad8"
    penalized = RunSpec(**grid, method="penalized", seed=0, variance_weight=0.01)
    assert penalized.key == "18cdc9a0ea02"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RunSpec)])
def test_every_field_changes_the_key(field):
    usual = spec(method="penalized", variance_weight=0.1)
    if field == "strength":
        usual = spec(method="feature_l2", strength=0.1)
    if field in ("wrong_kind", "draw"):
        usual = spec(wrong_labels=0.1)
    assert dataclasses.replace(usual, **{field: OTHER[field]}).key != usual.key


def test_what_a_method_implies_is_no_part_of_the_key():
    # Recorded before augmentation was a setting.
    row = {"study": "s", "dataset": "phantom", "method": "augmented", "seed": "0", "epochs": "1"}
    spec = RunSpec(study="s", dataset="phantom", method="augmented", seed=0, epochs=1)
    assert spec.augment
    assert key_of_row(row) == key_of_row(row | {"augment": "True"}) == spec.key
    given = {"study", "dataset", "method", "seed", "epochs"}
    assert spec.key == digest({name: getattr(spec, name) for name in given})


def test_a_field_that_is_added_later_leaves_recorded_keys_alone():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(RunSpec):
        dropout: float = 0.0

    usual = dataclasses.asdict(spec())
    assert Later(**usual).key == spec().key
    assert Later(**usual, dropout=0.5).key != spec().key


@pytest.mark.parametrize("weight", [1, 1.0, np.float64(1), np.float32(1), np.int64(1)])
def test_equal_specs_have_equal_keys(weight):
    one = spec(method="penalized", variance_weight=1.0)
    other = spec(method="penalized", variance_weight=weight)
    assert one == other
    assert one.key == other.key
    assert type(other.variance_weight) is float


def test_the_default_split_by_name_is_a_run_of_its_own_but_nothing_else_is():
    assert spec(lambda_=1.0, optimizer="adam", patience=None).key == spec().key


@pytest.mark.parametrize("one", [1, 1.0, np.int64(1), np.int8(1), np.float32(1), np.uint32(1)])
@pytest.mark.parametrize("field", ["seed", "epochs", "patience"])
def test_a_number_has_one_key_whatever_holds_it(field, one):
    usual = spec(**{"seed": 1, "epochs": 1, "patience": 1})
    other = spec(**{"seed": 1, "epochs": 1, "patience": 1, field: one})
    assert other == usual
    assert other.key == usual.key
    assert type(getattr(other, field)) is int


def test_true_or_false_and_texts_of_numpy_are_those_of_python():
    other = spec(equalize=np.bool_(True), model=np.str_("paper_cnn"))
    assert other.key == spec(equalize=True).key
    assert (type(other.equalize), type(other.model)) == (bool, str)


@pytest.mark.parametrize("study", ["chest", "edges", "ambiguities"])
def test_the_key_follows_from_what_is_recorded(study):
    path = Path(__file__).parents[2] / "results" / study / "runs.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    assert [key_of_row(row) for row in rows] == [row["key"] for row in rows]


# ---------------------------------------------------------------- what a spec refuses


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"method": "magic"},
            "method is 'magic'; allowed are baseline, penalized, tuned, augmented",
        ),
        ({"model": "vgg"}, "model is 'vgg'; allowed are paper_cnn, paper_cnn_deep, small_cnn"),
        ({"split": "lesion"}, "split of phantom is 'lesion'; allowed are official, or None"),
        ({"epochs": 0}, "epochs is 0"),  # as every other setting of the training
        ({"size": "28"}, "size is '28'; give a whole number"),
        ({"variance_weight": None}, "variance_weight is None; give a number"),
        ({"equalize": "true"}, "equalize is 'true'; give True or False"),
        ({"study": None}, "study is None; give a text"),
        ({"split": 3}, "split is 3; give a text, or None"),
        (
            {"method": "penalized"},
            "'penalized' with variance_weight=0.0; it is positive, say 0.01, for",
        ),
        ({"variance_weight": 0.1}, "'baseline' with variance_weight=0.1; it is 0 for this method"),
        (
            {"method": "feature_l2"},
            "'feature_l2' with strength=0.0; it is positive, say 0.5, for this",
        ),
        ({"strength": 0.1}, "'baseline' with strength=0.1; it is 0 for this method"),
        ({"strength": -0.1}, "strength is -0.1; it must be finite and at least 0"),
        ({"augment": True}, "augment=True alone is the method 'augmented'"),
        ({"method": "augmented", "variance_weight": 1.0}, "'augmented' with variance_weight=1.0"),
        ({"method": "penalized", "variance_weight": -1.0}, "variance_weight is -1.0; it must be"),
        ({"feature_sampling_ratio": 0.0}, r"sampling ratio is 0.0; it must lie in \(0, 1\]"),
        ({"feature_sampling_ratio": 1.5}, r"sampling ratio is 1.5"),
        ({"lambda_": 0.0}, "lambda_ is 0.0"),
        ({"init": "he"}, "init is 'he'; allowed are default, glorot"),
        ({"train_share": 0.0}, r"train_share is 0.0; it must lie in \(0, 1\]"),
        ({"train_share": 1.5}, "train_share is 1.5"),
        ({"wrong_labels": -0.1}, r"wrong_labels is -0.1; it must lie in \[0, 1\]"),
        ({"wrong_labels": float("nan")}, "wrong_labels is nan"),
        ({"wrong_labels": 0.1, "wrong_kind": "all"}, "wrong_kind is 'all'; allowed are random, by"),
        ({"wrong_kind": "by_class"}, "wrong_kind='by_class' with wrong_labels=0; no label is"),
        ({"train_share": 0.5, "draw": -1}, "draw is -1; it must be 0"),
        ({"draw": 1}, "draw=1 of nothing: all images, with the labels they have"),
    ],
)
def test_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        spec(**given)


def test_refuses_an_unknown_data_set():
    with pytest.raises(
        UnknownDatasetError, match=r"no data set 'cats'; allowed are phantom, .*mnist"
    ):
        spec(dataset="cats")


# ---------------------------------------------------------------- one run


@pytest.mark.parametrize(
    "given",
    [
        {"method": "baseline"},
        {"method": "penalized", **PUBLISHED, "init": "glorot", "normalize": "unit"},
        {"method": "augmented", "dataset": "phantom7", "optimizer": "adamw", "patience": 1},
    ],
)
def test_the_same_spec_gives_the_same_row(given):
    torch.manual_seed(1)
    row, curve = execute(spec(epochs=2, **given))
    torch.manual_seed(2)  # what ran before must not matter
    again, curve_again = execute(spec(epochs=2, **given))
    for name in PROVENANCE:
        assert row.pop(name) is not None
        assert again.pop(name) is not None
    assert row == again
    assert curve == curve_again
    expected = ["key", *SETTINGS, *OUTCOME_COLUMNS, *PROVENANCE_COLUMNS]
    assert list(row) == [name for name in expected if name not in PROVENANCE]
    assert [tuple(epoch) for epoch in curve] == [CURVE_COLUMNS[1:]] * 2


def test_every_recorded_number_has_its_origin():
    row, _ = execute(spec(seed=3))
    data = datasets.load("phantom", size=16)
    assert row["dataset_sha256"] == data.sha256
    assert (row["parameters"], row["epochs_run"], row["best_epoch"]) == (
        20 + 3 * 110 + 161,
        1,
        1,
    )
    assert row["torch_version"] == torch.__version__
    assert row["threads"] == torch.get_num_threads()
    assert row["device"]
    assert len(row["test_recall"]) == 2
    assert pd.Timestamp(row["recorded_at"]).tzinfo is not None


def test_the_precision_of_a_spec_is_that_of_the_training():
    exact, rounded = (execute(spec(precision=p))[0] for p in ("float32", "bfloat16"))
    assert rounded["test_cross_entropy"] != exact["test_cross_entropy"]
    assert rounded["test_cross_entropy"] == pytest.approx(exact["test_cross_entropy"], rel=0.05)


def test_another_seed_gives_other_numbers():
    first, second = (execute(spec(seed))[0]["test_cross_entropy"] for seed in (0, 1))
    assert first != second


def test_a_device_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="device is 'abacus', which cannot be used here"):
        run_all([spec()], results=tmp_path, device="abacus")
    assert Ledger("try", tmp_path).runs().empty


# ---------------------------------------------------------------- many runs


@pytest.fixture
def trained(monkeypatch):
    """Stand in for the training; lists the specs that were trained."""
    done = []

    def stand_in(spec: RunSpec, **_: object):
        done.append(spec)
        row = {"key": spec.key, **dataclasses.asdict(spec), "test_accuracy": spec.seed / 10}
        return row, [{"epoch": 1, "val_total": 0.5}], {}

    monkeypatch.setattr(runs, "_execute", stand_in)
    # One after the other also where there is a GPU.
    monkeypatch.setattr(runs, "groups", lambda jobs, device: [[job] for job in jobs])
    return done


def test_trains_only_what_is_missing(tmp_path, trained):
    specs = [spec(seed) for seed in range(4)]
    first = run_all(specs[2:], results=tmp_path, progress=False)
    assert first["seed"].tolist() == [2, 3]
    rows = run_all(specs, results=tmp_path, progress=False)
    assert trained == [*specs[2:], *specs[:2]]
    assert rows["seed"].tolist() == [0, 1, 2, 3]  # in the order of the specs
    assert rows["key"].tolist() == [spec.key for spec in specs]
    assert rows["test_accuracy"].tolist() == [0, 0.1, 0.2, 0.3]
    pd.testing.assert_frame_equal(run_all(specs, results=tmp_path), rows)
    assert len(trained) == 4


def test_runs_of_several_studies(tmp_path, trained):
    specs = [spec(seed, study=study) for seed in range(2) for study in ("one", "two")]
    rows = run_all(specs, results=tmp_path, progress=False)
    assert rows["study"].tolist() == ["one", "two", "one", "two"]
    assert [len(Ledger(study, tmp_path).runs()) for study in ("one", "two")] == [2, 2]
    rows = run_all([*specs, spec(7, study="three")], results=tmp_path, limit=0, progress=False)
    assert rows["study"].tolist() == ["one", "two", "one", "two"]


def test_a_spec_that_is_listed_twice_is_trained_once(tmp_path, trained):
    rows = run_all([spec(1), spec(0), spec(1)], results=tmp_path, train="always", progress=False)
    assert rows["seed"].tolist() == [1, 0, 1]
    assert trained == [spec(1), spec(0)]


def test_never_trains_when_told_so(tmp_path, trained):
    with pytest.raises(
        MissingRunsError, match=r"2 of 2 runs are not recorded, .*seed=0.*companion run try"
    ):
        run_all([spec(0), spec(1)], train="never", results=tmp_path)
    run_all([spec(0)], results=tmp_path, progress=False)
    with pytest.raises(MissingRunsError, match=r"1 of 2 runs are not recorded, .*seed=1"):
        run_all([spec(0), spec(1)], train="never", results=tmp_path)
    assert len(run_all([spec(0)], train="never", results=tmp_path)) == 1
    assert trained == [spec(0)]


def test_reading_needs_no_folder_that_can_be_written(tmp_path, trained, monkeypatch):
    run_all([spec(0)], results=tmp_path, progress=False)
    monkeypatch.setattr(
        Ledger, "check_writable", lambda _: pytest.fail("reading checks for writing")
    )
    assert len(run_all([spec(0)], results=tmp_path)) == 1


def test_always_trains_and_replaces_nothing(tmp_path, trained):
    assert len(run_all([spec(0)], train="always", results=tmp_path, progress=False)) == 1
    with pytest.raises(LedgerError, match=r"with 1 runs that are recorded .*name an empty folder"):
        run_all([spec(0), spec(1)], train="always", results=tmp_path)
    assert trained == [spec(0)]


@pytest.mark.parametrize(("limit", "seeds"), [(0, []), (1, [0]), (2, [0, 1]), (9, [0, 1, 2])])
def test_limit(tmp_path, trained, limit, seeds):
    specs = [spec(seed) for seed in range(3)]
    rows = run_all(specs, limit=limit, results=tmp_path, progress=False)
    assert [spec.seed for spec in trained] == seeds
    assert len(rows) == len(seeds)
    assert rows.empty or rows["seed"].tolist() == seeds


def test_limit_goes_on_where_it_stopped(tmp_path, trained):
    specs = [spec(seed) for seed in range(3)]
    for _ in specs:
        rows = run_all(specs, limit=1, results=tmp_path, progress=False)
    assert rows["seed"].tolist() == [0, 1, 2]
    assert trained == specs


def test_no_runs(tmp_path):
    assert run_all([], results=tmp_path).empty


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": "maybe"}, "train is 'maybe'; allowed are missing, never, always"),
        ({"jobs": 0}, "jobs is 0; it must be 1 or more, or -1"),
        ({"limit": -1}, "limit is -1; it must be 0 or more, or None for all"),
        ({"limit": "3"}, "limit is '3'; give a whole number, or None"),
    ],
)
def test_settings_outside_their_range(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        run_all([spec()], results=tmp_path, **given)


def test_a_folder_that_cannot_be_written_is_found_before_the_training(tmp_path, trained):
    (tmp_path / "try").write_text("a file in place of the folder")
    with pytest.raises(LedgerError, match=r"cannot record a run in .*try: .*another with results="):
        run_all([spec()], results=tmp_path)
    assert trained == []


def test_a_damaged_ledger_is_found_before_the_training(tmp_path, trained):
    run_all([spec(0)], results=tmp_path, progress=False)
    path = tmp_path / "try" / "runs.csv"
    path.write_text(path.read_text() + "half a li")
    with pytest.raises(LedgerError, match=r"runs\.csv, line 3 is cut short"):
        run_all([spec(1)], results=tmp_path)
    assert trained == [spec(0)]


def at_two(monkeypatch, act: Callable[[], None]) -> None:
    """Let something happen before the run with seed 2."""
    stand_in = runs._execute

    def execute_after(spec: RunSpec, **arguments: object):
        if spec.seed == 2:
            act()
        return stand_in(spec, **arguments)

    monkeypatch.setattr(runs, "_execute", execute_after)


def test_a_run_that_fails_takes_no_finished_one_with_it(tmp_path, trained, monkeypatch):
    def fail() -> None:
        raise RuntimeError("the power went off")

    at_two(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="the power went off"):
        run_all([spec(seed) for seed in range(4)], results=tmp_path, progress=False)
    assert Ledger("try", tmp_path).runs()["seed"].tolist() == [0, 1]


def test_data_that_changed_are_noticed_before_the_training(tmp_path, trained, monkeypatch):
    ledger = Ledger("try", tmp_path)
    first = {"key": spec(0).key, **dataclasses.asdict(spec(0)), "test_accuracy": 0.5}
    provenance = dict.fromkeys(PROVENANCE_COLUMNS, "0") | {"dataset_sha256": "0" * 16}
    outcome = dict.fromkeys(OUTCOME_COLUMNS, 1)
    ledger.append(first | outcome | provenance, [dict.fromkeys(CURVE_COLUMNS[1:], 1)])
    with pytest.raises(LedgerError, match=r"data set phantom changed: .* hash 0{16}, and this is"):
        run_all([spec(0), spec(1)], results=tmp_path, progress=False)
    assert trained == []
    assert ledger.keys() == {spec(0).key}


def test_a_ledger_that_is_deleted_on_the_way(tmp_path, trained, monkeypatch):
    with monkeypatch.context() as patched:
        at_two(patched, lambda: shutil.rmtree(tmp_path / "try"))
        with pytest.raises(LedgerError, match=r"no longer holds run .*the same call again: it"):
            run_all([spec(seed) for seed in range(3)], results=tmp_path, progress=False)
    assert len(run_all([spec(seed) for seed in range(3)], results=tmp_path, progress=False)) == 3


def test_prints_nothing_off_a_terminal(tmp_path, trained, capfd):
    run_all([spec()], results=tmp_path)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- seeds side by side


@pytest.fixture
def small_phantom(monkeypatch, make_dataset) -> Dataset:
    data = make_dataset(size=16, counts=(64, 32, 32))
    monkeypatch.setattr("varreg.lab.runs.datasets.load", lambda *_, **__: data)
    runs._prepared.cache_clear()
    yield data
    runs._prepared.cache_clear()


@pytest.mark.parametrize(
    "given",
    [
        {"model": "small_cnn", "init": "glorot", "batch_size": 16},
        {"method": "penalized", "variance_weight": 0.1, "feature_sampling_ratio": 0.2},
    ],
)
def test_rows_are_those_of_each_run_alone(small_phantom, given):
    specs = [spec(seed, **given) for seed in (2, 7)]
    found = list(execute_many(specs, device="cpu"))
    assert len(found) == 2
    for one, (row, curve) in zip(specs, found, strict=True):
        wanted, wanted_curve = execute(one, device="cpu")
        assert list(row) == list(wanted)
        assert set(row) >= {*OUTCOME_COLUMNS, *PROVENANCE_COLUMNS}
        assert [("key", *line) for line in curve] == [CURVE_COLUMNS] * len(curve)
        for name in ("seconds", "recorded_at"):
            wanted[name] = row[name]
        numbers = {name for name, value in wanted.items() if isinstance(value, (float, list))}
        for name in numbers:
            assert row[name] == pytest.approx(wanted[name], abs=1e-5, nan_ok=True), name
        assert [row[name] for name in row if name not in numbers] == [
            wanted[name] for name in wanted if name not in numbers
        ]
        for line, wanted_line in zip(curve, wanted_curve, strict=True):
            assert line == pytest.approx(wanted_line, abs=1e-5)


@pytest.fixture
def one_that_fails(small_phantom, monkeypatch):
    """Let the run with seed 1 diverge at its first step."""
    initial = runs.initial_model

    def one_of_them_broken(one: RunSpec, data: Dataset) -> nn.Module:
        model = initial(one, data)
        if one.seed == 1:
            nn.init.constant_(model.head.weight, math.inf)
        return model

    monkeypatch.setattr(runs, "initial_model", one_of_them_broken)


def test_what_is_finished_comes_before_the_error(one_that_fails):
    results = execute_many([spec(seed) for seed in range(3)], device="cpu")
    assert [next(results)[0]["seed"] for _ in range(2)] == [0, 2]
    with pytest.raises(NonFiniteLossError, match="of seed 1"):
        next(results)
    with pytest.raises(NonFiniteLossError, match="of seed 1"):
        list(execute_many([spec(1)], device="cpu"))


def test_a_sweep_trains_groups_as_one(small_phantom, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "groups", lambda jobs, device: [list(jobs)])
    table = run_all([spec(seed) for seed in range(3)], results=tmp_path, device="cpu")
    assert table["seed"].tolist() == [0, 1, 2]
    assert table["seconds"].nunique() == 1  # an equal share: they were trained as one


def test_a_group_with_a_run_that_fails_loses_no_other(one_that_fails, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "groups", lambda jobs, device: [list(jobs)])
    specs = [spec(seed) for seed in range(3)]
    with pytest.raises(NonFiniteLossError, match="of seed 1"):
        run_all(specs, results=tmp_path, device="cpu")
    assert Ledger("try", tmp_path).keys() == {specs[0].key, specs[2].key}


def test_runs_that_differ_in_more_than_their_seed():
    with pytest.raises(ValueError, match="2 runs that do not differ in their seed alone"):
        next(execute_many([spec(0), spec(1, epochs=2)], device="cpu"))
    with pytest.raises(ValueError, match="0 runs"):
        next(execute_many([], device="cpu"))
    with pytest.raises(ValueError, match="runs in bfloat16 train one after the other"):
        next(execute_many([spec(s, precision="bfloat16") for s in range(2)], device="cpu"))


def test_groups_on_a_cpu_are_single():
    jobs = [spec(seed) for seed in range(3)]
    assert groups(jobs, "cpu") == [[job] for job in jobs]
    assert groups([], "cpu") == []


def test_groups_on_a_gpu(monkeypatch):
    monkeypatch.setattr(runs, "as_device", torch.device)
    penalized = {"method": "penalized", "variance_weight": 0.1}
    first, second = ([spec(s, **kind) for s in range(20)] for kind in ({}, penalized))
    mixed = [job for pair in zip(first, second, strict=True) for job in pair]
    assert groups(mixed, "cuda") == [first[:16], first[16:], second[:16], second[16:]]
    single = [
        *(spec(s, model="resnet18") for s in range(2)),
        *(spec(s, size=224) for s in range(2)),
        *(spec(s, precision="bfloat16") for s in range(2)),
        *(SimpleNamespace(study="try", key=str(s)) for s in range(2)),  # such as of a probe
    ]
    assert groups(single, "cuda") == [[job] for job in single]
    both = groups([single[0], *first[:2], single[1], first[2]], "cuda")
    assert both == [[single[0]], first[:3], [single[1]]]


# ---------------------------------------------------------------- real processes


def test_processes_side_by_side_give_the_same_numbers(tmp_path):
    specs = [spec(seed, method="penalized", **PUBLISHED) for seed in range(2)]
    alone = run_all(specs, results=tmp_path / "alone", progress=False)
    together = run_all(specs, jobs=2, results=tmp_path / "together", progress=False)
    assert (together["threads"] == 1).all()
    assert together["key"].tolist() == alone["key"].tolist() == [one.key for one in specs]
    assert_same_numbers(tmp_path / "alone", tmp_path / "together")


def assert_same_numbers(*results: Path) -> None:
    """Two folders of results hold the same runs, in whatever order."""
    # Exact only with one thread here too: more of them add up in another order.
    close = {"rtol": 0 if torch.get_num_threads() == 1 else 1e-3, "atol": 0}
    local = [*PROVENANCE, "threads", "commit"]  # somebody may commit between the two
    for read in (Ledger.runs, Ledger.curves):
        tables = [
            read(Ledger("try", folder)).drop(columns=local, errors="ignore") for folder in results
        ]
        ordered = [table.sort_values("key", kind="stable", ignore_index=True) for table in tables]
        pd.testing.assert_frame_equal(*ordered, **close)


KILLED = """
import sys, time
from tests.lab.test_runs import Ledger, run_all, spec
append = Ledger.append
def slow(*arguments):
    append(*arguments)
    time.sleep(0.3)  # so that the kill comes between two runs, or during one
Ledger.append = slow
run_all([spec(seed) for seed in range(5)], results=sys.argv[1], progress=False)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_call_loses_nothing_and_the_next_one_goes_on(tmp_path):
    tests = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": tests, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    ledger, deadline = Ledger("try", tmp_path), time.monotonic() + 300
    try:
        while len(ledger.keys()) < 2:  # every look is a whole table, whatever is being written
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()  # SIGKILL
    assert process.wait() == -signal.SIGKILL
    survived = ledger.runs()
    assert 2 <= len(survived) < 5
    assert set(ledger.curves()["key"]) == set(survived["key"])

    specs = [spec(seed) for seed in range(5)]
    rows = run_all(specs, results=tmp_path, progress=False)
    assert rows["seed"].tolist() == [0, 1, 2, 3, 4]
    assert sorted(ledger.runs()["key"]) == sorted(spec.key for spec in specs)
    pd.testing.assert_frame_equal(ledger.runs().head(len(survived)), survived)
    assert ledger.curves().groupby("key").size().tolist() == [1] * 5


A_HUNDRED_KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from tests.lab.test_runs import Ledger, execute, run_all, spec

folder, found = Path(sys.argv[1]), {"kills": 0, "lost": 0, "doubled": 0, "whole": 0, "orphans": 0}
random.seed(0)

def workers():
    mine = f"VARREG_RESULTS={folder}".encode()
    for process in Path("/proc").iterdir():
        try:
            if b"loky" in (process / "cmdline").read_bytes():
                yield from [process.name] * (mine in (process / "environ").read_bytes())
        except OSError:  # gone
            pass

def kill_until(kills, name, jobs, wait):
    specs, seen, ledger = [spec(seed) for seed in range(1000)], set(), Ledger("try", folder / name)
    while kills:
        if (child := os.fork()) == 0:
            os.environ["VARREG_RESULTS"] = str(folder)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            run_all(specs, jobs=jobs, results=folder / name, progress=False)
            os._exit(0)
        last = time.monotonic() + 60
        while len(ledger.keys()) == len(seen) and time.monotonic() < last:
            time.sleep(0.01)  # until it is at work
        time.sleep(random.uniform(*wait))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        last = time.monotonic() + 10
        while any(workers()) and time.monotonic() < last:
            time.sleep(0.1)
        found["orphans"] += len(set(workers()))
        keys = [line.split(",")[0] for line in ledger.runs_path.read_text().splitlines()[1:]]
        curves = ledger.curves()  # refuses a run without its curve
        found["lost"] += len(seen - set(keys))
        found["doubled"] += len(keys) - len(set(keys)) + len(curves) - len(keys)
        seen, kills = set(keys), kills - 1
        found["kills"] += 1
    found["whole"] += len(seen)

execute(spec())  # the forked processes find all imported and the images drawn
kill_until(95, "alone", 1, (0.0, 0.2))
kill_until(5, "together", 2, (0.0, 0.2))
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_a_hundred_kills_lose_nothing_and_leave_no_process(tmp_path):
    found = json.loads(python(A_HUNDRED_KILLS, tmp_path))
    assert found.pop("whole") >= 100, "the kills came too early to disturb anything"
    assert found == {"kills": 100, "lost": 0, "doubled": 0, "orphans": 0}


def test_predictions_of_a_retrained_run_are_the_recorded_ones(tmp_path):
    spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
    run_all([spec], predictions=True, results=tmp_path, device="cpu", progress=False)
    said = Ledger("try", tmp_path).predictions(spec.key)
    run = runs.train_run(spec, device="cpu")
    assert set(said) == {"val", "test"}
    for split, found in said.items():
        images = getattr(run.data, split).images
        logits = predict(run.model, images, run.fit.scaling).half().float().numpy()
        np.testing.assert_array_equal(found.logits, logits)
        assert list(found.images) == [str(place) for place in range(len(images))]


def test_predictions_are_recorded_where_they_are_asked_for(tmp_path):
    spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
    run_all([spec], results=tmp_path, device="cpu", progress=False)
    assert Ledger("try", tmp_path).predictions(spec.key) == {}
    assert not (tmp_path / "try" / "predictions.csv").exists()
    other = dataclasses.replace(spec, seed=1)
    run_all([spec, other], predictions=True, results=tmp_path, device="cpu", progress=False)
    assert Ledger("try", tmp_path).predictions(spec.key) == {}
    assert set(Ledger("try", tmp_path).predictions(other.key)) == {"val", "test"}


def test_robustness_is_recorded_where_it_is_asked_for(tmp_path):
    asked = {"results": tmp_path, "device": "cpu", "progress": False}
    wanted = spec(dataset="phantom", epochs=3, learning_rate=0.01)
    row = run_all([wanted], predictions=True, robustness=True, **asked).iloc[0]
    said = Ledger("try", tmp_path).predictions(wanted.key)
    assert set(said) == {"val", "test", "val_last", "test_last"}
    data = datasets.load("phantom", size=16)
    last = []
    scaling = Scaling.of(data.train.images)
    runs.train_run(
        wanted,
        device="cpu",
        on_epoch=lambda epoch, model: last.append(predict(model, data.test.images, scaling)),
    )
    np.testing.assert_allclose(said["test_last"].logits, last[-1], rtol=2e-3, atol=2e-3)
    run = runs.train_run(wanted, device="cpu")
    found = [
        F.binary_cross_entropy_with_logits(
            predict(run.model, images, run.fit.scaling).flatten(), data.test.labels.float()
        ).item()
        for _, _, images in corrupted(data.test.images)
    ]
    assert row["corrupted_cross_entropy"] == pytest.approx(np.mean(found), rel=1e-6)


def test_a_run_learns_from_the_images_and_labels_that_it_says():
    usual = runs.load_data(spec())
    few = runs.load_data(spec(train_share=0.25, draw=1))
    rows = nested_rows(usual.train.labels, 0.25, 1)
    assert torch.equal(few.train.images, usual.train.images[rows])
    assert torch.equal(few.train.labels, usual.train.labels[rows])
    assert few.val is usual.val
    assert few.test is usual.test
    wrong = runs.load_data(spec(wrong_labels=0.25, wrong_kind="by_class"))
    assert wrong.train.images is usual.train.images
    assert (wrong.train.labels != usual.train.labels).any()
    assert (wrong.val.labels != usual.val.labels).any()
    assert wrong.test is usual.test


def test_few_images_with_wrong_labels_are_few_and_then_wrong():
    both = runs.load_data(spec(train_share=0.5, wrong_labels=0.1))
    few = runs.load_data(spec(train_share=0.5))
    assert torch.equal(both.train.images, few.train.images)
    assert (both.train.labels != few.train.labels).sum() == round(0.1 * len(few.train))
