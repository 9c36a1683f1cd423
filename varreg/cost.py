"""What the penalty, the engine and the project cost, as the benchmarks recorded it.

Each file of ``benchmarks/`` answers one question and appends its table to
``results/benchmarks/<question>``. Here those tables are read, fitted, judged and put into words.
Nothing is measured here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import least_squares

from varreg.ledger import Ledger, default_results
from varreg.tables import MODEL_NAMES, interval_text

__all__ = [
    "PLAIN",
    "QUANTITIES",
    "QUESTIONS",
    "Growth",
    "Recorded",
    "Recording",
    "Target",
    "bandwidth_table",
    "decoding_table",
    "ensemble_table",
    "fit_growth",
    "gather",
    "gpu_sentence",
    "growth_table",
    "growths",
    "hardware_table",
    "latest",
    "memory_table",
    "network_name",
    "overhead_table",
    "project_table",
    "roofline_table",
    "sentences",
    "source",
    "targets",
    "targets_sentence",
    "targets_table",
    "throughput_table",
    "training_table",
]

#: The ledgers in ``results/benchmarks``.
QUESTIONS = (
    "overhead",
    "bandwidth",
    "roofline",
    "throughput",
    "ensemble",
    "growth",
    "decoding",
    "larger_than_memory",
    "project",
)
#: What grows in the benchmark ``growth``, as printed.
QUANTITIES = {
    "batch": "Images in a batch",
    "features": "Features",
    "images": "Training images",
    "ratio": "Sampling ratio",
}
#: The step that the others are compared with, and the same step once more.
PLAIN, AGAIN = "no penalty", "no penalty, again"
OURS = {"all features": "varreg, all features", "ratio 0.2": "varreg, ratio 0.2"}
STEP_BOUNDS = {"all features": 1.03, "ratio 0.2": 1.02}
MEMORY_BOUND = 1.01
THROUGHPUT_BOUNDS = {"MedMNIST loop": 3, "Keras": 5}
GPU_STEP_BOUND = 1.01
BANDWIDTH_BOUND, LARGE = 0.7, 100  # share of the speed of a copy, for so many megabytes and more
ENSEMBLE_BOUND, MEMBERS = 8, 16
NOT_RECORDED = "Not recorded yet: the scripts in `benchmarks` do it."


@dataclass(frozen=True)
class Recording:
    """The latest recording of one question on one device.

    Attributes:
        question: One of :data:`QUESTIONS`.
        device: Name of the hardware.
        threads: Of a CPU.
        torch_version: Version of PyTorch.
        recorded_at: Date and time in UTC, in ISO format.
        note: What a reader has to know: sizes, settings.
        rows: The table, with the columns that the benchmark gave it.
    """

    question: str
    device: str
    threads: int
    torch_version: str
    recorded_at: str
    note: str
    rows: pd.DataFrame

    @property
    def on_gpu(self) -> bool:
        """Whether the device is not a CPU, by its name (:func:`varreg.machine.device_name`)."""
        return re.search(r"CPU, \d+ cores$", self.device) is None


#: The recordings by question, as :func:`gather` gives them.
Recorded = Mapping[str, Sequence[Recording]]


def latest(question: str, results: str | Path | None = None) -> list[Recording]:
    """The latest recording of each device, in the order in which the devices first came.

    Args:
        question: One of :data:`QUESTIONS`.
        results: Folder of the recorded results; default :func:`varreg.ledger.default_results`.

    Raises:
        ValueError: If there is no such question.
        LedgerError: If the ledger is damaged.

    Example:
        >>> latest("overhead", results="no-such-folder")
        []
    """
    if question not in QUESTIONS:
        raise ValueError(f"question is {question!r}; allowed are {', '.join(QUESTIONS)}")
    folder = Path(results) if results is not None else default_results()
    ledger = Ledger(question, folder / "benchmarks")
    runs, curves = ledger.runs(), ledger.curves()
    found: dict[str, Recording] = {}
    for run in runs.to_dict("records"):
        rows = curves[curves["key"] == run["key"]]
        # A column that only other versions of the benchmark know is empty here.
        rows = rows.drop(columns="key").dropna(axis=1, how="all").reset_index(drop=True)
        found[run["device"]] = Recording(
            question,
            run["device"],
            int(run["threads"]),
            run["torch_version"],
            run["recorded_at"],
            "" if pd.isna(run["note"]) else run["note"],
            rows,
        )
    return list(found.values())


def gather(results: str | Path | None = None) -> dict[str, list[Recording]]:
    """The latest recordings of all questions; those without one have an empty list.

    Args:
        results: As in :func:`latest`.

    Example:
        >>> gather("no-such-folder")["growth"]
        []
    """
    return {question: latest(question, results) for question in QUESTIONS}


# ---------------------------------------------------------------- what was measured where


def source(recordings: Sequence[Recording]) -> str:
    """Where and how the numbers of a section were measured, in Markdown.

    Example:
        >>> source([])
        'Not recorded yet: the scripts in `benchmarks` do it.'
    """
    lines = [f"*{_hardware(each)}, {each.recorded_at[:10]}.* {each.note}" for each in recordings]
    return "\n\n".join(lines) or NOT_RECORDED


def hardware_table(recorded: Recorded) -> pd.DataFrame:
    """Every device with what was measured on it."""
    questions: dict[tuple[str, int, str], list[Recording]] = {}
    for each in _all(recorded):
        questions.setdefault((each.device, each.threads, each.torch_version), []).append(each)
    return pd.DataFrame(
        [
            {
                "Device": device,
                "Threads": threads,
                "PyTorch": version,
                "Measured": ", ".join(each.question.replace("_", " ") for each in mine),
                "Latest": max(each.recorded_at for each in mine)[:10],
            }
            for (device, threads, version), mine in questions.items()
        ]
    )


def gpu_sentence(recorded: Recorded) -> str:
    """Whether any of the figures is a GPU's.

    Example:
        >>> gpu_sentence({})
        'Nothing is recorded yet: `make bench` measures on a CPU, `make bench-gpu` on a GPU.'
    """
    devices = list(dict.fromkeys((each.device, each.on_gpu) for each in _all(recorded)))
    if not devices:
        return "Nothing is recorded yet: `make bench` measures on a CPU, `make bench-gpu` on a GPU."
    gpus = [device for device, on_gpu in devices if on_gpu]
    if gpus:
        return f"What is said about a GPU was measured on: {', '.join(gpus)}."
    return (
        "No GPU could be had: every figure on this page is a CPU's, and what holds on a GPU is "
        "not known. `make bench-gpu` measures it on a machine that has one."
    )


# ---------------------------------------------------------------- overhead


def overhead_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Time of a step: milliseconds without a penalty, multiples of them with one."""
    return _by_network(
        recordings,
        lambda row: f"{row['step_ms']:.2f} ms",
        _ratio,
    )


