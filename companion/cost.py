"""What the penalty, the engine and the project cost, as the benchmarks recorded it.

Each file of ``benchmarks/`` answers one question and appends its table to
``results/benchmarks/<question>``. Here those tables are read, fitted, judged and put into words.
Nothing is measured here. A machine is not equally fast at all times, so every recording counts: a
number is the median over the recordings of one device, beside the lowest and the highest.
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

from companion import words as printed
from companion.tables import MODEL_NAMES
from varreg.lab.ledger import Ledger, default_results

#: The ledgers in ``results/benchmarks``, each with the columns that say what a row is about.
QUESTIONS = {
    "overhead": ["model", "pixels", "batch", "penalty"],
    "bandwidth": ["megabytes", "batch", "penalty"],
    "roofline": ["model", "pixels", "batch"],
    "throughput": ["model", "pixels", "peer"],
    "ensemble": ["model", "size", "batch", "members"],
    "growth": ["quantity", "value"],
    "decoding": ["file_pixels", "threads"],
    "larger_than_memory": ["images"],
    "project": ["command"],
}
#: What grows in the benchmark ``growth``, as printed.
QUANTITIES = {
    "batch": "Images in a batch",
    "features": "Features",
    "images": "Training images",
    "ratio": "Sampling ratio",
}
#: The step that the others are compared with, and the same step once more.
PLAIN, AGAIN = "no penalty", "no penalty, again"
#: The steps with this package's penalty.
OURS = {"all features": "varreg, all features", "ratio 0.2": "varreg, ratio 0.2"}
#: The literal translation of the released recipe, by its sampling ratio.
RELEASED = {1.0: "released recipe, all features", 0.2: "released recipe, ratio 0.2"}
#: What the notes of version 0.2.0 say about the ends of a bootstrap, which no page shows.
NOT_SHOWN = re.compile(r" with 95 % bootstrap intervals|; the interval is that of the ratio")
NOT_RECORDED = "Not recorded yet: the scripts in `benchmarks` do it."


@dataclass(frozen=True)
class Spread:
    """One quantity in all recordings of a device.

    Attributes:
        values: A value a recording, in the order of the recordings.
        low: Lower end of the 95 % interval inside a recording, over its turns; not a number where
            none was recorded.
        high: Upper end.
    """

    values: tuple[float, ...]
    low: float = math.nan
    high: float = math.nan

    @property
    def median(self) -> float:
        """Median over the recordings; not a number where there is none."""
        return float(np.median(self.values)) if self.values else math.nan

    def text(self, form: Callable[[float], str] = "{:.3f}".format) -> str:
        """The median, with the lowest and the highest recording where they differ from it.

        Of a single recording, the interval over its turns stands in square brackets.

        Args:
            form: Prints a value.

        Example:
            >>> Spread((1.1, 1.0, 1.02)).text(), Spread((1.1,), 1.0, 1.2).text()
            ('1.020 (1.000 to 1.100)', '1.100 [1.000, 1.200]')
        """
        if not self.values:
            return "\u2013"
        median, low, high = (form(x) for x in (self.median, min(self.values), max(self.values)))
        if len(self.values) == 1 and not math.isnan(self.low):
            return f"{median} [{form(self.low)}, {form(self.high)}]"
        return median if low == high else f"{median} ({low} to {high})"


@dataclass(frozen=True)
class Recordings:
    """All recordings of one question on one device.

    Attributes:
        question: One of :data:`QUESTIONS`.
        device: Name of the hardware.
        threads: Of a CPU.
        torch_versions: Versions of PyTorch.
        dates: Date of each recording.
        uncommitted: Number of recordings made from code that differed from its commit.
        notes: What a reader has to know: sizes, settings.
        rows: The tables, one below the other; ``recording`` counts them from 0.
    """

    question: str
    device: str
    threads: int
    torch_versions: tuple[str, ...]
    dates: tuple[str, ...]
    uncommitted: int
    notes: tuple[str, ...]
    rows: pd.DataFrame

    @property
    def on_gpu(self) -> bool:
        """Whether the device is not a CPU, by its name (:func:`varreg.lab.machine.device_name`)."""
        return re.search(r"CPU, \d+ cores$", self.device) is None

    @property
    def name(self) -> str:
        """The device as printed."""
        return (
            self.device
            if self.on_gpu
            else f"{self.device}, {printed.count(self.threads, 'thread')}"
        )

    def lines(self) -> list[dict[str, Any]]:
        """A line a quantity: what it is about, how many recordings have it, and its columns.

        A column of numbers becomes a :class:`Spread`, one of words the different words.
        """
        about = QUESTIONS[self.question]
        found = []
        for values, rows in self.rows.groupby(about, sort=False):
            line: dict[str, Any] = dict(zip(about, values, strict=True))
            for name in rows.columns.difference([*about, "recording"], sort=False):
                column = rows[name].dropna()
                if pd.api.types.is_numeric_dtype(column):
                    within = _within(rows) if name in ("ratio", "gain") else ()
                    line[name] = Spread(tuple(column), *within)
                else:
                    line[name] = " or ".join(column.unique())
            found.append(line | {"recordings": rows["recording"].nunique()})
        return found


def _within(rows: pd.DataFrame) -> tuple[float, float]:
    """The t interval of a ratio, by :func:`varreg.lab.timing.ratio_interval`.

    Version 0.2.0 recorded the ends of a bootstrap, in other columns: of few turns, they lie too
    close together.
    """
    if not {"low", "high"} <= set(rows.columns):
        return (math.nan, math.nan)
    return (rows["low"].iloc[-1], rows["high"].iloc[-1])


#: The recordings by question, as :func:`gather` gives them.
Recorded = Mapping[str, Sequence[Recordings]]


def read(question: str, results: str | Path | None = None) -> list[Recordings]:
    """The recordings of each device, in the order in which the devices first came.

    Args:
        question: One of :data:`QUESTIONS`.
        results: Folder of the recorded results; default :func:`varreg.lab.ledger.default_results`.

    Raises:
        ValueError: If there is no such question.
        LedgerError: If the ledger is damaged.

    Example:
        >>> read("overhead", results="no-such-folder")
        []
    """
    if question not in QUESTIONS:
        raise ValueError(f"question is {question!r}; allowed are {', '.join(QUESTIONS)}")
    folder = Path(results) if results is not None else default_results()
    ledger = Ledger(question, folder / "benchmarks")
    return grouped(question, ledger.runs(), ledger.curves())


def grouped(question: str, runs: pd.DataFrame, curves: pd.DataFrame) -> list[Recordings]:
    """The rows of a ledger by device; another number of threads makes another device.

    Args:
        question: One of :data:`QUESTIONS`.
        runs: A row a recording.
        curves: Their tables.
    """
    found = []
    for (device, threads), mine in (
        [] if runs.empty else runs.groupby(["device", "threads"], sort=False)
    ):
        number = {key: place for place, key in enumerate(mine["key"])}
        rows = curves[curves["key"].isin(number)]
        rows = rows.assign(recording=rows["key"].map(number)).drop(columns="key")
        found.append(
            Recordings(
                question,
                str(device),
                int(threads),
                tuple(mine["torch_version"].unique()),
                tuple(mine["recorded_at"].str[:10]),
                int(mine["commit"].fillna("").str.endswith("+").sum()),
                tuple(mine["note"].dropna().unique()),
                # A column that only other versions of the benchmark know is empty here.
                rows.dropna(axis=1, how="all").reset_index(drop=True),
            )
        )
    return found


def gather(results: str | Path | None = None) -> dict[str, list[Recordings]]:
    """The recordings of all questions; those without one have an empty list.

    Args:
        results: As in :func:`read`.

    Example:
        >>> gather("no-such-folder")["growth"]
        []
    """
    return {question: read(question, results) for question in QUESTIONS}


# ---------------------------------------------------------------- what was measured where


def source(recordings: Sequence[Recordings]) -> str:
    """Where and how the numbers of a section were measured, in Markdown.

    Example:
        >>> source([])
        'Not recorded yet: the scripts in `benchmarks` do it.'
    """
    lines = [
        f"*{each.name}, PyTorch {' and '.join(each.torch_versions)}: {_history(each)}.* "
        + " ".join(dict.fromkeys(f"{NOT_SHOWN.sub('', note).rstrip('.')}." for note in each.notes))
        for each in recordings
    ]
    return "\n\n".join(line.strip() for line in lines) or NOT_RECORDED


def _history(recordings: Recordings) -> str:
    """How many recordings, from when, and from what code."""
    days = " to ".join(dict.fromkeys((min(recordings.dates), max(recordings.dates))))
    text = f"{printed.count(len(recordings.dates), 'recording')}, {days}"
    if recordings.uncommitted:
        text += f", {recordings.uncommitted} of code with uncommitted changes"
    return text


def hardware_table(recorded: Recorded) -> pd.DataFrame:
    """Every device with what was measured on it, how often, and from what code."""
    devices: dict[str, list[Recordings]] = {}
    for each in _all(recorded):
        devices.setdefault(each.name, []).append(each)
    return pd.DataFrame(
        [
            {
                "Device": name,
                "PyTorch": ", ".join(sorted({v for each in mine for v in each.torch_versions})),
                "Recordings": ", ".join(
                    f"{each.question.replace('_', ' ')} {len(each.dates)}" for each in mine
                ),
                "With uncommitted changes": (
                    f"{sum(each.uncommitted for each in mine)} of "
                    f"{sum(len(each.dates) for each in mine)}"
                ),
                "Latest": max(date for each in mine for date in each.dates),
            }
            for name, mine in devices.items()
        ]
    )


def gpu_sentence(recorded: Recorded) -> str:
    """Whether any of the figures is a GPU's.

    Example:
        >>> gpu_sentence({})
        'Nothing is recorded yet: `make bench` measures on a CPU, `make bench-gpu` on a GPU.'
    """
    devices = list(dict.fromkeys((each.name, each.on_gpu) for each in _all(recorded)))
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


def step_ratios(recordings: Recordings, penalty: str, against: str = PLAIN) -> dict[str, Spread]:
    """How many times as long a step with one penalty takes as with another, by network.

    Every page and every verdict that speaks of the time of a step takes it from here.

    Args:
        recordings: Of the question ``overhead``, on one device.
        penalty: As the benchmark calls it.
        against: What to compare with, in the same recording; default the step without a penalty.

    Returns:
        Networks as the columns of :func:`overhead_table` are called. One that was not measured
        with both is left out.
    """
    rows, found = recordings.rows, {}
    for network, times in rows.groupby(_columns(rows), sort=False):
        wide = times.pivot(index="recording", columns="penalty", values="ratio")
        if {penalty, against} <= set(wide.columns):
            values = tuple((wide[penalty] / wide[against]).dropna())
            within = _within(times[times["penalty"] == penalty]) if against == PLAIN else ()
            found[str(network)] = Spread(values, *within)
    return found


def overhead_table(
    recordings: Sequence[Recordings], penalties: Iterable[str] | None = None
) -> pd.DataFrame:
    """Time of a step: milliseconds without a penalty, multiples of them with one.

    Args:
        recordings: Of the question ``overhead``.
        penalties: The rows to print, by what the benchmark calls them; default all.
    """
    ratios = {
        (each.name, penalty): step_ratios(each, penalty)
        for each in recordings
        for penalty in each.rows["penalty"].unique()
    }

    def relative(each: Recordings, line: Mapping[str, Any]) -> str:
        return ratios[each.name, line["penalty"]][_column(line)].text()

    table = _by_network(recordings, lambda line: line["step_ms"].text("{:.2f} ms".format), relative)
    if penalties is None or table.empty:
        return table
    return table[table["Penalty"].isin([PLAIN, *penalties])].reset_index(drop=True)


def memory_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """Peak memory of a step: megabytes without a penalty, multiples of them with one."""
    return _by_network(
        recordings,
        lambda line: line["peak_mb"].text("{:.1f} MB".format),
        lambda _, line: line["peak_ratio"].text(),
    )


def _by_network(
    recordings: Sequence[Recordings],
    plain: Callable[[Mapping[str, Any]], str],
    relative: Callable[[Recordings, Mapping[str, Any]], str],
) -> pd.DataFrame:
    """A row a penalty, a column a network."""

    def cell(each: Recordings, line: Mapping[str, Any]) -> tuple[dict[str, str], str, str]:
        text = plain(line) if line["penalty"] == PLAIN else relative(each, line)
        return {"Penalty": line["penalty"]}, _column(line), text

    return _wide(recordings, cell)


def bandwidth_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """Speed of the bare penalty, as a share of the speed of a copy; a row a size."""

    def cell(_: Recordings, line: Mapping[str, Any]) -> tuple[dict[str, str], str, str]:
        head = {
            "Features, MB": f"{line['megabytes']:g}",
            "Copy, GB/s": line["copy_gb_a_second"].text("{:.0f}".format),
        }
        return head, line["penalty"], line["share_of_copy"].text(printed.percent)

    return _wide(recordings, cell)


# ---------------------------------------------------------------- engine


def throughput_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """Images a second of the engine and of a peer, a row a peer."""
    return _table(
        recordings,
        lambda line: {
            "Network": network_name(line["model"], line["pixels"]),
            "Peer": line["peer"],
            "varreg, images/s": _whole(line["varreg_images_a_second"]),
            "Peer, images/s": _whole(line["peer_images_a_second"]),
            "Times as fast": line["ratio"].text("{:.2f}".format),
        },
    )


def roofline_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """How near the networks are to the machine's roof, and what bounds them."""
    return _table(
        recordings,
        lambda line: {
            "Network": network_name(line["model"], line["pixels"]),
            "Step, ms": line["step_ms"].text("{:.1f}".format),
            "Operations a byte": line["flop_a_byte"].text("{:.2f}".format),
            "GFLOP/s": _whole(line["gflop_a_second"]),
            "Matrix product, GFLOP/s": _whole(line["peak_gflop_a_second"]),
            "GB/s": _whole(line["gb_a_second"]),
            "Copy, GB/s": _whole(line["copy_gb_a_second"]),
            "Of the roof": line["share_of_roof"].text(printed.percent),
            "Bound by": line["bound_by"],
        },
    )


