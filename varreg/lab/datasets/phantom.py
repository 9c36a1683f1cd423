"""Phantoms: pictures of tissue with lesions, drawn by seeded NumPy code.

Two kinds, after the two data sets of the paper: radiographs that are clear or show an opacity, and
skin with one of seven kinds of lesion. Everything that decides the class is known, and so is one
thing that must not: a marker at the upper edge, whose place goes with the class in the training
part and is drawn independently of it in the validation and test parts. A network that reads the
marker does well in training and badly elsewhere, so early stopping and every other choice that is
made on the validation part is made on images where the marker does not help.

:func:`counterfactuals` draws the same pictures with the marker in each of its places and without
it, and says which pixels the lesion covers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from varreg.checks import check_choice, check_range
from varreg.lab.datasets.cache import hash_bytes
from varreg.lab.datasets.core import Dataset, UnknownDatasetError, assemble

CLASS_NAMES = {
    2: ("clear", "opacity"),
    7: ("rough red", "pearly", "waxy", "pale centre", "round brown", "irregular dark", "purple"),
}
KINDS = {"phantom": (2, 1), "phantom7": (7, 3)}  # classes and channels
COUNTS = {"train": 1200, "val": 300, "test": 600}
SPURIOUS = {"train": 0.6, "val": 0.0, "test": 0.0}
MIN_SIZE = 16  # pixels
BLOCK = 2**18  # pixels drawn at a time, so that large images need little memory

# The seven lesions, one row a class: colour of the middle and of the border, radius, how irregular
# and how soft the border is, and how mottled the inside is.
LESIONS = np.array(
    [
        # middle           border           radius irregular soft mottled
        [0.72, 0.42, 0.38, 0.80, 0.55, 0.48, 0.52, 0.16, 0.22, 0.60],
        [0.80, 0.60, 0.58, 0.62, 0.38, 0.36, 0.40, 0.09, 0.12, 0.45],
        [0.58, 0.42, 0.30, 0.52, 0.35, 0.25, 0.55, 0.10, 0.06, 0.55],
        [0.86, 0.72, 0.66, 0.56, 0.38, 0.30, 0.36, 0.05, 0.20, 0.20],
        [0.42, 0.27, 0.20, 0.60, 0.42, 0.32, 0.42, 0.05, 0.14, 0.20],
        [0.22, 0.16, 0.17, 0.40, 0.25, 0.20, 0.60, 0.20, 0.08, 0.70],
        [0.46, 0.16, 0.26, 0.62, 0.24, 0.28, 0.34, 0.07, 0.08, 0.25],
    ],
    dtype=np.float32,
)
SKIN = np.array([0.86, 0.68, 0.59], dtype=np.float32)
INK = np.array([0.25, 0.28, 0.55], dtype=np.float32)
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class Drawing(NamedTuple):
    """What :func:`draw` returns.

    Attributes:
        images: ``uint8``, ``(N, C, size, size)``.
        labels: ``int64``, ``(N,)``, as many of each class as possible.
        markers: ``int64``, ``(N,)``, place of the marker, counted from the left like the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    markers: np.ndarray


class Counterfactuals(NamedTuple):
    """What :func:`counterfactuals` returns.

    Attributes:
        images: ``uint8``, ``(n_classes + 1, N, C, size, size)``: the same pictures with the marker
            in the place of each class, and last without a marker.
        labels: ``int64``, ``(N,)``.
        markers: ``int64``, ``(N,)``, where the marker of the drawn image stands.
        lesions: ``bool``, ``(N, size, size)``, pixels within the border of what makes the class:
            opacities, as far as they lie in the lungs, or the skin lesion. None in a clear
            radiograph: the faint spots that every radiograph has tell nothing.
        places: ``bool``, ``(size, size)``, pixels where a marker can stand.
    """

    images: np.ndarray
    labels: np.ndarray
    markers: np.ndarray
    lesions: np.ndarray
    places: np.ndarray


