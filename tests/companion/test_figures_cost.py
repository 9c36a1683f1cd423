import pytest

from companion import cost
from companion.cost import figures as cost_figures
from tests.companion.synthetic_cost import (
    CPU,
    GPU,
    growth,
    overhead,
    record,
    record_all,
    throughput,
)

FIGURES = {
    "overhead": cost_figures.overhead,
    "growth": cost_figures.growth,
    "roofline": cost_figures.roofline,
    "throughput": cost_figures.throughput,
    "larger_than_memory": cost_figures.memory,
}


@pytest.fixture
def recorded(tmp_path):
    record_all(tmp_path)
    return cost.gather(tmp_path)


@pytest.mark.parametrize("question", FIGURES)
@pytest.mark.parametrize("devices", [(), (CPU,), (CPU, GPU)])
def test_every_figure_is_drawn_with_no_device_one_and_two(question, devices, tmp_path):
    for device in devices:
        record_all(tmp_path, device)
    figure = FIGURES[question](cost.read(question, tmp_path))
    figure.canvas.draw()  # as saving would: lays out, renders
    words = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert ("no runs to show" in words) == (not devices)


def test_overhead_has_a_panel_a_network_and_a_dot_a_penalty(recorded):
    axes = cost_figures.overhead(recorded["overhead"]).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == [
        "small CNN,\n28 px, batch 128",
        "ResNet-18,\n64 px, batch 32",
        "paper's network,\n224 px, batch 32",
    ]
    rows = recorded["overhead"][0].rows
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
    ax = cost_figures.overhead(cost.read("overhead", tmp_path)).axes[0]
    bar, single, dot = ax.lines[1:4]
    assert list(bar.get_xdata()) == [1.0, 1.1]
    assert list(single.get_xdata()) == [1.1, 1.0, 1.02]
    assert list(dot.get_xdata()) == [1.02]


def test_a_penalty_that_was_measured_later_stands_with_its_network(tmp_path):
    record(tmp_path, "overhead", overhead())
    later = [row | {"penalty": "a new one"} for row in overhead() if row["penalty"] == "DeCov"]
    record(tmp_path, "overhead", [*overhead(), *later])
    axes = cost_figures.overhead(cost.read("overhead", tmp_path)).axes
    assert [len(ax.lines) for ax in axes] == [1 + 3 * 7] * 3  # the line at 1; a bar, marks, a dot
    assert axes[0].get_yticklabels()[-1].get_text() == "a new one"


def test_overhead_leaves_out_what_a_device_has_not_measured(tmp_path):
    record(tmp_path, "overhead", overhead())
    record(tmp_path, "overhead", overhead()[:7], device=GPU)
    figure = cost_figures.overhead(cost.read("overhead", tmp_path))
    figure.canvas.draw()
    assert [ax.axison for ax in figure.axes] == [True] * 4 + [False] * 2


def test_growth_draws_the_curve_through_the_points_and_names_its_exponent(tmp_path):
    record(tmp_path, "growth", growth(exponent=1.5))
    recordings = cost.read("growth", tmp_path)
    axes = cost_figures.growth(recordings).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["Exponent 1.50", "Exponent 1.50", "Exponent 1.50", "Exponent 0.00"]
    curve, points = axes[1].lines
    ends = [points.get_ydata()[0], points.get_ydata()[-1]]
    assert curve.get_ydata()[[0, -1]] == pytest.approx(ends, rel=1e-3)
    assert (axes[0].get_xscale(), axes[0].get_yscale()) == ("log", "log")


def test_growth_says_which_quantity_was_not_measured(tmp_path):
    rows = [row for row in growth() if row["quantity"] != "images"]
    record(tmp_path, "growth", rows)
    figure = cost_figures.growth(cost.read("growth", tmp_path))
    figure.canvas.draw()
    words = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert words == [[], [], ["no runs to show"], []]


def test_roofline_bends_where_both_bounds_meet_and_points_lie_under_it(recorded):
    ax = cost_figures.roofline(recorded["roofline"]).axes[0]
    roof = ax.lines[0]
    assert (roof.get_xdata()[1], roof.get_ydata()[1]) == (10, 100)  # 100 GFLOP/s, 10 GB/s
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in points] == pytest.approx([8, 80])
    assert [text.get_text() for text in ax.texts] == [
        "paper's network, 224 px\n80 % of the roof",
        "small CNN, 28 px\n80 % of the roof",
    ]


def test_throughput_bars_are_as_long_as_recorded(recorded):
    axes = cost_figures.throughput(recorded["throughput"]).axes
    widths = [[bar.get_width() for bar in ax.patches] for ax in axes]
    assert widths == [[400, 100], [200, 100]]
    assert [ax.texts[0].get_text() for ax in axes] == [
        "4.0 times\n[3.9, 4.1]",
        "2.0 times\n[1.9, 2.1]",
    ]


def test_throughput_bars_are_medians_with_the_range_of_all_recordings(tmp_path):
    for loop in (2.5, 3.7, 3.0):
        record(tmp_path, "throughput", throughput(loop=loop))
    ax = cost_figures.throughput(cost.read("throughput", tmp_path)).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [300, 100]
    assert [text.get_text() for text in ax.texts] == ["3.0 times\n(2.5 to 3.7)"]
    ends = ax.collections[0].get_segments()[0][:, 0]
    assert ends == pytest.approx([250, 370])


def test_memory_starts_at_zero_so_that_flat_looks_flat(recorded):
    ax = cost_figures.memory(recorded["larger_than_memory"]).axes[0]
    assert ax.get_ylim()[0] == 0
    assert list(ax.lines[0].get_ydata()) == [300, 305, 307]