def memory_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Peak memory of a step: megabytes without a penalty, multiples of them with one."""
    return _by_network(
        recordings,
        lambda row: f"{row['peak_mb']:.1f} MB",
        lambda row: f"{row['peak_ratio']:.3f}",
    )


def _by_network(
    recordings: Sequence[Recording],
    plain: Callable[[Mapping[str, Any]], str],
    relative: Callable[[Mapping[str, Any]], str],
) -> pd.DataFrame:
    """A row a penalty, a column a network."""
    tables = {}
    for each in recordings:
        lines: dict[str, dict[str, str]] = {}
        for row in each.rows.to_dict("records"):
            text = plain(row) if row["penalty"] == PLAIN else relative(row)
            line = lines.setdefault(row["penalty"], {"Penalty": row["penalty"]})
            line[f"{network_name(row['model'], row['pixels'])}, batch {row['batch']}"] = text
        tables[each.device] = pd.DataFrame(lines.values())
    return _stacked(tables)


def bandwidth_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Speed of the bare penalty, as a share of the speed of a copy; a row a size."""
    tables = {}
    for each in recordings:
        sizes = each.rows.groupby("megabytes", sort=False)
        tables[each.device] = pd.DataFrame(
            {
                "Features, MB": f"{size:g}",
                "Copy, GB/s": f"{rows['copy_gb_a_second'].iloc[0]:.0f}",
                **{
                    row["penalty"]: f"{100 * row['share_of_copy']:.0f} %"
                    for row in rows.to_dict("records")
                },
            }
            for size, rows in sizes
        )
    return _stacked(tables)


