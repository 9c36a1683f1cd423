"""What the benchmarks share: the command line, the table, and the record of what was measured."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd
import torch

from varreg.features import FeatureTap
from varreg.lab import models
from varreg.lab.ledger import Ledger, default_results
from varreg.lab.machine import stamp
from varreg.lab.sweeps import reuse_freed_memory
from varreg.lab.training import as_device
from varreg.loss import VariancePenalizedLoss

T = TypeVar("T")

STARTED = time.perf_counter()
ROOT = Path(__file__).parents[1]


def start(description: str) -> torch.device:
    """Read the command line, and set the process up as the package's own runs are.

    Args:
        description: What ``--help`` says.

    Returns:
        The device to measure.

    Raises:
        SystemExit: If code was changed since the last commit and ``--uncommitted`` is not given.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="of a CPU (default: one a core)")
    parser.add_argument(
        "--uncommitted",
        action="store_true",
        help="measure code that was changed since the last commit; the row then says so",
    )
    given = parser.parse_args()
    if (changed := uncommitted()) and not given.uncommitted:
        parser.error(
            f"changed since the last commit: {', '.join(changed)}. A row names the commit that it "
            "was measured with, so commit first; with --uncommitted the row says that it cannot"
        )
    set_up(given.threads or len(os.sched_getaffinity(0)))
    return as_device(given.device)


def uncommitted(root: Path = ROOT) -> list[str]:
    """Files of the package and of the benchmarks that differ from the commit of a checkout.

    Outside a checkout, where a row names no commit, there are none.
    """
    call = ["git", "-C", str(root), "status", "--porcelain", "--", "varreg", "benchmarks"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line[3:] for line in done.stdout.splitlines()]


def set_up(threads: int) -> None:
    """Set a process up as the package's own runs are."""
    torch.set_num_threads(threads)
    reuse_freed_memory()


def apart(measure: Callable[..., T], *arguments: object) -> T:
    """What a function measures in a fresh process, with the environment of this one."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(measure, *arguments).result()


def training_step(
    name: str, size: int, channels: int, batch: int, device: torch.device
) -> Callable[[], None]:
    """A step on one batch of noise: forward, loss with the penalty, backward, optimizer."""
    torch.manual_seed(0)
    model = models.build(name, in_channels=channels, size=size, n_outputs=1).to(device)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)
    images = torch.randn(batch, channels, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    target = torch.randint(2, (batch,), device=device)
    criterion = VariancePenalizedLoss("binary", validate=False)
    tap = FeatureTap(model)

    def step() -> None:
        total = criterion(model(images), target, tap.take()).total
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    return step


@contextmanager
def without_log() -> Iterator[None]:
    """Keep off the screen what compiled code writes there: the profiler announces every call."""
    screen = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def record(
    question: str, rows: list[dict[str, object]], note: str = "", device: str = "cpu"
) -> None:
    """Print a table and append it to ``results/benchmarks/<question>``.

    Args:
        question: Name of the ledger.
        rows: Of the table, all with the same columns.
        note: What a reader has to know: sizes, settings, what was not possible.
        device: Whose name stands beside the numbers.
    """
    where = stamp(torch.device(device), time.perf_counter() - STARTED)
    if uncommitted() and where["commit"]:
        where["commit"] = f"{where['commit'].rstrip('+')}+"
    key = hashlib.sha256(f"{question} {time.time_ns()}".encode()).hexdigest()[:12]
    Ledger(question, default_results() / "benchmarks").append(
        {"key": key, "note": note, **where}, rows
    )
    print(f"\n{question}: {where['device']}, {where['threads']} threads\n{note}")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4g}".format))
