"""How much of each study and probe is recorded."""

from __future__ import annotations

from companion.probes import PROBES, units
from companion.studies import STUDIES, specs
from varreg.lab.ledger import Ledger
from varreg.lab.runs import MissingRunsError

__all__ = ["status"]


def status() -> str:
    """Say how many runs of each study and units of each probe are recorded, and how long they took.

    The ledgers are those in :func:`varreg.lab.ledger.default_results`.

    Example:
        >>> [line.partition(":")[0] for line in status().splitlines()]
        ['chest_paper', 'chest', 'skin_paper', 'skin', 'grid', 'edges', 'inert_lambda',
         'ambiguities', 'predictions', 'carried', 'norms', 'sampling', 'leakage', 'thresholds',
         'temperature']
    """
    lines = []
    for study in (*STUDIES, *PROBES):
        runs = Ledger(study).runs()
        try:
            jobs = units(study) if study in PROBES else specs(study)
        except MissingRunsError as error:
            lines.append(f"{study}: waits for another study ({error})")
            continue
        keys = {job.key for job in jobs}
        done = 0 if runs.empty else len(keys & set(runs["key"]))
        line = f"{study}: {done} of {len(keys)} runs recorded"
        if done:
            hours = runs["seconds"].sum() / 3600
            line += f", {hours:.2f} hours of training on {', '.join(sorted(set(runs['device'])))}"
        lines.append(line)
    return "\n".join(lines)