def ensemble_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """Images a second of networks that train as one, against one after the other."""
    return _table(
        recordings,
        lambda line: {
            "Network": network_name(line["model"], line["size"]),
            "Batch": line["batch"],
            "Members": line["members"],
            "One by one, images/s": _whole(line["images_per_second_alone"]),
            "As one, images/s": _whole(line["images_per_second"]),
            "Times as fast": line["gain"].text("{:.2f}".format),
        },
    )


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


def growths(recordings: Recordings) -> dict[str, list[Growth]]:
    """The fitted curves of each quantity of the benchmark ``growth``, one a recording."""
    found: dict[str, list[Growth]] = {}
    for (quantity, _), rows in recordings.rows.groupby(["quantity", "recording"], sort=False):
        curve = fit_growth(rows["value"], rows["seconds"], fixed_cost=quantity != "ratio")
        found.setdefault(str(quantity), []).append(curve)
    return found


def growth_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """Fitted exponents, a row a quantity."""
    tables = {}
    for each in recordings:
        lines = []
        for quantity, curves in growths(each).items():
            rows = each.rows[each.rows["quantity"] == quantity]
            worst = [curve.worst for curve in curves if not math.isnan(curve.worst)]
            fixed = Spread(tuple(curve.fixed for curve in curves))
            lines.append(
                {
                    "Quantity": QUANTITIES[quantity],
                    "From": _number(rows["value"].min()),
                    "To": _number(rows["value"].max()),
                    "Shortest": printed.duration(rows["seconds"].min()),
                    "Longest": printed.duration(rows["seconds"].max()),
                    "Exponent": exponent_text(curves),
                    "Fixed part": "\u2013" if quantity == "ratio" else fixed.text(printed.duration),
                    "Farthest from the curve": f"{max(worst):.2f} times" if worst else "\u2013",
                    "Recordings": str(len(curves)),
                }
            )
        tables[each.name] = pd.DataFrame(lines)
    return _stacked(tables)