# ---------------------------------------------------------------- engine


def throughput_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Images a second of the engine and of a peer, a row a peer."""
    tables = {
        each.device: pd.DataFrame(
            {
                "Network": network_name(row["model"], row["pixels"]),
                "Peer": row["peer"],
                "varreg, images/s": f"{row['varreg_images_a_second']:,.0f}",
                "Peer, images/s": f"{row['peer_images_a_second']:,.0f}",
                "Times as fast": interval_text(
                    row["ratio"], row["ratio_low"], row["ratio_high"], 2
                ),
            }
            for row in each.rows.to_dict("records")
        )
        for each in recordings
    }
    return _stacked(tables)


def roofline_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """How near the networks are to the machine's roof, and what bounds them."""
    tables = {
        each.device: pd.DataFrame(
            {
                "Network": network_name(row["model"], row["pixels"]),
                "Step, ms": f"{row['step_ms']:.1f}",
                "Operations a byte": f"{row['flop_a_byte']:.2f}",
                "GFLOP/s": f"{row['gflop_a_second']:,.0f}",
                "Matrix product, GFLOP/s": f"{row['peak_gflop_a_second']:,.0f}",
                "GB/s": f"{row['gb_a_second']:,.0f}",
                "Copy, GB/s": f"{row['copy_gb_a_second']:,.0f}",
                "Of the roof": f"{100 * row['share_of_roof']:.0f} %",
                "Bound by": row["bound_by"],
            }
            for row in each.rows.to_dict("records")
        )
        for each in recordings
    }
    return _stacked(tables)


