import numpy as np
import pandas as pd
import pytest

from companion import records
from tests.companion.synthetic import curves, row
from varreg.lab.ledger import Ledger


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A folder of recorded results with one run, and it is the default one."""
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path))
    run = row(study="chest")
    curve = curves(pd.DataFrame([run])).drop(columns="key").to_dict("records")
    Ledger("chest").append(run, curve)
    return tmp_path


def test_recorded_runs_are_read_and_nothing_is_written(recorded):
    before = {path: path.read_bytes() for path in recorded.rglob("*.csv")}
    found = records.gather("chest")
    assert (len(found.runs), len(found.curves), found.seeds, found.live) == (1, 3, 1, False)
    assert str(found) == "1 runs, 1 seed, recorded"
    assert {path: path.read_bytes() for path in recorded.rglob("*.csv")} == before


def test_a_study_without_runs_is_empty_and_says_so(recorded):
    found = records.gather("skin")
    assert found.runs.empty
    assert str(found) == "no run is recorded yet"


def test_live_runs_stay_away_from_the_recorded_ones(recorded):
    before = (recorded / "chest" / "runs.csv").read_bytes()
    found = records.gather("skin_paper", train="always", dataset="phantom7", seeds=1, epochs=1)
    assert found.live
    assert set(found.runs["method"]) == {"baseline", "penalized"}
    assert set(found.runs["dataset"]) == {"phantom7"}
    assert len(found.curves) == 2
    assert "trained live on phantom7 at 28 px" in str(found)
    assert (recorded / "chest" / "runs.csv").read_bytes() == before
    assert not (recorded / "skin_paper").exists()


def test_live_runs_can_be_kept_and_gone_on_with(recorded, tmp_path):
    settings = {"dataset": "phantom", "epochs": 1, "results": str(tmp_path / "mine")}
    records.gather("chest_paper", train="always", seeds=1, **settings)
    found = records.gather("chest_paper", train="missing", seeds=2, **settings)
    assert len(found.runs) == len(Ledger("chest_paper", tmp_path / "mine").runs()) == 6


def test_live_specs_are_the_settings_of_the_study_once_a_seed():
    specs = records.live_specs("chest_paper", "phantom", 32, 2, 1)
    assert len(set(specs)) == len(specs) == 3 * 2
    assert {(spec.size, spec.epochs, spec.dataset) for spec in specs} == {(32, 1, "phantom")}
    assert {spec.epochs for spec in records.live_specs("chest_paper", "phantom", 28, 1)} == {
        25,
        30,
    }
    grid = records.live_specs("grid", "ham10000", 28, 1, 1)
    assert {spec.split for spec in grid} == {"lesion"}
    assert len(grid) == 12 + 2 * 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"study": "chests"}, "study is 'chests'; allowed are chest_paper"),
        ({"train": "yes"}, "train is 'yes'; allowed are never, missing, always"),
        ({"train": True}, "train is True"),
        ({"dataset": "ham10000"}, "dataset is 'ham10000'; allowed are pneumoniamnist"),
        ({"dataset": 3}, "dataset is 3"),
        ({"size": 7}, "size is 7; give a whole number of 8 or more"),
        ({"size": "big"}, "size is 'big'"),
        ({"seeds": 0}, "seeds is 0; give a whole number of 1 or more"),
        ({"seeds": 1.5}, "seeds is 1.5"),
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": True}, "epochs is True"),
        ({"seeds": "3"}, "seeds is '3'; give a whole number.*papermill gives numbers"),
        ({"size": 28.0}, "size is 28.0"),
        ({"train": "true"}, "train is 'true'; allowed are"),
        ({"dataset": "None"}, "dataset is 'None'; allowed are"),
        ({"results": "None"}, "results is the text 'None'; papermill gives .* None with -p"),
        ({"results": "~nobody-of-that-name/runs"}, "results is '~nobody"),
        ({"results": ""}, "give the name of a folder"),
        ({"results": 5}, "results is 5"),
        ({"train": "never", "seeds": 3}, "but seeds is set; add train='always'"),
        ({"train": "never", "size": 28, "epochs": 1}, "size, epochs are set"),
        ({"train": "never", "results": "no-such-folder"}, "no folder to read from"),
    ],
)
def test_wrong_parameters_are_refused_in_a_sentence(wrong, message):
    given = {"study": "chest", "train": "always"} | wrong
    with pytest.raises(ValueError, match=message):
        records.gather(**given)


def test_numbers_of_numpy_are_numbers():
    records.check_whole("seeds", np.int64(2), 1)


def test_a_tilde_in_results_is_a_home(recorded, monkeypatch):
    monkeypatch.setenv("HOME", str(recorded))
    assert len(records.gather("chest", results="~").runs) == 1
    with pytest.raises(ValueError, match="must not mix"):
        records.gather("chest", train="always", results="~")


def test_the_recorded_results_are_no_place_for_live_runs(recorded):
    with pytest.raises(ValueError, match="must not mix"):
        records.gather("chest", train="always", results=str(recorded))