def exponent_text(curves: Sequence[Growth]) -> str:
    """Median of the fitted exponents, and their range.

    Example:
        >>> exponent_text([Growth(0, 1, 1.0, 1.0), Growth(0, 1, 0.9, 1.0), Growth(0, 1, 1.1, 1.0)])
        '1.00 (0.90 to 1.10)'
    """
    return Spread(tuple(curve.exponent for curve in curves)).text(_signed)


# ---------------------------------------------------------------- folders, book and tests


def decoding_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """Image files decoded a second, by size of file and threads."""
    return _table(
        recordings,
        lambda line: {
            "Edge, pixels": line["file_pixels"],
            "File, kB": line["file_kilobytes"].text("{:,.1f}".format),
            "Threads": line["threads"],
            "Images/s": _whole(line["images_a_second"]),
        },
    )


def training_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """Memory and speed of training from a memory-mapped folder, a row a number of images."""
    return _table(
        recordings,
        lambda line: {
            "Images": f"{line['images']:,}",
            "Decoded array, MB": line["array_megabytes"].text("{:,.1f}".format),
            "Before, MB": _whole(line["megabytes_before"]),
            "Decoding, peak MB": _whole(line["decoding_peak_megabytes"]),
            "Training, peak MB": _whole(line["training_peak_megabytes"]),
            "Decoding, images/s": _whole(line["decoding_images_a_second"]),
            "Training, images/s": _whole(line["training_images_a_second"]),
        },
    )


