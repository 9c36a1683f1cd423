"""Folders in Kaggle's layout, on small ones that the tests draw; and how the cache follows them."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from varreg.lab import datasets
from varreg.lab.datasets import cache, folders
from varreg.lab.ledger import Ledger

CHEST = {"train": 6, "val": 3, "test": 4}  # images a class
DX = ("akiec", "bcc", "bkl", "df", "nv", "mel", "vasc")


@pytest.fixture(autouse=True)
def root(nothing_here) -> Path:
    return nothing_here


def picture(path: Path, shade: int, mode: str = "RGB") -> None:
    """Writes a JPEG whose left half is `shade` and whose right half is black."""
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[:, :20] = shade
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path, quality=95)


@pytest.fixture
def chest(root) -> Path:
    for part, count in CHEST.items():
        for label, name in enumerate(("NORMAL", "PNEUMONIA")):
            for number in range(count):
                picture(
                    root / "chest_xray" / part / name / f"{number}.jpeg",
                    shade=100 * label + 10 * number,
                    mode="L" if number else "RGB",  # both are in the published set
                )
    return root / "chest_xray"


def table(*rows: tuple[str, str, str]) -> str:
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    lines += [f"{','.join(row)},histo,50.0,male,back" for row in rows]
    return "\n".join(lines) + "\n"


# Ten lesions a class, two images each; image i is as bright as i.
ROWS = [(f"HAM_{i // 2:07}", f"ISIC_{i:07}", DX[i // 20]) for i in range(140)]


@pytest.fixture
def skin(root) -> Path:
    folder = root / "ham10000"
    for number, (_, image_id, _) in enumerate(ROWS):
        part = f"HAM10000_images_part_{1 + number // 70}"
        picture(folder / part / f"{image_id}.jpg", shade=number + 50)
    (folder / "HAM10000_metadata.csv").write_text(table(*ROWS))
    return folder


def brightness(subset: datasets.Subset) -> list[int]:
    """The number that each skin image was drawn with."""
    left = subset.images[..., : subset.images.shape[-1] // 4].float().mean((1, 2, 3))
    return (left.round().int() - 50).tolist()


def test_chest(chest):
    data = datasets.load("chest_xray", size=16)
    assert (data.task, data.class_names, data.split) == (
        "binary",
        ("normal", "pneumonia"),
        "official",
    )
    assert (data.channels, data.spatial_dims, data.n_outputs) == (3, 2, 1)
    for part, count in CHEST.items():
        subset = getattr(data, part)
        assert subset.images.shape == (2 * count, 3, 16, 16)
        assert subset.images.dtype == torch.uint8
        assert subset.labels.tolist() == [0] * count + [1] * count
        left = subset.images[..., :4].float().mean((1, 2, 3))
        expected = [100 * label + 10 * i for label in (0, 1) for i in range(count)]
        assert left.tolist() == pytest.approx(expected, abs=2)
    assert data.source == "26 files in Kaggle's layout, from VARREG_DATA"


def test_chest_stores_one_channel_of_three(chest):
    images = datasets.load("chest_xray", size=16).train.images
    assert images.stride(1) == 0
    assert torch.equal(images[:, 0], images[:, 2])


def test_resize_is_pillows_bilinear_straight_to_a_square(chest):
    data = datasets.load("chest_xray", size=24)
    with Image.open(chest / "test" / "NORMAL" / "0.jpeg") as file:
        expected = file.convert("L").resize((24, 24), Image.Resampling.BILINEAR)
    assert np.array_equal(data.test.images[0, 0], expected)


@pytest.mark.parametrize("nested", ["chest_xray/chest_xray", "."], ids=["nested", "root"])
def test_chest_may_be_nested_or_the_root_itself(chest, tmp_path, nested):
    home = tmp_path / "elsewhere"
    (home / nested).parent.mkdir(parents=True, exist_ok=True)
    chest.rename(home / nested)
    assert "the given root" in datasets.load("chest_xray", size=16, root=home).source


def test_hidden_files_are_passed_over(chest, skin):
    (chest / "train" / "NORMAL" / ".DS_Store").write_bytes(b"x")
    (skin / ".ipynb_checkpoints").mkdir()
    (skin / ".ipynb_checkpoints" / "x.txt").write_bytes(b"x")
    assert len(datasets.load("chest_xray", size=8).train) == 12
    assert len(datasets.load("ham10000", size=8).train) == 112


def test_skin_paper(skin):
    data = datasets.load("ham10000", size=16)
    assert (data.task, data.split, data.channels, data.n_outputs) == ("multiclass", "paper", 3, 7)
    assert data.class_names == tuple(sorted(data.class_names))
    assert data.class_names[0] == "Actinic keratoses"
    assert data.class_names[-1] == "Vascular lesions"
    rows = [row for part in (data.train, data.val, data.test) for row in brightness(part)]
    assert sorted(rows) == list(range(140))
    for part in (data.train, data.val, data.test):
        assert part.labels.tolist() == [row // 20 for row in brightness(part)]
        assert part.groups.tolist() == [row // 2 for row in brightness(part)]
    assert [len(part) for part in (data.train, data.val, data.test)] == [112, 14, 14]


def test_skin_lesion(skin):
    data = datasets.load("ham10000", size=16, split="lesion")
    train, val, test = (set(part.groups.tolist()) for part in (data.train, data.val, data.test))
    assert len(train) + len(val) + len(test) == len(train | val | test) == 70
    # One lesion in ten of each class, two images each.
    assert data.val.labels.bincount().tolist() == [2] * 7
    assert data.test.labels.bincount().tolist() == [2] * 7
    assert data.sha256 != datasets.load("ham10000", size=16).sha256


def test_second_copy_of_an_image_as_in_kaggles_archive(skin):
    original = next((skin / "HAM10000_images_part_1").iterdir())
    copies = skin / "ham10000_images_part_1"
    copies.mkdir()
    (copies / original.name).write_bytes(original.read_bytes())
    assert len(datasets.load("ham10000", size=8).train) == 112
    other = original.read_bytes().replace(b"JFIF", b"JFXX")
    assert len(other) == original.stat().st_size
    (copies / original.name).write_bytes(other)
    for _ in range(2):
        with pytest.raises(datasets.CorruptDatasetError, match="have one name and differ"):
            datasets.load("ham10000", size=8)


# What a folder can get wrong, and what the message must say about it.


@pytest.mark.parametrize("name", ["chest_xray", "ham10000"])
def test_not_here(root, name):
    with pytest.raises(datasets.DatasetNotFoundError, match="none of the data folders") as caught:
        datasets.load(name)
    assert str(root / name) in str(caught.value)
    assert "kaggle.com/datasets" in str(caught.value)
    with pytest.raises(datasets.DatasetNotFoundError):
        datasets.load(name, download=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [("chest_xray", "holds no train"), ("ham10000", "holds no HAM10000_metadata.csv")],
)
def test_wrong_layout(root, name, message):
    picture(root / name / "NORMAL" / "1.jpeg", 9)
    with pytest.raises(datasets.CorruptDatasetError, match=f"{message}; it must hold"):
        datasets.load(name)
    entry = next(entry for entry in datasets.catalogue() if entry.name == name)
    assert not entry.found
    assert message in entry.state


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda val: (val / "PNEUMONIA").rename(val / "pneu"), "no folder val/PNEUMONIA"),
        (lambda val: shutil.rmtree(val / "NORMAL"), "no folder val/NORMAL"),
        (
            lambda val: [path.unlink() for path in (val / "NORMAL").iterdir()],
            r"val.NORMAL holds no image",
        ),
        (
            lambda val: (val / "NORMAL" / "notes.txt").write_text("x"),
            r"notes\.txt is not an image file",
        ),
    ],
)
def test_wrong_folder_of_a_class(chest, damage, message):
    damage(chest / "val")
    with pytest.raises(datasets.CorruptDatasetError, match=message):
        datasets.load("chest_xray")


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_truncated_image(chest, root, keep):
    path = chest / "train" / "PNEUMONIA" / "3.jpeg"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(datasets.CorruptDatasetError, match=r"3\.jpeg is not a complete image"):
        datasets.load("chest_xray", size=16)
    assert everything_in_cache(root) == []


def last_row(*fields: str) -> str:
    """The table with other fields in its last row, at line 141."""
    return table(*ROWS[:-1], (*fields, *ROWS[-1][len(fields) :]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table(*ROWS[:-1]), r"no row for 1 of the images beside it.*ISIC_0000139\.jpg"),
        (table(*ROWS, ROWS[0]), "line 142: ISIC_0000000 has a row already"),
        (last_row(*ROWS[-1][:2], "cold"), "line 141: dx is 'cold', allowed are akiec, bcc"),
        (table(*ROWS[:-1]) + "HAM_0000069,ISIC", "line 141: dx is None"),
        (table(*ROWS).replace("lesion_id", "lesion", 1), "has no column lesion_id"),
        (table(), "has no row"),
        (b"\xff\xfe\x00\x81" * 9, "not a readable table .*'utf-8' codec"),
        (table(*ROWS).replace("dx_type", "dx", 1), "has 2 columns dx; use the table as published"),
        (last_row(" "), "line 141: lesion_id is ' '"),
        (last_row(ROWS[-1][0], ""), "line 141: .* image_id ''"),
        (last_row(*ROWS[-1][:2], "nv"), "line 141: HAM_0000069 is nv here and vasc above"),
        (
            table(*ROWS[:-1]) + ",".join(ROWS[-1]) + ",,,,,x\n",
            "line 141: it has more fields than the header",
        ),
    ],
)
def test_wrong_metadata(skin, text, message):
    (skin / folders.METADATA).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(datasets.CorruptDatasetError, match=message):
        datasets.load("ham10000")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "HAM10000_metadata.csv is not a file, but a folder"),
        (
            lambda path: path.symlink_to("nowhere"),
            "HAM10000_metadata.csv cannot be read .No such file.*a link",
        ),
    ],
)
def test_metadata_that_are_no_file(skin, make, message):
    (skin / folders.METADATA).unlink()
    make(skin / folders.METADATA)
    with pytest.raises(datasets.CorruptDatasetError, match=message):
        datasets.load("ham10000")


def test_row_without_its_image(skin):
    (skin / "HAM10000_images_part_1" / "ISIC_0000003.jpg").unlink()
    with pytest.raises(
        datasets.CorruptDatasetError, match=r"names 1 images that are in no folder.*ISIC_0000003"
    ):
        datasets.load("ham10000")


def test_table_of_the_published_length_must_be_the_published_one(skin, monkeypatch):
    rows = "".join(f"{','.join(row)}\n" for row in ROWS)
    monkeypatch.setattr(folders, "N_ROWS", len(ROWS))
    monkeypatch.setattr(folders, "ROWS_SHA256", hashlib.sha256(rows.encode()).hexdigest())
    expected = datasets.load("ham10000", size=8).sha256
    path = skin / "HAM10000_metadata.csv"
    swapped = (ROWS[0][0], *ROWS[2][1:]), *ROWS[1:2], (ROWS[2][0], *ROWS[0][1:]), *ROWS[3:]
    for changed in (ROWS[::-1], sorted(ROWS, key=lambda row: row[1][::-1]), swapped):
        path.write_text(table(*changed))
        for split in ("paper", "lesion"):
            with pytest.raises(datasets.CorruptDatasetError, match="or in another order"):
                datasets.load("ham10000", size=8, split=split)
    lines = [line.split(",") for line in table(*ROWS).splitlines()]
    path.write_text("\n".join(",".join(line[::-1]) for line in lines))  # other order of columns
    assert datasets.load("ham10000", size=8).sha256 == expected


def test_too_few_lesions_for_three_parts(root):
    rows = [("a", "x", "nv"), ("b", "y", "nv"), ("c", "z", "nv")]
    for _, image_id, _ in rows:
        picture(root / "ham10000" / "images" / f"{image_id}.jpg", 50)
    (root / "ham10000" / "HAM10000_metadata.csv").write_text(table(*rows))
    with pytest.raises(
        datasets.DatasetError, match=r"val part of ham10000 .split lesion. holds no"
    ):
        datasets.load("ham10000", split="lesion")


@pytest.mark.parametrize("size", [7, 0, -1])
def test_size_too_small(chest, size):
    with pytest.raises(datasets.UnknownDatasetError, match=f"from 8 pixels, not in {size}"):
        datasets.load("chest_xray", size=size)


def test_check_wants_the_published_number_of_images(chest, skin, monkeypatch):
    with pytest.raises(datasets.CorruptDatasetError, match=r"holds \(12, 6, 8\) images"):
        datasets.check("chest_xray")
    monkeypatch.setattr(folders, "N_IMAGES", {"ham10000": (140,)})
    report = datasets.check("ham10000")
    assert "split paper: as it should be" in report
    assert "split lesion: as it should be" in report
    assert "note: 0 of 70 lesions stand in more than one part" in report


# Images whose pixels would not be those that were saved.


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(mode: str = "L", size: tuple[int, int] = (90, 70)) -> Image.Image:
    """A slope with noise on it: no two rows, columns or blocks are alike."""
    width, height = size
    slope = np.add.outer(np.arange(height) * 100 / height, np.arange(width) * 100 / width)
    noise = np.random.default_rng(0).uniform(0, 50, slope.shape)
    return Image.fromarray((slope + noise).astype(np.uint8)).convert(mode)


@pytest.fixture
def decoded_from(chest):
    """Decodes bytes that lie in the folder under the name of a JPEG file."""

    def decode(data: bytes, channels: int = 1) -> np.ndarray:
        path = chest / "train" / "NORMAL" / "0.jpeg"
        path.write_bytes(data)
        return folders._decode(str(path), 16, channels)

    return decode


def resized(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)).reshape(16, 16, -1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality": 1, "optimize": True},
        {"quality": 100, "subsampling": 0},
        {"progressive": True},
        {"restart_marker_blocks": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(90, 70), (8, 8), (1, 1)])
def test_intact_jpegs_are_decoded_as_pillow_does(decoded_from, options, mode, size):
    for original in (gradient(mode, size), Image.new(mode, size, "gray")):
        data = encoded(original, **options)
        expected = resized(Image.open(io.BytesIO(data)).convert("RGB"))
        for trailer in (b"", bytes(100), b"a trailer"):
            assert np.array_equal(decoded_from(data + trailer, 3), expected)


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def with_zeros(data: bytes, start: float, stop: float) -> bytes:
    first, last = int(start * len(data)), int(stop * len(data))
    return data[:first] + bytes(last - first) + data[last:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda jpeg: with_zeros(jpeg, 0.5, 1), "end-of-image marker"),
        (lambda jpeg: with_zeros(jpeg, 0.99, 1), "end-of-image marker"),
        (lambda jpeg: jpeg[:-2], "end-of-image marker"),
        (lambda jpeg: jpeg[:-9] + b"\xff\xd9", "less data than"),
        (lambda jpeg: with_zeros(jpeg, 0.5, 0.9), "data than"),
        (lambda jpeg: with_size(jpeg, 90, 140), "less data than"),
        (lambda jpeg: with_size(jpeg, 106, 70), "less data than"),
        (lambda jpeg: with_size(jpeg, 90, 35), "more data than"),
        (lambda jpeg: with_size(jpeg, 74, 70), "more data than"),
        (lambda jpeg: jpeg[:-700] + b"\xff\xda" + jpeg[-698:], "end-of-image marker"),
    ],
)
def test_jpeg_that_would_decode_to_something_else(decoded_from, damage, message):
    with pytest.raises(
        datasets.CorruptDatasetError, match=rf"0\.jpeg is not .*{message}"
    ) as caught:
        decoded_from(damage(encoded(gradient(), quality=90)))
    assert "replace it with an intact copy" in str(caught.value)


def test_progressive_jpeg_without_its_end(decoded_from):
    jpeg = encoded(gradient(), progressive=True)
    with pytest.raises(datasets.CorruptDatasetError, match="no end-of-image marker"):
        decoded_from(with_zeros(jpeg, 0.7, 1))


def test_truncated_image_is_refused_whatever_another_library_told_pillow(decoded_from, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    jpeg = encoded(gradient(), quality=90)
    for damaged in (jpeg[:2000], with_size(jpeg, 90, 140)):
        with pytest.raises(datasets.CorruptDatasetError):
            decoded_from(damaged)


def test_png_is_refused_wherever_a_byte_is_changed_or_the_rest_is_zeros(decoded_from):
    png = encoded(gradient(), "PNG")
    for at in range(0, len(png), 97):
        flipped = png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :]
        for damaged in (flipped, png[:at], png[:at] + bytes(len(png) - at)):
            with pytest.raises(datasets.CorruptDatasetError, match="not a complete image"):
                decoded_from(damaged)


def opaque(mode: str) -> Image.Image:
    return gradient("RGB").convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_png_of_eight_bits_or_less(decoded_from, mode):
    image = opaque(mode)
    expected = image.convert("RGB")
    assert np.array_equal(decoded_from(encoded(image, "PNG"), 3), resized(expected))


def test_png_of_few_greys_is_scaled_to_eight_bits(decoded_from):
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0))]  # four pixels of two bits
    chunks += [(b"IDAT", zlib.compress(b"\0\x1b")), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        png += (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
    expected = Image.fromarray(np.array([[0, 85, 170, 255]], np.uint8))
    assert np.array_equal(decoded_from(png), resized(expected))


def transparent(mode: str) -> Image.Image:
    image = opaque("RGBA")
    image.putpixel((3, 3), (10, 20, 30, 254))
    return image.convert(mode)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


WIDE = Image.fromarray(np.asarray(gradient()).astype(np.uint16) * 257)
TWO = {"save_all": True, "append_images": [Image.new("L", (90, 70))]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(WIDE, "PNG"), "has 16 bits a channel"),
        (encoded(gradient("CMYK")), "is in CMYK"),
        (encoded(transparent("RGBA"), "PNG"), "is transparent"),
        (encoded(transparent("LA"), "PNG"), "is transparent"),
        (encoded(opaque("P"), "PNG", transparency=0), "is transparent"),
        (encoded(opaque("L"), "PNG", transparency=60), "is transparent"),
        (encoded(gradient(), exif=exif(6)), "EXIF orientation"),
        (encoded(gradient(), "PNG", exif=exif(3)), "EXIF orientation"),
        (encoded(gradient(), "PNG", **TWO), "holds 2 pictures"),
        (encoded(gradient(), "MPO", **TWO), "holds 2 pictures"),
    ],
)
def test_image_that_can_be_read_in_more_than_one_way(decoded_from, data, message):
    with pytest.raises(datasets.CorruptDatasetError, match=rf"0\.jpeg .*{message}.*save it as one"):
        decoded_from(data)


def test_upright_exif_is_no_fault(decoded_from):
    plain, tagged = (encoded(gradient(), **options) for options in ({}, {"exif": exif(1)}))
    assert np.array_equal(decoded_from(plain), decoded_from(tagged))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "WEBP", "PPM", "ICO", "TGA", "EPS"])
def test_other_formats_under_the_name_of_a_jpeg(decoded_from, monkeypatch, kind):
    monkeypatch.setattr(subprocess, "Popen", None)  # Ghostscript, for EPS
    data = encoded(gradient("RGB"), kind)
    with pytest.raises(datasets.CorruptDatasetError, match="does not begin like a JPEG or PNG"):
        decoded_from(data)


def test_png_with_a_text_that_unpacks_to_very_much(decoded_from):
    png, body = encoded(gradient(), "PNG"), b"a\0\0" + zlib.compress(bytes(80_000_000))
    chunk = b"zTXt" + body
    bomb = struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(datasets.CorruptDatasetError, match=r"0\.jpeg is not .*too large"):
        decoded_from(png[:33] + bomb + png[33:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("nowhere"), r"x\.jpeg cannot be read .No such file.*a link"),
        (lambda path: path.symlink_to(path.name), r"x\.jpeg cannot be read .Too many levels"),
        (lambda path: path.mkdir(), r"x\.jpeg is not a file, but a folder"),
        (lambda path: os.mkfifo(path), r"x\.jpeg is not a file, but a folder, a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), r"x\.jpeg is not a file, but .* a device"),
    ],
)
def test_what_is_no_file_is_named_and_does_not_hang(chest, make, message):
    make(chest / "train" / "NORMAL" / "x.jpeg")
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.load("chest_xray", size=16)


@pytest.mark.parametrize("place", ["train/NORMAL/0.jpeg", "train/NORMAL"])
def test_what_may_not_be_read_is_named(chest, place):
    (chest / place).chmod(0)
    if os.access(chest / place, os.R_OK):
        pytest.skip("this user may read everything")
    try:
        with pytest.raises(datasets.DatasetError, match=f"{place} cannot be read .Permission"):
            datasets.load("chest_xray", size=16)
    finally:
        (chest / place).chmod(0o755)


def test_tilde_is_the_home_folder(chest, root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("VARREG_DATA")
    assert "the given root" in datasets.load("chest_xray", size=16, root="~/data").source
    monkeypatch.setenv("VARREG_DATA", "~/data")
    monkeypatch.setenv("VARREG_CACHE", "~/other")
    assert "VARREG_DATA" in datasets.load("chest_xray", size=16).source
    assert (tmp_path / "other" / "decoded").is_dir()
    with pytest.raises(datasets.DatasetNotFoundError, match="not a folder"):
        datasets.load("chest_xray", root="~nobody-of-that-name/data")


# Kaggle's own package, replaced by one that has the folder already.


@pytest.fixture
def kagglehub(monkeypatch):
    def install(dataset_download):
        module = types.ModuleType("kagglehub")
        module.dataset_download = dataset_download
        module.__spec__ = types.SimpleNamespace(name="kagglehub")
        monkeypatch.setitem(sys.modules, "kagglehub", module)

    return install


def test_kagglehub_is_used_where_it_is_installed(chest, tmp_path, kagglehub, monkeypatch):
    monkeypatch.delenv("VARREG_DATA")
    asked = []
    kagglehub(lambda handle: asked.append(handle) or str(chest.parent))
    assert "Kaggle's download" in datasets.load("chest_xray", size=8).source
    assert str(chest) in datasets.fetch("chest_xray")
    assert asked == ["paultimothymooney/chest-xray-pneumonia"] * 2
    with pytest.raises(datasets.DatasetNotFoundError):
        datasets.load("chest_xray", size=8, download=False)


def test_kagglehub_fails(root, tmp_path, kagglehub):
    def refuse(handle):
        raise RuntimeError("401: who are you?")

    kagglehub(refuse)
    with pytest.raises(datasets.DownloadError, match="401: who are you"):
        datasets.load("ham10000")
    kagglehub(lambda handle: str(tmp_path / "cache"))
    with pytest.raises(datasets.DownloadError, match="does not hold HAM10000_metadata"):
        datasets.load("ham10000")


# The cache.


def everything_in_cache(root: Path) -> list[Path]:
    """All files but the locks, which hold nothing and stay."""
    files = (path for path in (root.parent / "cache").rglob("*") if path.is_file())
    return sorted(path for path in files if path.suffix != ".lock")


def decoded(root: Path) -> set[str]:
    return {path.name for path in everything_in_cache(root)}


def test_decodes_once(chest, root, monkeypatch):
    first = datasets.load("chest_xray", size=16)
    assert len(decoded(root)) == 2  # the array and what is known about it
    monkeypatch.setattr(folders, "_decode", None)
    second = datasets.load("chest_xray", size=16)
    assert second.sha256 == first.sha256
    assert torch.equal(second.test.images, first.test.images)


def test_one_array_a_size_and_split(skin, root):
    for size, split in ((8, "paper"), (8, "lesion"), (16, "paper")):
        datasets.load("ham10000", size=size, split=split)
    assert len(decoded(root)) == 6


def test_changed_file_is_decoded_again_and_the_old_array_removed(chest, root):
    before, names = datasets.load("chest_xray", size=16), decoded(root)
    path = chest / "train" / "NORMAL" / "0.jpeg"
    picture(path, 250)
    os.utime(path, (1, 1))
    after = datasets.load("chest_xray", size=16)
    assert after.sha256 != before.sha256
    assert not decoded(root) & names
    assert len(decoded(root)) == 2


def test_images_are_memory_mapped_and_changing_them_leaves_the_cache_alone(skin):
    images = datasets.load("ham10000", size=16).train.images
    kept = images.clone()
    images.zero_()
    assert torch.equal(datasets.load("ham10000", size=16).train.images, kept)


def test_file_replaced_by_one_of_the_same_size_and_time_is_decoded_again(chest, tmp_path):
    path, other = chest / "train" / "NORMAL" / "0.jpeg", tmp_path / "other.jpeg"
    picture(path, 100, "L")
    picture(other, 103, "L")
    size = max(path.stat().st_size, other.stat().st_size)
    for file in (path, other):
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
        os.utime(file, (1, 1))
    before = datasets.load("chest_xray", size=16)
    os.replace(other, path)  # as rsync -t does
    replaced = datasets.load("chest_xray", size=16)
    assert replaced.sha256 != before.sha256
    data = path.read_bytes()
    picture(path, 106, "L")
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))  # as cp -p does
    os.utime(path, (1, 1))
    assert len(data) == path.stat().st_size
    written = datasets.load("chest_xray", size=16)
    assert written.sha256 not in (before.sha256, replaced.sha256)


NOTES = {
    "a list": "[]",
    "null": "null",
    "no hash": "{}",
    "a number": '{"sha256": 1}',
    "part of a hash": '{"sha256": "0123"}',
    "no end": "[" * 10**5,
}


@pytest.mark.parametrize("damage", ["short", "other shape", "no note", *NOTES])
def test_damaged_cache_is_made_anew(chest, root, damage):
    expected = datasets.load("chest_xray", size=16).sha256
    array = next((root.parent / "cache" / "decoded").glob("*.npy"))
    if damage == "short":
        array.write_bytes(array.read_bytes()[:500])
    elif damage == "other shape":
        np.save(array, np.zeros((2, 2), dtype=np.uint8))
    elif damage in NOTES:
        array.with_suffix(".json").write_text(NOTES[damage])
    else:
        array.with_suffix(".json").unlink()
    assert datasets.load("chest_xray", size=16).sha256 == expected


def test_check_sees_a_changed_byte_in_the_cache(chest, root, monkeypatch):
    monkeypatch.setattr(folders, "N_IMAGES", {})
    assert "as it should be" in datasets.check("chest_xray")
    array = next((root.parent / "cache" / "decoded").glob("*.npy"))
    array.write_bytes(array.read_bytes()[:-1] + b"\x99")
    with pytest.raises(datasets.CorruptDatasetError, match="not what was decoded"):
        datasets.check("chest_xray")


def record(root: Path, study: str = "study", **columns: object) -> None:
    row = {"key": "k", "dataset": "chest_xray", "size": 16, "split": "", "dataset_sha256": "0" * 16}
    Ledger(study, root.parent / "results").append(row | columns, [])


def test_check_compares_with_what_the_recorded_results_were_made_from(chest, root, monkeypatch):
    monkeypatch.setattr(folders, "N_IMAGES", {})
    record(root, size=24)
    record(root, key="l", dataset="ham10000")
    record(root, key="m", split="another")
    assert "content: no recorded result to compare with" in datasets.check("chest_xray", size=16)
    record(root, key="n")
    with pytest.raises(datasets.DatasetError, match=r"were made from 0{16}\. Either"):
        datasets.check("chest_xray", size=16)
    record(root, "later", dataset_sha256=datasets.load("chest_xray", size=16).sha256)
    assert "content: that of the recorded results" in datasets.check("chest_xray", size=16)


def test_check_sees_a_flipped_bit_that_no_decoder_can_see(chest, root, monkeypatch):
    monkeypatch.setattr(folders, "N_IMAGES", {})
    path = chest / "test" / "NORMAL" / "0.jpeg"
    gradient().save(path)
    record(root, dataset_sha256=datasets.load("chest_xray", size=16).sha256)
    jpeg = bytearray(path.read_bytes())
    jpeg[jpeg.index(b"\xff\xdb") + 5] ^= 0x40  # quantization of the mean grey of every block
    path.write_bytes(jpeg)
    assert datasets.load("chest_xray", size=16).sha256
    with pytest.raises(datasets.DatasetError, match="a file is damaged or replaced"):
        datasets.check("chest_xray", size=16)


def test_interrupted_decoding_leaves_nothing_behind(chest, root, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "_decode_all", stop)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("chest_xray")
    assert decoded(root) == set()


def test_cache_folder_that_cannot_be_written(chest, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("VARREG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(datasets.DatasetError, match="set VARREG_CACHE to a folder that can be"):
        datasets.load("chest_xray")


def test_full_disk(chest, monkeypatch):
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(datasets.DatasetError, match=r"needs 0\.0 GB and has 0\.0 GB"):
        datasets.load("chest_xray")


def test_cache_folder_of_the_system(monkeypatch):
    monkeypatch.delenv("VARREG_CACHE")
    assert cache.cache_dir().name == "varreg"
