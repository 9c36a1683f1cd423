"""Yes or no for many images in one cell of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pack(values: Sequence[bool] | np.ndarray) -> str:
    """Write flags as hexadecimal digits, the first flag in front.

    Args:
        values: Flags, ``(N,)``. The last byte is filled up with zeros.

    Example:
        >>> pack([True, False, False, False, True])
        '88'
    """
    return np.packbits(np.asarray(values, dtype=bool)).tobytes().hex()


def unpack(text: str, count: int) -> np.ndarray:
    """Read the flags that :func:`pack` wrote.

    Args:
        text: Hexadecimal digits.
        count: How many flags there are.

    Returns:
        Boolean array ``(count,)``.

    Raises:
        ValueError: If the text is not hexadecimal or its length does not fit the count.

    Example:
        >>> unpack("88", 5).astype(int).tolist()
        [1, 0, 0, 0, 1]
    """
    data = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    if len(data) != -(-count // 8):
        raise ValueError(f"{len(text)} digits do not hold {count} flags; was the text cut?")
    return np.unpackbits(data, count=count).astype(bool)
