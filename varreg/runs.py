"""One training run, written down; and many of them, recorded."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, get_args

import joblib
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

import varreg
from varreg import datasets, models
from varreg.augment import equalize, shuffle_blocks
from varreg.ledger import SPLITS, Ledger, LedgerError
from varreg.loss import VariancePenalizedLoss, check_penalty
from varreg.training import Fit, Normalize, as_device, check_training, evaluate, fit

__all__ = [
    "METHODS",
    "Job",
    "MissingRunsError",
    "RunSpec",
    "Train",
    "Trained",
    "execute",
    "load_data",
    "provenance",
    "run_all",
    "train_run",
]

METHODS = ("baseline", "penalized", "tuned", "augmented")
Train = Literal["missing", "never", "always"]


class Job(Protocol):
    """What :func:`run_all` can do and record: a training run, or a unit of a probe."""

    @property
    def study(self) -> str:
        """Folder of the ledger that records it."""

    @property
    def key(self) -> str:
        """Its name in the ledger."""

    def execute(
        self, *, root: str | Path | None = None, device: str | None = None
    ) -> tuple[dict[str, object], list[dict[str, object]]]:
        """Give its row and the rows of its details, as the ledger takes them."""


class MissingRunsError(LookupError):
    """Raised when recorded runs are asked for that are not in the ledger."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything that decides one training run.

    Attributes:
        study: Folder of the ledger that records it.
        dataset: A name that :func:`varreg.datasets.load` knows.
        method: Row of the tables: ``"baseline"`` (no penalty), ``"penalized"``, ``"tuned"``
            (penalized, with the weight that the study ``grid`` chose on validation) or
            ``"augmented"`` (zoom and shift, no penalty).
        seed: Initial weights, order of the samples, draw of features, augmentation.
        model: One of :data:`varreg.models.MODELS`.
        size: Height and width in pixels.
        split: Which split of the data set; ``None`` for its default.
        variance_weight: Of the penalty, 0 or more.
        feature_sampling_ratio: Share of features drawn at each step, in (0, 1].
        lambda_: Scale of the cross-entropy.
        epochs: Largest number of passes over the training split.
        patience: Epochs without improvement before stopping; ``None``: never.
        monitor: What early stopping and the choice of weights watch.
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        learning_rate: Constant.
        weight_decay: Of the optimizer.
        adam_epsilon: Of the optimizer.
        batch_size: Samples a step.
        normalize: ``"standard"`` or ``"unit"`` (divide by 255).
        init: ``"default"`` or ``"glorot"`` (Keras's initial weights).
        equalize: Enhance the contrast of every image, see :func:`varreg.augment.equalize`.
        shuffle_blocks: Shuffle the 4 x 4 blocks of every image in the same way, see
            :func:`varreg.augment.shuffle_blocks`.

    Raises:
        ValueError: If a value is not allowed, or method and weight contradict each other.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> spec.key == dataclasses.replace(spec, seed=1).key
        False
    """

    study: str
    dataset: str
    method: str
    seed: int
    epochs: int
    model: str = "small_cnn"
    size: int = 28
    split: str | None = None
    variance_weight: float = 0.0
    feature_sampling_ratio: float = 1.0
    lambda_: float = 1.0
    patience: int | None = None
    monitor: str = "cross_entropy"
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    adam_epsilon: float = 1e-8
    batch_size: int = 128
    normalize: str = "standard"
    init: str = "default"
    equalize: bool = False
    shuffle_blocks: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type == "float":
                # 1 and 1.0 are one run, so they need one key.
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; allowed are {', '.join(METHODS)}")
        if self.split not in (None, *datasets.splits(self.dataset)):
            raise ValueError(
                f"split of {self.dataset} is {self.split!r}; allowed are "
                f"{', '.join(datasets.splits(self.dataset))}, or None for the first"
            )
        if self.model not in models.MODELS:
            raise ValueError(f"model is {self.model!r}; allowed are {', '.join(models.MODELS)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; it must lie in 0 to {2**32 - 1}")
        check_penalty(self.variance_weight, self.feature_sampling_ratio, self.lambda_)
        if (self.variance_weight > 0) != (self.method in ("penalized", "tuned")):
            raise ValueError(
                f"method {self.method!r} with variance_weight={self.variance_weight}; the weight "
                "is positive for 'penalized' and 'tuned' and 0 for the others"
            )
        check_training(
            self.epochs,
            self.batch_size,
            self.optimizer,
            self.learning_rate,
            self.patience,
            self.monitor,
        )
        if not (0 <= self.weight_decay < math.inf and 0 < self.adam_epsilon < math.inf):
            raise ValueError(
                f"weight_decay is {self.weight_decay} and adam_epsilon {self.adam_epsilon}; both "
                "must be finite, the first 0 or more, the second positive"
            )
        for name, allowed in (("normalize", get_args(Normalize)), ("init", get_args(models.Init))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}"
                )

    @property
    def augment(self) -> bool:
        """Whether the training images are zoomed and shifted."""
        return self.method == "augmented"

    @property
    def key(self) -> str:
        """Name of the run in the ledger: 12 hexadecimal digits of a hash of the fields.

        Fields at their defaults do not count, so that a field added later leaves the keys of
        recorded runs as they are.
        """
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:12]

    def execute(
        self, *, root: str | Path | None = None, device: str | None = None
    ) -> tuple[dict[str, object], list[dict[str, object]]]:
        """Train and evaluate the run, see :func:`execute`."""
        return execute(self, root=root, device=device)


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
    device: str | None = None,
    progress: bool = False,
    log_dir: str | Path | None = None,
    data: datasets.Dataset | None = None,
    model: nn.Module | None = None,
    on_epoch: Callable[[int, nn.Module], None] | None = None,
) -> Trained:
    """Train one run; evaluate and record nothing.

    Args:
        spec: The run.
        root: Folder of the data, see :func:`varreg.datasets.load`.
        device: Default: CUDA if there is one.
        progress: Show a progress bar over epochs on a terminal.
        log_dir: Folder for TensorBoard event files.
        data: In place of the data set that the run names, which is then not loaded.
        model: Goes on from its weights; default: a new one with initial weights from the seed.
        on_epoch: As in :func:`varreg.training.fit`.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> train_run(spec).fit.best_epoch
        1
    """
    if data is None:
        data = load_data(spec, root)
    if model is None:
        torch.manual_seed(spec.seed)
        model = models.build(
            spec.model,
            in_channels=data.channels,
            size=spec.size,
            n_outputs=data.n_outputs,
            spatial_dims=data.spatial_dims,
            init=spec.init,
        )
    criterion = VariancePenalizedLoss(
        data.task,
        spec.variance_weight,
        spec.feature_sampling_ratio,
        spec.lambda_,
        generator=torch.Generator().manual_seed(spec.seed),
    )
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        result = fit(
            model,
            data,
            criterion,
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            optimizer=spec.optimizer,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            adam_epsilon=spec.adam_epsilon,
            patience=spec.patience,
            monitor=spec.monitor,
            augment=spec.augment,
            normalize=spec.normalize,
            seed=spec.seed,
            device=as_device(device),
            progress=progress,
            log_dir=log_dir,
            on_epoch=on_epoch,
        )
    return Trained(model, data, result)


def execute(
    spec: RunSpec,
    *,
    root: str | Path | None = None,
    device: str | None = None,
    progress: bool = False,
    log_dir: str | Path | None = None,
) -> tuple[dict[str, object], list[dict[str, float]]]:
    """Train and evaluate one run; record nothing.

    Args:
        spec: The run.
        root: Folder of the data, see :func:`varreg.datasets.load`.
        device: Default: CUDA if there is one.
        progress: Show a progress bar over epochs on a terminal.
        log_dir: Folder for TensorBoard event files.

    Returns:
        The row of the run and one row an epoch, as :meth:`varreg.ledger.Ledger.append`
        takes them.

    Example:
        >>> spec = RunSpec(study="try", dataset="phantom", method="baseline", seed=0, epochs=1)
        >>> row, curve = execute(spec)
        >>> row["epochs_run"], len(curve), 0 < row["test_accuracy"] <= 1
        (1, 1, True)
    """
    run = train_run(spec, root=root, device=device, progress=progress, log_dir=log_dir)
    row: dict[str, object] = {"key": spec.key, **dataclasses.asdict(spec)}
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for split in SPLITS:
            metrics = evaluate(
                run.model,
                getattr(run.data, split),
                run.fit.scaling,
                run.data.task,
                batch_size=spec.batch_size,
            )
            row |= {f"{split}_{name}": value for name, value in metrics.items()}
    row |= {
        "best_epoch": run.fit.best_epoch,
        "epochs_run": len(run.fit.history),
        "parameters": models.count_parameters(run.model),
    }
    row |= provenance(run.data, as_device(device), run.fit.seconds)
    return row, run.fit.history


def provenance(data: datasets.Dataset, device: torch.device, seconds: float) -> dict[str, object]:
    """Where a recorded row came from, by the names in the ledger."""
    return {
        "version": varreg.__version__,
        "commit": _commit(),
        "dataset_sha256": data.sha256,
        "torch_version": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 2),
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def load_data(spec: RunSpec, root: str | Path | None = None) -> datasets.Dataset:
    """The data set of a run, its images prepared as the run says."""
    return _prepared(spec.dataset, spec.size, spec.split, root, spec.equalize, spec.shuffle_blocks)


def run_all(
    specs: Sequence[Job],
    *,
    train: Train = "missing",
    jobs: int = 1,
    limit: int | None = None,
    results: str | Path | None = None,
    root: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Give one row a run: read what is recorded, train and record the rest.

    Every run is recorded the moment it ends, so that a call that was stopped goes on where
    it stopped.

    Args:
        specs: The runs, of one or more studies, or units of probes.
        train: ``"missing"`` trains what is not recorded; ``"never"`` only reads;
            ``"always"`` trains all of them, and needs a ledger that holds none of them:
            nothing recorded is replaced.
        jobs: Processes at a time, each with one thread; -1 for one a core.
        limit: Train at most so many runs; the rows of the others are then left out.
        results: Folder of the ledgers; default :func:`varreg.ledger.default_results`.
        root: Folder of the data, see :func:`varreg.datasets.load`.
        device: Default: CUDA if there is one.
        progress: Show a progress bar over runs on a terminal.

    Returns:
        The rows of the ledger for ``specs``, in their order.

    Raises:
        LedgerError: If a ledger is damaged or cannot be written, or if ``train="always"``
            would replace a recorded run.
        MissingRunsError: If ``train="never"`` and a run is not recorded.
        ValueError: If ``train``, ``jobs`` or ``limit`` is not allowed, or if this machine has
            no such ``device``.
    """
    if train not in get_args(Train):
        raise ValueError(f"train is {train!r}; allowed are {', '.join(get_args(Train))}")
    if jobs == 0 or jobs < -1:
        raise ValueError(f"jobs is {jobs}; it must be 1 or more, or -1 for one a core")
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}; it must be 0 or more, or None for all")
    ledgers = {study: Ledger(study, results) for study in dict.fromkeys(s.study for s in specs)}
    recorded = {study: ledger.keys() for study, ledger in ledgers.items()}
    wanted = list(dict.fromkeys(specs))
    missing = [spec for spec in wanted if spec.key not in recorded[spec.study]]
    if train == "never" and missing:
        raise MissingRunsError(
            f"{len(missing)} of {len(wanted)} runs are not recorded, the first of them "
            f"{missing[0]}; train them with train='missing' or python -m varreg run "
            f"{missing[0].study}"
        )
    if train == "always" and len(missing) < len(wanted):
        raise LedgerError(
            f"train='always' with {len(wanted) - len(missing)} runs that are recorded already, "
            "and nothing recorded is replaced; name an empty folder with results="
        )
    if missing[:limit]:
        # Better now than when the first run is over.
        as_device(device)
        for ledger in ledgers.values():
            ledger.check_writable()
    calls = [
        joblib.delayed(_record)(spec, ledgers[spec.study], root, device, jobs)
        for spec in missing[:limit]
    ]
    bar = {"total": len(calls), "unit": "run", "disable": None if progress else True}
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        done = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)
        for _ in tqdm(done, **bar):
            pass
    left_out = set() if limit is None else {spec.key for spec in missing[limit:]}
    return _rows([spec for spec in specs if spec.key not in left_out], ledgers)