def ensemble_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Images a second of networks that train as one, against one after the other."""
    tables = {
        each.device: pd.DataFrame(
            {
                "Network": network_name(row["model"], row["size"]),
                "Batch": row["batch"],
                "Members": row["members"],
                "One by one, images/s": f"{row['images_per_second_alone']:,.0f}",
                "As one, images/s": f"{row['images_per_second']:,.0f}",
                "Times as fast": interval_text(row["gain"], row["gain_low"], row["gain_high"], 2),
            }
            for row in each.rows.to_dict("records")
        )
        for each in recordings
    }
    return _stacked(tables)


# ---------------------------------------------------------------- growth


@dataclass(frozen=True)
class Growth:
    """How seconds grow with a quantity: ``fixed + factor * value ** exponent``.

    Attributes:
        fixed: Seconds that do not depend on the quantity.
        factor: Seconds at a value of 1, beyond those.
        exponent: 1: linear; 0: no dependence.
        worst: The largest factor between a measurement and the curve, 1 or more; not a number
            where there are no more measurements than parameters, so that the curve had to fit.
    """

    fixed: float
    factor: float
    exponent: float
    worst: float

    def seconds(self, values: ArrayLike) -> np.ndarray:
        """The curve at some values.

        Example:
            >>> Growth(1.0, 2.0, 1.0, 1.0).seconds([0, 3]).tolist()
            [1.0, 7.0]
        """
        return self.fixed + self.factor * np.asarray(values, float) ** self.exponent


def fit_growth(values: ArrayLike, seconds: ArrayLike, *, fixed_cost: bool = True) -> Growth:
    """Fit ``seconds = fixed + factor * value ** exponent`` by least squares of the logarithms.

    So a measurement of a microsecond counts as much as one of a second.

    Args:
        values: Sizes, all positive, at least two different ones.
        seconds: Measured at these, all positive.
        fixed_cost: Whether there is a fixed part. Without, the curve is a straight line on
            logarithmic axes, whose exponent may be negative. Where a cost hardly depends on the
            quantity, no exponent of anything beyond the fixed part can be told.

    Returns:
        The curve; ``fixed`` and ``exponent`` are 0 or more where there is a fixed part.

    Raises:
        ValueError: If the two do not have the same length, or a number is not positive, or there
            are too few different values to fit.

    Example:
        >>> growth = fit_growth([1, 10, 100, 1000], [3, 12, 102, 1002])
        >>> round(growth.fixed, 3), round(growth.exponent, 3)
        (2.0, 1.0)
    """
    x, y = np.asarray(values, float), np.asarray(seconds, float)
    needed = 3 if fixed_cost else 2
    if x.ndim != 1 or x.shape != y.shape or len(np.unique(x)) < needed:
        raise ValueError(
            f"{x.shape} values and {y.shape} seconds; needed are as many of one as of the other, "
            f"at {needed} or more different values"
        )
    if not (np.isfinite([x, y]).all() and min(x.min(), y.min()) > 0):
        raise ValueError("values and seconds must all be positive and finite to have a logarithm")
    # In units of their geometric means, all parameters are about 1.
    middle, unit = np.exp(np.log(x).mean()), np.exp(np.log(y).mean())
    log_x, log_y = np.log(x / middle), np.log(y / unit)
    slope, height = np.polyfit(log_x, log_y, 1)
    fixed = 0.0
    if fixed_cost:

        def errors(guess: np.ndarray) -> np.ndarray:
            fixed, log_factor, exponent = guess
            return np.log(fixed + np.exp(log_factor + exponent * log_x)) - log_y

        # Once from a line without a fixed part, once from a fixed part of half the shortest time.
        starts = ((1e-3, height, max(slope, 1e-3)), (np.exp(log_y.min()) / 2, height, 1.0))
        bounds = ([0, -np.inf, 0], np.inf)
        tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
        fits = [least_squares(errors, start, bounds=bounds, **tight) for start in starts]
        fixed, height, slope = min(fits, key=lambda fit: fit.cost).x
    factor = np.exp(height - slope * np.log(middle))
    worst = math.nan
    if len(np.unique(x)) > needed:
        away = np.log(fixed + np.exp(height + slope * log_x)) - log_y
        worst = float(np.exp(np.abs(away).max()))
    return Growth(float(fixed * unit), float(factor * unit), float(slope), worst)


def growths(recording: Recording) -> dict[str, Growth]:
    """The fitted curve of each quantity of the benchmark ``growth``."""
    return {
        str(quantity): fit_growth(rows["value"], rows["seconds"], fixed_cost=quantity != "ratio")
        for quantity, rows in recording.rows.groupby("quantity", sort=False)
    }


def growth_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Fitted exponents, a row a quantity."""
    tables = {}
    for each in recordings:
        lines = []
        for quantity, growth in growths(each).items():
            rows = each.rows[each.rows["quantity"] == quantity]
            lines.append(
                {
                    "Quantity": QUANTITIES[quantity],
                    "From": _number(rows["value"].min()),
                    "To": _number(rows["value"].max()),
                    "Shortest": _time(rows["seconds"].min()),
                    "Longest": _time(rows["seconds"].max()),
                    "Exponent": _signed(growth.exponent),
                    "Fixed part": "\u2013" if quantity == "ratio" else _time(growth.fixed),
                    "Farthest from the curve": (
                        "\u2013" if math.isnan(growth.worst) else f"{growth.worst:.2f} times"
                    ),
                }
            )
        tables[each.device] = pd.DataFrame(lines)
    return _stacked(tables)


# ---------------------------------------------------------------- folders, book and tests