def draw(
    n: int,
    *,
    size: int = 28,
    n_classes: int = 2,
    channels: int = 1,
    seed: int = 0,
    spurious: float = 0.9,
) -> Drawing:
    """Draws phantoms.

    Args:
        n: number of images, at least 1.
        size: height and width in pixels, at least 16.
        n_classes: 2 for radiographs (clear, opacity), 7 for skin lesions.
        channels: 1 for grey, 3 for RGB.
        seed: the same seed gives the same images (on another processor up to rounding).
        spurious: how much the marker tells about the class. An image's marker stands in the place
            of its class with this probability, else in a random place: 0 makes the two independent,
            1 makes them the same.

    Returns:
        Images, labels and places of the markers.

    Raises:
        ValueError: If an argument is not among these.

    Example:
        >>> images, labels, markers = draw(600, size=32, n_classes=7, channels=3)
        >>> images.shape, images.dtype, sorted(set(labels.tolist()))
        ((600, 3, 32, 32), dtype('uint8'), [0, 1, 2, 3, 4, 5, 6])
        >>> bool((labels == markers).mean() > 0.85)
        True
    """
    labels, markers, blocks = _drawn(n, size, n_classes, channels, seed, spurious)
    images = np.empty((n, channels, size, size), dtype=np.uint8)
    for block, picture, _ in blocks:
        _finish(picture, markers[block], n_classes, images[block])
    return Drawing(images, labels, markers)


def counterfactuals(
    n: int,
    *,
    size: int = 28,
    n_classes: int = 2,
    channels: int = 1,
    seed: int = 0,
    spurious: float = 0.9,
) -> Counterfactuals:
    """Draws the phantoms of :func:`draw`, each with every marker and with none.

    Args:
        n: as for :func:`draw`, also the other arguments.
        size: height and width in pixels.
        n_classes: 2 or 7.
        channels: 1 or 3.
        seed: the same seed gives the images of :func:`draw`.
        spurious: how much the marker of the drawn image tells about the class.

    Raises:
        ValueError: If an argument is not among these.

    Example:
        >>> found = counterfactuals(100, seed=1)
        >>> as_drawn = found.images[found.markers, np.arange(100)]
        >>> bool((as_drawn == draw(100, seed=1).images).all())
        True
    """
    labels, markers, blocks = _drawn(n, size, n_classes, channels, seed, spurious)
    images = np.empty((n_classes + 1, n, channels, size, size), dtype=np.uint8)
    lesions = np.empty((n, size, size), dtype=bool)
    for block, picture, lesion in blocks:
        lesions[block] = lesion
        for place in range(n_classes):
            _finish(picture, np.full(len(picture), place), n_classes, images[place, block])
        _finish(picture, None, n_classes, images[-1, block])
    places = cast("np.ndarray", _marker(np.arange(n_classes), n_classes, size).any(axis=0))
    return Counterfactuals(images, labels, markers, lesions, places)


def part_arguments(name: str, part: str, size: int = 28) -> dict[str, Any]:
    """What :func:`draw` is given for a part of ``phantom`` or ``phantom7``.

    Args:
        name: ``"phantom"`` or ``"phantom7"``.
        part: ``"train"``, ``"val"`` or ``"test"``.
        size: height and width in pixels.

    Raises:
        ValueError: If there is no such data set or part.

    Example:
        >>> part_arguments("phantom", "val")["n"]
        300
    """
    for what, given, allowed in (("name", name, KINDS), ("part", part, COUNTS)):
        if given not in allowed:
            raise ValueError(f"{what} is {given!r}; allowed are {', '.join(allowed)}")
    n_classes, channels = KINDS[name]
    return {
        "n": COUNTS[part],
        "size": size,
        "n_classes": n_classes,
        "channels": channels,
        "seed": list(COUNTS).index(part),
        "spurious": SPURIOUS[part],
    }


