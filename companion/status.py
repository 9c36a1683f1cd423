"""How much of each study and probe is recorded."""

from __future__ import annotations

from collections import Counter

from companion.probes import PROBES, units
from companion.studies import STUDIES, specs
from varreg.lab.ledger import Ledger
from varreg.lab.runs import MissingRunsError


def status() -> str:
    """Say how many runs of each study and units of each probe are recorded, when and from what.

    A line a study with the commit that its rows came from, then one a state of the code, with how
    many rows came from it.

    The ledgers are those in :func:`varreg.lab.ledger.default_results`.

    Example:
        >>> [line.partition(":")[0] for line in status().splitlines()]
        ['chest_paper', 'chest', 'skin_paper', 'skin', 'grid', 'edges', 'inert_lambda',
         'ambiguities', 'rivals_tuning', 'rivals', 'few_images', 'few_images_weights',
         'wrong_labels', 'networks', 'predictions', 'carried', 'norms', 'sampling', 'leakage',
         'thresholds', 'temperature', 'labels', 'inside', 'nuisance', 'scales', 'rows from ...']
    """
    lines, states = [], Counter()
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
            commits = Counter(runs["commit"].fillna("unknown"))
            states += commits
            line += f", from commit {' and '.join(commits)}"
            if len(commits) > 1:
                line += "; IT MIXES STATES: record it anew from one, in a folder of its own"
        lines.append(line)
    lines += [f"rows from commit {commit}: {count}" for commit, count in states.most_common()]
    return "\n".join(lines)
