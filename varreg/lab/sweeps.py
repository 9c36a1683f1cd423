"""Many tasks: one after the other, on all cores of this machine, or on a Dask cluster."""

from __future__ import annotations

import ctypes
import logging
import numbers
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import joblib
import torch
from tqdm import tqdm

import varreg

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

SECONDS_TO_CONNECT = 5


def carry_out(
    tasks: Sequence[T],
    perform: Callable[[T], Iterable[R]],
    record: Callable[[R], object],
    *,
    jobs: int = 1,
    dask: str | None = None,
) -> Iterator[int]:
    """Perform tasks and record each result the moment it is there.

    A task that fails ends the call with its error; what was finished by then is recorded.

    Args:
        tasks: In the order in which they begin. They, ``perform`` and ``record`` must be
            picklable where they go to another process.
        perform: Gives the results of a task, one or more of them.
        record: Keeps a result. It is called in the process that performed the task; with
            ``dask`` in this one, because a cluster need not share its files.
        jobs: Processes at a time, each with one thread; -1 for one a core. With 1, this
            process does it all, with as many threads as it has.
        dask: Address of the scheduler of a Dask cluster, or its scheduler file, that performs
            the tasks in place of ``jobs``: one at a time a worker process, with one thread.
            The tasks of a worker that dies go to the others.

    Yields:
        How many results a task gave, when it is over and they are recorded.

    Raises:
        ValueError: If ``jobs`` is not allowed or given together with ``dask``, or if the
            cluster cannot be used.
        ConnectionError: If the cluster is lost on the way.

    Example:
        >>> squares = []
        >>> sum(carry_out([1, 2, 3], lambda number: [number**2], squares.append))
        3
        >>> squares
        [1, 4, 9]
    """
    check_sweep(jobs, dask)
    if dask is None:
        return _here(tasks, perform, record, jobs)
    return _on_cluster(tasks, perform, record, dask)


def check_sweep(jobs: int, dask: str | None) -> None:
    """Refuse what :func:`carry_out` cannot do.

    Raises:
        ValueError: If ``jobs`` is not allowed, or given together with ``dask``.
    """
    if isinstance(jobs, bool) or not isinstance(jobs, numbers.Integral):
        raise ValueError(f"jobs is {jobs!r}; give a whole number: 1 or more, or -1 for one a core")
    if not isinstance(dask, str | None):
        raise ValueError(f"dask is {dask!r}; give the address of a scheduler, or None")
    if jobs == 0 or jobs < -1:
        raise ValueError(f"jobs is {jobs}; it must be 1 or more, or -1 for one a core")
    if dask is not None and jobs != 1:
        raise ValueError(
            f"jobs is {jobs} and dask is {dask!r}; give one of them: the workers of the cluster "
            "decide how many tasks it performs at a time"
        )


def _here(
    tasks: Sequence[T],
    perform: Callable[[T], Iterable[R]],
    record: Callable[[R], object],
    jobs: int,
) -> Iterator[int]:
    calls = [joblib.delayed(_recorded)(task, perform, record) for task in tasks]
    with joblib.parallel_config(
        backend="loky", inner_max_num_threads=1, initializer=_begin, initargs=(os.getpid(),)
    ):
        yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)


def _begin(parent: int) -> None:
    """Set a worker process up before its first task."""
    from joblib.externals.loky import process_executor

    torch.set_num_threads(1)
    # It may live on with 300 MB more than after its first task. loky takes that for a leak,
    # replaces the process and warns, but it is the data set of the next task, a package that it
    # imports, or the memory of its activations. Only where psutil is installed does loky look, and
    # there is no other way to tell it than this switch.
    process_executor._USE_PSUTIL = False
    # The bars of tqdm share a semaphore between processes, which would outlive one that is ended.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int) -> None:
    """End this process when its parent is gone, which cannot say so when it is killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _recorded(task: T, perform: Callable[[T], Iterable[R]], record: Callable[[R], object]) -> int:
    reuse_freed_memory()
    recorded = 0
    for result in perform(task):
        record(result)
        recorded += 1
    return recorded


def reuse_freed_memory() -> None:
    """Keep freed memory in the process, so that each step does not fault it in anew.

    glibc hands large blocks back to the kernel at once. The activations of the paper's
    network at 224 px are such blocks, and most of a step would be spent on getting them back.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def _on_cluster(
    tasks: Sequence[T],
    perform: Callable[[T], Iterable[R]],
    record: Callable[[R], object],
    address: str,
) -> Iterator[int]:
    if not tasks:
        return
    with _connected(address) as client:
        from distributed import as_completed

        _check_cluster(client, address)
        # pure=False: no task may be taken for one of an earlier call.
        futures = client.map(
            _on_worker, tasks, perform=perform, version=varreg.__version__, pure=False
        )
        waiting = dict.fromkeys(futures)

        def keep(future: Future[list[R]]) -> int:
            del waiting[future]
            results = future.result()
            for result in results:
                record(result)
            future.release()  # the cluster may forget them
            return len(results)

        try:
            for future in as_completed(futures, loop=client.loop):
                yield keep(future)
        finally:
            # Results may have arrived that the loop, interrupted, did not come to.
            for future in [future for future in waiting if future.status == "finished"]:
                keep(future)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        from distributed import Client
        from distributed.comm.core import CommClosedError
    except ImportError as error:
        raise ValueError(
            f"dask is {address!r}, and the package distributed is not here; install it with "
            "pip install 'varreg[dask]'"
        ) from error
    named = "scheduler_file" if Path(address).is_file() else "address"
    try:
        client = Client(**{named: address}, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"dask is {address!r}, where no scheduler answers ({error}); give the address that "
            "`dask scheduler` prints, such as tcp://host:8786, or the path of its --scheduler-file"
        ) from error
    try:
        with _quiet("distributed", "distributed.client"), client:
            yield client
    except (CancelledError, CommClosedError) as error:
        raise ConnectionError(
            f"lost the Dask cluster at {address} ({str(error).partition('.')[0]}); what had come "
            "from it is recorded, and the same call goes on from there"
        ) from error


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Leave it to an error of this package to say that a cluster was lost."""
    before = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _check_cluster(client: Client, address: str) -> None:
    def version() -> str | None:
        # Sent as it stands, so that it also runs where the package is not installed.
        try:
            import varreg
        except ImportError:
            return None
        return varreg.__version__

    places = client.run(version)
    if not places:
        raise ValueError(
            f"the Dask cluster at {address} has no workers; start some with "
            f"dask worker {address} --nworkers -1 --nthreads 1"
        )
    for place, found in {**places, "its scheduler": client.run_on_scheduler(version)}.items():
        _check_version(found, place, varreg.__version__)


def _check_version(found: str | None, place: str, expected: str) -> None:
    if found != expected:
        raise ValueError(
            f"{place} of the Dask cluster has {f'varreg {found}' if found else 'no varreg'} and "
            f"this machine {expected}; install the same version on all of them"
        )


_one_at_a_time = threading.Lock()


def _on_worker(task: T, perform: Callable[[T], Iterable[R]], version: str) -> list[R]:
    """Perform a task in a worker of a Dask cluster, which may have joined since the check."""
    _check_version(varreg.__version__, platform.node(), version)
    # Threads of one worker process would share torch's random state.
    with _one_at_a_time:
        torch.set_num_threads(1)
        reuse_freed_memory()
        try:
            return list(perform(task))
        finally:
            # A worker that seems full is given no more tasks: hand back what it kept.
            if platform.libc_ver()[0] == "glibc":
                ctypes.CDLL(None).malloc_trim(0)