def load(name: str, size: int, spurious: Mapping[str, float] = SPURIOUS) -> Dataset:
    """Draws ``phantom`` or ``phantom7`` in three parts; see :func:`varreg.lab.datasets.load`.

    Args:
        name: ``"phantom"`` or ``"phantom7"``.
        size: height and width in pixels.
        spurious: how much the marker tells about the class, by part. The pictures are the same
            whatever it is: only markers move.
    """
    if size < MIN_SIZE:
        raise UnknownDatasetError(f"{name} comes in any size from {MIN_SIZE} pixels, not in {size}")
    parts = [
        draw(**part_arguments(name, part, size) | {"spurious": spurious[part]}) for part in COUNTS
    ]
    n_classes = KINDS[name][0]
    # Channels last in memory, like all the other data sets.
    images = np.concatenate([part.images for part in parts])
    images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return assemble(
        name=name,
        task="binary" if n_classes == 2 else "multiclass",
        class_names=CLASS_NAMES[n_classes],
        size=size,
        split="official",
        images=torch.from_numpy(images).movedim(-1, 1),
        labels=np.concatenate([part.labels for part in parts]),
        counts=tuple(COUNTS.values()),
        source="drawn by varreg.lab.datasets.phantom",
        images_sha256=hash_bytes(images),
    )


