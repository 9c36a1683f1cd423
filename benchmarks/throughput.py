"""How many images a second does the engine train on, beside the loops that others use?

    python benchmarks/throughput.py [--device cuda]

The same network, the same images, the same optimizer, in turn in one process:

- the small CNN at 28 pixels, against the loop of MedMNIST's published experiments: their data
  set of PIL images in a ``DataLoader``, and the two transforms of theirs, which are torchvision's;
- the paper's network at 224 pixels, against ``fit`` of Keras 3, in which the paper was written,
  with each backend that is installed: ``pip install 'varreg[keras]'``, and
  ``tensorflow-cpu`` or ``jax`` for more than the one that this package brings.

The engine has the penalty on and evaluates the validation split after each epoch, as it always
does. The loop of MedMNIST has no penalty; as published it evaluates all three splits after each
epoch, and a second row leaves it only the validation split. Keras has no penalty and evaluates
nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from harness import apart, record, set_up, start
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from varreg.lab import datasets, models
from varreg.lab.timing import interleaved, ratio_interval
from varreg.lab.training import fit
from varreg.loss import VariancePenalizedLoss

BACKENDS = ("torch", "tensorflow", "jax")
KERAS_IMAGES, KERAS_BATCH = 320, 32
TURNS = 5


def main() -> None:
    """Measure both comparisons and record them as one table."""
    device = start(__doc__)
    rows = against_medmnist(device)
    left_out = [backend for backend in BACKENDS if importlib.util.find_spec(backend) is None]
    if importlib.util.find_spec("keras"):
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_HOME": tempfile.gettempdir()}
        for backend in BACKENDS:
            if backend not in left_out:
                # Keras takes its backend when it is imported: a process for each.
                os.environ["KERAS_BACKEND"] = backend
                rows.append(apart(against_keras, device, torch.get_num_threads()))
    note = "Images a second while training"
    if not importlib.util.find_spec("keras"):
        note += "; Keras is not installed here"
    elif left_out:
        note += f"; Keras backends that are not installed here: {', '.join(left_out)}"
    record("throughput", rows, note, device)


def compare(
    model: str, pixels: int, images: int, peer: str, ours: Callable, theirs: Callable, device: str
) -> dict[str, object]:
    """One row: both speeds and their ratio."""
    seconds = interleaved({"ours": ours, "theirs": theirs}, TURNS, warm_up=1, device=device)
    ratio, low, high = ratio_interval(seconds["theirs"], seconds["ours"])
    return {
        "model": model,
        "pixels": pixels,
        "peer": peer,
        "varreg_images_a_second": images / statistics.median(seconds["ours"]),
        "peer_images_a_second": images / statistics.median(seconds["theirs"]),
        "ratio": ratio,
        "low": low,
        "high": high,
        "turns": TURNS,
    }


def an_epoch(data: datasets.Dataset, model: str, batch: int, device: torch.device) -> Callable:
    """One epoch of the engine, with the published penalty."""
    network = models.build(
        model, in_channels=data.channels, size=data.size, n_outputs=data.n_outputs
    )
    criterion = VariancePenalizedLoss(data.task)
    return lambda: fit(network, data, criterion, epochs=1, batch_size=batch, device=device)


# ---------------------------------------------------------------- MedMNIST's loop


def against_medmnist(device: torch.device) -> list[dict[str, object]]:
    """The small CNN at 28 pixels on as many drawn images as PneumoniaMNIST has."""
    from medmnist import INFO, PneumoniaMNIST

    counts = INFO["pneumoniamnist"]["n_samples"]
    drawn = datasets.load("phantom")
    parts = {name: getattr(drawn, name) for name in ("train", "val", "test")}
    arrays = {}
    for name, part in parts.items():
        index = np.arange(counts[name]) % len(part)
        arrays[f"{name}_images"] = part.images.numpy()[index, 0]
        arrays[f"{name}_labels"] = part.labels.numpy()[index, None].astype(np.uint8)
    with tempfile.TemporaryDirectory() as root:
        np.savez(Path(root) / "pneumoniamnist.npz", **arrays)
        parts = {
            split: PneumoniaMNIST(split=split, root=root, transform=to_normalized_tensor)
            for split in counts
        }
        data = datasets.load("pneumoniamnist", root=root)
    network = models.build("small_cnn", in_channels=1, size=28, n_outputs=1).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    train = DataLoader(parts["train"], batch_size=128, shuffle=True)
    again, val, test = (DataLoader(part, batch_size=256) for part in parts.values())
    ours = an_epoch(data, "small_cnn", 128, device)
    loops = {
        "MedMNIST loop": [again, val, test],  # as published: all three, after every epoch
        "MedMNIST loop, validation only": [val],
    }
    return [
        compare(
            "small_cnn",
            28,
            len(parts["train"]),
            peer,
            ours,
            lambda seen=seen: medmnist_epoch(network, optimizer, train, seen, device),
            device,
        )
        for peer, seen in loops.items()
    ]


def to_normalized_tensor(image: Image.Image) -> Tensor:
    """``Compose([ToTensor(), Normalize([0.5], [0.5])])``, operation by operation."""
    pixels = torch.from_numpy(np.array(image, np.uint8, copy=True))
    pixels = pixels.view(image.size[1], image.size[0], len(image.getbands()))
    tensor = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255).clone()
    mean = torch.as_tensor([0.5], dtype=tensor.dtype, device=tensor.device)
    std = torch.as_tensor([0.5], dtype=tensor.dtype, device=tensor.device)
    return tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


def medmnist_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: DataLoader,
    evaluated: Sequence[DataLoader],
    device: torch.device,
) -> None:
    """Train and evaluate for an epoch as ``train_and_eval_pytorch.py`` of MedMNIST does."""
    losses = []
    network.train()
    for images, labels in train:
        optimizer.zero_grad()
        logits = network(images.to(device))
        loss = F.binary_cross_entropy_with_logits(logits, labels.to(torch.float32).to(device))
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    network.eval()
    for loader in evaluated:
        scores = torch.tensor([]).to(device)
        with torch.no_grad():
            for images, labels in loader:
                logits = network(images.to(device))
                labels = labels.to(torch.float32).to(device)
                losses.append(F.binary_cross_entropy_with_logits(logits, labels).item())
                scores = torch.cat((scores, torch.sigmoid(logits)), 0)


# ---------------------------------------------------------------- Keras


def against_keras(device: torch.device, threads: int) -> dict[str, object]:
    """The paper's network at 224 pixels, as its notebooks build it, on noise."""
    import keras

    set_up(threads)
    backend = keras.backend.backend()
    keras.utils.set_random_seed(0)

    def noise(count: int) -> datasets.Subset:
        images = torch.randint(256, (count, 3, 224, 224), dtype=torch.uint8)
        return datasets.Subset(images, torch.randint(7, (count,)))

    parts = {"train": noise(KERAS_IMAGES), "val": noise(KERAS_BATCH), "test": noise(KERAS_BATCH)}
    data = dataclasses.replace(datasets.load("phantom7"), size=224, **parts)
    layers = keras.layers
    model = keras.Sequential([keras.Input((224, 224, 3))])
    for _ in range(2):
        model.add(layers.Conv2D(10, 1, activation="relu"))
        model.add(layers.Conv2D(10, 1, activation="relu"))
        model.add(layers.MaxPooling2D(2))
    model.add(layers.Flatten())
    model.add(layers.Dense(7, activation="softmax"))
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    pixels = data.train.images.permute(0, 2, 3, 1).contiguous().numpy().astype(np.float32) / 255
    labels = data.train.labels.numpy()
    return compare(
        "paper_cnn",
        224,
        KERAS_IMAGES,
        f"Keras {keras.__version__}, {backend}",
        an_epoch(data, "paper_cnn", KERAS_BATCH, device),
        lambda: model.fit(pixels, labels, batch_size=KERAS_BATCH, epochs=1, verbose=0),
        device,
    )


if __name__ == "__main__":
    main()
