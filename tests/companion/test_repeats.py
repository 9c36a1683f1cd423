"""Recorded rows come out again, to the last digit that is written."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from companion import studies
from varreg.lab.columns import OUTCOME_COLUMNS
from varreg.lab.ledger import Ledger
from varreg.lab.runs import MissingRunsError, execute

pytestmark = pytest.mark.data

CHEAP = 15  # seconds of training when it was recorded

#: What `arithmetic` gives on the machine that recorded the studies, with its build of PyTorch.
RECORDED_WITH = "0.064392984"

#: When rows were recorded on a processor of another kind, whose last digits are others.
OTHER_PROCESSOR = "2026-11-26T04", "2026-11-26T07"

#: How far a test metric may be where arithmetic differs in its last digits. Training is chaotic:
#: it ends about as far away as another draw of the features would take it.
ELSEWHERE = 0.1


def arithmetic() -> str:
    """How this machine adds: the loss after a short training in plain PyTorch."""
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 28, 28), torch.randint(0, 7, (64,))
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(16, 10, 1),
        nn.Flatten(),
        nn.Linear(1960, 7),
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    for _ in range(20):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return f"{loss.item():.8g}"


def recorded_rows(study: str) -> dict[str, dict[str, str]]:
    path = Ledger(study).runs_path
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def cheap_runs(listed: Sequence[str]) -> list[tuple[str, str]]:
    """Study and key of every recorded run that can be trained again in seconds."""
    found = []
    for study in listed:
        try:
            keys = {spec.key for spec in studies.specs(study)}
        except MissingRunsError:
            continue
        for key, row in recorded_rows(study).items():
            if key in keys and float(row["seconds"]) < CHEAP and int(row["size"]) <= 28:
                found.append((study, key))
    return found


def written(value: object) -> str:
    if isinstance(value, list):
        return ";".join(written(item) for item in value)
    return f"{value:.8g}" if isinstance(value, float) else str(value)


#: So many rows of these studies.
DRAWN = [*(("any", place) for place in range(3)), *(("when", place) for place in range(10))]


@pytest.mark.parametrize(("of", "place"), DRAWN)
def test_a_row_drawn_today_is_trained_again(of, place):
    # Other ones every day. A failure names its row; CONTRIBUTING.md says what to do.
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    known = cheap_runs({"any": studies.STUDIES, "when": studies.WHEN}[of])
    study, key = random.Random(today).sample(known, sum(each == of for each, _ in DRAWN))[place]
    if not os.environ.get("VARREG_DATA"):
        pytest.skip("VARREG_DATA does not name a folder with the real data")
    (spec,) = (spec for spec in studies.specs(study) if spec.key == key)
    recorded, threads = recorded_rows(study)[key], torch.get_num_threads()
    torch.set_num_threads(int(recorded["threads"]))
    try:
        first, last = OTHER_PROCESSOR
        alike = arithmetic() == RECORDED_WITH and not first <= recorded["recorded_at"] < last
        row, _ = execute(spec, device="cpu")
    finally:
        torch.set_num_threads(threads)
    names = [name for name in OUTCOME_COLUMNS if recorded.get(name)]
    if alike:
        assert {name: written(row[name]) for name in names} == {
            name: recorded[name] for name in names
        }, f"run {key} of {study} does not repeat"
    else:
        for name in (f"test_{metric}" for metric in ("cross_entropy", "accuracy", "auroc")):
            difference = abs(row[name] - float(recorded[name]))
            assert difference < ELSEWHERE, f"run {key} of {study}: {name} is {difference} away"