def _rows(specs: Sequence[Job], ledgers: dict[str, Ledger]) -> pd.DataFrame:
    if not specs:
        return pd.DataFrame()
    tables = [ledger.runs().assign(study=study) for study, ledger in ledgers.items()]
    runs = pd.concat(tables).set_index(["study", "key"])
    wanted = pd.MultiIndex.from_tuples([(s.study, s.key) for s in specs], names=["study", "key"])
    return runs.loc[wanted].reset_index()


def _record(
    spec: Job, ledger: Ledger, root: str | Path | None, device: str | None, jobs: int
) -> None:
    if jobs != 1:
        torch.set_num_threads(1)
    _reuse_freed_memory()
    ledger.append(*spec.execute(root=root, device=device))


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


def _reuse_freed_memory() -> None:
    """Keep freed memory in the process, so that each step does not fault it in anew.

    glibc hands large blocks back to the kernel at once. The activations of the paper's
    network at 224 px are such blocks, and most of a step would be spent on getting them back.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def device_name(device: torch.device) -> str:
    """Name of the hardware that a run is recorded with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name} CPU, {os.cpu_count()} cores"


@lru_cache(maxsize=1)
def _commit() -> str:
    """Commit of the checkout that holds the package, with ``+`` if the package was edited."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        call = ["git", "-C", str(folder), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Elsewhere than in a checkout of this project, a commit would be somebody else's.
        if not git("ls-files", "--", "runs.py"):
            return ""
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", ".") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
