import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import words
from companion.cost import figures, summary
from companion.cost import recordings as cost
from companion.cost.growth import fit_growth, fitted
from companion.cost.recordings import QUESTIONS, Spread
from companion.cost.tables import MEMORY, STEPS, table
from tests.companion.notebooks import NOTEBOOKS, run
from tests.companion.synthetic_cost import (
    CPU,
    GPU,
    MADE,
    growth,
    overhead,
    record,
    record_all,
    throughput,
)
from varreg.lab.ledger import LedgerError


@pytest.fixture
def on_cpu(tmp_path):
    record_all(tmp_path / "cpu")
    return cost.gather(tmp_path / "cpu")


@pytest.fixture
def on_both(tmp_path):
    for device in (CPU, GPU):
        record_all(tmp_path / "both", device)
    return cost.gather(tmp_path / "both")


# ---------------------------------------------------------------- reading


def test_the_questions_are_those_that_the_benchmarks_record():
    """A new benchmark whose table nobody shows would be recorded for nothing."""
    folder = Path(__file__).parents[2] / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the benchmarks are not beside the tests")
    text = "".join(file.read_text() for file in folder.glob("*.py"))
    recorded = {name for name in QUESTIONS if f'record("{name}"' in text}
    page = (NOTEBOOKS / "10_cost.ipynb").read_text("utf-8")
    printed = {name for name in QUESTIONS if f'table(recorded[\\"{name}\\"]' in page}
    if 'newest() for each in recorded[\\"project\\"]' in page and "table(newest," in page:
        printed.add("project")
    assert recorded == set(QUESTIONS) == set(MADE) == printed
    assert text.count('record("') == len(QUESTIONS)


def test_every_recording_of_a_device_counts(tmp_path):
    for device, seconds in ((CPU, 1.0), (GPU, 2.0), (CPU, 4.0), (CPU, 3.0)):
        rows = [{"command": "make book", "seconds": seconds}]
        record(tmp_path, "project", rows, device=device, note="")
    cpu, gpu = cost.read("project", tmp_path)
    assert (cpu.name, cpu.on_gpu, len(cpu.runs)) == (f"{CPU}, 2 threads", False, 3)
    assert (gpu.name, gpu.on_gpu, len(gpu.runs)) == (GPU, True, 1)
    (line,) = cpu.lines()
    assert line == {
        "command": "make book",
        "seconds": Spread((1.0, 4.0, 3.0)),
        "recordings": 3,
    }
    printed = table([cpu], {"Command": "command", "Time": ("seconds", ".0f")})
    assert printed.iloc[0].tolist() == ["make book", "3 (1 to 4)", "3"]
    assert cost.source([cpu]).endswith("3 recordings, 2026-01-01.* ")


def test_the_newest_recording_is_the_last_one_alone(tmp_path):
    record(tmp_path, "project", [{"command": "make book", "seconds": 1.0, "old": 1}])
    record(tmp_path, "project", [{"command": "make book", "seconds": 5.0}])
    (every,) = cost.read("project", tmp_path)
    newest = every.newest()
    assert newest.lines() == [{"command": "make book", "seconds": Spread((5.0,)), "recordings": 1}]
    assert newest.runs["key"].tolist() == every.runs["key"].tolist()[-1:]
    assert newest.newest().lines() == newest.lines()


def test_another_number_of_threads_is_another_device(tmp_path):
    for threads, seconds in ((2, 1.0), (1, 2.0)):
        rows = [{"command": "make book", "seconds": seconds}]
        record(tmp_path, "project", rows, threads=threads)
    two, one = cost.read("project", tmp_path)
    assert (two.name, one.name) == (f"{CPU}, 2 threads", f"{CPU}, 1 thread")
    assert (two.rows["seconds"].tolist(), one.rows["seconds"].tolist()) == ([1.0], [2.0])


def test_a_device_has_only_the_columns_that_it_was_recorded_with(tmp_path):
    record(tmp_path, "project", [{"command": "make book", "seconds": 1.0, "old": 1}], device=GPU)
    record(tmp_path, "project", [{"command": "make book", "seconds": 1.0, "new": 1}])
    gpu, cpu = cost.read("project", tmp_path)
    assert list(gpu.rows.drop(columns="recording")) == ["command", "seconds", "old"]
    assert list(cpu.rows.drop(columns="recording")) == ["command", "seconds", "new"]