def decoding_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Image files decoded a second, a row a size of file."""
    tables = {}
    for each in recordings:
        lines = []
        for edge, rows in each.rows.groupby("file_pixels", sort=False):
            lines.append(
                {
                    "Edge, pixels": edge,
                    "File, kB": f"{rows['file_kilobytes'].iloc[0]:,.1f}",
                    **{
                        f"{threads} thread{'s'[: threads > 1]}, images/s": f"{speed:,.0f}"
                        for threads, speed in zip(
                            rows["threads"], rows["images_a_second"], strict=True
                        )
                    },
                }
            )
        tables[each.device] = pd.DataFrame(lines)
    return _stacked(tables)


def training_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Memory and speed of training from a memory-mapped folder, a row a number of images."""
    tables = {
        each.device: pd.DataFrame(
            {
                "Images": f"{row['images']:,}",
                "Decoded array, MB": f"{row['array_megabytes']:,.1f}",
                "Before, MB": f"{row['megabytes_before']:,.0f}",
                "Decoding, peak MB": f"{row['decoding_peak_megabytes']:,.0f}",
                "Training, peak MB": f"{row['training_peak_megabytes']:,.0f}",
                "Decoding, images/s": f"{row['decoding_images_a_second']:,.0f}",
                "Training, images/s": f"{row['training_images_a_second']:,.0f}",
            }
            for row in each.rows.to_dict("records")
        )
        for each in recordings
    }
    return _stacked(tables)


def project_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """What building the book and running the tests takes."""
    tables = {
        each.device: pd.DataFrame(
            {"Command": row["command"], "Time": _time(row["seconds"])}
            for row in each.rows.to_dict("records")
        )
        for each in recordings
    }
    return _stacked(tables)


# ---------------------------------------------------------------- asked and measured


@dataclass(frozen=True)
class Target:
    """One thing that was asked of the package, and what was measured.

    Attributes:
        what: What was asked about.
        where: The network and its input, or the size.
        device: Name of the hardware.
        bound: What was asked.
        value: What was measured.
        low: Lower end of its 95 % interval; not a number if it has none.
        high: Upper end.
        least: Whether ``bound`` is the least allowed, and not the most.
        again: For a step, how long a second step without a penalty took against the first, as
            printed: 1 but for the noise.
    """

    what: str
    where: str
    device: str
    bound: float
    value: float
    low: float = math.nan
    high: float = math.nan
    least: bool = False
    again: str = "\u2013"

    @property
    def met(self) -> bool:
        """Whether the value itself is on the side that was asked for.

        Example:
            >>> Target("Step", "small CNN", "a CPU", bound=1.03, value=1.04).met
            False
        """
        return self.value >= self.bound if self.least else self.value <= self.bound

    @property
    def near(self) -> bool:
        """Whether the interval holds the bound, so that another run may fall on its other side."""
        return self.low <= self.bound <= self.high


def targets(recorded: Recorded) -> list[Target]:
    """What was asked beside what was measured; what was not measured is left out."""
    found: list[Target] = []
    for each in recorded.get("overhead", ()):
        for model, rows in each.rows.groupby("model", sort=False):
            if not each.on_gpu or model == "resnet18":
                found += _overhead_targets(each, rows.set_index("penalty"))
    for each in recorded.get("throughput", ()):
        for row in each.rows.to_dict("records"):
            what = f"Images a second, against {row['peer']}"
            where = network_name(row["model"], row["pixels"])
            bound = _asked_of(row["peer"])
            ratio = (row["ratio"], row["ratio_low"], row["ratio_high"])
            found.append(Target(what, where, each.device, bound, *ratio, least=True))
    for each in _on_gpu(recorded, "bandwidth"):
        rows = each.rows[(each.rows["megabytes"] >= LARGE) & (each.rows["penalty"] == "varreg")]
        for row in rows.to_dict("records"):
            what = "Bare penalty, share of the speed of a copy"
            where = f"{row['megabytes']:,} MB of features"
            share = row["share_of_copy"]
            found.append(Target(what, where, each.device, BANDWIDTH_BOUND, share, least=True))
    for each in _on_gpu(recorded, "ensemble"):
        for row in each.rows[each.rows["members"] == MEMBERS].to_dict("records"):
            what = f"{MEMBERS} seeds as one, against one by one"
            where = f"{network_name(row['model'], row['size'])}, batch {row['batch']}"
            gain = (row["gain"], row["gain_low"], row["gain_high"])
            found.append(Target(what, where, each.device, ENSEMBLE_BOUND, *gain, least=True))
    return found


