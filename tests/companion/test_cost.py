import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import cost, words
from companion.cost.growth import fit_growth, fitted
from companion.cost.recordings import QUESTIONS, Spread
from companion.cost.tables import TABLES
from companion.tables import to_html
from tests.companion.synthetic_cost import CPU, GPU, MADE, growth, overhead, record, record_all
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
    assert recorded == set(QUESTIONS) == set(MADE) == {question for question, _ in TABLES.values()}
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
    table = cost.table("project", {"project": [cpu]})
    assert table.iloc[0].tolist() == ["make book", "3 s (1 s to 4 s)", "3"]
    assert cost.source([cpu]).endswith("3 recordings, 2026-01-01.* ")


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


def test_the_ends_of_a_bootstrap_are_never_shown(tmp_path):
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
    printed = [cost.table(name, found).to_string() for name in TABLES]
    printed += [cost.source(found["ensemble"]), *cost.facts(found).values()]
    for text in printed:
        assert not set(text.replace("[", " ").split()) & {"77.7", "88.8"}
        assert "bootstrap" not in text
    assert "medians of 3 turns." in cost.source(found["ensemble"])
    record(tmp_path, "ensemble", MADE["ensemble"](), note="x; medians of 3 turns")
    assert cost.source(cost.read("ensemble", tmp_path)).count("medians of 3 turns") == 1
    assert "[" not in printed[0]


def test_a_wrong_question_and_a_damaged_ledger_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'overheads'; allowed are overhead, bandwidth"):
        cost.read("overheads", tmp_path)
    with pytest.raises(ValueError, match="'overhead'; allowed are steps, memory"):
        cost.table("overhead", {})
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
    table = cost.table("growth", cost.gather(tmp_path)).set_index("Quantity")
    assert table.loc["Features", "Exponent"] == "1.05 (0.90 to 1.10)"
    assert set(table["Recordings"]) == {"3"}


def test_each_quantity_is_fitted(tmp_path):
    record(tmp_path, "growth", growth(exponent=1.5))
    found = fitted(cost.read("growth", tmp_path)[0])
    exponents = {line["quantity"]: round(float(line["exponent"]), 2) for line in found}
    assert exponents == {"batch": 1.5, "features": 1.5, "ratio": 0, "images": 1.5}


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_the_device_only_where_there_are_several(name, on_both):
    alone = {question: found[:1] for question, found in on_both.items()}
    one, two = cost.table(name, alone), cost.table(name, on_both)
    assert "Device" not in one
    assert two["Device"].tolist() == [f"{CPU}, 2 threads"] * len(one) + [GPU] * len(one)
    assert set(two["Recordings"]) == {"1"}
    assert not two.isna().any(axis=None)
    empty = cost.table(name, {question: [] for question in QUESTIONS})
    assert "No run is recorded yet" in to_html(empty)


def test_overhead_shows_milliseconds_without_and_ratios_with(on_cpu):
    table = cost.table("steps", on_cpu).set_index("Penalty")
    column = table["ResNet-18, 64 px, batch 32"]
    assert column["no penalty"] == "10.00 ms"
    assert column["DeCov"] == "1.300 [1.250, 1.350]"
    memory = cost.table("memory", on_cpu).set_index("Penalty")
    assert memory.loc[["no penalty", "DeCov"], "ResNet-18, 64 px, batch 32"].tolist() == [
        "20.0 MB",
        "1.200",
    ]


def test_networks_that_differ_between_devices_have_columns_of_their_own(tmp_path):
    record(tmp_path, "overhead", overhead())
    larger = [row | {"pixels": 224} for row in overhead() if row["model"] == "resnet18"]
    record(tmp_path, "overhead", larger, device=GPU)
    table = cost.table("steps", cost.gather(tmp_path))
    assert table["ResNet-18, 224 px, batch 32"].tolist()[: len(table) // 2] == ["\u2013"] * 7


def test_growth_is_printed_with_units_and_without_a_signed_zero(on_cpu):
    table = cost.table("growth", on_cpu).set_index("Quantity")
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
    assert cost.facts(on_cpu) == {
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
    told = cost.facts(cost.gather(tmp_path))
    assert told["cost_step_all"] == "1.020 times (single recordings: 1.000 to 1.100)"


def test_every_fact_names_the_device_where_there_are_several(on_both):
    told = cost.facts(on_both)
    assert told.pop("cost_gpus") == GPU
    assert told.pop("cost_devices") == f"{CPU}, 2 threads and {GPU}"
    for name, text in told.items():
        assert f" on {CPU}, 2 threads and " in text, name
        assert text.endswith(f" on {GPU}"), name


def test_without_a_recording_every_fact_is_a_dash(on_cpu):
    told = cost.facts({})
    assert set(told) == set(cost.facts(on_cpu))
    assert told.pop("cost_gpus") == "none"
    assert set(told.values()) == {words.DASH}


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
