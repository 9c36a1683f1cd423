"""Shares of the training images and wrong labels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from varreg.lab import datasets
from varreg.lab.subsets import fewer, mislabelled, nested_rows, wrong_labels

classes = st.lists(st.integers(0, 3), min_size=4, max_size=60).map(
    lambda n: torch.tensor([*n, 0, 1])
)
shares = st.floats(0.01, 1)


@given(classes, shares, shares, st.integers(0, 5))
def test_a_smaller_share_is_part_of_a_larger_one_and_every_class_is_there(labels, one, two, draw):
    small, large = (nested_rows(labels, share, draw) for share in sorted((one, two)))
    assert set(small) <= set(large) <= set(range(len(labels)))
    assert len(set(small)) == len(small)
    assert (np.diff(small) > 0).all()
    counts = torch.bincount(labels, minlength=4).numpy()
    kept = torch.bincount(labels[small], minlength=4).numpy()
    exact = min(one, two) * counts
    assert (kept >= exact - 1e-6).all()
    assert (kept < exact + 1).all()


@pytest.mark.parametrize(("share", "expected"), [(0.1, [3, 7]), (1 / 3, [10, 24]), (1.0, [30, 70])])
def test_a_share_is_not_rounded_up_for_what_binary_numbers_cannot_hold(share, expected):
    labels = torch.tensor([0] * 30 + [1] * 70)
    assert torch.bincount(labels[nested_rows(labels, share)]).tolist() == expected


def test_draws_are_others_and_repeat():
    labels = torch.arange(200) % 3
    rows = [tuple(nested_rows(labels, 0.1, draw)) for draw in (0, 1, 0)]
    assert rows[0] == rows[2] != rows[1]
    # NumPy's frozen stream: the same in every version, on every machine.
    assert rows[0][:6] == (4, 23, 25, 53, 58, 66)


def test_multi_label_images_are_drawn_whatever_their_labels():
    labels = (torch.arange(60).view(20, 3) % 2).float()
    assert len(nested_rows(labels, 0.25)) == 5


@given(classes, st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_as_many_labels_are_wrong_as_asked_and_a_smaller_share_is_part(labels, one, two, draw):
    low, high = sorted((one, two))
    small, large = (wrong_labels(labels, share, "multiclass", draw=draw) for share in (low, high))
    assert (small != labels).sum() == round(low * len(labels))
    changed = small != labels
    assert torch.equal(small[changed], large[changed])
    assert set(large.tolist()) <= set(range(int(labels.max()) + 1))


@given(classes, st.floats(0, 1))
def test_by_class_only_the_most_frequent_is_taken_for_the_next(labels, share):
    wrong = wrong_labels(labels, share, "multiclass", "by_class")
    counts = torch.bincount(labels)
    most = int(counts.argmax())
    changed = wrong != labels
    assert set(labels[changed].tolist()) <= {most}
    assert set(wrong[changed].tolist()) <= {(most + 1) % len(counts)}
    assert changed.sum() == round(share * int(counts[most]))


def test_any_other_class_is_as_likely():
    labels = torch.zeros(30_000, dtype=torch.int64)
    labels[0] = 3
    found = torch.bincount(wrong_labels(labels, 1.0, "multiclass"), minlength=4)[1:]
    # Three classes at random: 10,000 each, with a standard deviation of 82.
    assert (found - 10_000).abs().max() < 5 * 82


def test_labels_of_several_kinds_of_tasks():
    binary = torch.tensor([0, 1, 1, 1])
    assert torch.equal(wrong_labels(binary, 1.0, "binary"), 1 - binary)
    assert wrong_labels(binary, 1.0, "binary", "by_class").tolist() == [0, 0, 0, 0]
    several = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    turned = wrong_labels(several, 0.5, "multilabel")
    assert turned.dtype == torch.float32
    assert (turned != several).sum() == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y: nested_rows(y, 0), r"train_share is 0; it must lie in \(0, 1\]"),
        (lambda y: nested_rows(y, float("inf")), "train_share is inf"),
        (lambda y: nested_rows(y, "half"), "train_share is 'half'"),
        (lambda y: nested_rows(y, 0.5, 1.5), "draw is 1.5; it must be an integer"),
        (lambda y: nested_rows(y, 0.5, -1), "draw is -1; it must be 0 to"),
        (lambda y: wrong_labels(y, 1.1, "binary"), r"wrong_labels is 1.1; it must lie in \[0, 1\]"),
        (lambda y: wrong_labels(y, 0.1, "binary", "odd"), "kind of the wrong labels is 'odd'"),
        (lambda y: wrong_labels(0 * y, 0.1, "multiclass"), "labels hold a single class"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.tensor([0, 1, 0, 1]))


def test_data_sets_keep_what_belongs_to_each_image():
    data = datasets.load("phantom")
    rows = nested_rows(data.train.labels, 0.1, 2)
    few = fewer(data, 0.1, 2)
    assert torch.equal(few.train.images, data.train.images[rows])
    assert few.test is data.test
    wrong = mislabelled(few, 0.2, draw=2)
    assert (wrong.train.labels != few.train.labels).sum() == round(0.2 * len(few.train))
    assert (wrong.val.labels != data.val.labels).sum() == round(0.2 * len(data.val))
    assert wrong.test is data.test