@pytest.mark.parametrize(
    ("values", "ends", "text"),
    [
        ((), (), "\u2013"),
        ((1.5,), (), "1.500"),
        ((1.5,), (1.4, 1.6), "1.500 [1.400, 1.600]"),
        ((1.5, 1.5), (1.4, 1.6), "1.500"),
        ((3.72, 2.53), (1.4, 1.6), "3.125 (2.530 to 3.720)"),
        ((1.0, 5.0, 2.0), (), "2.000 (1.000 to 5.000)"),
    ],
)
def test_a_spread_is_the_median_with_the_lowest_and_the_highest(values, ends, text):
    assert Spread(values, *ends).text() == text


def test_the_ends_of_a_bootstrap_are_never_shown(tmp_path, monkeypatch):
    """Version 0.2.0 recorded them, of three to eight hundred turns."""
    for question, old in (("overhead", "ratio"), ("throughput", "ratio"), ("ensemble", "gain")):
        rows = [
            {name: value for name, value in row.items() if name not in ("low", "high", "turns")}
            | {f"{old}_low": 77.7, f"{old}_high": 88.8}
            for row in MADE[question]()
        ]
        note = "x; medians of 3 turns with 95 % bootstrap intervals"
        record(tmp_path, question, rows, note=note)
    found = cost.gather(tmp_path)
    shown, facts = run("10_cost", tmp_path, monkeypatch)
    printed = [each.to_csv() for each in shown]
    printed += [cost.source(found["ensemble"]), *facts.values()]
    for text in printed:
        assert not set(text.replace("[", " ").split()) & {"77.7", "88.8"}
        assert "bootstrap" not in text
    assert "medians of 3 turns." in cost.source(found["ensemble"])
    record(tmp_path, "ensemble", MADE["ensemble"](), note="x; medians of 3 turns")
    assert cost.source(cost.read("ensemble", tmp_path)).count("medians of 3 turns") == 1
    assert "[" not in "".join(printed)


def test_a_wrong_question_and_a_damaged_ledger_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'overheads'; allowed are overhead, bandwidth"):
        cost.read("overheads", tmp_path)
    record(tmp_path, "project", [{"command": "make book", "seconds": 1.0}])
    with (tmp_path / "benchmarks" / "project" / "runs.csv").open("a") as file:
        file.write("cut")
    with pytest.raises(LedgerError, match="cut short"):
        cost.gather(tmp_path)


# ---------------------------------------------------------------- growth


@settings(max_examples=30, deadline=None)
@given(
    exponent=st.floats(0.5, 2),
    factor=st.floats(1e-9, 1e3),
    share=st.sampled_from([0.0, 0.3, 3.0]),
)
def test_a_known_curve_is_found(exponent, factor, share):
    values = np.geomspace(10, 1e6, 9)
    power = factor * values**exponent
    fixed = share * power[2]
    found = fit_growth(values, fixed + power)
    assert found.exponent == pytest.approx(exponent, abs=1e-3)
    assert found.fixed == pytest.approx(fixed, rel=1e-2, abs=1e-3 * power[0])
    assert found.seconds(values) == pytest.approx(fixed + power, rel=1e-3)
    assert found.worst == pytest.approx(1, abs=1e-3)


def test_a_linear_cost_with_noise_stays_linear():
    values = np.geomspace(1e3, 1e7, 9)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.03, len(values)))
    found = fit_growth(values, noise * (1e-4 + 1e-9 * values))
    assert found.exponent == pytest.approx(1, abs=0.05)
    assert found.fixed == pytest.approx(1e-4, rel=0.1)


def test_a_cliff_is_seen():
    values = np.geomspace(1e3, 1e7, 9)
    seconds = 1e-9 * values
    seconds[5] *= 4
    assert fit_growth(values, seconds).worst > 2


def test_without_a_fixed_part_the_curve_is_numpys_line_through_the_logarithms():
    values, seconds = [0.01, 0.1, 1.0], [8.0, 7.5, 7.6]
    slope, height = np.polyfit(np.log(values), np.log(seconds), 1)
    found = fit_growth(values, seconds, fixed_cost=False)
    assert (found.fixed, found.exponent) == (0, pytest.approx(slope))
    assert found.factor == pytest.approx(np.exp(height))
    assert found.exponent < 0
    assert found.worst < 1.05


def test_as_many_points_as_parameters_say_nothing_about_the_fit():
    assert math.isnan(fit_growth([1, 10, 100], [1, 10, 90]).worst)


