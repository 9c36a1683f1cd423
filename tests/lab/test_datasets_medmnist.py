"""MedMNIST files: read, checked, downloaded; on small files in MedMNIST's format."""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import os
import threading
import tracemalloc
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from varreg.lab import datasets
from varreg.lab.datasets import medmnist
from varreg.lab.ledger import Ledger

COUNTS = {"train": 12, "val": 4, "test": 6}
FLAGS = {
    "pneumoniamnist": "binary",
    "dermamnist": "multiclass",
    "retinamnist": "multiclass",
    "chestmnist": "multilabel",
    "nodulemnist3d": "binary",
    "organmnist3d": "multiclass",
}


@pytest.fixture(autouse=True)
def folder(nothing_here, monkeypatch) -> Path:
    """An empty data folder and an empty cache; MedMNIST's table, with small counts."""
    table = copy.deepcopy(medmnist.info())
    for entry in table.values():
        entry["n_samples"] = COUNTS
    monkeypatch.setattr(medmnist, "info", lambda: table)
    return nothing_here


def content(name: str, size: int = 28) -> dict[str, np.ndarray]:
    """Arrays with MedMNIST's keys, shapes and types."""
    random = np.random.default_rng(0)
    info = medmnist.info()[name]
    shape = (size,) * (3 if name.endswith("3d") else 2) + ((3,) if info["n_channels"] == 3 else ())
    arrays = {}
    for part, count in COUNTS.items():
        arrays[f"{part}_images"] = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        if "multi-label" in info["task"]:
            labels = random.integers(0, 2, (count, len(info["label"])))
        else:
            labels = np.arange(count)[:, None] % len(info["label"])
        arrays[f"{part}_labels"] = labels.astype(np.uint8)
    return arrays


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def test_knows_every_flag_and_its_sizes():
    flags = [name for name in datasets.names() if "mnist" in name]
    assert len(flags) == 18
    for name in flags:
        assert medmnist.sizes(name) == ((28, 64) if "3d" in name else (28, 64, 128, 224))
        assert len(medmnist.md5(name, 64)) == 32


@pytest.mark.parametrize(("name", "task"), FLAGS.items())
@pytest.mark.parametrize("size", [28, 64])
def test_gives_back_what_the_file_holds(folder, name, task, size):
    arrays = content(name, size)
    save(folder / "medmnist" / medmnist.file_name(name, size), arrays)

    data = datasets.load(name, size=size, download=False)

    three_d, colour = name.endswith("3d"), medmnist.info()[name]["n_channels"] == 3
    assert (data.name, data.task, data.size, data.split) == (name, task, size, "official")
    assert (data.spatial_dims, data.channels) == (3 if three_d else 2, 3 if colour else 1)
    assert data.n_outputs == (1 if task == "binary" else len(data.class_names))
    for part in COUNTS:
        subset = getattr(data, part)
        images = torch.from_numpy(arrays[f"{part}_images"])
        labels = torch.from_numpy(arrays[f"{part}_labels"])
        assert len(subset) == COUNTS[part]
        assert subset.images.dtype == torch.uint8
        assert torch.equal(subset.images, images.movedim(-1, 1) if colour else images[:, None])
        assert subset.labels.dtype == (torch.float32 if task == "multilabel" else torch.int64)
        assert torch.equal(subset.labels, labels.float() if task == "multilabel" else labels[:, 0])
        assert subset.groups is None


def test_file_may_lie_in_the_data_folder_itself(folder):
    save(folder / "breastmnist.npz", content("breastmnist"))
    assert "VARREG_DATA" in datasets.load("breastmnist", download=False).source


def test_root_comes_before_the_data_folder(folder, tmp_path):
    save(folder / "breastmnist.npz", content("breastmnist"))
    other = content("breastmnist")
    other["train_images"][:] = 7
    save(tmp_path / "other" / "breastmnist.npz", other)
    data = datasets.load("breastmnist", root=tmp_path / "other", download=False)
    assert data.train.images.unique().tolist() == [7]
    assert data.source == "breastmnist.npz in MedMNIST's format, from the given root"


