"""The command line: ``python -m varreg probe | data | doctor``.

It imports the lab only when a command is called, so that its help is shown without the extra too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from varreg.endings import ended


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
    given.call(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m varreg",
        description="Ask whether the penalty is worth a try; show, fetch and check data sets; say "
        "what this machine has.",
        epilog="What the book records is run with python -m companion, in a checkout.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    probe = commands.add_parser("probe", help="whether the penalty is worth a try on your model")
    probe.set_defaults(call=_probe)
    probe.add_argument(
        "factory",
        metavar="MODULE:FUNCTION",
        help="a function of yours, without arguments, that returns model, training loader and task "
        "('binary', 'multiclass' or 'multilabel'); looked for in this folder, too",
    )
    probe.add_argument(
        "--layer", help="whose input are the features (default: of the one that makes the logits)"
    )
    probe.add_argument("--images", type=int, help="training images (default: as the loader says)")
    probe.add_argument("--batches", type=int, default=8, help="to look at (default: 8)")
    probe.add_argument("--augmented", action="store_true", help="training images are augmented")

    data = commands.add_parser("data", help="show, fetch and check the data sets")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("list", help="which data sets there are, and which are here")
    action.set_defaults(call=_list)
    for name, said in (
        ("fetch", "download a data set"),
        ("check", "verify a data set that is here"),
    ):
        action = actions.add_parser(name, help=said)
        action.set_defaults(call=_one, act=name)
        action.add_argument("name")
        action.add_argument("--size", type=int, default=28)
    for action in actions.choices.values():
        action.add_argument("--root", help="folder of the data (default: $VARREG_DATA)")

    report = commands.add_parser("doctor", help="versions, device and which data are found")
    report.set_defaults(call=_doctor)
    report.add_argument("--root", help="folder of the data (default: $VARREG_DATA)")
    return parser


def _probe(given: argparse.Namespace) -> None:
    from varreg.advice import recommend

    module, _, name = given.factory.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    factory = getattr(import_module(module), name, None) if module and name else None
    if not callable(factory):
        raise ValueError(
            f"{given.factory!r} names no function; write MODULE:FUNCTION, as in train:probe for "
            "a function probe in train.py"
        )
    try:
        made = factory()
    except Exception as error:
        raise ValueError(
            f"{given.factory} ended with {type(error).__name__}: {error}; python -X dev -m varreg "
            "probe ... shows where"
        ) from error
    if not (isinstance(made, tuple) and len(made) == 3):
        raise ValueError(
            f"{given.factory} returns a {type(made).__name__}; it must return three: the model, "
            "its training loader, and the task: 'binary', 'multiclass' or 'multilabel'"
        )
    options = {name: getattr(given, name) for name in ("layer", "images", "batches", "augmented")}
    print(recommend(*made, **options))


def _list(given: argparse.Namespace) -> None:
    from varreg.lab import datasets

    for entry in datasets.catalogue(given.root):
        kind = f"{entry.task:10} {entry.classes:3} classes  {entry.licence:19}"
        print(f"{entry.name:16} {kind}  {entry.state}")


def _one(given: argparse.Namespace) -> None:
    from varreg.lab import datasets

    print(getattr(datasets, given.act)(given.name, size=given.size, root=given.root))


def _doctor(given: argparse.Namespace) -> None:
    from varreg.lab import doctor

    print(doctor.report(given.root))


if __name__ == "__main__":
    sys.exit(main())
