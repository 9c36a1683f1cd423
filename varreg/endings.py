"""How a command ends: with what it was asked for, or with one sentence that says why not."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = "varreg: stopped; every finished run is recorded"


def ended(command: Callable[[], object]) -> int:
    """Carry a command out, and turn whatever goes wrong into one sentence on the error output.

    Args:
        command: Prints what it has to say.

    Returns:
        The exit status: 0; 1 after an error; 128 and the number of the signal after a stop, and
        after the reader of a pipe went away. ``python -X dev`` shows where an error came from.

    Example:
        >>> ended(lambda: print("done"))
        done
        0
    """
    try:
        with _terms_interrupt():
            command()
            sys.stdout.flush()
        return 0
    except BrokenPipeError:  # as in `... | head -1`: nobody is left to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as stop:
        print(STOPPED, file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        print(f"varreg: {_sentence(error)}", file=sys.stderr)
        return 1


def _sentence(error: Exception) -> str:
    # The text of a KeyError is the repr of its message.
    message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, (ImportError, ValueError, LookupError, OSError)) and message:
        return message
    first = message.strip().splitlines()[0] if message.strip() else "no more is known"
    return (
        f"{type(error).__name__}: {first}. This was not foreseen; what was finished is recorded, "
        "and the same command with python -X dev shows where it happened"
    )


@contextmanager
def _terms_interrupt() -> Iterator[None]:
    """Let the TERM of a scheduler stop the command as Ctrl-C does; a second one does not wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGINT, _leave)
        signal.signal(signal.SIGTERM, _leave)
        raise KeyboardInterrupt(number)

    before = [(one, signal.signal(one, interrupt)) for one in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)


def _leave(number: int, _: FrameType | None) -> None:
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + number)


# `python -m varreg` is importing the package, which takes seconds, and nothing is begun yet.
if sys.argv[:1] == ["-m"] and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