def test_hash_follows_images_labels_and_parts(folder):
    path = folder / "breastmnist.npz"
    hashes = []
    for change in ({}, {"train_images": 1}, {"val_labels": 1}):
        arrays = content("breastmnist")
        for key, value in change.items():
            arrays[key][0] = value
        save(path, arrays)
        hashes.append(datasets.load("breastmnist").sha256)
        assert hashes[-1] == datasets.load("breastmnist").sha256
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("version", [(2, 0), (3, 0)])
def test_every_version_of_the_array_format_is_read(folder, version):
    arrays = content("breastmnist")
    with zipfile.ZipFile(folder / "breastmnist.npz", "w") as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as stream:
                np.lib.format.write_array(stream, array, version=version)
    assert np.array_equal(datasets.load("breastmnist").val.images[:, 0], arrays["val_images"])


# What a file can get wrong, and what the message must say about it.


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"val_labels": None}, "lacks val_labels"),
        (
            {"test_images": lambda images: images[:, :27]},
            r"test_images of shape \(6, 27, 28\).*expected are \(6, 28, 28\) and uint8",
        ),
        ({"train_images": lambda images: images[:-1]}, r"train_images of shape \(11, 28, 28\)"),
        (
            dict.fromkeys(("train_images", "train_labels"), lambda array: array[:-1]),
            r"train_labels of shape \(11, 1\), breastmnist has \(12, 1\)",
        ),
        ({"val_images": lambda images: images / 255}, "val_images of shape .* type float64"),
        ({"val_images": np.asfortranarray}, "val_images of shape"),
        (
            {"val_labels": lambda labels: labels.astype(float)},
            "val_labels of type float64, labels are integers",
        ),
        ({"val_labels": lambda labels: labels[:, 0]}, r"val_labels of shape \(4,\)"),
        ({"test_labels": lambda labels: labels * 9}, "test_labels from 0 to 9, allowed are 0 to 1"),
        (
            {"test_labels": lambda labels: labels.astype(np.int8) - 1},
            "test_labels from -1 to 0",
        ),
        (
            {"train_labels": lambda labels: np.array([[{}]] * len(labels), dtype=object)},
            "train_labels of type object, labels are integers",  # it would be pickled
        ),
    ],
)
def test_refuses_wrong_content(folder, damage, message):
    arrays = content("breastmnist")
    for key, change in damage.items():
        array = arrays.pop(key)
        if change is not None:
            arrays[key] = change(array)
    path = save(folder / "breastmnist.npz", arrays)
    with pytest.raises(datasets.CorruptDatasetError, match=message) as caught:
        datasets.load("breastmnist")
    assert str(path) in str(caught.value)
    assert "Move the file elsewhere and fetch it again with" in str(caught.value)
    assert "images of your own can be put into a varreg.lab.datasets.Dataset" in str(caught.value)
    assert "delete" not in str(caught.value)
    assert not list((folder.parent / "cache").rglob("*.npy"))


def test_refuses_a_multilabel_file_with_wrong_values(folder):
    arrays = content("chestmnist")
    arrays["train_labels"][0, 3] = 2
    save(folder / "chestmnist.npz", arrays)
    with pytest.raises(datasets.CorruptDatasetError, match="train_labels from 0 to 2"):
        datasets.load("chestmnist")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.98])
