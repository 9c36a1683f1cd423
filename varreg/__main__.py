"""The command line: ``python -m varreg data | run | status | doctor``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from varreg import datasets, doctor
from varreg.endings import ended
from varreg.probes import PROBES, units
from varreg.runs import run_all
from varreg.studies import STUDIES, specs

__all__ = ["main"]


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
    if getattr(given, "results", None):
        # The choice of a weight reads the ledger of `grid` from the same folder.
        os.environ["VARREG_RESULTS"] = given.results
    given.call(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m varreg", description=doctor.varreg.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="show, fetch and check the data sets")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("list", help="which data sets there are, and which are here")
    action.set_defaults(call=_list)
    action = actions.add_parser("fetch", help="download a data set")
    action.set_defaults(call=_fetch)
    action.add_argument("name")
    action.add_argument("--size", type=int, default=28)
    action = actions.add_parser("check", help="verify a data set that is here")
    action.set_defaults(call=_check)
    action.add_argument("name")
    action.add_argument("--size", type=int, default=28)
    for action in actions.choices.values():
        action.add_argument("--root", help="folder of the data (default: $VARREG_DATA)")

    run = commands.add_parser("run", help="train and record what a study or probe lacks")
    run.set_defaults(call=_run)
    run.add_argument("study", choices=(*STUDIES, *PROBES))
    run.add_argument("--limit", type=int, help="record at most so many runs, then stop")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, default=1, help="processes at a time, -1: one a core")
    where.add_argument("--dask", metavar="ADDRESS", help="scheduler of a Dask cluster that trains")
    run.add_argument("--root", help="folder of the data (default: $VARREG_DATA)")
    run.add_argument("--results", help="folder of the ledgers (default: $VARREG_RESULTS)")
    run.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")

    status = commands.add_parser("status", help="how many runs of each study are recorded")
    status.set_defaults(call=lambda given: print(doctor.status()))
    status.add_argument("--results", help="folder of the ledgers (default: $VARREG_RESULTS)")

    report = commands.add_parser("doctor", help="versions, device and which data are found")
    report.set_defaults(call=lambda given: print(doctor.report(given.root)))
    report.add_argument("--root", help="folder of the data (default: $VARREG_DATA)")
    return parser


def _list(given: argparse.Namespace) -> None:
    for entry in datasets.catalogue(given.root):
        kind = f"{entry.task:10} {entry.classes:3} classes  {entry.licence:19}"
        print(f"{entry.name:16} {kind}  {entry.state}")


def _fetch(given: argparse.Namespace) -> None:
    print(datasets.fetch(given.name, size=given.size, root=given.root))


def _check(given: argparse.Namespace) -> None:
    print(datasets.check(given.name, size=given.size, root=given.root))


def _run(given: argparse.Namespace) -> None:
    run_all(
        units(given.study) if given.study in PROBES else specs(given.study),
        jobs=given.jobs,
        dask=given.dask,
        limit=given.limit,
        root=given.root,
        device=given.device,
    )
    print(doctor.status())


if __name__ == "__main__":
    sys.exit(main())
