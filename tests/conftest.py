"""What several test modules share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import settings

from varreg.lab.datasets.core import Dataset, Subset

# The same examples at every call, and no time limit: the machine may be busy.
settings.register_profile("varreg", max_examples=30, deadline=None, derandomize=True, database=None)
settings.load_profile("varreg")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


@pytest.fixture(autouse=True)
def _same_numbers_at_every_call():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def make_dataset():
    """Build a small data set in memory: noise, and a patch that tells the classes apart."""

    def make(
        task="binary",
        *,
        size=12,
        channels=1,
        dims=2,
        counts=(64, 32, 32),
        classes=3,
        noisy_val=False,
    ) -> Dataset:
        random = np.random.default_rng(0)

        def subset(count: int, noisy: bool) -> Subset:
            images = random.integers(0, 100, (count, channels, *(size,) * dims))
            if task == "multilabel":
                labels = (np.arange(count)[:, None] >> np.arange(classes)) & 1
            else:
                labels = np.arange(count) % (2 if task == "binary" else classes)
            per_image = labels if task == "multilabel" else np.eye(labels.max() + 1)[labels]
            for label, has in enumerate(per_image.T):
                images[has > 0, :, 3 * label : 3 * label + 3] += 60
            if noisy:
                labels = random.permutation(labels)
            dtype = torch.float32 if task == "multilabel" else torch.int64
            return Subset(
                torch.tensor(images, dtype=torch.uint8), torch.tensor(labels, dtype=dtype)
            )

        train, val, test = (
            subset(count, noisy)
            for count, noisy in zip(counts, (False, noisy_val, False), strict=True)
        )
        names = tuple(f"class {label}" for label in range(2 if task == "binary" else classes))
        return Dataset(
            "tiny", task, names, size, "official", train, val, test, "made in memory", "0" * 16
        )

    return make
