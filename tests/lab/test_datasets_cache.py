"""Decoding that is stopped, shared or larger than memory, in folders that the tests draw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image

from varreg.lab import datasets
from varreg.lab.datasets import cache, folders

COUNTS = {"train": 40, "val": 5, "test": 5}  # images a class
TOTAL = 2 * sum(COUNTS.values())


def fill_folder(root: Path, scale: int = 1) -> Path:
    """Noise in the layout of ``chest_xray``; hard links where there are many."""
    random = np.random.default_rng(0)
    for part, count in COUNTS.items():
        for name in folders.CHEST_CLASSES:
            place = root / "chest_xray" / part / name
            place.mkdir(parents=True)
            for original in range(count):
                first = place / f"{original}.jpeg"
                Image.fromarray(random.integers(0, 256, (20, 20), np.uint8)).save(first)
                for copy in range(1, scale):
                    os.link(first, place / f"{original}-{copy}.jpeg")
    return root


@pytest.fixture(autouse=True)
def root(nothing_here, monkeypatch) -> Path:
    monkeypatch.setattr(folders, "CHUNK", 4)
    return fill_folder(nothing_here)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The files that were decoded, in the order in which they were."""
    found: list[str] = []
    decode = folders._decode

    def count(path: str, *arguments: int) -> np.ndarray:
        found.append(path)
        return decode(path, *arguments)

    monkeypatch.setattr(folders, "_decode", count)
    return found


def undisturbed(tmp_path, monkeypatch) -> bytes:
    """The array of a decode that nothing happens to, without the cache that the test uses."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("VARREG_CACHE", str(tmp_path / "undisturbed"))
        datasets.load("chest_xray", size=16)
    return array_in(tmp_path / "undisturbed").read_bytes()


def array_in(folder: Path) -> Path:
    [array] = (folder / "decoded").glob("chest_xray*.npy")
    return array


def draft_in(folder: Path) -> list[str]:
    hidden = (path for path in (folder / "decoded").iterdir() if path.name.startswith("."))
    return sorted(path.suffix for path in hidden if path.suffix != ".lock")


def journal_in(folder: Path) -> int:
    [journal] = (folder / "decoded").glob(".chest_xray*.journal")
    return int(journal.read_text().split()[0])


SLOWLY = """
    import sys, time
    from varreg.lab import datasets
    from varreg.lab.datasets import cache, folders

    cache.CHECKPOINT, folders.CHUNK = 0.0, 4
    decode = folders._decode

    def slowly(*arguments):
        time.sleep(0.05)
        return decode(*arguments)

    folders._decode = slowly
    datasets.load("chest_xray", size=16)
