"""Names, splits and sizes; what `load`, `catalogue`, `fetch` and `check` refuse alike."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from varreg.lab import datasets
from varreg.lab.datasets.core import assemble, content_hash
from varreg.lab.datasets.splits import split_by_group, split_by_row


@pytest.mark.parametrize("call", [datasets.load, datasets.fetch, datasets.check, datasets.splits])
@pytest.mark.parametrize("name", ["chestxray", "", None, "PneumoniaMNIST"])
def test_unknown_name(call, name):
    with pytest.raises(datasets.UnknownDatasetError, match=r"allowed are phantom, .*dermamnist"):
        call(name)


@pytest.mark.parametrize(
    ("name", "split", "allowed"),
    [("ham10000", "official", "paper, lesion"), ("phantom", "paper", "official")],
)
def test_unknown_split(name, split, allowed):
    with pytest.raises(datasets.UnknownDatasetError, match=f"'{split}'; allowed are {allowed}"):
        datasets.load(name, split=split)


@pytest.mark.parametrize("size", [28.0, "28", True, None])
def test_size_of_another_type(size):
    with pytest.raises(datasets.UnknownDatasetError, match="must be a whole number of pixels"):
        datasets.load("phantom", size=size)


@pytest.mark.parametrize("name", ["pneumoniamnist", "ham10000"])
def test_folder_that_does_not_exist(name, tmp_path, monkeypatch):
    with pytest.raises(datasets.DatasetNotFoundError, match=r"the given root is .*not a folder"):
        datasets.load(name, root=tmp_path / "nowhere")
    monkeypatch.setenv("VARREG_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(datasets.DatasetNotFoundError, match=r"VARREG_DATA is .*not a folder"):
        datasets.load(name)
    with pytest.raises(datasets.DatasetNotFoundError, match="not a folder"):
        datasets.catalogue()


def test_every_error_is_a_value_error_with_a_name():
    for name in datasets.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(datasets, name), datasets.DatasetError)
    assert issubclass(datasets.DatasetError, ValueError)


def test_catalogue_has_every_name_with_licence_and_citation():
    entries = datasets.catalogue()
    assert [entry.name for entry in entries] == list(datasets.names())
    for entry in entries:
        assert entry.task in ("binary", "multiclass", "multilabel")
        assert entry.classes >= 2
        assert all((entry.licence, entry.citation, entry.sizes, entry.state, entry.how))
        assert entry.splits == datasets.splits(entry.name)


def test_import_is_light_and_says_nothing():
    heavy = ["medmnist", "torchvision", "pooch", "sklearn", "pandas", "PIL", "matplotlib"]
    code = (
        "import sys; from varreg.lab import datasets; datasets.names(); "
        "datasets.load('phantom', size=16); datasets.catalogue(); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# Subsets and hashes.


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [(3, 2, "3 images and 2 labels"), (0, 0, "at least one image")],
)
def test_subset_refuses(images, labels, message):
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.Subset(torch.zeros(images, 1, 2, 2, dtype=torch.uint8), torch.zeros(labels))


@pytest.mark.parametrize(
    ("counts", "part"), [((0, 2, 2), "train"), ((2, 0, 2), "val"), ((2, 2, 0), "test")]
)
def test_empty_part(counts, part):
    with pytest.raises(datasets.DatasetError, match=f"the {part} part of tiny"):
        assemble(
            name="tiny",
            task="binary",
            class_names=("a", "b"),
            size=2,
            split="official",
            images=torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
            labels=np.zeros(4, dtype=int),
            counts=counts,
            source="made here",
            images_sha256="",
        )


def test_content_hash_tells_everything_apart():
    labels = np.array([0, 1, 1, 0])
    hashes = {
        content_hash("a", labels, (2, 1, 1)),
        content_hash("b", labels, (2, 1, 1)),
        content_hash("a", 1 - labels, (2, 1, 1)),
        content_hash("a", labels, (1, 2, 1)),
    }
    assert len(hashes) == 4
    assert content_hash("a", labels.astype(np.uint8), (2, 1, 1)) in hashes


# Splits.


@given(n=st.integers(5, 3000), seed=st.integers(0, 2**32 - 1))
def test_split_by_row_is_scikit_learns(n, seed):
    rows = np.arange(n)
    train, rest = train_test_split(rows, test_size=0.2, random_state=seed)
    if len(rest) > 1:
        test, val = train_test_split(rest, test_size=0.5, random_state=seed)
        for ours, theirs in zip(split_by_row(n, seed), (train, val, test), strict=True):
            assert np.array_equal(ours, theirs)


@given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=200),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_by_group_keeps_groups_together(sizes, seed):
    groups = [f"g{number}" for number, (_, size) in enumerate(sizes) for _ in range(size)]
    labels = [label for label, size in sizes for _ in range(size)]
    parts = split_by_group(groups, labels, seed)
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    held = [{groups[row] for row in part} for part in parts]
    assert sum(map(len, held)) == len(set(groups))
    for label in {label for label, _ in sizes}:
        n = sum(its == label for its, _ in sizes)
        for part in held[1:]:
            in_part = sum(sizes[int(group[1:])][0] == label for group in part)
            assert abs(in_part - n / 10) <= 0.5


def test_split_by_group_does_not_depend_on_the_order_of_rows():
    groups, labels = [f"g{i // 3}" for i in range(300)], [i // 150 for i in range(300)]
    order = np.random.default_rng(0).permutation(300)
    first = split_by_group(groups, labels)
    second = split_by_group([groups[i] for i in order], [labels[i] for i in order])
    for ours, theirs in zip(first, second, strict=True):
        assert {groups[i] for i in ours} == {groups[order[i]] for i in theirs}


def test_split_by_group_stays_what_it_was():
    groups = [f"lesion {i:03}" for i in range(100)]
    _, val, test = split_by_group(groups, [i % 2 for i in range(100)])
    assert test.tolist() == [5, 26, 34, 59, 60, 77, 78, 90, 91, 93]
    assert val.tolist() == [1, 21, 38, 45, 50, 52, 64, 79, 89, 96]
