"""Figures carry the data they were given."""

import pytest
import torch
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import PercentFormatter

from nas_core.reporting.figures import image_grid, record_curves, synthesis_curves, target_prediction
from nas_core.reporting.numbers import as_csv, drawn_numbers
from nas_core.reporting.search_figures import (
    Edge,
    block_row,
    cell_edges,
    graph,
    operation_weights,
    score_by_generation,
    score_by_macs,
)
from nas_core.reporting.style import FAINT, data_uri, operation_colours
from nas_core.search_spaces.base import Architecture, Slot


def titles(figure):
    return [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]


def labels(ticks):
    return [tick.get_text() for tick in ticks]


# --- images ---


def test_image_grid_places_every_image_by_class_and_round():
    """One 3 x 3 image per cell, whose value is 10 * round + class: cells start 3 + 3 pixels apart."""
    images = torch.tensor([[0, 1], [10, 11]], dtype=torch.uint8).reshape(2, 2, 1, 1, 1, 1).expand(2, 2, 1, 1, 3, 3)
    [axes] = image_grid(images, ["cat", "dog"]).axes
    sheet = axes.get_images()[0].get_array()
    assert sheet.shape == (9, 9)
    assert [sheet[row, column] for row in (0, 6) for column in (0, 6)] == [0, 1, 10, 11]
    assert sheet[4, 4] == 255, "the gap is white"
    assert labels(axes.get_xticklabels()) == ["cat", "dog"]
    assert axes.get_xticks().tolist() == [1.0, 7.0]
    assert labels(axes.get_yticklabels()) == ["round 0", "round 1"]


def test_several_images_of_a_cell_form_a_square():
    """Four 3 x 3 images with gaps of 1 pixel: 7 x 7."""
    images = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 4, 1, 1, 1).expand(1, 1, 4, 3, 3, 3)
    sheet = image_grid(images, ["cat"]).axes[0].get_images()[0].get_array()
    assert sheet.shape == (7, 7, 3)
    assert sheet[[0, 0, 4, 4], [0, 4, 0, 4], 0].tolist() == [0, 1, 2, 3]


def test_many_rounds_show_the_first_and_the_last():
    [axes] = image_grid(torch.zeros(20, 1, 1, 1, 2, 2, dtype=torch.uint8), ["cat"]).axes
    shown = labels(axes.get_yticklabels())
    assert len(shown) == 6
    assert (shown[0], shown[-1]) == ("round 0", "round 19")


# --- heat map ---


def test_heat_map_writes_out_few_classes():
    axes = target_prediction(torch.tensor([[1.0, 0.0], [0.25, 0.75]]), ["cat", "dog"]).axes[0]
    assert labels(axes.texts) == ["1.00", ".00", ".25", ".75"]
    assert labels(axes.get_yticklabels()) == ["cat", "dog"]
    assert axes.get_images()[0].get_array().tolist() == [[1.0, 0.0], [0.25, 0.75]]


def test_heat_map_leaves_names_and_numbers_of_many_classes_out():
    axes = target_prediction(torch.eye(30), [f"class {i}" for i in range(30)]).axes[0]
    assert not axes.texts
    assert "class 0" not in labels(axes.get_xticklabels())


# --- curves ---

HISTORY = [
    {"round": r, "shard": s, "step": step, "total": 1.0 + r + 2 * s + step, "classification": 1.0, "l2": 0.0}
    for r in range(2)
    for s in range(2)
    for step in (0, 10)
]


def test_synthesis_curves_average_over_shards_with_a_band():
    """Round 0, step 0: shards give 1 and 3, so the line is at 2 and the band from 1 to 3."""
    figure = synthesis_curves(HISTORY)
    assert titles(figure) == ["total", "classification"], "a term of zeros has no panel"
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 12.0], [3.0, 13.0]]
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1.0, 13.0)
    assert labels(figure.legends[0].get_texts()) == ["round 0", "round 1"]


def test_record_curves_have_a_panel_per_number():
    records = [
        {"epoch": 0, "loss": 2.0, "agreement": 0.5, "gates": [[1.0]], "done": True},
        {"epoch": 1, "loss": 1.0, "agreement": None},
    ]
    figure = record_curves(records)
    assert titles(figure) == ["loss", "agreement"]
    assert [list(axes.lines[0].get_ydata()) for axes in figure.axes] == [[2.0, 1.0], [0.5]]
    assert figure.axes[1].yaxis.get_major_formatter()(0.5).endswith("%")


def test_true_accuracies_are_drawn_in_the_unit_of_their_table():
    """93.1 in a table of percents is not 9310 %."""
    [axes] = record_curves([{"epoch": 0, "true_accuracy": 93.1}, {"epoch": 1, "true_accuracy": 94.0}]).axes
    assert list(axes.lines[0].get_ydata()) == [93.1, 94.0]
    assert not isinstance(axes.yaxis.get_major_formatter(), PercentFormatter)


# --- search ---

CANDIDATES = [
    {"architecture": "a", "macs": 10, "score": 0.5, "generation": 0},
    {"architecture": "b", "macs": 30, "score": 0.9, "generation": 1},
    {"architecture": "c", "macs": 20, "score": 0.7, "generation": 2},
]


