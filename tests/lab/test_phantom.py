"""Phantoms: the same at every call, of any size, with a signal and with a trap."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import RidgeClassifier

from varreg.lab import datasets
from varreg.lab.datasets.phantom import CLASS_NAMES, COUNTS, draw

shapes = st.fixed_dictionaries(
    {
        "n": st.integers(1, 20),
        "size": st.integers(16, 70),
        "n_classes": st.sampled_from([2, 7]),
        "channels": st.sampled_from([1, 3]),
        "seed": st.integers(0, 2**63),
        "spurious": st.floats(0, 1),
    }
)


@given(shapes)
def test_any_shape_and_the_same_at_every_call(wanted):
    first, second = draw(**wanted), draw(**wanted)
    n, size = wanted["n"], wanted["size"]
    assert first.images.shape == (n, wanted["channels"], size, size)
    assert first.images.dtype == np.uint8
    for ours, again in zip(first, second, strict=True):
        assert np.array_equal(ours, again)
    for codes in (first.labels, first.markers):
        assert codes.dtype == np.int64
        assert codes.shape == (n,)
        assert set(codes.tolist()) <= set(range(wanted["n_classes"]))
    assert np.ptp(np.bincount(first.labels, minlength=wanted["n_classes"])) <= 1


@pytest.mark.parametrize("n_classes", [2, 7])
def test_seeds_give_other_images(n_classes):
    first, second = (draw(4, n_classes=n_classes, seed=seed).images for seed in (0, 1))
    assert not (first == second).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("n_classes", [2, 7])
def test_channels(n_classes):
    grey, colour = (draw(8, n_classes=n_classes, channels=c, seed=3).images for c in (1, 3))
    if n_classes == 2:
        assert (colour == grey).all()
    else:
        luminance = np.einsum("nchw,c->nhw", colour.astype(float), [0.299, 0.587, 0.114])
        assert np.abs(luminance - grey[:, 0]).max() <= 1.5
        assert colour.std(axis=1).mean() > 10


@pytest.mark.parametrize("n_classes", [2, 7])
@pytest.mark.parametrize("size", [28, 112])
def test_images_have_contrast_and_texture(n_classes, size):
    images = draw(70, n_classes=n_classes, size=size).images.astype(float)
    assert 60 < images.mean() < 200
    assert (images.std(axis=(2, 3)) > 8).all()
    assert ((images <= 0) | (images >= 255)).mean() < 0.05


@pytest.mark.parametrize("n_classes", [2, 7])
@pytest.mark.parametrize(
    ("spurious", "low", "high"), [(0, -0.06, 0.06), (0.6, 0.54, 0.66), (1, 1, 1)]
)
def test_marker_tells_as_much_as_asked(n_classes, spurious, low, high):
    _, labels, markers = draw(4200, size=16, n_classes=n_classes, spurious=spurious)
    chance = 1 / n_classes
    agreement = ((labels == markers).mean() - chance) / (1 - chance)
    assert low <= agreement <= high
    assert np.bincount(markers, minlength=n_classes).min() > 0.8 * 4200 * chance


@pytest.mark.parametrize("n_classes", [2, 7])
@pytest.mark.parametrize("size", [16, 28, 45, 96])
def test_marker_is_drawn_where_it_says(n_classes, size):
    images, _, markers = draw(140, n_classes=n_classes, size=size, spurious=0)
    top = images[:, 0, : size // 8 + 1].max(axis=1) if n_classes == 2 else None
    if top is None:  # ink is blue: the red channel is low
        top = 255 - images[:, 0].astype(int)[:, : size // 8].min(axis=1)
    n_apart = {place: top[markers == place].mean(axis=0) for place in range(n_classes)}
    brightest = [int(n_apart[place].argmax()) for place in range(n_classes)]
    assert brightest == sorted(set(brightest))


def pixels(subset: datasets.Subset, rows: slice) -> np.ndarray:
    return subset.images[:, :, rows].float().reshape(len(subset), -1).numpy() / 255


@pytest.mark.parametrize(("name", "chance"), [("phantom", 0.5), ("phantom7", 1 / 7)])
def test_trap_and_signal(name, chance):
    data = datasets.load(name)
    labels = [part.labels.numpy() for part in (data.train, data.val, data.test)]
    accuracy = {}
    for what, rows in (("trap", slice(0, 4)), ("signal", slice(4, 28))):
        model = RidgeClassifier(alpha=30)
        model.fit(pixels(data.train, rows), labels[0])
        accuracy[what] = [
            model.score(pixels(part, rows), its)
            for part, its in zip((data.train, data.val, data.test), labels, strict=True)
        ]
    # What stands at the upper edge helps in training only; what stands below it helps everywhere.
    assert accuracy["trap"][0] > chance + 0.25
    assert max(accuracy["trap"][1:]) < chance + 0.12
    assert min(accuracy["signal"]) > chance + 0.12


def test_load():
    for name, task, classes, channels in (
        ("phantom", "binary", 2, 1),
        ("phantom7", "multiclass", 7, 3),
    ):
        data = datasets.load(name, size=20)
        assert (data.name, data.task, data.size, data.split) == (name, task, 20, "official")
        assert data.class_names == CLASS_NAMES[classes]
        assert (data.channels, data.spatial_dims) == (channels, 2)
        assert data.n_outputs == (1 if classes == 2 else 7)
        for part, count in COUNTS.items():
            subset = getattr(data, part)
            assert subset.images.shape == (count, channels, 20, 20)
            assert subset.images.dtype == torch.uint8
            assert subset.labels.dtype == torch.int64
            assert subset.labels.bincount().min() >= count // classes
        assert "drawn" in data.source
        assert data.sha256 == datasets.load(name, size=20).sha256
        assert "as it should be" in datasets.check(name, size=20)
        assert "nothing to fetch" in datasets.fetch(name)
    assert datasets.load("phantom", size=20).sha256 != datasets.load("phantom").sha256


def test_parts_share_no_image():
    data = datasets.load("phantom")
    images = [bytes(x.numpy()) for part in (data.train, data.val, data.test) for x in part.images]
    assert len(set(images)) == len(images)


def test_five_thousand_images_take_seconds():
    start = time.process_time()
    draw(5000, n_classes=7, channels=3)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0; at least one"),
        ({"size": 15}, "size is 15; .*any size from 16"),
        ({"n_classes": 3}, "n_classes is 3; allowed are 2, 7"),
        ({"channels": 2}, "channels is 2; allowed are 1, 3"),
        ({"spurious": 1.1}, "spurious is 1.1"),
        ({"spurious": -0.1}, "spurious is -0.1"),
        ({"spurious": float("nan")}, "spurious is nan"),
    ],
)
def test_draw_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(**({"n": 2} | arguments))


def test_load_refuses_small_sizes():
    with pytest.raises(datasets.UnknownDatasetError, match="any size from 16 pixels, not in 8"):
        datasets.load("phantom", size=8)
