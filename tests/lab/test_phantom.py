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
from varreg.lab.datasets import phantom
from varreg.lab.datasets.phantom import (
    CLASS_NAMES,
    COUNTS,
    KINDS,
    counterfactuals,
    draw,
    part_arguments,
)

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


# Mean of each image, and with weights that rise from the first value to the last.
DRAWN = {
    2: (
        [1, 1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [119.675, 120.633, 109.065, 109.334, 112.505, 117.963],
        [62.941, 63.634, 58.835, 58.274, 58.896, 61.419],
    ),
    7: (
        [3, 1, 4, 5, 2, 0],
        [3, 3, 4, 5, 2, 0],
        [145.066, 151.671, 142.592, 133.244, 161.137, 140.17],
        [66.241, 69.139, 65.64, 60.928, 72.872, 62.665],
    ),
}


@pytest.mark.parametrize("n_classes", [2, 7])
def test_the_pictures_stay_as_they_were_first_drawn(n_classes):
    channels = {2: 1, 7: 3}[n_classes]
    found = draw(6, n_classes=n_classes, channels=channels, seed=11)
    labels, markers, means, weighted = DRAWN[n_classes]
    assert (found.labels.tolist(), found.markers.tolist()) == (labels, markers)
    images = found.images.astype(float)
    rising = (np.arange(images[0].size) / images[0].size).reshape(images[0].shape)
    # Another processor rounds a few pixels to the next of 256 values: 0.0013 each.
    np.testing.assert_allclose(images.mean((1, 2, 3)), means, atol=0.01)
    np.testing.assert_allclose((images * rising).mean((1, 2, 3)), weighted, atol=0.01)


@pytest.mark.parametrize("name", KINDS)
def test_counterfactuals_are_the_drawn_images_and_differ_in_their_marker_alone(name):
    test = datasets.load(name).test
    found = counterfactuals(**part_arguments(name, "test"))
    n, places = len(found.labels), found.places
    assert np.array_equal(found.labels, test.labels.numpy())
    assert np.array_equal(found.images[found.markers, np.arange(n)], test.images.numpy())
    without, columns = found.images[-1], []
    for images in found.images[:-1]:
        changed = (images != without).any(axis=1)
        assert changed.any(axis=(1, 2)).all()
        assert not changed[:, ~places].any()
        columns.append(np.flatnonzero(changed.any(axis=(0, 1))).mean())
    assert columns == sorted(set(columns))
    assert places.mean() < 0.1


@pytest.mark.parametrize("n_classes", [2, 7])
@given(shapes)
def test_counterfactuals_of_any_shape(n_classes, wanted):
    wanted = wanted | {"n_classes": n_classes}
    found, drawn = counterfactuals(**wanted), draw(**wanted)
    own = found.images[found.markers, np.arange(wanted["n"])]
    assert np.array_equal(own, drawn.images)
    assert found.images.shape == (n_classes + 1, *drawn.images.shape)
    assert found.lesions.shape == (wanted["n"], wanted["size"], wanted["size"])
    assert found.lesions.dtype == found.places.dtype == bool
    if n_classes == 2:
        assert not found.lesions[found.labels == 0].any()


def test_a_lesion_of_a_radiograph_is_where_brightness_was_added(monkeypatch):
    found = counterfactuals(200, size=64, seed=4)
    draw_opacities = phantom._opacities

    def none(*given):
        added, inside = draw_opacities(*given)
        return np.zeros_like(added), inside

    monkeypatch.setattr(phantom, "_opacities", none)
    plain = counterfactuals(200, size=64, seed=4)
    added = found.images[-1, :, 0].astype(float) - plain.images[-1, :, 0]
    ill = found.labels == 1
    assert found.lesions[ill].any(axis=(1, 2)).mean() > 0.99
    assert added[found.lesions].mean() > 8 * added[ill][~found.lesions[ill]].mean()
    assert 0.04 < found.lesions[ill].mean() < 0.25
    # The brightest spot of an opacity lies in it, where it was not drawn over by another.
    brightest = added[ill].reshape(ill.sum(), -1).argmax(1)
    assert found.lesions[ill].reshape(ill.sum(), -1)[range(ill.sum()), brightest].mean() > 0.97


def test_a_lesion_of_the_skin_is_darker_than_the_skin_around_it():
    found = counterfactuals(140, size=64, n_classes=7, channels=1, seed=4)
    brown = np.isin(found.labels, [4, 5])
    pictures, lesions = found.images[-1, brown, 0], found.lesions[brown]
    assert all(p[m].mean() < p[~m].mean() - 40 for p, m in zip(pictures, lesions, strict=True))


def test_a_shortcut_moves_markers_and_nothing_else():
    plain = datasets.load("phantom")
    shortcut = phantom.load("phantom", 28, phantom.SPURIOUS | {"train": 0.9, "val": 0.9})
    assert shortcut.sha256 != plain.sha256
    assert torch.equal(shortcut.test.images, plain.test.images)
    for part in ("train", "val"):
        ours, theirs = getattr(shortcut, part), getattr(plain, part)
        assert torch.equal(ours.labels, theirs.labels)
        changed = (ours.images != theirs.images)[:, 0].numpy()
        assert 0.05 < changed.any(axis=(1, 2)).mean() < 0.6
        assert not changed[:, 4:].any()


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("phantom8", "test"), "name is 'phantom8'; allowed are phantom, phantom7"),
        (("phantom", "rest"), "part is 'rest'; allowed are train, val, test"),
    ],
)
def test_arguments_of_no_part(given, message):
    with pytest.raises(ValueError, match=message):
        part_arguments(*given)


def test_load_refuses_small_sizes():
    with pytest.raises(datasets.UnknownDatasetError, match="any size from 16 pixels, not in 8"):
        datasets.load("phantom", size=8)
