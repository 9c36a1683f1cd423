"""The studies: one module each, which lists the runs of the study.

>>> len(specs("chest_paper")) % 3  # three methods, the same seeds for each
0
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from itertools import product

from varreg.checks import check_choice
from varreg.lab.specs import RunSpec

REPRODUCTION = (
    "chest_paper",
    "chest",
    "skin_paper",
    "skin",
    "grid",
    "edges",
    "inert_lambda",
    "ambiguities",
)
"""What the verdicts on the paper rest on."""

WHEN = ("few_images", "few_images_weights", "wrong_labels", "networks", "longer")
"""Where the penalty and its rivals help, at the strengths that BreastMNIST chose."""

STUDIES = (*REPRODUCTION, "rivals_tuning", "rivals", "one_default", "volumes", *WHEN, "beyond")

PREDICTED = ("chest_paper", "chest", "skin_paper", "skin", "rivals", "volumes")
"""Studies of which what each run said about each image is recorded as well."""

ROBUSTNESS = ("rivals",)
"""Studies that record corrupted images and the last epoch, too."""


def every(**axes: Iterable[object]) -> list[dict[str, object]]:
    """All combinations of the values of some settings; the last one changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def specs(study: str, **fields: object) -> list[RunSpec]:
    """List the runs of a study, the most important first.

    Args:
        study: One of :data:`STUDIES`.
        fields: Only the runs with these values of their fields.

    Returns:
        Its runs, seed by seed, so that a study that was stopped is balanced.

    Raises:
        ValueError: If there is no such study.
        MissingRunsError: If it is ``rivals``, and the runs of ``rivals_tuning`` that choose
            its strengths are not recorded.
    """
    check_choice("study", study, STUDIES)
    listed = import_module(f"companion.studies.{study}").specs()
    return [spec for spec in listed if fields.items() <= vars(spec).items()]