def project_table(recordings: Sequence[Recordings]) -> pd.DataFrame:
    """What building the book and running the tests takes."""
    return _table(
        recordings,
        lambda line: {"Command": line["command"], "Time": line["seconds"].text(printed.duration)},
    )


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
        "roof": ("roofline", _roof_sentence),
        "seeds": ("ensemble", _seeds_sentence),
        "growth": ("growth", _growth_sentence),
        "folder": ("larger_than_memory", _folder_sentence),
        "project": ("project", _project_sentence),
    }
    words = {
        name: " ".join(f"On {each.name}: {tell(each)}" for each in recorded.get(question, ()))
        for name, (question, tell) in told.items()
    }
    return {name: text or NOT_RECORDED for name, text in words.items()}


def _step_sentence(recordings: Recordings) -> str:
    def times(*penalties: str) -> str:
        spreads = [
            spread for penalty in penalties for spread in step_ratios(recordings, penalty).values()
        ]
        single = [value for spread in spreads for value in spread.values]
        medians = _range([spread.median for spread in spreads])
        return f"{medians} times (single recordings: {_range(single)})"

    whole, drawn = OURS.values()
    return (
        f"by network, a training step with the penalty takes {times(whole)} as long as without it "
        f"with all features, and {times(drawn)} with a fifth of them; the literal translation of "
        f"the released recipe takes {times(*RELEASED.values())} as long. The same step without a "
        f"penalty, timed a second time, comes out at {times(AGAIN)}, so that much is noise."
    )