def _drawn(
    n: int, size: int, n_classes: int, channels: int, seed: int, spurious: float
) -> tuple[np.ndarray, np.ndarray, Iterator[tuple[slice, np.ndarray, np.ndarray]]]:
    """Labels, places of the markers and, block by block, pictures without them and lesions."""
    if n < 1:
        raise ValueError(f"n is {n}; at least one image can be drawn")
    if size < MIN_SIZE:
        raise ValueError(f"size is {size}; phantoms come in any size from {MIN_SIZE} pixels")
    check_choice("n_classes", n_classes, CLASS_NAMES)
    check_choice("channels", channels, (1, 3))
    check_range("spurious", spurious, 1, ends="[]")
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % n_classes)
    anywhere = random.integers(0, n_classes, n)
    markers = np.where(random.random(n) < spurious, labels, anywhere)
    paint = _radiographs if n_classes == 2 else _skin
    step = max(1, BLOCK // size**2)
    parts = (slice(start, start + step) for start in range(0, n, step))
    return labels, markers, ((part, *paint(random, labels[part], size)) for part in parts)


def _finish(
    picture: np.ndarray, markers: np.ndarray | None, n_classes: int, out: np.ndarray
) -> None:
    """Stamp the markers, if there are any, and write the picture as bytes."""
    if markers is not None:
        stamp = _marker(markers, n_classes, picture.shape[-1])[:, None]
        ink = np.float32(0.93) if n_classes == 2 else INK[:, None, None]
        picture = picture * (1 - stamp) + ink * stamp
    if picture.shape[1] > out.shape[1]:
        picture = np.einsum("nchw,c->nhw", picture, LUMINANCE)[:, None]
    out[:] = np.clip(picture * 255 + 0.5, 0, 255)  # one channel broadcasts to three


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels, x to the right and y down, from -1 to 1."""
    centres = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    share: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return share


def _uniform(random: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    """One number an image, shaped to broadcast over its pixels."""
    return random.uniform(low, high, (n, 1, 1)).astype(np.float32)


def _texture(
    random: np.random.Generator, n: int, size: int, coarse: int = 3, decay: float = 0.6
) -> np.ndarray:
    """Smooth noise on many scales, ``(n, size, size)``, mean near 0 and deviation near 1.

    A sum of random grids, each twice as fine as the one before and weaker by ``decay``,
    interpolated with cubic B-splines.
    """
    total = np.zeros((n, size, size), dtype=np.float32)
    weight, power, knots = 1.0, 0.0, coarse
    while knots <= size // 2:
        at = np.linspace(1, knots + 1, size, dtype=np.float32)[:, None]
        distance = np.abs(at - np.arange(knots + 3, dtype=np.float32))
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = np.maximum(2 - distance, 0) ** 3 / 6
        spline = np.where(distance < 1, near, far).astype(np.float32)
        spline /= np.sqrt(np.square(spline).sum(1).mean())  # keeps the deviation of the grid
        grid = random.standard_normal((n, knots + 3, knots + 3), dtype=np.float32)
        total += np.float32(weight) * (spline @ grid @ spline.T)
        power += weight**2
        weight, knots = weight * decay, knots * 2
    return total / np.float32(np.sqrt(power))


def _marker(markers: np.ndarray, n_classes: int, size: int) -> np.ndarray:
    """Where the marker's small block stands, 1 inside and 0 outside, ``(n, size, size)``."""
    x, y = _grid(size)
    centre = ((markers + 0.5) / n_classes * 2 - 1) * 0.82
    across = np.abs(x - centre[:, None, None].astype(np.float32)) < 0.09
    inside: np.ndarray = (across & (np.abs(y + 0.88) < 0.07)).astype(np.float32)
    return inside


def _radiographs(
    random: np.random.Generator, labels: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Chest-like pictures, ``(n, 1, size, size)``, and where their opacities are.

    Two lungs, ribs, a heart, perhaps opacities.
    """
    n = len(labels)
    x, y = _grid(size)
    x = x + _uniform(random, -0.06, 0.06, n)
    y = y + _uniform(random, -0.06, 0.06, n)
    tissue = _texture(random, n, size)
    warp = 0.08 * _texture(random, n, size, decay=0.4)

    lungs = np.zeros((n, size, size), dtype=np.float32)
    for side in (-1, 1):
        width, height = _uniform(random, 0.27, 0.37, n), _uniform(random, 0.58, 0.74, n)
        reach = np.hypot((x - side * (0.43 + 0.06 * y)) / width, (y - 0.02) / height) + warp
        lungs = np.maximum(lungs, _sigmoid((1 - reach) * 9))
    heart = _sigmoid((1 - np.hypot((x - 0.14) / 0.30, (y - 0.38) / 0.34) - warp) * 7)
    spine = np.exp(-((x / 0.13) ** 2))
    ribs = np.sin(_uniform(random, 11, 15, n) * (y + 0.35 * x**2) + _uniform(random, 0, 6.3, n))
    outside = _sigmoid((np.hypot(x / 1.02, np.minimum(y, 0) / 1.25) - 0.95) * 12)

    picture = 0.62 + 0.04 * tissue + 0.08 * spine
    picture -= lungs * (_uniform(random, 0.36, 0.44, n) - 0.05 * ribs - 0.03 * tissue)
    picture += lungs * 0.22 * heart
    opacity, lesions = _opacities(random, labels, lungs, x, y)
    picture += opacity
    picture *= 1 - 0.85 * outside
    picture = (picture - 0.5) * _uniform(random, 0.9, 1.1, n) + _uniform(random, 0.45, 0.53, n)
    picture += 0.02 * random.standard_normal(picture.shape, dtype=np.float32)
    return picture[:, None], lesions


def _opacities(
    random: np.random.Generator, labels: np.ndarray, lungs: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Brightness that is added, and the pixels in the lungs that lie within an opacity's border.

    Faint small spots in every image, up to three opacities in some.
    """
    n, size = len(labels), lungs.shape[-1]
    total, inside = np.zeros_like(lungs), np.zeros(lungs.shape, dtype=bool)
    ill = (labels == 1)[:, None, None]
    for number in range(3):
        side = np.where(random.random((n, 1, 1)) < 0.5, -1, 1).astype(np.float32)
        centre_x = side * _uniform(random, 0.30, 0.58, n)
        centre_y = _uniform(random, -0.45, 0.55, n)
        radius = np.where(ill, _uniform(random, 0.22, 0.40, n), _uniform(random, 0.06, 0.14, n))
        reach = np.hypot(x - centre_x, (y - centre_y) / _uniform(random, 0.8, 1.4, n)) / radius
        ragged = reach + 0.30 * _texture(random, n, size, coarse=5)
        here = random.random((n, 1, 1)) < (0.45 if number else 1)
        strength = np.where(ill, _uniform(random, 0.18, 0.38, n), _uniform(random, 0.05, 0.20, n))
        total += here * strength * _sigmoid((1 - ragged) * 5)
        inside |= ill & here & (ragged < 1)
    return total * lungs, inside & (lungs > 0.5)


def _skin(
    random: np.random.Generator, labels: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Dermoscopy-like pictures, ``(n, 3, size, size)``, and where their lesion is.

    Skin, one lesion, a few hairs.
    """
    n = len(labels)
    x, y = _grid(size)
    traits = LESIONS[labels]
    middle, border = (
        traits[:, part, None, None] + random.normal(0, 0.05, (n, 1, 1, 1)).astype(np.float32)
        for part in (slice(0, 3), slice(3, 6))
    )
    radius, irregular, soft, mottled = traits[:, 6:].T[:, :, None, None]
    skin_texture = _texture(random, n, size, decay=0.8)
    patches = _texture(random, n, size, coarse=4, decay=0.7)

    reach = _outline(random, x, y, radius, irregular) + irregular * 0.5 * patches
    inside = _sigmoid((1 - reach) / (soft * 0.6))[:, None]
    depth = np.clip(reach + mottled * 0.6 * patches, 0, 1)[:, None] ** 2
    lesion = middle * (1 - depth) + border * depth
    lesion *= 1 + (0.12 * mottled * patches)[:, None]

    tone = _uniform(random, 0.86, 1.08, n)[:, None]
    flush = random.normal(0, 0.012, (n, 3, 1, 1)).astype(np.float32)
    skin = SKIN[:, None, None] * tone + flush + (0.025 * skin_texture)[:, None]
    picture = skin * (1 - inside) + lesion * tone * inside
    picture *= (1 - _hairs(random, n, x, y))[:, None]
    picture *= (1 - _uniform(random, 0.12, 0.32, n) * (x**2 + y**2) ** 1.5 / 2)[:, None]
    picture += 0.012 * random.standard_normal(picture.shape, dtype=np.float32)
    return picture, reach < 1


def _outline(
    random: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    radius: np.ndarray,
    irregular: np.ndarray,
) -> np.ndarray:
    """Distance from a lesion's centre in units of its radius there, ``(n, size, size)``.

    The radius is a random Fourier series of the angle, stretched along a random axis.
    """
    n = len(radius)
    dx = x - _uniform(random, -0.16, 0.16, n)
    dy = y - _uniform(random, -0.10, 0.20, n)
    turn, stretch = _uniform(random, 0, np.pi, n), _uniform(random, 0.75, 1.0, n)
    along = np.cos(turn) * dx + np.sin(turn) * dy
    across = (np.cos(turn) * dy - np.sin(turn) * dx) / stretch
    angle = np.arctan2(across, along)
    shape = np.ones_like(angle)
    for waves in range(2, 7):
        amount = irregular * random.normal(0, 1.6 / waves, (n, 1, 1)).astype(np.float32)
        shape += amount * np.cos(waves * angle + _uniform(random, 0, 6.3, n))
    scale = radius * _uniform(random, 0.75, 1.2, n)
    distance: np.ndarray = np.hypot(along, across) / (scale * np.maximum(shape, 0.3))
    return distance


def _hairs(random: np.random.Generator, n: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of the light thin bent hairs take, ``(n, size, size)``; an image has up to two."""
    size = x.shape[-1]
    taken = np.zeros((n, size, size), dtype=np.float32)
    width = max(0.025, 1.3 / size)  # a hair thinner than a pixel is a fainter line, not dots
    darkness = 0.5 * 0.025 / width
    for _ in range(2):
        turn, bend = _uniform(random, 0, np.pi, n), _uniform(random, -0.4, 0.4, n)
        along = np.cos(turn) * x + np.sin(turn) * y
        across = np.cos(turn) * y - np.sin(turn) * x
        offset = across - bend * along**2 - _uniform(random, -0.8, 0.8, n)
        here = random.random((n, 1, 1)) < 0.35
        taken = np.maximum(taken, here * darkness * np.exp(-((offset / width) ** 2)))
    return taken
