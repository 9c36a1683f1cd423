"""What a notebook argues from: the recorded runs of a study, or runs trained live.

The parameters of a notebook arrive from the command line, so they are checked here, once, and a
wrong one is refused in a sentence.
"""

from __future__ import annotations

import dataclasses
import numbers
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from companion.predictions import with_released_metrics
from companion.studies import STUDIES, specs
from varreg.checks import check_choice
from varreg.lab.ledger import Ledger, as_folder, default_results
from varreg.lab.runs import run_all
from varreg.lab.specs import RunSpec

TRAIN = ("never", "missing", "always")
#: Data sets that can stand in for the recorded ones of a study, the default first.
STAND_INS = {
    "chest_paper": ("pneumoniamnist", "chest_xray", "phantom"),
    "chest": ("pneumoniamnist", "chest_xray", "phantom"),
    "skin_paper": ("ham10000", "dermamnist", "phantom7"),
    "skin": ("ham10000", "dermamnist", "phantom7"),
    "grid": ("pneumoniamnist", "ham10000", "chest_xray", "dermamnist", "phantom", "phantom7"),
}
LIVE_SIZE, LIVE_SEEDS = 28, 3
OR_TEXT = "papermill gives numbers and None with -p, and everything as a text with -r"


@dataclasses.dataclass(frozen=True)
class Record:
    """Runs of one study.

    Attributes:
        runs: A row a run, as in the ledger.
        curves: A row an epoch, as in the ledger.
        live: Whether they were trained just now.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    live: bool

    @property
    def seeds(self) -> int:
        """Number of different seeds."""
        return 0 if self.runs.empty else int(self.runs["seed"].nunique())

    def __str__(self) -> str:
        if self.runs.empty:
            return "no run is recorded yet"
        text = f"{len(self.runs)} runs, {self.seeds} seed{'s' * (self.seeds != 1)}"
        if not self.live:
            return f"{text}, recorded"
        first = self.runs.iloc[0]
        return (
            f"{text}, trained live on {first['dataset']} at {first['size']} px; verdicts on "
            "published numbers hold for the recorded protocol only"
        )


def gather(
    study: str,
    *,
    train: str = "never",
    dataset: str | None = None,
    size: int | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    results: str | None = None,
) -> Record:
    """Read the recorded runs of a study, or train a version of it.

    Args:
        study: One of :data:`companion.studies.STUDIES`.
        train: ``"never"`` shows what is recorded; ``"always"`` trains; ``"missing"`` trains what
            ``results`` does not hold yet.
        dataset: Live only: data set in place of the study's own; see :data:`STAND_INS`.
        size: Live only: pixels; default 28.
        seeds: Live only: number of seeds; default 3.
        epochs: Live only: epochs of each run; default those of the study.
        results: Folder to read (``"never"``; default the recorded results) or to write (live;
            default a temporary folder that is gone afterwards).

    Raises:
        ValueError: A parameter that is not allowed: says which, what was given, what is allowed.

    Example:
        >>> gather("chest", results=".").runs.empty  # a folder without that study
        True
        >>> gather("chest", train="sometimes")
        Traceback (most recent call last):
        ...
        ValueError: train is 'sometimes'; allowed are never, missing, always
    """
    live = {"dataset": dataset, "size": size, "seeds": seeds, "epochs": epochs}
    _check(study, train, results, live)
    if train == "never":
        return recorded(study, results)
    dataset = dataset or STAND_INS[study][0]
    wanted = live_specs(study, dataset, size or LIVE_SIZE, seeds or LIVE_SEEDS, epochs)
    with tempfile.TemporaryDirectory(prefix="varreg-") as scratch:
        folder = Path(results or scratch)
        runs = run_all(wanted, train=train, results=folder)
        curves = Ledger(study, folder).curves()
    return Record(runs, curves[curves["key"].isin(runs["key"])], live=True)


def recorded(study: str, results: str | Path | None = None) -> Record:
    """Read the rows of a study or probe, with all that is known of them.

    Args:
        study: Name of its folder.
        results: Folder of the ledgers; default: the recorded results.
    """
    ledger, predictions = Ledger(study, results), Ledger("predictions", results)
    answers = details(predictions.runs(), predictions.curves())
    runs = with_released_metrics(ledger.runs(), answers, ledger.predictions)
    return Record(runs, ledger.curves(), live=False)


def details(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a probe, or the epochs of a study, with the settings of the run they belong to.

    Args:
        runs: Rows of a ledger.
        rows: Its ``curves()``: detail rows with the ``key`` of their run.

    Example:
        >>> runs = pd.DataFrame({"key": ["a"], "seed": [3]})
        >>> details(runs, pd.DataFrame({"key": ["a", "a"], "ratio": [0.2, 1.0]}))["seed"].tolist()
        [3, 3]
    """
    if runs.empty or rows.empty:
        return pd.DataFrame()
    settings = ["key", *(name for name in runs.columns if name not in rows.columns)]
    return rows.merge(runs[settings], on="key")


def live_specs(
    study: str, dataset: str, size: int, seeds: int, epochs: int | None = None
) -> list[RunSpec]:
    """The runs of a study on another data set, size, number of seeds or epochs.

    Args:
        study: One of :data:`companion.studies.STUDIES`.
        dataset: Name of the data set; a split that it does not know becomes its default.
        size: Pixels.
        seeds: Seeds 0 to ``seeds - 1``.
        epochs: Epochs of each run; ``None`` keeps those of the study.

    Returns:
        Every setting of the study once a seed.
    """
    changed = (
        dataclasses.replace(
            spec,
            dataset=dataset,
            size=size,
            seed=seed,
            split=(spec.split or "lesion") if dataset == "ham10000" else None,
            epochs=epochs or spec.epochs,
        )
        for seed in range(seeds)
        for spec in specs(study)
    )
    return list(dict.fromkeys(changed))


def _check(study: str, train: str, results: str | None, live: Mapping[str, object]) -> None:
    check_choice("study", study, STUDIES)
    check_choice("train", train, TRAIN)
    if live["dataset"] is not None:
        check_choice("dataset", live["dataset"], STAND_INS[study])
    for name, least in (("size", 8), ("seeds", 1), ("epochs", 1)):
        check_whole(name, live[name], least)
    if results in ("None", "none", "null"):  # a folder of that name is never meant
        raise ValueError(f"results is the text {results!r}; {OR_TEXT}")
    folder = None if results is None else as_folder(results)
    if train == "never":
        if given := [name for name, value in live.items() if value is not None]:
            raise ValueError(
                f"train is 'never', which shows the recorded runs as they are, but "
                f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} set; add train='always' "
                "to train with them, or leave them at None"
            )
        if folder is not None and not folder.is_dir():
            raise ValueError(f"results is {str(results)!r}, which is no folder to read from")
    elif folder is not None and folder.resolve() == default_results().resolve():
        raise ValueError(
            f"results is {str(results)!r}, the recorded results: trying things out must not mix "
            "with them; name another folder, or None for a temporary one"
        )


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse a parameter that is neither ``None`` nor a whole number of ``least`` or more.

    Raises:
        ValueError: Says which parameter, what was given, what is allowed.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        hint = f" ({OR_TEXT})" if isinstance(value, str) else ""
        raise ValueError(
            f"{name} is {value!r}; give a whole number of {least} or more, or None{hint}"
        )