def _memory_sentence(recordings: Recordings) -> str:
    lines = [line for line in recordings.lines() if line["penalty"] not in (PLAIN, AGAIN)]
    ours = [line for line in lines if line["penalty"] in OURS.values()]
    peers = [line for line in lines if line["penalty"] not in OURS.values()]
    most = max(peers, key=lambda line: line["peak_ratio"].median)
    return (
        f"the penalty needs at most {max(line['peak_ratio'].median for line in ours):.3f} times "
        "the peak memory of a step without it; the most that another penalty needs is "
        f"{most['peak_ratio'].median:.3f} times ({most['penalty']}, {_column(most)})."
    )


def _engine_sentence(recordings: Recordings) -> str:
    parts = [
        f"{line['ratio'].text('{:.1f}'.format)} times as many images as "
        f"{line['peer'] if line['peer'].startswith('Keras') else 'the ' + line['peer']} "
        f"({network_name(line['model'], line['pixels'])})"
        for line in recordings.lines()
    ]
    return f"in a second, the engine trains on {printed.listed(parts)}."


def _roof_sentence(recordings: Recordings) -> str:
    parts = [
        f"{line['share_of_roof'].text(printed.percent)} "
        f"({network_name(line['model'], line['pixels'])}, bound by {line['bound_by']})"
        for line in recordings.lines()
    ]
    return f"a step reaches this share of the roof: {printed.listed(parts)}."


def _seeds_sentence(recordings: Recordings) -> str:
    lines = recordings.lines()
    members = max(line["members"] for line in lines)
    parts = [
        f"{line['gain'].text('{:.1f}'.format)} times "
        f"({network_name(line['model'], line['size'])}, batch {line['batch']})"
        for line in lines
        if line["members"] == members
    ]
    return (
        f"{members} networks that train as one give this many times the seeds a "
        f"second of one after the other: {printed.listed(parts)}."
    )


