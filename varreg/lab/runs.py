"""Runs done: one trained and evaluated, many seeds at once, and all of a study recorded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from varreg.checks import check_choice
from varreg.lab import datasets, models
from varreg.lab.augment import equalize, shuffle_blocks
from varreg.lab.columns import CONTENT_COLUMNS, PROVENANCE_COLUMNS, SPLITS
from varreg.lab.corruptions import corrupted
from varreg.lab.ensemble import can_ensemble, fit_ensemble, predict_ensemble
from varreg.lab.ledger import Ledger, LedgerError
from varreg.lab.machine import commit, stamp
from varreg.lab.methods import METHODS, Changes
from varreg.lab.metrics import classification_metrics
from varreg.lab.predictions import Predictions
from varreg.lab.specs import SETTINGS, RunSpec
from varreg.lab.subsets import WrongLabels, fewer, mislabelled
from varreg.lab.sweeps import carry_out, check_sweep
from varreg.lab.training import (
    Criterion,
    Fit,
    NonFiniteLossError,
    Normalize,
    Scaling,
    Settings,
    as_device,
    fit,
    predict,
    typed,
)
from varreg.loss import VariancePenalizedLoss

Train = Literal["missing", "never", "always"]
Said = dict[str, Predictions]  # by split
# Study, row, details, what was said.
Result = tuple[str, dict[str, object], Sequence[Mapping[str, object]], Said]
PREDICTED_SPLITS = ("val", "test")
CORRUPTED = ("corrupted_cross_entropy", "corrupted_accuracy", "corrupted_auroc")
_made: dict[str, list[torch.Tensor]] = {}

# More seeds than a study of the project has are rare, and what a step costs in launches is shared
# by 16 already.
MOST_MEMBERS = 16
# Above this size a step of one small network keeps a GPU busy by itself: at 224 px one activation
# of 16 paper networks with a batch of 32 takes 1 GB.
LARGEST_SIZE = 64


class Unit(Protocol):
    """What is no training run and can be recorded like one, such as a unit of a probe."""

    @property
    def study(self) -> str:
        """Folder of the ledger that records it."""

    @property
    def key(self) -> str:
        """Its name in the ledger."""

    def execute(
        self, *, root: str | Path | None = None, device: str | None = None
    ) -> tuple[dict[str, object], Sequence[Mapping[str, object]]]:
        """Give its row and the rows of its details, as the ledger takes them."""


#: What :func:`run_all` does and records.
Job = RunSpec | Unit


class MissingRunsError(LookupError):
    """Raised when recorded runs are asked for that are not in the ledger."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that was trained just now.

    Attributes:
        model: With its best weights, in eval mode.
        data: What it was trained on, prepared as the run says.
        fit: History, best epoch, scaling.
    """

    model: nn.Module
    data: datasets.Dataset
    fit: Fit


def train_run(
    spec: RunSpec,
    *,
    root: str | Path | None = None,
    data: datasets.Dataset | None = None,
    model: nn.Module | None = None,
    **how: Any,
) -> Trained:
    """Train one run; evaluate and record nothing.

    Args:
        spec: The run.
        root: Folder of the data, see :func:`varreg.lab.datasets.load`.
        data: In place of the data set that the run names, which is then not loaded.
        model: Goes on from its weights; default: a new one with initial weights from the seed.
        **how: ``device``, ``progress``, ``log_dir`` and ``on_epoch`` of
            :func:`varreg.lab.training.fit`.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> train_run(spec).fit.best_epoch
        1
    """
    if data is None:
        data = load_data(spec, root)
    changes = spec.changes(data)
    if model is None:
        model = initial_model(spec, data)
    with _repeatable():
        result = fit(
            model,
            data,
            criterion_of(spec, data),
            settings_of(spec, changes),
            transform=changes.transform,
            step=changes.step,
            averaging=changes.averaging,
            **how,
        )
    return Trained(model, data, result)


def execute(
    job: Job, *, root: str | Path | None = None, device: str | None = None, **how: Any
) -> tuple[dict[str, object], Sequence[Mapping[str, object]]]:
    """Train and evaluate one run, or carry out a unit of a probe; record nothing.

    Args:
        job: The run or unit.
        root: Folder of the data, see :func:`varreg.lab.datasets.load`.
        device: Default: CUDA if there is one.
        **how: Of a run: ``progress`` and ``log_dir`` of :func:`varreg.lab.training.fit`.

    Returns:
        The row of the run and one row an epoch, or the row of the unit and its details, as
        :meth:`varreg.lab.ledger.Ledger.append` takes them.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> row, curve = execute(spec)
        >>> row["epochs_run"], len(curve), 0 < row["test_accuracy"] <= 1
        (1, 1, True)
    """
    if isinstance(job, RunSpec):
        return _execute(job, root=root, device=device, **how)[:2]
    return job.execute(root=root, device=device, **how)


def _execute(
    spec: RunSpec,
    *,
    root: str | Path | None,
    device: str | None,
    robustness: bool = False,
    **how: Any,
) -> tuple[dict[str, object], list[dict[str, float]], Said]:
    data = load_data(spec, root)
    last: dict[str, torch.Tensor] = {}

    def keep_last(epoch: int, model: nn.Module) -> None:
        if epoch == spec.epochs:
            scaling = Scaling.of(data.train.images, cast("Normalize", spec.normalize))
            for split in PREDICTED_SPLITS:
                last[f"{split}_last"] = predict(model, getattr(data, split).images, scaling)

    if robustness:
        how["on_epoch"] = keep_last
    run = train_run(spec, data=data, device=device, **how)
    with _repeatable():
        logits = {
            split: predict(run.model, getattr(run.data, split).images, run.fit.scaling)
            for split in SPLITS
        }
    row, curve, said = _outcome(spec, run, logits, as_device(device))
    if robustness:
        names = said["val"].images, said["test"].images
        for (split, values), images in zip(last.items(), names, strict=True):
            said[split] = Predictions(values.float().numpy(), images)
        with _repeatable():
            row |= _under_corruptions(run)
    return row, curve, said


def _under_corruptions(run: Trained) -> dict[str, float]:
    """Means over all corruptions and severities of the test images, where there are such."""
    test = run.data.test
    if test.images.ndim != 4:
        return dict.fromkeys(CORRUPTED, math.nan)
    found = []
    for images in _corrupted_test(run.data):
        metrics = classification_metrics(
            predict(run.model, images, run.fit.scaling), test.labels, run.data.task
        )
        found.append([metrics[name.removeprefix("corrupted_")] for name in CORRUPTED])
    means = torch.tensor(found, dtype=torch.float64).mean(0)
    return dict(zip(CORRUPTED, means.tolist(), strict=True))


def _corrupted_test(data: datasets.Dataset) -> list[torch.Tensor]:
    """Made once for all runs of a process that see the same images."""
    if data.sha256 not in _made:
        _made.clear()
        _made[data.sha256] = [images for _, _, images in corrupted(data.test.images)]
    return _made[data.sha256]


def execute_many(
    specs: Sequence[RunSpec], *, root: str | Path | None = None, device: str | None = None
) -> Iterator[tuple[dict[str, object], list[dict[str, float]]]]:
    """Train and evaluate runs that differ in nothing but their seed, all at once.

    Args:
        specs: The runs; one of :func:`groups`.
        root: Folder of the data, see :func:`varreg.lab.datasets.load`.
        device: Default: CUDA if there is one.

    Yields:
        For each what :func:`execute` returns, in their order; ``seconds`` is the wall-clock
        time of the training divided by the number of runs. Runs whose loss became NaN or
        infinite are left out, and the first of their errors is raised at the end, so that
        what was finished can be recorded.

    Raises:
        NonFiniteLossError: After the last result, if a run failed.
        ValueError: If the runs differ in more than their seed, there is none, or they are not
            in float32.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> both = execute_many([spec, dataclasses.replace(spec, seed=1)], device="cpu")
        >>> [(row["seed"], len(curve)) for row, curve in both]
        [(0, 1), (1, 1)]
    """
    for row, curve, _ in _execute_many(specs, root, device):
        yield row, curve


def _execute_many(
    specs: Sequence[RunSpec], root: str | Path | None, device: str | None
) -> Iterator[tuple[dict[str, object], list[dict[str, float]], Said]]:
    if len({dataclasses.replace(spec, seed=0) for spec in specs}) != 1:
        raise ValueError(
            f"{len(specs)} runs that do not differ in their seed alone; give one or more that do, "
            "as varreg.lab.runs.groups does"
        )
    shared = specs[0]
    if not _can_stack(shared):
        raise ValueError(
            f"runs in {shared.precision} train one after the other, with varreg.lab.runs.execute, "
            "as do methods with a loss, a network or steps of their own; side by side only float32 "
            "and the variance penalty"
        )
    data = load_data(shared, root)
    members = [initial_model(spec, data) for spec in specs]
    with _repeatable():
        results = fit_ensemble(
            members,
            data,
            cast("list[VariancePenalizedLoss]", [criterion_of(spec, data) for spec in specs]),
            settings_of(shared, Changes()),
            seeds=[spec.seed for spec in specs],
            device=device,
        )
        done = {at: result for at, result in enumerate(results) if isinstance(result, Fit)}
        logits = {
            split: predict_ensemble(
                [members[at] for at in done],
                getattr(data, split).images,
                next(iter(done.values())).scaling,
            )
            for split in SPLITS
            if done
        }
    for place, (at, found) in enumerate(done.items()):
        own = {split: logits[split][place] for split in SPLITS}
        yield _outcome(specs[at], Trained(members[at], data, found), own, as_device(device))
    for result in results:
        if isinstance(result, NonFiniteLossError):
            raise result


def groups(jobs: Sequence[Job], device: torch.device | str | None = None) -> list[list[Job]]:
    """Split jobs into those that are best carried out at once, in the order of their first.

    On a CUDA device runs that differ in nothing but their seed go together, up to 16, where the
    network is one that can be stacked and small enough to leave the device idle by itself, at up
    to 64 px. Everything else is alone, and everything is on a CPU, where one after the other is
    faster.

    Args:
        jobs: Runs, units of probes.
        device: Where they are to be carried out; default: CUDA if there is one.

    Raises:
        ValueError: If this machine has no such device.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> pair = [spec, dataclasses.replace(spec, seed=1)]
        >>> [len(group) for group in groups(pair, "cpu")]
        [1, 1]
    """
    on_cuda = as_device(device).type == "cuda"
    alike: dict[object, list[Job]] = {}
    for place, job in enumerate(jobs):
        kind: object = place
        if (
            on_cuda
            and isinstance(job, RunSpec)
            and _can_stack(job)
            and job.size <= LARGEST_SIZE
            and _is_stackable(job.model)
        ):
            kind = dataclasses.replace(job, seed=0)
        alike.setdefault(kind, []).append(job)
    return [
        same[first : first + MOST_MEMBERS]
        for same in alike.values()
        for first in range(0, len(same), MOST_MEMBERS)
    ]


def _can_stack(spec: RunSpec) -> bool:
    """Whether the method changes nothing that members would have to share."""
    return spec.precision == "float32" and METHODS[spec.method].is_plain


@lru_cache
def _is_stackable(model: str) -> bool:
    return can_ensemble(models.build(model, in_channels=1, size=LARGEST_SIZE, n_outputs=1))


def initial_model(spec: RunSpec, data: datasets.Dataset) -> nn.Module:
    """The model of a run before its training, with initial weights from the seed."""
    torch.manual_seed(spec.seed)
    model = models.build(
        spec.model,
        in_channels=data.channels,
        size=spec.size,
        n_outputs=data.n_outputs,
        spatial_dims=data.spatial_dims,
        init=cast("models.Init", spec.init),
    )
    change = spec.changes(data).model
    return model if change is None else change(model)


def settings_of(spec: RunSpec, changes: Changes) -> Settings:
    """The settings of the training, with what the method changes of them."""
    given = {field.name: getattr(spec, field.name) for field in dataclasses.fields(Settings)}
    return Settings(**{**given, **changes.settings})


def criterion_of(spec: RunSpec, data: datasets.Dataset) -> Criterion:
    """The loss of a run, which draws features from the seed.

    It does not look at its values, which would wait for a GPU: the training looks at those of an
    epoch at its end.
    """
    changes = spec.changes(data)
    if changes.own_loss:
        return changes.criterion(data.task)
    return VariancePenalizedLoss(
        data.task,
        spec.variance_weight,
        spec.feature_sampling_ratio,
        spec.lambda_,
        generator=torch.Generator().manual_seed(spec.seed),
        validate=False,
    )


def _repeatable() -> AbstractContextManager[None]:
    """Kernels of a GPU that give the same numbers again, in float32 where that is asked for.

    TensorFloat-32, which cuDNN takes for convolutions by default, keeps three digits.
    """
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def _outcome(
    spec: RunSpec, run: Trained, logits: Mapping[str, torch.Tensor], device: torch.device
) -> tuple[dict[str, object], list[dict[str, float]], Said]:
    """What is recorded of a run: its row, its curve and what it said, by split."""
    row: dict[str, object] = {"key": spec.key}
    row |= {name: getattr(spec, name) for name in SETTINGS}
    said = {}
    for split, values in logits.items():
        subset = getattr(run.data, split)
        found = classification_metrics(values, subset.labels, run.data.task)
        row |= {f"{split}_{name}": value for name, value in found.items()}
        if split in PREDICTED_SPLITS:
            names = subset.ids or [str(place) for place in range(len(subset))]
            said[split] = Predictions(values.float().numpy(), names)
    row |= {
        "best_epoch": run.fit.best_epoch,
        "epochs_run": len(run.fit.history),
        "parameters": models.count_parameters(run.model),
    }
    row |= provenance(run.data, device, run.fit.seconds)
    return row, run.fit.history, said


def provenance(data: datasets.Dataset, device: torch.device, seconds: float) -> dict[str, object]:
    """Where a recorded row came from, by the names in the ledger."""
    columns = {"dataset_sha256": data.sha256, **stamp(device, seconds)}
    return {name: columns[name] for name in PROVENANCE_COLUMNS}


def load_data(spec: RunSpec, root: str | Path | None = None) -> datasets.Dataset:
    """The data set of a run, its images prepared and drawn as the run says."""
    data = _prepared(spec.dataset, spec.size, spec.split, root, spec.equalize, spec.shuffle_blocks)
    if spec.train_share < 1:
        data = fewer(data, spec.train_share, spec.draw)
    if spec.wrong_labels:
        data = mislabelled(data, spec.wrong_labels, cast("WrongLabels", spec.wrong_kind), spec.draw)
    return data


def run_all(
    specs: Sequence[Job],
    *,
    train: Train = "missing",
    jobs: int = 1,
    dask: str | None = None,
    limit: int | None = None,
    predictions: bool = False,
    robustness: bool = False,
    results: str | Path | None = None,
    root: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Give one row a run: read what is recorded, train and record the rest.

    Every run is recorded the moment it ends, so that a call that was stopped goes on where
    it stopped. On a GPU the seeds of a small network train side by side, see :func:`groups`,
    and end together.

    Args:
        specs: The runs, of one or more studies, or units of probes.
        train: ``"missing"`` trains what is not recorded; ``"never"`` only reads;
            ``"always"`` trains all of them, and needs a ledger that holds none of them:
            nothing recorded is replaced.
        jobs: Processes at a time, each with one thread; -1 for one a core.
        dask: Address of the scheduler of a Dask cluster, such as ``"tcp://host:8786"``, or its
            scheduler file: its workers train, and this process records. They need the same
            version of the package, and the data in their own ``$VARREG_DATA`` or in ``root``.
        limit: Train at most so many runs; the rows of the others are then left out.
        predictions: Record what each run said about every validation and test image as well, see
            :meth:`varreg.lab.ledger.Ledger.predictions`.
        robustness: Record also the mean metrics over corrupted test images, see
            :mod:`varreg.lab.corruptions`, in columns of their own; and, with ``predictions``,
            what the weights of the last epoch said: splits ``val_last`` and ``test_last``. Such
            runs train one after the other.
        results: Folder of the ledgers; default :func:`varreg.lab.ledger.default_results`.
        root: Folder of the data, see :func:`varreg.lab.datasets.load`.
        device: Default: CUDA if there is one.
        progress: Show a progress bar over runs on a terminal.

    Returns:
        The rows of the ledger for ``specs``, in their order.

    Raises:
        LedgerError: If a ledger is damaged or cannot be written, or if ``train="always"``
            would replace a recorded run.
        MissingRunsError: If ``train="never"`` and a run is not recorded.
        ValueError: If ``train``, ``jobs`` or ``limit`` is not allowed, if this machine has no
            such ``device``, or if the cluster cannot be used.
        ConnectionError: If the cluster is lost; what it had finished is recorded.
    """
    check_choice("train", train, get_args(Train))
    check_sweep(jobs, dask)
    limit = cast("int | None", typed("limit", limit, "int | None"))
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}; it must be 0 or more, or None for all")
    ledgers = {study: Ledger(study, results) for study in dict.fromkeys(s.study for s in specs)}
    recorded = {study: ledger.keys() for study, ledger in ledgers.items()}
    wanted = list(dict.fromkeys(specs))
    missing = [spec for spec in wanted if spec.key not in recorded[spec.study]]
    if train == "never" and missing:
        raise MissingRunsError(
            f"{len(missing)} of {len(wanted)} runs are not recorded, the first of them "
            f"{missing[0]}; train them with train='missing' or python -m companion run "
            f"{missing[0].study}"
        )
    if train == "always" and len(missing) < len(wanted):
        raise LedgerError(
            f"train='always' with {len(wanted) - len(missing)} runs that are recorded already, "
            "and nothing recorded is replaced; name an empty folder with results="
        )
    todo = missing[:limit]
    tasks = [[job] for job in todo]
    if todo:
        # A wrong device or folder is better known now than when the first run is over.
        if dask is None:  # whose workers have devices of their own
            as_device(device)
            tasks = tasks if robustness else groups(todo, device)
        for ledger in ledgers.values():
            ledger.check_writable()
        commit()  # warns if it cannot be recorded
    known = {study: ledger.data_hashes() for study, ledger in ledgers.items()} if todo else {}
    perform = partial(_perform, root=root, device=device, known=known, robustness=robustness)
    record = partial(_record, ledgers=ledgers, predictions=predictions)
    with tqdm(total=len(todo), unit="run", disable=None if progress else True) as bar:
        for finished in carry_out(tasks, perform, record, jobs=jobs, dask=dask):
            bar.update(finished)
    left_out = set() if limit is None else {spec.key for spec in missing[limit:]}
    return _rows([spec for spec in specs if spec.key not in left_out], ledgers)


