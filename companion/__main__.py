"""The command line of the book: ``python -m companion run | status``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from companion.probes import PROBES, units
from companion.status import status
from companion.studies import PREDICTED, ROBUSTNESS, STUDIES, specs
from varreg.endings import ended
from varreg.lab.runs import run_all


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program; default: that of the process.

    Returns:
        The exit status, see :func:`varreg.endings.ended`.
    """
    return ended(lambda: _carry_out(arguments))


def _carry_out(arguments: Sequence[str] | None) -> None:
    given = _parser().parse_args(arguments)
    if given.results:  # `rivals` reads its strengths from the ledger of `rivals_tuning` there
        os.environ["VARREG_RESULTS"] = given.results
    if given.command == "run":
        run_all(
            units(given.study) if given.study in PROBES else specs(given.study),
            jobs=given.jobs,
            dask=given.dask,
            limit=given.limit,
            predictions=given.study in PREDICTED,
            robustness=given.study in ROBUSTNESS,
            root=given.root,
            device=given.device,
        )
    print(status())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m companion",
        description="Record the runs that the book is made from, and say how many there are.",
        epilog="Data sets are fetched and checked with python -m varreg data.",
    )
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    run = commands.add_parser("run", help="train and record what a study or probe lacks")
    names = (*STUDIES, *PROBES)
    run.add_argument("study", choices=names, metavar="STUDY", help=f"one of {', '.join(names)}")
    run.add_argument("--limit", type=int, help="record at most so many runs, then stop")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, default=1, help="processes at a time, -1: one a core")
    where.add_argument("--dask", metavar="ADDRESS", help="scheduler of a Dask cluster that trains")
    run.add_argument("--root", help="folder of the data (default: $VARREG_DATA)")
    run.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")

    shown = commands.add_parser("status", help="how many runs of each study are recorded")
    for command in (run, shown):
        command.add_argument("--results", help="folder of the ledgers (default: $VARREG_RESULTS)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
