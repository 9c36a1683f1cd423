"""Training recorded runs once more, beside the record."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from companion import again
from companion.probes import PROBES
from companion.studies import STUDIES
from varreg.lab.runs import execute, run_all
from varreg.lab.specs import RunSpec

ROOT = Path(__file__).parents[2]
RUN = RunSpec(study="networks", dataset="phantom", method="baseline", size=16, epochs=2, seed=0)
RUNS = [dataclasses.replace(RUN, seed=seed) for seed in range(3)]


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A folder in which two of three runs of a study are recorded."""
    monkeypatch.setattr(again, "specs", lambda study: RUNS)
    run_all(RUNS[:2], results=tmp_path)
    return tmp_path


def test_a_recorded_run_comes_out_again_in_every_number(record):
    before = {path: path.read_bytes() for path in record.rglob("*.csv")}
    (row,) = again.trained(["networks"], "always", results=record).to_dict("records")
    assert row["Run"].endswith("seed 0")
    runs = pd.read_csv(record / "networks" / "runs.csv")
    assert row["Test cross-entropy"] == row["Again"] == f"{runs['test_cross_entropy'][0]:.5f}"
    epochs = pd.read_csv(record / "networks" / "curves.csv")
    assert row["Numbers"] == row["Equal"] > 2 * (epochs.shape[1] - 2)
    assert row["Largest difference"] == "0"
    assert before == {path: path.read_bytes() for path in record.rglob("*.csv")}


def test_a_number_that_was_changed_shows(record):
    path = record / "networks" / "runs.csv"
    runs = pd.read_csv(path, dtype=str)
    told = float(runs.loc[0, "test_cross_entropy"])
    runs.loc[0, "test_cross_entropy"] = f"{told + 0.125:.8g}"
    runs.to_csv(path, index=False)
    (row,) = again.trained(["networks"], "always", results=record).to_dict("records")
    assert row["Equal"] == row["Numbers"] - 1
    assert float(row["Largest difference"]) == pytest.approx(0.125, abs=0.01)
    assert (row["Test cross-entropy"], row["Again"]) == (f"{told + 0.125:.5f}", f"{told:.5f}")


def test_a_number_that_was_lost_is_no_difference_of_zero(record, monkeypatch):
    def lost(job, **where):
        row, epochs = execute(job, **where)
        return row | {"test_auroc": math.nan}, epochs

    monkeypatch.setattr(again, "execute", lost)
    (row,) = again.trained(["networks"], "always", results=record).to_dict("records")
    assert (row["Equal"], row["Largest difference"]) == (row["Numbers"] - 1, "inf")


def test_a_part_is_chosen_by_settings_and_holds_what_is_recorded(record):
    shown = again.trained(["networks"], "always", "networks seed=1,2 method=baseline", record)
    assert shown["Run"].str.endswith("seed 1").tolist() == [True]
    with pytest.raises(ValueError, match=r"none of the 1 runs of part='networks seed=2' is"):
        again.trained(["networks"], "always", "networks seed=2", record)


def test_units_of_a_probe_come_out_again():
    part = "phantom_volumes seed=3 method=fixed"
    shown = again.trained(["beyond", "phantom_volumes"], "always", part)
    (row,) = shown.to_dict("records")
    assert row["Run"] == "method fixed, seed 3"
    assert row["Numbers"] > 100
    assert float(row["Largest difference"]) < 0.2  # 0 on a machine that adds as the recording one


@pytest.mark.parametrize(
    ("train", "part", "message"),
    [
        ("missing", None, "train is 'missing'; allowed are never, always"),
        ("never", "networks", "part is 'networks', and train is 'never'; add train='always'"),
        ("always", "rivals", "study of part is 'rivals'; allowed are networks, layers"),
        ("always", "networks depth=2", "a setting of part is 'depth'; allowed are epochs"),
        ("always", "networks seed=7", "part has seed='7'; allowed are 0, 1, 2"),
        ("always", "networks seed", "part has seed=''; allowed are 0, 1, 2"),
        ("always", "layers weight=none layers=last", "no run has weight=none layers=last"),
    ],
)
def test_a_wrong_part_is_refused_in_a_sentence(record, train, part, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        again.trained(["networks", "layers"], train, part, record)


def pages() -> list[tuple[str, list[str], str]]:
    """Notebook, studies and the part that its text proposes, of each that can train again."""
    found = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        if studies := re.search(r"^studies = (\[.*\])$", text, flags=re.M):
            (part,) = re.findall(r'`-p part "(.*?)"`', text)
            found.append((path.stem, ast.literal_eval(studies[1]), part))
    return found


@pytest.mark.parametrize(("name", "studies", "part"), pages(), ids=[page[0] for page in pages()])
def test_pages_propose_parts_that_there_are(name, studies, part):
    assert set(studies) <= {*STUDIES, *PROBES}
    study, *settings = part.split()
    assert study in studies
    assert 1 <= len(again._chosen(again._jobs(study), settings)) <= 4


def test_every_page_of_evidence_can_train_again():
    assert {name[:2] for name, _, _ in pages()} == {"05", "06", "07", "08", "09", "11"}