def _rows(specs: Sequence[Job], ledgers: dict[str, Ledger]) -> pd.DataFrame:
    if not specs:
        return pd.DataFrame()
    found = {study: ledger.runs() for study, ledger in ledgers.items()}
    keys = {study: set() if runs.empty else set(runs["key"]) for study, runs in found.items()}
    for spec in specs:
        if spec.key not in keys[spec.study]:
            raise LedgerError(
                f"{ledgers[spec.study].runs_path} no longer holds run {spec.key}: somebody deleted "
                "it on the way. Restore the file, or give the same call again: it trains what is "
                "missing"
            )
    tables = [runs.assign(study=study) for study, runs in found.items()]
    runs = pd.concat(tables).set_index(["study", "key"])
    wanted = pd.MultiIndex.from_tuples([(s.study, s.key) for s in specs], names=["study", "key"])
    return runs.loc[wanted].reset_index()


def _perform(
    task: Sequence[Job],
    root: str | Path | None,
    device: str | None,
    known: Mapping[str, Mapping[tuple[str, ...], set[str]]],
    robustness: bool,
) -> Iterator[Result]:
    """Give the results of the jobs that are carried out at once, as one task of a sweep.

    ``known`` has :meth:`varreg.lab.ledger.Ledger.data_hashes` by study: that the data are others
    now is better known before the training than after.
    """
    first = task[0]
    if not isinstance(first, RunSpec):
        yield first.study, *execute(first, root=root, device=device), {}
        return
    content = tuple(str(getattr(first, name) or "") for name in CONTENT_COLUMNS)
    before = known[first.study].get(content)
    if before and (now := load_data(first, root).sha256) not in before:
        raise LedgerError(
            f"the data set {first.dataset} changed: the runs that {first.study} holds saw data "
            f"with the hash {', '.join(sorted(before))}, and this is {now}. Give the data that "
            "they had (see python -m varreg data check), or name another folder with results="
        )
    if len(task) == 1:
        yield first.study, *_execute(first, root=root, device=device, robustness=robustness)
    else:
        specs = cast("Sequence[RunSpec]", task)  # nothing else goes together, see groups
        for outcome in _execute_many(specs, root, device):
            yield first.study, *outcome


def _record(result: Result, ledgers: dict[str, Ledger], predictions: bool) -> None:
    study, row, details, said = result
    ledgers[study].append(row, details, said if predictions else None)


@lru_cache(maxsize=2)
def _prepared(
    name: str,
    size: int,
    split: str | None,
    root: str | Path | None,
    equalized: bool,
    shuffled: bool,
) -> datasets.Dataset:
    """Runs of one data set follow each other; read and prepare it once."""
    data = datasets.load(name, size=size, split=split, root=root)
    steps = [step for step, on in ((equalize, equalized), (shuffle_blocks, shuffled)) if on]
    for part in SPLITS:
        subset = getattr(data, part)
        for step in steps:
            subset = dataclasses.replace(subset, images=step(subset.images))
        data = dataclasses.replace(data, **{part: subset})
    return data
