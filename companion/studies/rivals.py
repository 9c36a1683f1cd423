"""The comparison: each rival at the strength that validation chose, with fresh seeds.

The plan is the page *The plan of the comparison*. Every method of a block has the same seeds,
hence the same initial weights and the same batches.
"""

from __future__ import annotations

from companion.studies.rivals_tuning import (
    BLOCKS,
    Block,
    chosen_strengths,
    published,
    reference,
    tuned,
)
from varreg.lab.runs import MissingRunsError
from varreg.lab.specs import RunSpec

STUDY = "rivals"
SEEDS = range(20)


def block_specs(block: Block, results: str | None = None) -> list[RunSpec] | None:
    """The runs of a block, seed by seed, or ``None`` where its strengths are not chosen yet.

    A method that validation turns off is its reference, and is not trained a second time. On the
    paper's own ground, without augmentation, its published setting is there, too.
    """
    strengths = chosen_strengths(block, results)
    if strengths is None:
        return None
    others = dict.fromkeys(reference(block, method) for method in block.methods)
    settings = [(name, 0.0) for name in others] + [(m, s) for m, s in strengths.items() if s]
    found = []
    for seed in SEEDS:
        found += [tuned(STUDY, block, name, strength, seed) for name, strength in settings]
        if not block.augment:
            found.append(published(STUDY, block, seed))
    return list(dict.fromkeys(found))


def specs() -> list[RunSpec]:
    """List the runs of all blocks whose strengths are chosen.

    Raises:
        MissingRunsError: If that is none.
    """
    listed = [spec for block in BLOCKS for spec in block_specs(block) or ()]
    if not listed:
        raise MissingRunsError(
            "no block of rivals_tuning is recorded; run: python -m companion run rivals_tuning"
        )
    return list(dict.fromkeys(listed))