@pytest.mark.parametrize(
    ("values", "seconds", "said"),
    [
        ([1, 2], [1, 2], "3 or more"),
        ([1, 2, 3], [1, 2], "as many of one"),
        ([1, 1, 2], [1, 2, 3], "3 or more"),
        ([0, 1, 2], [1, 2, 3], "positive"),
        ([1, 2, 3], [1, math.nan, 3], "positive and finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(values, seconds, said):
    with pytest.raises(ValueError, match=said):
        fit_growth(values, seconds)


def test_every_recording_has_a_curve(tmp_path):
    for exponent in (0.9, 1.1, 1.05):
        record(tmp_path, "growth", growth(exponent=exponent))
    features = next(
        line for line in fitted(cost.read("growth", tmp_path)[0]) if line["quantity"] == "features"
    )
    assert (f"{features['exponent']:.2f}", features["recordings"]) == ("1.05 (0.90 to 1.10)", 3)


def test_each_quantity_is_fitted(tmp_path):
    record(tmp_path, "growth", growth(exponent=1.5))
    found = fitted(cost.read("growth", tmp_path)[0])
    exponents = {line["quantity"]: round(float(line["exponent"]), 2) for line in found}
    assert exponents == {"batch": 1.5, "features": 1.5, "ratio": 0, "images": 1.5}


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("devices", [(), (CPU,), (CPU, GPU)])
def test_the_chapter_names_the_device_only_where_there_are_several(devices, tmp_path, monkeypatch):
    for device in devices:
        record_all(tmp_path, device)
    (hardware, *found), facts = run("10_cost", tmp_path, monkeypatch)
    assert hardware.empty == (not devices)
    assert len(found) == 10
    for each in found:
        assert each.empty == (not devices)
        assert not each.isna().any(axis=None)
        assert set(each.get("Recordings", ())) == ({"1"} if devices else set())
        names = [name for name in (f"{CPU}, 2 threads", GPU) for _ in range(len(each) // 2)]
        assert each.get("Device", pd.Series()).tolist() == (names if len(devices) > 1 else [])
    named = [words.DASH, f"{CPU}, 2 threads", f"{CPU}, 2 threads and {GPU}"][len(devices)]
    assert facts.pop("cost_devices") == named
    assert facts.pop("cost_gpus") == (GPU if GPU in devices else "none")
    assert len(facts) == 19
    for name, text in facts.items():
        assert (text == words.DASH) == (not devices), name
        several = f" on {CPU}, 2 threads and " in text and text.endswith(f" on {GPU}")
        assert several == (len(devices) > 1), name


def test_overhead_shows_milliseconds_without_and_ratios_with(on_cpu):
    steps = table(on_cpu["overhead"], STEPS).set_index("Penalty")
    column = steps["ResNet-18, 64 px, batch 32"]
    assert column["no penalty"] == "10.00 ms"
    assert column["DeCov"] == "1.300 [1.250, 1.350]"
    memory = table(on_cpu["overhead"], MEMORY).set_index("Penalty")
    assert memory.loc[["no penalty", "DeCov"], "ResNet-18, 64 px, batch 32"].tolist() == [
        "20.0 MB",
        "1.200",
    ]


def test_networks_that_differ_between_devices_have_columns_of_their_own(tmp_path):
    record(tmp_path, "overhead", overhead())
    larger = [row | {"pixels": 224} for row in overhead() if row["model"] == "resnet18"]
    record(tmp_path, "overhead", larger, device=GPU)
    steps = table(cost.read("overhead", tmp_path), STEPS)
    assert steps["ResNet-18, 224 px, batch 32"].tolist()[: len(steps) // 2] == ["\u2013"] * 7


def test_growth_is_printed_with_units_and_without_a_signed_zero(tmp_path, monkeypatch):
    record_all(tmp_path)
    found, _ = run("10_cost", tmp_path, monkeypatch)
    table = next(each for each in found if "Exponent" in each).set_index("Quantity")
    assert table["Exponent"].to_dict() == {
        "Images in a batch": "1.00",
        "Features": "1.00",
        "Sampling ratio": "0.00",
        "Training images": "1.00",
    }
    assert table.loc["Features", ["To", "Shortest", "Longest", "Fixed part"]].tolist() == [
        "1,000,000",
        "11 ms",
        "10 s",
        "1 ms",
    ]
    assert table.loc["Training images", "Farthest from the curve"] == "\u2013"


# ---------------------------------------------------------------- facts


def test_facts_hold_what_was_recorded(on_cpu):
    assert summary.facts(on_cpu) == {
        "cost_devices": f"{CPU}, 2 threads",
        "cost_gpus": "none",
        "cost_step_all": "1.020 times (single recordings: 1.020)",
        "cost_step_drawn": "1.020 times (single recordings: 1.020)",
        "cost_step_released": "1.100 to 1.200 times (single recordings: 1.100 to 1.200)",
        "cost_step_again": "0.990 times (single recordings: 0.990)",
        "cost_memory_ours": "1.000 times",
        "cost_memory_others": "1.200 times (DeCov, small CNN, 28 px, batch 128)",
        "cost_engine": "4.0 [3.9, 4.1] times MedMNIST loop (small CNN, 28 px) and "
        "2.0 [1.9, 2.1] times Keras 3, x (paper's network, 224 px)",
        "cost_roof": "80 % (paper's network, 224 px, bound by memory) and "
        "80 % (small CNN, 28 px, bound by arithmetic)",
        "cost_members": "18",
        "cost_seeds": "9.0 [8.9, 9.1] times (small CNN, 28 px, batch 128)",
        "cost_growth_batch": "1.00",
        "cost_growth_features": "1.00",
        "cost_growth_images": "1.00",
        "cost_growth_ratio": "0.00",
        "cost_growth_worst": "1.00",
        "cost_folder_first": "1,000",
        "cost_folder_last": "100,000",
        "cost_folder_peak": "+7 MB",
        "cost_folder_array": "+99 MB",
    }


def test_facts_are_medians_over_networks_and_all_single_recordings(tmp_path):
    for ratio in (1.1, 1.0, 1.02):
        record(tmp_path, "overhead", overhead(ratio=ratio))
    told = summary.facts(cost.gather(tmp_path))
    assert told["cost_step_all"] == "1.020 times (single recordings: 1.000 to 1.100)"


def test_the_source_of_a_section_names_hardware_recordings_and_settings(on_both, tmp_path):
    first, second = cost.source(on_both["overhead"]).split("\n\n")
    assert first == f"*{CPU}, 2 threads, PyTorch 2.6.0: 1 recording, 2026-01-01.* a note."
    assert second == f"*{GPU}, PyTorch 2.6.0: 1 recording, 2026-01-01.* a note."
    table = cost.hardware(on_both)
    assert table["Device"].tolist() == [f"{CPU}, 2 threads", GPU]
    assert table["Recordings"].str.count(",").tolist() == [len(MADE) - 1] * 2
    assert table["With uncommitted changes"].tolist() == ["0 of 9"] * 2


def test_recordings_from_uncommitted_code_are_counted(tmp_path):
    for commit in ("abc", "abc+", "", "def+"):
        record(tmp_path, "project", MADE["project"](), commit=commit, at="2026-01-02T")
    found = cost.gather(tmp_path)
    assert "4 recordings, 2026-01-02, 2 of code with uncommitted" in cost.source(found["project"])
    assert cost.hardware(found)["With uncommitted changes"].tolist() == ["2 of 4"]


# ---------------------------------------------------------------- the time of a step


def test_step_ratios_compare_within_a_recording(tmp_path):
    for level in (1.0, 2.0):
        rows = overhead()
        for row in rows:
            row["ratio"] *= 1 if row["penalty"] == cost.PLAIN else level
        record(tmp_path, "overhead", rows)
    (found,) = cost.read("overhead", tmp_path)
    ratios = cost.step_ratios(found, cost.RELEASED[0.2])
    assert list(ratios) == [
        "small CNN, 28 px, batch 128",
        "ResNet-18, 64 px, batch 32",
        "paper's network, 224 px, batch 32",
    ]
    assert {spread.values for spread in ratios.values()} == {(1.1, 2.2)}
    against = cost.step_ratios(found, cost.RELEASED[0.2], cost.RELEASED[1.0])
    for spread in against.values():
        assert spread.values == pytest.approx((1.1 / 1.2,) * 2)
    assert cost.step_ratios(found, "none of these") == {}


# ---------------------------------------------------------------- figures


def test_overhead_has_a_panel_a_network_and_a_dot_a_penalty(on_cpu):
    axes = figures.overhead(on_cpu["overhead"]).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == [
        "small CNN,\n28 px, batch 128",
        "ResNet-18,\n64 px, batch 32",
        "paper's network,\n224 px, batch 32",
    ]
    rows = on_cpu["overhead"][0].rows
    shown = rows[(rows["model"] == "resnet18") & (rows["penalty"] != cost.PLAIN)]
    one, *rest = axes[1].lines
    assert one.get_xdata() == [1, 1]
    dots = rest[2::3]
    assert [line.get_xdata()[0] for line in dots] == shown["ratio"].tolist()
    assert [line.get_markerfacecolor() == "white" for line in dots] == [
        "again" in penalty for penalty in shown["penalty"]
    ]
    colors = [line.get_color() for line in dots]
    assert colors[0] == colors[1] not in colors[2:]


def test_overhead_shows_every_recording_and_the_median(tmp_path):
    for ratio in (1.1, 1.0, 1.02):
        record(tmp_path, "overhead", overhead(ratio=ratio))
    ax = figures.overhead(cost.read("overhead", tmp_path)).axes[0]
    bar, single, dot = ax.lines[1:4]
    assert list(bar.get_xdata()) == [1.0, 1.1]
    assert list(single.get_xdata()) == [1.1, 1.0, 1.02]
    assert list(dot.get_xdata()) == [1.02]


def test_a_penalty_that_was_measured_later_stands_with_its_network(tmp_path):
    record(tmp_path, "overhead", overhead())
    later = [row | {"penalty": "a new one"} for row in overhead() if row["penalty"] == "DeCov"]
    record(tmp_path, "overhead", [*overhead(), *later])
    axes = figures.overhead(cost.read("overhead", tmp_path)).axes
    assert [len(ax.lines) for ax in axes] == [1 + 3 * 7] * 3  # the line at 1; a bar, marks, a dot
    assert axes[0].get_yticklabels()[-1].get_text() == "a new one"


def test_overhead_leaves_out_what_a_device_has_not_measured(tmp_path):
    record(tmp_path, "overhead", overhead())
    record(tmp_path, "overhead", overhead()[:7], device=GPU)
    figure = figures.overhead(cost.read("overhead", tmp_path))
    figure.canvas.draw()
    assert [ax.axison for ax in figure.axes] == [True] * 4 + [False] * 2


def test_growth_draws_the_curve_through_the_points_and_names_its_exponent(tmp_path):
    record(tmp_path, "growth", growth(exponent=1.5))
    recordings = cost.read("growth", tmp_path)
    axes = figures.growth(recordings).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["Exponent 1.50", "Exponent 1.50", "Exponent 1.50", "Exponent 0.00"]
    curve, points = axes[1].lines
    ends = [points.get_ydata()[0], points.get_ydata()[-1]]
    assert curve.get_ydata()[[0, -1]] == pytest.approx(ends, rel=1e-3)
    assert (axes[0].get_xscale(), axes[0].get_yscale()) == ("log", "log")


def test_growth_says_which_quantity_was_not_measured(tmp_path):
    rows = [row for row in growth() if row["quantity"] != "images"]
    record(tmp_path, "growth", rows)
    figure = figures.growth(cost.read("growth", tmp_path))
    figure.canvas.draw()
    words = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert words == [[], [], ["no runs to show"], []]


def test_roofline_bends_where_both_bounds_meet_and_points_lie_under_it(on_cpu):
    ax = figures.roofline(on_cpu["roofline"]).axes[0]
    roof = ax.lines[0]
    assert (roof.get_xdata()[1], roof.get_ydata()[1]) == (10, 100)  # 100 GFLOP/s, 10 GB/s
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in points] == pytest.approx([8, 80])
    assert [text.get_text() for text in ax.texts] == [
        "paper's network, 224 px\n80 % of the roof",
        "small CNN, 28 px\n80 % of the roof",
    ]


def test_throughput_bars_are_as_long_as_recorded(on_cpu):
    axes = figures.throughput(on_cpu["throughput"]).axes
    widths = [[bar.get_width() for bar in ax.patches] for ax in axes]
    assert widths == [[400, 100], [200, 100]]
    assert [ax.texts[0].get_text() for ax in axes] == [
        "4.0 times\n[3.9, 4.1]",
        "2.0 times\n[1.9, 2.1]",
    ]


def test_throughput_bars_are_medians_with_the_range_of_all_recordings(tmp_path):
    for loop in (2.5, 3.7, 3.0):
        record(tmp_path, "throughput", throughput(loop=loop))
    ax = figures.throughput(cost.read("throughput", tmp_path)).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [300, 100]
    assert [text.get_text() for text in ax.texts] == ["3.0 times\n(2.5 to 3.7)"]
    ends = ax.collections[0].get_segments()[0][:, 0]
    assert ends == pytest.approx([250, 370])


def test_memory_starts_at_zero_so_that_flat_looks_flat(on_cpu):
    ax = figures.memory(on_cpu["larger_than_memory"]).axes[0]
    assert ax.get_ylim()[0] == 0
    assert list(ax.lines[0].get_ydata()) == [300, 305, 307]
