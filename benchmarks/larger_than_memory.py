"""Does memory stay flat while a folder of images grows, and how fast are its files decoded?

    python benchmarks/larger_than_memory.py [--device cuda]

Folders in the layout of ``chest_xray``, of up to 100,000 JPEG files, are decoded and trained on
from the memory-mapped cache. The files are hard links to a few drawn phantoms: each is
opened and decoded by itself, but the system holds them in memory, so that no disk is measured.
Each folder has a process of its own. Its peak is that of the anonymous memory, which is what a
process cannot do without; pages of the map come and go as the system has space for them.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import torch
from harness import apart, record, set_up, start
from PIL import Image

from varreg.lab import datasets, models
from varreg.lab.datasets import folders, phantom
from varreg.lab.training import evaluate, fit
from varreg.loss import VariancePenalizedLoss

SIZE = 28  # pixels along an edge of the decoded images
DISTINCT = 16
SMALL = 64  # pixels along an edge of a small file
DECODED = {SMALL: 5000, 256: 2000, 1024: 150}  # files, by their edge
TRAINED = (1_000, 10_000, 100_000)


def main() -> None:
    """Measure and record both tables."""
    device = start(__doc__)
    with tempfile.TemporaryDirectory(prefix="varreg-") as scratch:
        decoding = apart(decode_in_threads, Path(scratch))
        training = [
            apart(decode_and_train, Path(scratch) / str(count), count, device) for count in TRAINED
        ]
    note = (
        f"JPEG files to {SIZE} pixels, grey; hard links to {DISTINCT} drawn phantoms. By itself "
        f"the package takes one thread for files under {folders.SMALL} bytes, else one a core."
    )
    record("decoding", decoding, note)
    note = (
        f"Files of {SMALL} pixels; small CNN at {SIZE} pixels, batches of 128, one epoch with the "
        "penalty, then the other two parts evaluated. Peaks are of the anonymous memory, "
        "which was at megabytes_before when only the program and its libraries were loaded."
    )
    record("larger_than_memory", training, note, device)


def decode_in_threads(scratch: Path) -> list[dict[str, object]]:
    """Images decoded a second, by the size of the files and the number of threads."""
    folders.SMALL = 0  # what is measured is what this setting is for
    rows = []
    for edge, count in DECODED.items():
        root = fill_folder(scratch / f"{edge} pixels", count, edge)
        sizes = [file.stat().st_size for file in (root / "originals").iterdir()]
        for threads in (1, 2):
            os.environ["LOKY_MAX_CPU_COUNT"] = str(threads)
            _, rate = decode(root, f"cache {threads}")
            rows.append(
                {
                    "file_pixels": edge,
                    "file_kilobytes": sum(sizes) / len(sizes) / 1e3,
                    "files": count,
                    "threads": threads,
                    "images_a_second": rate,
                }
            )
    return rows


def decode_and_train(root: Path, count: int, device: torch.device) -> dict[str, object]:
    """Speed and peak memory of both, from files to metrics."""
    set_up(threads=1)
    torch.manual_seed(0)
    fill_folder(root, count, SMALL)
    before = anonymous_megabytes()
    with PeakMemory() as decoding:
        data, decoded_a_second = decode(root, "cache")
    with PeakMemory() as training:
        model = models.build("small_cnn", in_channels=3, size=SIZE, n_outputs=1)
        result = fit(model, data, VariancePenalizedLoss("binary"), epochs=1, device=device)
        for subset in (data.val, data.test):
            evaluate(model, subset, result.scaling, data.task)
    array = next((root / "cache" / "decoded").glob("*.npy"))
    return {
        "images": count,
        "array_megabytes": array.stat().st_size / 1e6,
        "megabytes_before": before,
        "decoding_images_a_second": decoded_a_second,
        "decoding_peak_megabytes": decoding.peak,
        "training_images_a_second": len(data.train) / result.seconds,
        "training_peak_megabytes": training.peak,
    }


def decode(root: Path, cache: str) -> tuple[datasets.Dataset, float]:
    """The data set, decoded into an empty cache, and how many images of it a second."""
    os.environ["VARREG_CACHE"] = str(root / cache)
    began = time.perf_counter()
    data = datasets.load("chest_xray", size=SIZE, root=root)
    seconds = time.perf_counter() - began
    return data, (len(data.train) + len(data.val) + len(data.test)) / seconds


def fill_folder(root: Path, count: int, edge: int) -> Path:
    """A folder in the layout of ``chest_xray``, eight of ten images for training."""
    originals = root / "originals"
    originals.mkdir(parents=True)
    drawing = phantom.draw(DISTINCT, size=edge)
    for number, (image, label) in enumerate(zip(drawing.images, drawing.labels, strict=True)):
        Image.fromarray(image[0]).save(originals / f"{label}-{number}.jpeg", quality=90)
    for part, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        for label, name in enumerate(folders.CHEST_CLASSES):
            files = list(originals.glob(f"{label}-*"))
            place = root / "chest_xray" / part / name
            place.mkdir(parents=True)
            for number in range(int(count * share / 2)):
                os.link(files[number % len(files)], place / f"{number:06}.jpeg")
    return root


class PeakMemory:
    """The highest anonymous memory of this process while the context is open, in megabytes."""

    def __enter__(self) -> PeakMemory:
        self.peak, self.over = 0.0, threading.Event()
        self.sampler = threading.Thread(target=self._sample)
        self.sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.sampler.join()

    def _sample(self) -> None:
        last = False
        while not last:
            last = self.over.wait(0.01)
            self.peak = max(self.peak, anonymous_megabytes())


def anonymous_megabytes() -> float:
    """Memory of this process that no file stands behind; only Linux tells."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no line RssAnon")


if __name__ == "__main__":
    main()
