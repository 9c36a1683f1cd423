"""A part of what is recorded, trained again beside the record: ``-p train always`` of a notebook.

What is trained is exactly what was recorded, so that every number of it should come out again.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from companion import words
from companion.probes import PROBES, units
from companion.rivals import PRIMARY
from companion.studies import specs
from varreg.checks import check_choice
from varreg.lab.ledger import Ledger
from varreg.lab.runs import Job, execute
from varreg.lab.specs import RunSpec

TRAIN = ("never", "always")
#: Of a row, what differs each time.
PASSING = ("seconds", "recorded_at")
SHOWN = ("dataset", "model", "method", "train_share", "epochs", "weight", "layers", "seed")


def trained(
    studies: Sequence[str],
    train: str = "never",
    part: str | None = None,
    results: str | Path | None = None,
) -> pd.DataFrame:
    """Train recorded runs or units once more, on the CPU, and hold them against the record.

    Args:
        studies: Studies and probes of a page, the one that is quickest first.
        train: ``"always"`` trains; ``"never"`` does not.
        part: Which: the name of a study and settings, as in ``"networks seed=0
            model=small_vit,paper_cnn"``; default: the first run of the first study.
        results: Folder of the record, which is left as it is; default: the recorded results.

    Returns:
        A row a run, as printed; empty with ``"never"``. *Numbers* are those of the run and of its
        epochs or details, *equal* those that agree in every digit that is written.

    Raises:
        ValueError: If a parameter is not allowed, or nothing recorded fits ``part``: says what
            is.

    Example:
        >>> trained(["networks"]).empty
        True
        >>> trained(["networks"], "always", "networks model=large")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: part has model='large'; allowed are paper_cnn, small_cnn, ...
    """
    check_choice("train", train, TRAIN)
    if train == "never":
        if part is not None:
            raise ValueError(f"part is {part!r}, and train is 'never'; add train='always' to train")
        return pd.DataFrame()
    study, *settings = (part or studies[0]).split()
    check_choice("study of part", study, studies)
    wanted = _chosen(_jobs(study), settings)
    ledger = Ledger(study, results)
    runs, rows = ledger.runs(), ledger.curves()
    known = dict(iter(runs.set_index("key").iterrows())) if len(runs) else {}
    recorded = [job for job in wanted if job.key in known]
    if not recorded:
        raise ValueError(f"none of the {len(wanted)} runs of part={part!r} is recorded")
    if part is None:
        recorded = recorded[:1]
    return pd.DataFrame(
        [_beside(job, known[job.key], rows[rows["key"] == job.key]) for job in recorded]
    )


def _jobs(study: str) -> Sequence[Job]:
    return units(study) if study in PROBES else specs(study)


def _settings(job: Job) -> dict[str, object]:
    return dict(vars(job)) if isinstance(job, RunSpec) else job.setting


def _chosen(jobs: Sequence[Job], settings: Sequence[str]) -> list[Job]:
    """The jobs with these settings, each as in ``"seed=0,1"``."""
    chosen = list(jobs)
    for setting in settings:
        name, _, values = setting.partition("=")
        every = [_settings(job) for job in jobs]
        check_choice("a setting of part", name, {key: None for each in every for key in each})
        allowed = sorted({str(each.get(name)) for each in every})
        for value in values.split(","):
            if value not in allowed:
                shown = ", ".join(allowed)
                raise ValueError(f"part has {name}={value!r}; allowed are {shown}")
        chosen = [job for job in chosen if str(_settings(job).get(name)) in values.split(",")]
    if not chosen:
        raise ValueError(f"no run has {' '.join(settings)}, all at once")
    return chosen


def _beside(job: Job, known: Mapping[str, object], rows: pd.DataFrame) -> dict[str, object]:
    threads = torch.get_num_threads()
    torch.set_num_threads(int(str(known["threads"])))
    try:
        row, details = execute(job, device="cpu")
    finally:
        torch.set_num_threads(threads)
    pairs = list(_numbers(row, known))
    for mine, theirs in zip(details, rows.to_dict("records"), strict=True):
        pairs += _numbers(mine, theirs)
    gaps = [_gap(a, b) for a, b in pairs]
    settings = _settings(job)
    shown = [f"{name} {settings[name]}" for name in SHOWN if name in settings]
    losses = (known.get(PRIMARY), row.get(PRIMARY))
    before, now = (
        words.number(math.nan if each is None else float(str(each)), 5) for each in losses
    )
    return {
        "Study": job.study,
        "Run": ", ".join(shown),
        "Test cross-entropy": before,
        "Again": now,
        "Numbers": len(gaps),
        "Equal": sum(gap == 0 for gap in gaps),
        "Largest difference": words.short(max(gaps)),
        "Seconds then": f"{float(str(known['seconds'])):.0f}",
    }


def _numbers(
    mine: Mapping[str, object], theirs: Mapping[str, object]
) -> Iterator[tuple[float, float]]:
    for name, value in mine.items():
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if is_number and name in theirs and name not in PASSING:
            yield float(value), float(str(theirs[name]))


def _gap(a: float, b: float) -> float:
    """How far two numbers are apart as they are written; a NaN beside a number, infinitely."""
    if _written(a) == _written(b):
        return 0.0
    return math.inf if math.isnan(a) or math.isnan(b) else abs(a - b)


def _written(value: float) -> str:
    """As in the ledger; a recorded NaN is one."""
    return "nan" if math.isnan(value) else f"{value:.8g}"