def _growth_sentence(recordings: Recordings) -> str:
    fits = growths(recordings)
    parts = [
        f"{exponent_text(fits[quantity])} in the {QUANTITIES[quantity].lower()}"
        for quantity in QUANTITIES
        if quantity in fits
    ]
    worst = [curve.worst for curves in fits.values() for curve in curves]
    return (
        f"the time grows with an exponent of {printed.listed(parts)} (1: linear; 0: not at all), "
        f"and no measurement lies more than {np.nanmax([1.0, *worst]):.2f} times above or below "
        "its curve."
    )


def _folder_sentence(recordings: Recordings) -> str:
    lines = sorted(recordings.lines(), key=lambda line: line["images"])
    first, last = lines[0], lines[-1]

    def grown(column: str) -> float:
        return last[column].median - first[column].median

    peak = grown("training_peak_megabytes")
    return (
        f"to train on {last['images']:,.0f} images of a folder takes {abs(peak):,.0f} MB "
        f"{'more' if peak >= 0 else 'less'} memory at its peak than to train on "
        f"{first['images']:,.0f}, while the decoded array grows by "
        f"{grown('array_megabytes'):,.0f} MB."
    )


def _project_sentence(recordings: Recordings) -> str:
    parts = [
        f"`{line['command']}` takes {line['seconds'].text(printed.duration)}"
        for line in recordings.lines()
    ]
    return f"{printed.listed(parts)}."


# ---------------------------------------------------------------- words and numbers


def network_name(model: str, pixels: int) -> str:
    """A network and its input as printed.

    Example:
        >>> network_name("small_cnn", 28)
        'small CNN, 28 px'
    """
    return f"{MODEL_NAMES.get(model, model)}, {pixels} px"


def _column(line: Mapping[str, Any]) -> str:
    return f"{network_name(line['model'], line['pixels'])}, batch {line['batch']}"


def _columns(rows: pd.DataFrame) -> pd.Series:
    """The network of each row, as a column of a table is called."""
    return pd.Series([_column(row) for row in rows.to_dict("records")], rows.index, object)


def _all(recorded: Recorded) -> Iterable[Recordings]:
    return (each for recordings in recorded.values() for each in recordings)


def _wide(
    recordings: Sequence[Recordings],
    cell: Callable[[Recordings, dict[str, Any]], tuple[dict[str, str], str, str]],
) -> pd.DataFrame:
    """A line of the recordings becomes a cell: ``cell`` gives the head of its row and its column.

    The recordings of a row are those of its cells.
    """
    tables = {}
    for each in recordings:
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        counts: dict[tuple[str, ...], list[int]] = {}
        for line in each.lines():
            head, column, text = cell(each, line)
            key = tuple(head.values())
            rows.setdefault(key, head)[column] = text
            counts.setdefault(key, []).append(line["recordings"])
        for key, mine in counts.items():
            ends = dict.fromkeys((min(mine), max(mine)))
            rows[key]["Recordings"] = " to ".join(map(str, ends))
        table = pd.DataFrame(rows.values())
        tables[each.name] = table[[*table.columns.drop("Recordings"), "Recordings"]]
    return _stacked(tables)


def _table(
    recordings: Sequence[Recordings], cells: Callable[[dict[str, Any]], dict[str, Any]]
) -> pd.DataFrame:
    """A row a line of the recordings."""
    return _stacked(
        {
            each.name: pd.DataFrame(
                cells(line) | {"Recordings": str(line["recordings"])} for line in each.lines()
            )
            for each in recordings
        }
    )


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all devices; a column names the device where there are several."""
    if len(tables) > 1:
        tables = {device: table.assign(Device=device) for device, table in tables.items()}
    if not tables:
        return pd.DataFrame()
    return pd.concat(tables.values(), ignore_index=True).fillna("\u2013")


def _range(values: Sequence[float], digits: int = 3) -> str:
    low, high = (f"{end:.{digits}f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _whole(spread: Spread) -> str:
    return spread.text("{:,.0f}".format)


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
