"""Forward passes are timed; latency tables add up, and travel as JSON."""

import math

import pytest
import torch
from torch import nn

from nas_core.errors import InputError
from nas_core.ops.cost import Part
from nas_core.ops.latency import LatencyTable, key, measure_parts, median_milliseconds, processor_name
from nas_core.search_spaces import SearchSpace, spaces
from nas_core.search_spaces.proxyless import ProxylessSpace


@pytest.fixture(scope="module")
def space() -> ProxylessSpace:
    return ProxylessSpace((1, 2), (4, 8), (1, 1, 1), input_shape=(1, 8, 8), num_classes=2)


def all_parts(space: SearchSpace) -> list[Part]:
    fixed, slots = space.parts()
    return [*fixed, *(part for slot in slots for operation in slot for part in operation)]


def test_latency_is_the_sum_over_the_parts(space):
    """Each part costs a power of two, so that the sum tells which ones were taken."""
    fixed, slots = space.parts()
    kinds = sorted({key(part) for part in all_parts(space)})
    table = LatencyTable({kind: 2.0**power for power, kind in enumerate(kinds)}, {})
    choices = (1, 0, 6)
    taken = [*fixed, *slots[0][1], *slots[1][0]]
    assert table.of(space, choices) == sum(table.entries[key(part)] for part in taken)
    assert table.table(space).operations[2][6] == 0


def test_a_key_tells_apart_what_takes_different_times(space):
    _, slots = space.parts()
    assert key(slots[1][3][0]) == "5x5_MBConv6 to 8 stride 1 shortcut 0 on 4x8x8"
    assert key(slots[2][3][0]) == "5x5_MBConv6 to 8 stride 1 shortcut 1 on 8x8x8"


def test_a_measured_table_covers_the_space_and_says_where_it_comes_from(space):
    table = measure_parts(space, torch.device("cpu"), warm_up=0, repetitions=1)
    assert table.of(space, (0, 0, 0)) > table.of(space, (0, 0, 6)) > 0
    assert table.provenance["device"] == "cpu"
    assert table.provenance["input_shape"] == "1x8x8"
    assert LatencyTable.from_json(table.to_json()) == table


def test_a_table_for_other_images_is_refused(space):
    table = measure_parts(space, torch.device("cpu"), warm_up=0, repetitions=1)
    other = ProxylessSpace((1, 2), (4, 8), (1, 1, 1), input_shape=(1, 9, 8), num_classes=2)
    with pytest.raises(InputError, match="no 'stem stride 1 on 1x9x8'"):
        table.of(other, (0, 0, 0))


@pytest.mark.parametrize(
    ("name", "measured", "changed"),
    [
        ("darts", {"network_cells": 3, "network_channels": 4}, {"network_cells": 6}),
        ("darts", {"network_cells": 3, "network_channels": 4}, {"network_channels": 6}),
        ("darts", {"network_cells": 3, "network_channels": 4}, {"stem": "imagenet"}),
        ("nasbench201", {"cells": 1, "channels": 4}, {"cells": 2}),
        ("nasbench201", {"cells": 1, "channels": 4}, {"channels": 6}),
        ("nasbench1shot1", {"cells": 1, "network_channels": 4}, {"network_channels": 6}),
    ],
)
def test_a_table_for_networks_of_another_size_is_refused(name, measured, changed):
    """Also where every operation was measured, and only what is around the cells is another."""
    spec = spaces.spec(name).model_validate(measured)
    other = spec.model_copy(update=changed)
    one, another = (spaces.build(s, input_shape=(3, 8, 8), num_classes=2) for s in (spec, other))
    table = LatencyTable({key(part): 1.0 for part in all_parts(one)}, {})
    table.table(one)
    with pytest.raises(InputError, match="measure it for this space, image size and settings"):
        table.table(another)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"milliseconds": {"a": "b"}, "provenance": {}}'])
def test_what_is_no_table_is_refused(text):
    with pytest.raises(InputError, match="no latency table"):
        LatencyTable.from_json(text)


class Counting(nn.Module):
    """Counts its passes and the images in them."""

    def __init__(self):
        super().__init__()
        self.passes = []

    def forward(self, x):
        assert not self.training
        self.passes.append(len(x))
        return x


@pytest.mark.parametrize(("seconds", "passes"), [(math.inf, 2 + 3), (0.0, 2)])
def test_passes_are_repeated_after_a_warm_up_until_time_is_up(seconds, passes):
    """Without any time there is one pass that does not count and one that does."""
    module = Counting().train()
    device = torch.device("cpu")
    time = median_milliseconds(module, (1, 2, 2), device, batch_size=4, warm_up=2, repetitions=3, seconds=seconds)
    assert module.passes == [4] * passes
    assert time > 0


def test_the_processor_has_a_name():
    assert processor_name(torch.device("cpu")) != ""