def test_best_so_far_never_falls():
    axes = score_by_generation(CANDIDATES).axes[0]
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.9, 0.9]
    assert axes.collections[0].get_offsets().tolist() == [[0, 0.5], [1, 0.9], [2, 0.7]]


def test_the_chosen_architecture_is_ringed():
    points, ring = score_by_macs(CANDIDATES, "c").axes[0].collections
    assert points.get_offsets().tolist() == [[10, 0.5], [30, 0.9], [20, 0.7]]
    assert ring.get_offsets().tolist() == [[20, 0.7]]


def test_of_an_architecture_that_several_searches_of_a_grid_found_the_best_score_is_ringed():
    again = [{"architecture": "c", "macs": 20, "score": score, "generation": 3} for score in (0.8, 0.6)]
    _, ring = score_by_macs([*CANDIDATES, *again], "c").axes[0].collections
    assert ring.get_offsets().tolist() == [[20, 0.8]]


SLOTS = [Slot("1<-0", ("none", "conv")), Slot("2<-0", ("conv", "pool"))]


def test_operation_weights_have_a_panel_per_slot():
    curve = [
        {"epoch": 0, "gates": [[0.5, 0.5], [0.5, 0.5]]},
        {"epoch": 1, "loss": 0.1},
        {"epoch": 2, "gates": [[0.1, 0.9], [0.7, 0.3]]},
    ]
    figure = operation_weights(curve, SLOTS)
    assert titles(figure) == ["1<-0", "2<-0"]
    assert [list(line.get_ydata()) for line in figure.axes[1].lines] == [[0.5, 0.7], [0.5, 0.3]]
    assert list(figure.axes[1].lines[0].get_xdata()) == [0, 2]
    assert figure.axes[0].lines[1].get_color() == figure.axes[1].lines[0].get_color(), "conv looks the same everywhere"
    assert labels(figure.legends[0].get_texts()) == ["none", "conv", "pool"]


def test_none_is_faint_wherever_it_stands():
    assert operation_colours(["conv", "none", "pool"])["none"] == FAINT
    assert operation_colours(["none", "conv"])["conv"] == operation_colours(["conv"])["conv"]


# --- graph ---


def test_cell_edges_are_read_from_slot_names():
    assert cell_edges(SLOTS, Architecture(("none", "pool"), "")) == {"": [Edge(0, 1, "none"), Edge(0, 2, "pool")]}


def test_cells_of_several_kinds_are_told_apart_and_edges_left_out_are_not_drawn():
    slots = [Slot("normal 2<-0", ("conv",)), Slot("reduce 2<-0", ("conv",)), Slot("reduce 2<-1", ("conv",))]
    cells = cell_edges(slots, Architecture(("conv", (), "conv"), ""))
    assert cells == {"normal": [Edge(0, 2, "conv")], "reduce": [Edge(1, 2, "conv")]}


def test_other_spaces_have_no_cell():
    assert cell_edges([Slot("layer 0", ("conv",))], Architecture(("conv",), "")) is None


def test_graph_draws_nodes_and_edges_with_their_operations():
    [axes] = graph(["0", "1", "2"], [Edge(0, 1, "none"), Edge(1, 2, "conv"), Edge(0, 2, "pool")]).axes
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert [arrow.get_linestyle() for arrow in arrows] == [":", "-", "-"]
    written = {text.get_text(): text.get_position() for text in axes.texts}
    assert set(written) == {"0", "1", "2", "none", "conv", "pool"}
    assert written["pool"][0] == 1.0, "halfway between nodes 0 and 2"
    assert written["pool"][1] > written["none"][1], "an arc above the straight edges"


# --- saving ---


@pytest.mark.parametrize("name", ["cost in $", "$x$ and $", "猫", "a < b & c"])
def test_any_class_name_can_be_drawn(name):
    assert data_uri(target_prediction(torch.eye(2), [name, "dog"])).startswith("data:image/svg+xml;base64,")


def test_equal_figures_give_equal_bytes():
    assert data_uri(score_by_macs(CANDIDATES, "c")) == data_uri(score_by_macs(CANDIDATES, "c"))


def test_blocks_of_one_kind_have_one_colour_and_name_their_width():
    slots = [Slot(f"block {number}", ("narrow*0.5", "narrow", "other")) for number in range(3)]
    [axes] = block_row(slots, Architecture(("narrow*0.5", "narrow", "other"), "")).axes
    colours = {text.get_text(): text.get_color() for text in axes.texts}
    assert colours["narrow*0.5"] == colours["narrow"] != colours["other"]


# --- numbers ---


def test_the_numbers_of_a_figure_are_what_its_lines_and_points_show():
    rows = drawn_numbers(score_by_generation(CANDIDATES))
    assert {row["series"] for row in rows} == {"candidate", "best so far", "median"}
    best = [(row["x"], row["y"]) for row in rows if row["series"] == "best so far"]
    assert [score for _, score in best] == [0.5, 0.9, 0.9]
    assert len([row for row in rows if row["series"] == "candidate"]) == len(CANDIDATES)
    table = as_csv(drawn_numbers(record_curves([{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": 1.0}])))
    assert table == "panel,series,x,y\nloss,,0.0,1.5\nloss,,1.0,1.0\n"
