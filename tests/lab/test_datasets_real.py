"""The real data, where they are: counts as published, splits as published, leaks as known."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

from varreg.lab import datasets

pytestmark = pytest.mark.data


def loaded(name: str, **arguments) -> datasets.Dataset:
    if not os.environ.get("VARREG_DATA"):
        pytest.skip("VARREG_DATA does not name a folder with the real data")
    try:
        return datasets.load(name, download=False, **arguments)
    except datasets.DatasetNotFoundError as error:
        pytest.skip(f"the folder that VARREG_DATA names has no {name}: {error}")


def counts(data: datasets.Dataset) -> list[list[int]]:
    return [part.labels.bincount().tolist() for part in (data.train, data.val, data.test)]


@pytest.fixture(scope="module")
def paper():
    return loaded("ham10000", split="paper")


@pytest.fixture(scope="module")
def lesion():
    return loaded("ham10000", split="lesion")


def test_pneumoniamnist():
    data = loaded("pneumoniamnist")
    assert counts(data) == [[1214, 3494], [135, 389], [234, 390]]
    # MedMNIST's published mean and deviation of the training images.
    pixels = data.train.images.double() / 255
    assert pixels.mean().item() == pytest.approx(0.5719, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.1684, abs=5e-5)
    assert "note: 8 val images are identical to one in train" in datasets.check("pneumoniamnist")


@pytest.mark.parametrize("name", ["pneumoniamnist", "chest_xray", "ham10000"])
def test_recorded_results_were_made_from_these(name, monkeypatch):
    monkeypatch.delenv("VARREG_RESULTS", raising=False)
    loaded(name)
    report = datasets.check(name)
    assert report.count("content: that of the recorded results") == len(datasets.splits(name))


def test_chest_xray():
    data = loaded("chest_xray")
    assert counts(data) == [[1341, 3875], [8, 8], [234, 390]]
    assert data.test.labels[:234].sum() == 0
    assert data.train.images.shape[1:] == (3, 28, 28)


def test_ham10000_has_the_published_counts(paper):
    total = np.sum(counts(paper), axis=0)
    names = dict(zip(paper.class_names, total.tolist(), strict=True))
    assert names == {
        "Actinic keratoses": 327,
        "Basal cell carcinoma": 514,
        "Benign keratosis-like lesions": 1099,
        "Dermatofibroma": 115,
        "Melanocytic nevi": 6705,
        "Melanoma": 1113,
        "Vascular lesions": 142,
    }


def test_paper_split_is_scikit_learns_over_the_table(paper):
    path = Path(os.environ["VARREG_DATA"]) / "ham10000" / "HAM10000_metadata.csv"
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    train, rest = train_test_split(rows, test_size=0.2, random_state=42)
    test, val = train_test_split(rest, test_size=0.5, random_state=42)
    assert [len(part) for part in (train, test, val)] == [8012, 1001, 1002]
    codes = ["akiec", "bcc", "bkl", "df", "nv", "mel", "vasc"]
    lesions = sorted({row["lesion_id"] for row in rows})
    for ours, theirs in ((paper.train, train), (paper.val, val), (paper.test, test)):
        assert ours.labels.tolist() == [codes.index(row["dx"]) for row in theirs]
        assert [lesions[code] for code in ours.groups] == [row["lesion_id"] for row in theirs]


def lesions(data: datasets.Dataset) -> list[set[int]]:
    return [set(part.groups.tolist()) for part in (data.train, data.val, data.test)]


def test_paper_split_leaks(paper):
    train, val, test = lesions(paper)
    assert len(train | val | test) == 7470
    assert len(test & train) == 386
    assert len(val & train) == 371
    shared = torch.isin(paper.test.groups, paper.train.groups)
    assert 0.3 < shared.float().mean() < 0.5


def test_lesion_split_does_not(lesion):
    train, val, test = lesions(lesion)
    assert len(train) + len(val) + len(test) == len(train | val | test) == 7470
    assert [len(part) for part in (train, val, test)] == [5976, 747, 747]
    share = np.array(counts(lesion)) / np.sum(counts(lesion), axis=0)
    assert share[0] == pytest.approx(np.full(7, 0.8), abs=0.05)


def test_both_splits_hold_the_same_images(paper, lesion):
    def everything(data):
        images = torch.cat([data.train.images, data.val.images, data.test.images])
        return sorted(image.numpy().tobytes() for image in images)

    assert everything(paper) == everything(lesion)
