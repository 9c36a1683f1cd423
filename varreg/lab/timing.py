"""Times of steps that take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from varreg.lab.statistics import mean_interval


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    turns: int,
    *,
    warm_up: int = 3,
    device: torch.device | str = "cpu",
) -> dict[str, list[float]]:
    """Time several steps in turn.

    A machine that slows down for a while slows all of them down, which leaves their ratios. The
    order is reversed at every other turn: who comes first finds what the last one left in the
    cache.

    Args:
        steps: What to time, by name; called without arguments.
        turns: How often each is timed.
        warm_up: Turns before these, which do not count.
        device: A CUDA device is waited for before each reading of the clock.

    Returns:
        Seconds by name, in the order of the turns.

    Raises:
        ValueError: If there is nothing to time or ``turns`` is less than 1.

    Example:
        >>> seconds = interleaved({"sort": lambda: sorted(range(9))}, turns=5)
        >>> len(seconds["sort"]), min(seconds["sort"]) > 0
        (5, True)
    """
    if not steps or turns < 1:
        raise ValueError(f"{len(steps)} steps in {turns} turns; both must be 1 or more")
    on_cuda = torch.device(device).type == "cuda"
    wait: Callable[[], object] = torch.cuda.synchronize if on_cuda else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-warm_up, turns):
        for name in sorted(steps, key=list(steps).index, reverse=bool(turn % 2)):
            wait()
            start = time.perf_counter()
            steps[name]()
            wait()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


#: Into so many blocks of consecutive turns a long timing is divided, see :func:`ratio_interval`.
BLOCKS = 10


def ratio_interval(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float, float]:
    """How many times as long one step takes as another that was timed in the same turns.

    The logarithm of the ratio is taken turn by turn, which removes what slows both down. Its
    median over each of ten blocks of consecutive turns (a block a turn where there are fewer)
    is hardly moved by a turn that was disturbed, and blocks depend on each other less than turns
    do. Over the blocks stands Student's t interval. A ratio is positive, and so are both ends.

    Args:
        slow: Seconds of the one, a value a turn.
        fast: Seconds of the other, in the same turns.

    Returns:
        Geometric mean over the blocks, and the ends of its 95 % interval, which are NaN for a
        single turn.

    Raises:
        ValueError: If the two do not have the same number of values, or one is not positive.

    Example:
        >>> ratio, low, high = ratio_interval([2.0, 2.2, 2.1], [1.0, 1.0, 1.0])
        >>> f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
        '2.10 [1.86, 2.36]'
    """
    if len(slow) != len(fast) or not slow:
        raise ValueError(
            f"{len(slow)} and {len(fast)} values; both steps need one value for each turn"
        )
    pairs = np.array([slow, fast])
    if not (np.isfinite(pairs).all() and pairs.min() > 0):
        raise ValueError(f"seconds are {pairs.min()} to {pairs.max()}; all must be positive")
    logs = np.log(pairs[0] / pairs[1])
    blocks = np.array_split(logs, min(BLOCKS, len(logs)))
    interval = mean_interval([float(np.median(block)) for block in blocks])
    ratio, low, high = np.exp([interval.mean, interval.low, interval.high])
    return float(ratio), float(low), float(high)