def test_refuses_a_truncated_file(folder, keep):
    path = save(folder / "breastmnist.npz", content("breastmnist"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(datasets.CorruptDatasetError, match=r"not a complete \.npz file"):
        datasets.load("breastmnist")


def test_refuses_flipped_bytes_in_the_images(folder):
    path = folder / "breastmnist.npz"
    np.savez(path, **content("breastmnist"))  # not compressed: only the checksum can tell
    damaged = bytearray(path.read_bytes())
    damaged[5000] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(datasets.CorruptDatasetError, match="cannot be read at train_images"):
        datasets.load("breastmnist")


def test_refuses_an_array_that_is_shorter_than_its_header_says(folder):
    good, path = save(folder / "good.npz", content("breastmnist")), folder / "breastmnist.npz"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            cut = 100 if name == "val_images.npy" else 0
            target.writestr(name, source.read(name)[: -cut or None])
    with pytest.raises(datasets.CorruptDatasetError, match=r"val_images .*shorter or longer"):
        datasets.load("breastmnist")


def members(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The files in an .npz file, by name."""
    files = {}
    for key, array in arrays.items():
        np.lib.format.write_array(stream := io.BytesIO(), array)
        files[f"{key}.npy"] = stream.getvalue()
    return files


def pack(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(), "w", method) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return out.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_reads_what_was_unpacked_and_packed_again(folder, method):
    files = members(content("breastmnist"))
    packed = {f"breastmnist/{name}": body for name, body in files.items()}
    packed |= {f"__MACOSX/breastmnist/._{name}": b"x" for name in files}
    (folder / "breastmnist.npz").write_bytes(pack({"breastmnist/": b"", **packed}, method))
    images = datasets.load("breastmnist").train.images[:, 0]
    assert np.array_equal(images, content("breastmnist")["train_images"])


def test_reads_labels_in_fortran_order_and_of_any_integer_type(folder):
    arrays = content("chestmnist")
    arrays["train_labels"] = np.asfortranarray(arrays["train_labels"].astype(">i8"))
    save(folder / "chestmnist.npz", arrays)
    labels = datasets.load("chestmnist").train.labels
    assert np.array_equal(labels, content("chestmnist")["train_labels"])


def test_refuses_an_array_that_is_there_twice(folder):
    files = members(content("breastmnist"))
    files["copy/train_labels.npy"] = files["train_labels.npy"]
    (folder / "breastmnist.npz").write_bytes(pack(files))
    with pytest.raises(datasets.CorruptDatasetError, match="train_labels more than once"):
        datasets.load("breastmnist")


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def with_labels(text: str) -> bytes:
    return pack({**members(content("breastmnist")), "val_labels.npy": header(text)})


def with_flag(bits: int, local: int, central: int) -> bytes:
    """A file in which every entry has some bits set at two offsets."""
    data = bytearray(pack(members(content("breastmnist"))))
    for signature, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + offset] |= bits
    return bytes(data)


def with_changed_lzma() -> bytes:
    data = bytearray(pack(members(content("breastmnist")), zipfile.ZIP_LZMA))
    data[5000] ^= 255
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_flag(1, 6, 8), "is encrypted"),
        (with_flag(32, 6, 8), "patched data"),
        (with_flag(9, 8, 10), "compression method is not supported"),
        (with_changed_lzma(), "Corrupt input data"),
        (with_labels("{'descr':'|u1','fortran_order':False,'shape':(2**70,1)}"), "val_labels"),
        (
            with_labels("{'descr':'|u1','fortran_order':False,'shape':(8" + "0" * 30 + ",1)}"),
            "holds",
        ),
        (with_labels("{'descr':'<U99999999','fortran_order':False,'shape':(4,1)}"), "integers"),
        (with_labels("{'descr':'|u1'"), "cannot be read at val_labels"),
        (with_labels("(" * 9000), "cannot be read at val_labels"),
        (with_labels("{}"), "cannot be read at val_labels"),
        (b"", "not a complete"),
        (b"PK\5\6" + bytes(18), "lacks train_images"),
    ],
)
def test_every_error_of_another_library_comes_out_with_a_name(folder, data, message):
    path = folder / "breastmnist.npz"
    path.write_bytes(data)
    with pytest.raises(datasets.CorruptDatasetError, match=message) as caught:
        datasets.load("breastmnist")
    assert str(path) in str(caught.value)
    assert "fetch it again with `python -m varreg data fetch breastmnist" in str(caught.value)


def test_labels_get_no_memory_before_their_shape_is_looked_at(folder):
    files = members(content("breastmnist"))
    files["val_labels.npy"] = header("{'descr':'|u1','fortran_order':False,'shape':(200000000,1)}")
    files["val_labels.npy"] += bytes(200_000_000)
    (folder / "breastmnist.npz").write_bytes(pack(files, zipfile.ZIP_DEFLATED))
    del files
    tracemalloc.start()
    try:
        with pytest.raises(datasets.CorruptDatasetError, match="breastmnist has"):
            datasets.load("breastmnist")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("nowhere"), "cannot be read .No such file.*a link"),
        (lambda path: path.mkdir(), "is not a file, but a folder"),
        (lambda path: os.mkfifo(path), "is not a file, but a folder, a pipe"),
    ],
)
def test_what_is_no_file_is_named_and_does_not_hang(folder, make, message):
    make(folder / "breastmnist.npz")
    with pytest.raises(datasets.DatasetError, match=rf"breastmnist\.npz {message}"):
        datasets.load("breastmnist")


def test_file_replaced_by_one_of_the_same_size_and_time_is_read_again(folder):
    path, images = folder / "breastmnist.npz", []
    for shade in (1, 2):
        arrays = content("breastmnist")
        arrays["train_images"][:] = shade
        np.savez(path, **arrays)
        os.utime(path, (1, 1))
        images.append((path.stat().st_size, datasets.load("breastmnist").train.images.max()))
    assert images == [(images[0][0], 1), (images[0][0], 2)]


def test_missing_file_says_where_to_put_it(folder):
    with pytest.raises(datasets.DatasetNotFoundError, match="none of the data folders") as caught:
        datasets.load("dermamnist", size=64, download=False)
    assert "dermamnist_64.npz" in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "data fetch dermamnist --size 64" in str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("pneumoniamnist", 32), ("organmnist3d", 128)])
def test_unpublished_size(name, size):
    with pytest.raises(datasets.UnknownDatasetError, match=f"sizes 28, 64.*not in {size}"):
        datasets.load(name, size=size)


# Download, from a server on this machine.


@pytest.fixture
def server(monkeypatch, folder):
    """Serves `answers`, one a request, as breastmnist.npz; the last of them again and again."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answers = self.server.answers
            body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.server.requests += 1
            self.send_response(503 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write((body or b"")[: self.server.cut])

        def log_message(self, *_):
            pass

    path = save(folder.parent / "published.npz", content("breastmnist"))
    good = path.read_bytes()
    path.unlink()
    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.good, httpd.requests, httpd.cut = good, 0, None
        entry = medmnist.info()["breastmnist"]
        monkeypatch.setitem(entry, "url", f"http://127.0.0.1:{httpd.server_port}/x.npz?download=1")
        monkeypatch.setitem(entry, "MD5", hashlib.md5(good).hexdigest())
        monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()
    with warnings.catch_warnings():
        # pooch leaves the connection of a refused request to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_download_is_checked_kept_and_not_repeated(server, folder, capsys):
    server.answers = [server.good]
    data = datasets.load("breastmnist")
    assert data.source.endswith("from MedMNIST's download")
    assert np.array_equal(data.test.images[:, 0], content("breastmnist")["test_images"])
    assert (folder.parent / "cache" / "medmnist" / "breastmnist.npz").is_file()
    again = datasets.load("breastmnist")
    assert again.source.endswith("from the cache folder")
    assert again.sha256 == data.sha256
    assert server.requests == 1


@pytest.mark.parametrize("bad", [None, b"an error page", b""], ids=["503", "wrong", "empty"])
def test_download_is_tried_again(server, bad):
    server.answers = [bad, bad, server.good]
    assert len(datasets.load("breastmnist").val) == COUNTS["val"]
    assert server.requests == 3


@pytest.mark.parametrize(
    ("bad", "cut", "message"),
    [
        (None, None, "503"),
        (b"an error page", None, "MD5 hash of downloaded file .* does not match"),
        ("good", 1000, "bytes"),
    ],
    ids=["503", "wrong MD5", "truncated"],
)
def test_download_that_keeps_failing(server, folder, bad, cut, message):
    server.answers, server.cut = [server.good if bad == "good" else bad], cut
    with pytest.raises(datasets.DownloadError, match=message) as caught:
        datasets.load("breastmnist")
    assert server.requests == medmnist.RETRIES + 1
    assert "breastmnist.npz from http://127.0.0.1" in str(caught.value)
    assert "by other means" in str(caught.value)
    assert not list((folder.parent / "cache").rglob("*.npz"))
    assert not list((folder.parent / "cache").rglob("tmp*"))


def test_fetch_downloads_once(server):
    server.answers = [server.good]
    assert "breastmnist is now here" in datasets.fetch("breastmnist")
    assert "breastmnist is here already, in the cache folder" in datasets.fetch("breastmnist")
    assert server.requests == 1


def test_check_knows_the_published_checksum(server):
    server.answers = [server.good]
    datasets.fetch("breastmnist")
    report = datasets.check("breastmnist")
    assert "breastmnist, 28 pixels, split official: as it should be" in report
    assert "train: 12 images (malignant 6, normal, benign 6)" in report
    assert "MD5: MedMNIST's own" in report


def test_damaged_download_may_be_deleted(server, folder):
    server.answers = [server.good]
    datasets.fetch("breastmnist")
    path = folder.parent / "cache" / "medmnist" / "breastmnist.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(datasets.CorruptDatasetError, match="delete this download and fetch it"):
        datasets.load("breastmnist")


def test_check_takes_medmnists_own_file_whatever_the_recorded_results_used(server, folder):
    server.answers = [server.good]
    datasets.fetch("breastmnist")
    row = {"dataset": "breastmnist", "size": 28, "dataset_sha256": "0" * 16}
    Ledger("study", folder.parent / "results").append({"key": "k"} | row, [])
    assert "content: not that of the recorded results" in datasets.check("breastmnist")
    save(folder / "breastmnist.npz", content("breastmnist") | {"val_labels": np.ones((4, 1), int)})
    with pytest.raises(datasets.DatasetError, match="results on it are not those of the book"):
        datasets.check("breastmnist")


def test_check_sees_copies_between_the_parts(folder):
    arrays = content("chestmnist")
    arrays["val_images"][0] = arrays["train_images"][3]
    arrays["test_images"][:2] = arrays["train_images"][4]
    save(folder / "chestmnist.npz", arrays)
    report = datasets.check("chestmnist")
    assert "MD5: not MedMNIST's own; the content was checked instead" in report
    assert "note: 1 val images are identical to one in train" in report
    assert "note: 2 test images are identical to one in train or val" in report


def test_catalogue_lists_the_sizes_that_are_here(folder):
    save(folder / "bloodmnist.npz", content("bloodmnist"))
    save(folder / "medmnist" / "bloodmnist_64.npz", content("bloodmnist"))
    entries = {entry.name: entry for entry in datasets.catalogue()}
    blood, derma = entries["bloodmnist"], entries["dermamnist"]
    assert blood.found
    assert blood.state == "28 pixels in VARREG_DATA, 64 pixels in VARREG_DATA"
    assert (blood.task, blood.classes, blood.sizes) == ("multiclass", 8, "28, 64, 128, 224")
    assert (derma.found, derma.state, derma.licence) == (False, "not here", "CC BY-NC 4.0")
    assert derma.how == "python -m varreg data fetch dermamnist"
    assert tuple(entries) == datasets.names()


def test_without_the_package_medmnist(monkeypatch):
    monkeypatch.undo()
    medmnist.info.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(datasets.DatasetError, match="pip install medmnist"):
        datasets.load("dermamnist")