def _overhead_targets(recording: Recording, rows: pd.DataFrame) -> list[Target]:
    """Those of one network; ``rows`` are indexed by penalty."""
    where = network_name(rows["model"].iloc[0], rows["pixels"].iloc[0])
    again = _ratio(rows.loc[AGAIN])
    found = []
    for ratio, penalty in OURS.items():
        row = rows.loc[penalty]
        bound = GPU_STEP_BOUND if recording.on_gpu else STEP_BOUNDS[ratio]
        measured = (row["ratio"], row["ratio_low"], row["ratio_high"])
        what = f"Time of a step, {ratio}"
        found.append(Target(what, where, recording.device, bound, *measured, again=again))
    peak = max(rows.loc[penalty, "peak_ratio"] for penalty in OURS.values())
    return [*found, Target("Peak memory of a step", where, recording.device, MEMORY_BOUND, peak)]


def targets_table(recorded: Recorded) -> pd.DataFrame:
    """:func:`targets` as printed; what a GPU was asked has one row where none was measured."""
    lines = [
        {
            "What": each.what,
            "Where": each.where,
            "Asked": f"{'at least' if each.least else 'at most'} {each.bound:g}",
            # A bound such as 1.02 needs a digit more than the other tables show.
            "Measured": interval_text(each.value, each.low, each.high, 2 if each.least else 4),
            "Same step twice": each.again,
            "Met": "yes" if each.met else "no",
            "Device": each.device,
        }
        for each in targets(recorded)
    ]
    if lines and not any(each.on_gpu for each in _all(recorded)):
        empty = dict.fromkeys(lines[0], "\u2013")
        words = {
            "What": "On a GPU: a step, the bare penalty, many seeds at once",
            "Measured": "not measured: no GPU",
        }
        lines.append(empty | words)
    table = pd.DataFrame(lines)
    several = len({each.device for each in _all(recorded)}) > 1
    return table if several or table.empty else table.drop(columns="Device")


def targets_sentence(recorded: Recorded) -> str:
    """How many targets are met, which are not, and which of these may be noise."""
    found = targets(recorded)
    if not found:
        return NOT_RECORDED
    several = len({each.device for each in found}) > 1

    def named(each: Target) -> str:
        on = f" on {each.device}" if several else ""
        return f"{each.what[0].lower()}{each.what[1:]} ({each.where}){on}"

    missed = [each for each in found if not each.met]
    words = f"{len(found) - len(missed)} of {len(found)} targets are met."
    if missed:
        words += f" Not met: {'; '.join(named(each) for each in missed)}."
    if near := [each for each in missed if each.near]:
        words += (
            f" For {len(near)} of these the interval holds the bound, so that another run may "
            "fall on its other side."
        )
    return words


# ---------------------------------------------------------------- sentences


def sentences(recorded: Recorded) -> dict[str, str]:
    """What the numbers mean for a user, each with the name of the hardware.

    Returns:
        By name: ``step``, ``memory``, ``engine``, ``roof``, ``seeds``, ``growth``, ``folder`` and
        ``project``. One that has no recording says so.

    Example:
        >>> sentences({})["step"]
        'Not recorded yet: the scripts in `benchmarks` do it.'
    """
    told = {
        "step": ("overhead", _step_sentence),
        "memory": ("overhead", _memory_sentence),
        "engine": ("throughput", _engine_sentence),
        "seeds": ("ensemble", _seeds_sentence),
        "growth": ("growth", _growth_sentence),
        "folder": ("larger_than_memory", _folder_sentence),
        "project": ("project", _project_sentence),
    }
    words = {
        name: " ".join(f"On {each.device}: {tell(each)}" for each in recorded.get(question, ()))
        for name, (question, tell) in told.items()
    }
    words["roof"] = _roof_sentences(recorded)
    return {name: text or NOT_RECORDED for name, text in words.items()}


