"""What the tables of a ledger hold: the names of the columns, and the values they can have."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from varreg.lab.csvtable import RESTORE, LedgerError, Table
from varreg.lab.metrics import METRICS
from varreg.lab.specs import SETTINGS, digest, key_of_row

SPLITS = ("train", "val", "test")
CURVE_COLUMNS = (
    "key",
    "epoch",
    *(
        f"{split}_{name}"
        for split in ("train", "val")
        for name in ("total", "cross_entropy", "feature_variance", "accuracy", "auroc")
    ),
)
METRIC_COLUMNS = tuple(f"{split}_{metric}" for split in SPLITS for metric in METRICS)
OUTCOME_COLUMNS = (*METRIC_COLUMNS, "best_epoch", "epochs_run", "parameters")
PROVENANCE_COLUMNS = (
    "version",
    "commit",
    "dataset_sha256",
    "torch_version",
    "device",
    "threads",
    "seconds",
    "recorded_at",
)
#: Runs that share these, as they are written, see the same images.
CONTENT_COLUMNS = ("dataset", "size", "split")

WHOLE = ("epoch", "best_epoch", "epochs_run", "parameters", "threads")
SHARES = ("accuracy", "auroc", "keras_auc", "balanced_accuracy", "ece", "recall")
#: Columns that came later than the first recorded runs, whose tables do not have them.
LATER = tuple(f"{split}_keras_auc" for split in SPLITS)
AMOUNTS = ("total", "cross_entropy", "feature_variance")
# No network is so much worse on one split or epoch than on all others: a decimal point was lost.
TOO_MUCH_WORSE = 1e5
#: A number in the way of a spreadsheet: 1,5 or 95%.
GARBLED = re.compile(r"[-+]?\d[\d.]*(,\d+|\s*%)")


def settings_in(header: Sequence[str]) -> dict[str, str]:
    """Name and type of the settings of a run, where this is a table of runs and not of a probe.

    Most of them must be there: a probe has a few of the same names, and a table of runs from which
    a column was deleted is still one.
    """
    return SETTINGS if 2 * len(SETTINGS.keys() & set(header)) >= len(SETTINGS) else {}


def check_runs(runs: Table) -> None:
    """Refuse a table of runs with a value that was not recorded like this.

    Raises:
        LedgerError: If a run stands twice, a value is missing or outside its range, or the
            settings of a run or unit are not those of its key.
    """
    if not runs.rows:
        return
    keys = runs.column("key")
    if twice := [key for key, times in Counter(keys).items() if times > 1]:
        raise LedgerError(
            f"{runs.path} holds run {twice[0]} twice, as after a merge of two ledgers. Nothing was "
            "changed. Keep one of its lines"
        )
    whole = _is_whole(runs)
    _check_values(runs, PROVENANCE_COLUMNS[-1] if whole else None)
    if settings_in(runs.header):
        _check_settings(runs, whole)
    elif {"study", *PROVENANCE_COLUMNS} <= set(runs.header):
        for number, row in enumerate(runs.records()):
            if row["key"] not in _unit_keys(row):
                raise runs.refusal(
                    number, f"was changed: its settings do not belong to the key {row['key']}"
                )


def _check_settings(runs: Table, whole: bool) -> None:
    for number, row in enumerate(runs.records()):
        try:
            key = key_of_row(row)
        except ValueError as error:
            raise runs.refusal(number, f"is not what was recorded: {error}") from error
        if key != row["key"]:
            raise runs.refusal(
                number,
                f"was changed, or recorded by another version of the package: its settings belong "
                f"to the key {key}, and it has {row['key']}",
            )
        if whole and not int(row["best_epoch"]) <= int(row["epochs_run"]) <= int(row["epochs"]):
            raise runs.refusal(
                number,
                f"has its best epoch at {row['best_epoch']} of {row['epochs_run']}, where "
                f"{row['epochs']} were allowed",
            )


def _unit_keys(row: Mapping[str, str]) -> Iterator[str]:
    """The keys that the row of a probe's unit can have: its settings stand behind the study."""
    names = list(row)
    names = names[names.index("study") + 1 : names.index(PROVENANCE_COLUMNS[0])]
    for end in range(1, min(len(names), 4) + 1):
        for values in itertools.product(*(_readings(row[name]) for name in names[:end])):
            yield digest([row["study"], dict(zip(names[:end], values, strict=True))])


def _readings(text: str) -> list[object]:
    """What a setting may have been before it was written."""
    readings: list[object] = [text]
    if (number := _number(text)) is not None:
        readings.append(number)
        if number.is_integer():
            readings.append(int(number))
    return readings + [value for value in (True, False, None) if text == str(value or "")]


