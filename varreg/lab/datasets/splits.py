"""The two ways to split HAM10000, from NumPy's frozen random stream alone.

``numpy.random.RandomState`` gives the same numbers in every version of NumPy, so the splits do not
depend on what is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def split_by_row(n_rows: int, seed: int = 42) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The paper's split: by image, 80 / 10 / 10, whatever the lesion.

    It equals scikit-learn's ``train_test_split(rows, test_size=0.2, random_state=seed)``, whose
    second part is split once more with ``test_size=0.5``: the first half is the test set, the
    second the validation set.

    Args:
        n_rows: number of images, at least 5.
        seed: seed of both shuffles.

    Returns:
        Row numbers of train, val and test, in the order of the shuffles.

    Example:
        >>> train, val, test = split_by_row(10_015)
        >>> len(train), len(val), len(test)
        (8012, 1002, 1001)
    """
    n_held_out = -(-n_rows // 5)  # rounded up, as scikit-learn does
    order = np.random.RandomState(seed).permutation(n_rows)
    held_out, train = order[:n_held_out], order[n_held_out:]
    again = np.random.RandomState(seed).permutation(n_held_out)
    n_val = -(-n_held_out // 2)
    return train, held_out[again[:n_val]], held_out[again[n_val:]]


def split_by_group(
    groups: Sequence[str], labels: Sequence[int], seed: int = 42
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A split that keeps all images of a group together, class by class.

    The groups of each class, sorted by name, are shuffled; the first tenth goes to the test set,
    the next tenth to the validation set, the rest to the training set. Classes with at least five
    groups are in all three.

    Args:
        groups: name of the group of each image (its lesion).
        labels: class of each image; a group has the class of its first image.
        seed: seed of the shuffles.

    Returns:
        Row numbers of train, val and test, each in ascending order.

    Example:
        >>> groups = [f"lesion {i // 2}" for i in range(40)]
        >>> train, val, test = split_by_group(groups, [0] * 40)
        >>> len(train), len(val), len(test)
        (32, 4, 4)
        >>> {groups[i] for i in train} & {groups[i] for i in test}
        set()
    """
    class_of: dict[str, int] = {}
    for group, label in zip(groups, labels, strict=True):
        class_of.setdefault(group, label)
    random = np.random.RandomState(seed)
    part_of: dict[str, int] = {}
    for label in sorted(set(class_of.values())):
        members = sorted(group for group, its in class_of.items() if its == label)
        n_each = (len(members) + 5) // 10
        for rank, member in enumerate(random.permutation(len(members))):
            part_of[members[member]] = 2 if rank < n_each else 1 if rank < 2 * n_each else 0
    parts = np.array([part_of[group] for group in groups])
    train, val, test = (np.flatnonzero(parts == part) for part in range(3))
    return train, val, test