def _step_sentence(recording: Recording) -> str:
    rows = recording.rows
    ratios = {name: rows.loc[rows["penalty"] == name, "ratio"] for name in (*OURS.values(), AGAIN)}
    released = rows.loc[rows["penalty"].str.startswith("released recipe"), "ratio"]
    whole, drawn, again = ratios.values()
    return (
        f"a training step with the penalty takes {_range(whole)} times as long as without it with "
        f"all features, and {_range(drawn)} times with a fifth of them; the literal translation "
        f"of the released recipe takes {_range(released)} times as long. The same step without "
        f"a penalty, timed a second time, comes out at {_range(again)}, so that much is noise."
    )


def _memory_sentence(recording: Recording) -> str:
    rows = recording.rows
    ours = rows.loc[rows["penalty"].isin(OURS.values()), "peak_ratio"].max()
    peers = rows[~rows["penalty"].isin([*OURS.values(), PLAIN, AGAIN])]
    most = peers.loc[peers["peak_ratio"].idxmax()]
    return (
        f"the penalty needs at most {ours:.3f} times the peak memory of a step without it; the "
        f"most that another penalty needs is {most['peak_ratio']:.3f} times ({most['penalty']}, "
        f"{network_name(most['model'], most['pixels'])})."
    )


def _engine_sentence(recording: Recording) -> str:
    parts = [
        f"{row['ratio']:.1f} times as many images as "
        f"{row['peer'] if row['peer'].startswith('Keras') else 'the ' + row['peer']} "
        f"({network_name(row['model'], row['pixels'])})"
        for row in recording.rows.to_dict("records")
    ]
    return f"in a second, the engine trains on {_list(parts)}."


def _roof_sentences(recorded: Recorded) -> str:
    """How near the roof, and what that leaves to gain on a peer."""
    peers = {each.device: each.rows for each in recorded.get("throughput", ())}
    told = []
    for each in recorded.get("roofline", ()):
        parts = [
            f"{100 * row['share_of_roof']:.0f} % ({network_name(row['model'], row['pixels'])}, "
            f"bound by {row['bound_by']})"
            for row in each.rows.to_dict("records")
        ]
        told.append(f"On {each.device}: a step reaches this share of the roof: {_list(parts)}.")
        for row in each.rows.to_dict("records"):
            told += _out_of_reach(row, peers.get(each.device))
    return " ".join(told)


def _out_of_reach(row: Mapping[str, Any], peers: pd.DataFrame | None) -> list[str]:
    """A sentence about each peer that even an engine at the roof would not beat as asked."""
    if peers is None or row["bound_by"] != "memory":
        return []
    return [
        f"Even at the roof, the engine would train the {network_name(row['model'], row['pixels'])}"
        f", only {peer['ratio'] / row['share_of_roof']:.1f} times as fast as {peer['peer']}: to be "
        f"{_asked_of(peer['peer'])} times as fast, it would have to move fewer bytes through "
        "memory, that is, to fuse operators."
        for peer in peers[peers["model"] == row["model"]].to_dict("records")
        if peer["ratio"] / row["share_of_roof"] < _asked_of(peer["peer"])
    ]


def _seeds_sentence(recording: Recording) -> str:
    rows = recording.rows
    many = rows[rows["members"] == rows["members"].max()]
    parts = [
        f"{row['gain']:.1f} times ({network_name(row['model'], row['size'])}, batch {row['batch']})"
        for row in many.to_dict("records")
    ]
    return (
        f"{many['members'].iloc[0]} networks that train as one give this many times the seeds a "
        f"second of one after the other: {_list(parts)}."
    )