def check_curves(curves: Table, runs: Table) -> None:
    """Refuse curves with a value that was not recorded like this, or without the curve of a run.

    Raises:
        LedgerError: Says which line or run.
    """
    whole = bool(runs.rows) and _is_whole(runs)
    if whole:
        _refuse_lost(curves, CURVE_COLUMNS)
    _check_values(curves, CURVE_COLUMNS[-1] if whole else None)
    epochs: dict[str, list[str]] = defaultdict(list)
    keys = curves.column("key") if curves.rows else []
    given = curves.column("epoch") if "epoch" in curves.header else [""] * len(keys)
    for number, (key, epoch) in enumerate(zip(keys, given, strict=True)):
        if epoch and epoch in epochs[key]:
            raise curves.refusal(number, f"is epoch {epoch} of run {key} a second time")
        epochs[key].append(epoch)
    for row in runs.records():
        found = epochs[row["key"]]
        if whole:
            lost = set(found) != {str(epoch + 1) for epoch in range(int(row["epochs_run"]))}
        else:  # runs that all have no curve leave nothing but the key in the header
            lost = not found and curves.header != ["key"]
        if lost:
            raise LedgerError(
                f"{curves.path} holds {len(found)} rows of run {row['key']}, and some are lost. "
                f"{RESTORE}, or delete the line of this run in {runs.path.name}: it will be "
                "trained again"
            )


def contents(runs: Table) -> dict[tuple[str, ...], dict[str, int]]:
    """Which data the runs saw.

    Returns:
        By data set, size and split, as they are written: hashes of the data, in the order of their
        first run, and the number of its row.
    """
    found: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    if {"dataset", "dataset_sha256"} <= set(runs.header):
        for number, row in enumerate(runs.records()):
            if row["dataset_sha256"]:
                content = tuple(row.get(name, "") for name in CONTENT_COLUMNS)
                found[content].setdefault(row["dataset_sha256"], number)
    return found


def _is_whole(runs: Table) -> bool:
    """Whether the package recorded runs here, so that no column and no value may be missing."""
    whole = bool(settings_in(runs.header)) and not set(PROVENANCE_COLUMNS).isdisjoint(runs.header)
    if whole:
        first = [name for name in OUTCOME_COLUMNS if name not in LATER]
        _refuse_lost(runs, (*first, *PROVENANCE_COLUMNS))
    return whole


def _refuse_lost(table: Table, names: Sequence[str]) -> None:
    if lost := [name for name in names if name not in table.header]:
        raise LedgerError(f"{table.path}, line 1: the header has no {', '.join(lost)}. {RESTORE}")


def _check_values(table: Table, last: str | None) -> None:
    """Refuse what a column cannot hold.

    ``last`` is the last column of the first version. Up to there no value may be missing; a column
    that came later stands behind it, and older rows leave it empty.
    """
    end = table.header.index(last) if last is not None else -1
    optional = {"commit"} | {n for n, kind in settings_in(table.header).items() if "None" in kind}
    for at, name in enumerate(table.header):
        texts = table.column(name)
        needed = at <= end and name not in optional
        given = [text for text in texts if text]
        if (len(given) == len(texts) or not needed) and _fit_at_once(name, given):
            continue
        of_numbers = sum(_number(text) is not None for text in given) * 2 > len(given)
        for number, text in enumerate(texts):
            if not text and needed:
                raise table.refusal(number, f"has no {name}")
            wanted = _wanted(name, text) if text else ""
            if not wanted and of_numbers and GARBLED.fullmatch(text.strip()):
                wanted = "a number with a decimal point"
            if wanted:
                raise table.refusal(number, f"has the {name} {text!r}; it is {wanted}")
    _check_decimal_points(table)


def _fit_at_once(name: str, texts: list[str]) -> bool:
    """Whether all are numbers that the column can hold.

    Where it says no, each value has to be looked at: a ledger of many runs is read at every run.
    """
    joined = "".join(texts)
    if name in WHOLE:
        return joined.isascii() and joined.isdigit()
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        return False
    if "_" in joined:
        return False
    if _is_amount(name):
        return bool(((values >= 0) & (values < math.inf)).all())
    split, _, measure = name.partition("_")
    outside = (values < 0) | (values > 1 + 1e-6)
    return not (split in SPLITS and measure in SHARES and outside.any())


def _is_amount(name: str) -> bool:
    split, _, measure = name.partition("_")
    return name == "seconds" or (split in SPLITS and measure in AMOUNTS)


def _wanted(name: str, text: str) -> str:
    """What a value of this name should have been, or nothing if it is."""
    split, _, measure = name.partition("_")
    if name in WHOLE:
        return "" if text.isascii() and text.isdigit() else "a whole number"
    if _is_amount(name):
        number = _number(text)
        fits = number is not None and 0 <= number < math.inf
        return "" if fits else "a number of 0 or more"
    if split in SPLITS and measure in SHARES:
        parts = [_number(part) for part in (text.split(";") if measure == "recall" else [text])]
        # What is undefined, such as the recall of a class without a sample, is NaN.
        fits = all(part is not None and not (part < 0 or part > 1 + 1e-6) for part in parts)
        return "" if fits else "a number from 0 to 1"
    return ""


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _check_decimal_points(table: Table) -> None:
    found: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    names = [name for name in table.header if name in {f"{s}_cross_entropy" for s in SPLITS}]
    for number, row in enumerate(table.records() if names else ()):
        for name in names:
            if row[name]:
                found[row["key"]].append((float(row[name]), number, name))
    for values in found.values():
        *others, (largest, number, name) = sorted(values)
        if largest > TOO_MUCH_WORSE * (1 + (others[-1][0] if others else 0)):
            raise table.refusal(
                number, f"has the {name} {largest:.9g}, which lost its decimal point"
            )