"""


def test_killed_decoding_goes_on_where_it_was(tmp_path, monkeypatch, calls):
    folder = tmp_path / "cache"
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SLOWLY)])
    deadline = time.monotonic() + 60
    while not list(folder.glob("decoded/.chest_xray*.journal")) or journal_in(folder) < 12:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = journal_in(folder)
    assert 12 <= done < TOTAL

    data = datasets.load("chest_xray", size=16)
    assert len(calls) == TOTAL - done
    assert draft_in(folder) == []
    assert array_in(folder).read_bytes() == undisturbed(tmp_path, monkeypatch)
    monkeypatch.setenv("VARREG_CACHE", str(tmp_path / "undisturbed"))
    assert datasets.load("chest_xray", size=16).sha256 == data.sha256


def test_what_stands_before_a_broken_file_stays(root, tmp_path, monkeypatch, calls):
    broken = root / "chest_xray" / "train" / "PNEUMONIA" / "7.jpeg"
    intact = broken.read_bytes()
    broken.write_bytes(intact[:100])
    for _ in range(2):
        calls.clear()
        with pytest.raises(datasets.CorruptDatasetError, match=r"7\.jpeg is not a complete image"):
            datasets.load("chest_xray", size=16)
    # Whole chunks count. In alphabetical order, 7.jpeg has 40 + 37 files before it.
    assert journal_in(tmp_path / "cache") == 76
    assert not [path for path in calls if "train/NORMAL" in Path(path).as_posix()]

    calls.clear()
    broken.write_bytes(intact)
    datasets.load("chest_xray", size=16)
    assert len(calls) == TOTAL - 76
    assert array_in(tmp_path / "cache").read_bytes() == undisturbed(tmp_path, monkeypatch)


def stop_after(count: int, monkeypatch) -> None:
    """Has the user press Ctrl-C once so many files are decoded."""
    whole = folders._decode_all

    def part(files, into, done, name):
        for now in whole(files, into, done, name):
            yield now
            if now >= count:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folders, "_decode_all", part)
        with pytest.raises(KeyboardInterrupt):
            datasets.load("chest_xray", size=16)


def test_interrupted_decoding_goes_on(tmp_path, monkeypatch, calls):
    stop_after(20, monkeypatch)
    assert journal_in(tmp_path / "cache") == 20
    calls.clear()
    datasets.load("chest_xray", size=16)
    assert len(calls) == TOTAL - 20


@pytest.mark.parametrize("what", ["file changed", "draft cut", "journal cut", "draft gone"])
def test_draft_that_does_not_fit_is_not_used(root, tmp_path, monkeypatch, calls, what):
    stop_after(20, monkeypatch)
    [draft] = (tmp_path / "cache" / "decoded").glob(".*.npy")
    if what == "file changed":
        os.utime(root / "chest_xray" / "train" / "NORMAL" / "0.jpeg", (1, 1))
    elif what == "draft cut":
        draft.write_bytes(draft.read_bytes()[:-1])
    elif what == "journal cut":
        draft.with_suffix(".journal").write_text("20 ")
    else:
        draft.unlink()
    calls.clear()
    datasets.load("chest_xray", size=16)
    assert len(calls) == TOTAL
    assert array_in(tmp_path / "cache").read_bytes() == undisturbed(tmp_path, monkeypatch)
    assert draft_in(tmp_path / "cache") == []


def test_images_reach_the_disk_before_the_number_that_counts_them(monkeypatch):
    events = []
    flush, replace = np.memmap.flush, os.replace
    monkeypatch.setattr(np.memmap, "flush", lambda array: events.append("images") or flush(array))
    monkeypatch.setattr(
        cache.os, "replace", lambda old, new: events.append(Path(new).suffix) or replace(old, new)
    )
    monkeypatch.setattr(cache, "CHECKPOINT", 0.0)
    datasets.load("chest_xray", size=16)
    steps = TOTAL // 4 + 1
    assert events == ["images", ".journal"] * steps + [".json", ".npy"]


def test_of_two_callers_one_decodes_and_the_other_waits(monkeypatch, calls):
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(datasets.load, "chest_xray", size=16) for _ in range(2)]
        first, second = (call.result() for call in both)
    assert len(calls) == TOTAL
    assert first.sha256 == second.sha256
    assert torch.equal(first.test.images, second.test.images)


@pytest.mark.parametrize(
    ("kilobytes", "cores", "threads"), [(4, 3, 1), (5, 1, 1), (5, 3, 3), (5, 20, 8)]
)
def test_threads_are_for_files_that_are_worth_it(tmp_path, monkeypatch, kilobytes, cores, threads):
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    (tmp_path / "file").write_bytes(bytes(1000 * kilobytes))
    assert folders._threads([str(tmp_path / "file")] * 3) == threads


def test_progress_bar_starts_where_decoding_does(monkeypatch, capsys):
    import tqdm.auto

    stop_after(20, monkeypatch)
    shown = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings | {"disable": False})
            shown.append((self.initial, self.total))

        def close(self):
            shown.append(self.n)
            super().close()

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    datasets.load("chest_xray", size=16)
    assert shown[:2] == [(20, TOTAL), TOTAL]
    assert "decode chest_xray: 100%" in capsys.readouterr().err


# Larger than memory.


def test_array_larger_than_memory_can_be_opened(tmp_path):
    if not Path("/proc/meminfo").exists():
        pytest.skip("the rule that NumPy's own way breaks is one of Linux")
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("this machine maps nothing that its memory could not hold")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shape = (memory // 2**20 + 2**10, 2**10, 2**10)
    target = tmp_path / "large.npy"  # a hole: it takes no space
    np.lib.format.open_memmap(target, "w+", np.uint8, shape)
    target.with_suffix(".json").write_text(json.dumps({"sha256": "0" * 64}))
    array, _ = cache._open(target, shape)
    assert array.shape == shape
    array[-1, -1, -1] = 7  # a copy of that page
    assert torch.from_numpy(array)[-1, -1, -1] == 7
    assert np.load(target, mmap_mode="r")[-1, -1, -1] == 0


MEASURE = """
    import dataclasses, json, os, sys, threading
    from pathlib import Path

    from torch import nn
    from varreg.lab import datasets, training
    from varreg.loss import VariancePenalizedLoss


    def anonymous():
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024


    def peak(work):
        highest, over = [anonymous()], threading.Event()

        def sample():
            while not over.wait(0.002):
                highest.append(anonymous())

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            result = work()
            highest.append(anonymous())
        finally:
            over.set()
            sampler.join()
        return result, max(highest)


    root, images = sys.argv[1:]
    os.environ["VARREG_CACHE"] = root + "/cache"
    peaks = {}
    data, peaks["load"] = peak(lambda: datasets.load("chest_xray", size=64, root=root))
    if images == "copied":
        copy = data.train.images[:, :1].clone().expand_as(data.train.images)
        data = dataclasses.replace(data, train=dataclasses.replace(data.train, images=copy))
    scaling, peaks["scaling"] = peak(lambda: training.Scaling.of(data.train.images))
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(192, 1))
    criterion = VariancePenalizedLoss("binary", 0.0)  # nothing learns before the features
    settings = {"epochs": 1, "normalize": "unit", "device": "cpu"}
    _, peaks["fit"] = peak(lambda: training.fit(model, data, criterion, **settings))
    _, peaks["evaluate"] = peak(lambda: training.evaluate(model, data.train, scaling, data.task))
    print(json.dumps(peaks))
"""


def peaks(root: Path, images: str = "mapped") -> dict[str, int]:
    """Most anonymous memory at each step, in bytes, in a process of its own."""
    # Blocks that are given back are given back to the system: what counts is what is held.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    call = [sys.executable, "-c", textwrap.dedent(MEASURE), str(root), images]
    run = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(run.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path):
    status = Path("/proc/self/status")
    if not (status.exists() and "RssAnon" in status.read_text()):
        pytest.skip("only Linux tells how much of a process's memory no file stands behind")
    few, many = 13, 60  # times 100 images, eight of ten of them for training
    for scale in (few, many):
        fill_folder(tmp_path / str(scale), scale)
    before, after = peaks(tmp_path / str(few)), peaks(tmp_path / str(many))
    added = 0.8 * (many - few) * TOTAL * 64**2  # bytes of training images: 15 MB
    assert all(after[step] - before[step] < added / 2 for step in before), (before, after)
    # The same with the training images in memory, which must show.
    copied = peaks(tmp_path / str(many), "copied")
    steps = ("scaling", "fit", "evaluate")
    assert all(copied[step] - before[step] > added / 2 for step in steps), (before, copied)