def _growth_sentence(recording: Recording) -> str:
    fits = growths(recording)
    parts = [
        f"{_signed(fits[quantity].exponent)} in the {QUANTITIES[quantity].lower()}"
        for quantity in QUANTITIES
        if quantity in fits
    ]
    worst = max((each.worst for each in fits.values() if not math.isnan(each.worst)), default=1.0)
    return (
        f"the time grows with an exponent of {_list(parts)} (1: linear; 0: not at all), and no "
        f"measurement lies more than {worst:.2f} times above or below its curve."
    )


def _folder_sentence(recording: Recording) -> str:
    rows = recording.rows.sort_values("images")
    first, last = rows.iloc[0], rows.iloc[-1]
    grown = last["training_peak_megabytes"] - first["training_peak_megabytes"]
    more = f"{abs(grown):,.0f} MB {'more' if grown >= 0 else 'less'}"
    return (
        f"to train on {last['images']:,.0f} images of a folder takes {more} memory at its peak "
        f"than to train on {first['images']:,.0f}, while the decoded array grows by "
        f"{last['array_megabytes'] - first['array_megabytes']:,.0f} MB."
    )


def _project_sentence(recording: Recording) -> str:
    parts = [
        f"`{row['command']}` takes {_time(row['seconds'])}"
        for row in recording.rows.to_dict("records")
    ]
    return f"{_list(parts)}."


# ---------------------------------------------------------------- words and numbers


def network_name(model: str, pixels: int) -> str:
    """A network and its input as printed.

    Example:
        >>> network_name("small_cnn", 28)
        'small CNN, 28 px'
    """
    return f"{MODEL_NAMES.get(model, model)}, {pixels} px"


def _all(recorded: Recorded) -> Iterable[Recording]:
    return (each for recordings in recorded.values() for each in recordings)


def _on_gpu(recorded: Recorded, question: str) -> list[Recording]:
    return [each for each in recorded.get(question, ()) if each.on_gpu]


def _hardware(recording: Recording) -> str:
    if recording.on_gpu:
        return f"{recording.device}, PyTorch {recording.torch_version}"
    plural = "s" if recording.threads > 1 else ""
    return (
        f"{recording.device}, {recording.threads} thread{plural}, PyTorch {recording.torch_version}"
    )


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all devices; a column names the device where there are several."""
    if len(tables) > 1:
        tables = {device: table.assign(Device=device) for device, table in tables.items()}
    if not tables:
        return pd.DataFrame()
    return pd.concat(tables.values(), ignore_index=True).fillna("\u2013")


def _ratio(row: Mapping[str, Any] | pd.Series, digits: int = 3) -> str:
    return interval_text(row["ratio"], row["ratio_low"], row["ratio_high"], digits)


def _asked_of(peer: str) -> float:
    """How many times as fast as a peer the engine is asked to be."""
    return next(bound for name, bound in THROUGHPUT_BOUNDS.items() if peer.startswith(name))


def _range(values: pd.Series, digits: int = 3) -> str:
    low, high = (f"{end:.{digits}f}" for end in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _list(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _signed(value: float) -> str:
    """Two digits, and no zero with a sign."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "\u2212")


def _number(value: float) -> str:
    """A size in full, and a share of 1 as it is.

    Example:
        >>> _number(1e7), _number(0.01)
        ('10,000,000', '0.01')
    """
    return f"{value:,.0f}" if value > 1 else f"{value:g}"


def _time(seconds: float) -> str:
    """Seconds in a unit in which they are easily read.

    Example:
        >>> _time(0.0123), _time(75)
        ('12.3 ms', '75 s')
    """
    shown = float(f"{seconds:.3g}")
    for unit, size in (("s", 1), ("ms", 1e-3), ("\u00b5s", 1e-6)):
        if shown >= size:
            return f"{shown / size:,.4g} {unit}"
    return "0"
