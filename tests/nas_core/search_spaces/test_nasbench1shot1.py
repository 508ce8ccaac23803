"""The NAS-Bench-1Shot1 spaces: counts, and the mapping to NAS-Bench-101."""

import itertools

import pytest
import torch

from nas_core.errors import InputError
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces.nasbench1shot1 import PARENTS, NasBench1Shot1
from nas_core.seeding import generator


def make(space="s1", **values) -> NasBench1Shot1:
    sizes = {"channels": 2, "network_channels": 2, "cells": 1, "input_shape": (3, 8, 8), "num_classes": 3}
    return NasBench1Shot1(space, **(sizes | values))


@pytest.mark.parametrize(("space", "architectures"), [("s1", 180 * 3**4), ("s2", 29_160), ("s3", 5_400 * 3**5)])
def test_number_of_architectures(space, architectures):
    """The published 29,160 of S2 counts every choice of inputs and operations, as we do for all three."""
    assert make(space).size == architectures


@pytest.mark.parametrize(("space", "published"), [("s1", 6_240), ("s3", 363_648)])
def test_published_number_with_operations_of_used_blocks_alone(space, published):
    """For S1 and S3 the published number leaves out the operation of a block whose output goes nowhere."""
    built = make(space)
    total = 0
    for options in itertools.product(*(decision.options for decision in built.decisions[built.blocks :])):
        used = {1} if space == "s1" else set()
        for (choice,) in options:
            used |= {choice} if isinstance(choice, int) else set(choice)
        total += 3 ** len(used - {0})
    assert total == published


@pytest.mark.parametrize(("space", "topologies"), [("s1", 38), ("s2", 138), ("s3", 445)])
def test_without_loose_ends_every_block_is_used(space, topologies):
    built = make(space, loose_ends=False)
    assert built.size == topologies * 3**built.blocks
    matrix, _ = built.nasbench101(built.architecture(built.sample(generator(0, "toy"))))
    assert all(sum(row) > 0 for row in matrix[: built.blocks + 1])


def test_mapping_to_nasbench101_by_hand():
    """Four blocks leave the vertex at index 5 isolated; the output is the last one."""
    space = make("s1")
    text = "conv3x3-bn-relu(input)|maxpool3x3(input,1)|conv1x1-bn-relu(1,2)|conv3x3-bn-relu(input,3)|output(2,4)"
    matrix, operations = space.nasbench101(space.parse(text))
    edges = {(row, column) for row in range(7) for column in range(7) if matrix[row][column]}
    assert edges == {(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (0, 4), (3, 4), (2, 6), (4, 6)}
    blocks = ["conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu"]
    assert operations == ["input", *blocks, "conv1x1-bn-relu", "output"]


@pytest.mark.parametrize("space", PARENTS)
def test_every_cell_keeps_the_nine_edges_of_nasbench101(space):
    built = make(space)
    for position in range(10):
        matrix, operations = built.nasbench101(built.architecture(built.sample(generator(0, "toy", position))))
        assert len(operations) == 7
        assert sum(map(sum, matrix)) == 9
        columns = zip(*matrix, strict=True)
        taken = [sum(column) for column in columns]
        assert taken[1 : built.blocks + 1] + taken[6:] == list(PARENTS[space])


def test_best_inputs_are_the_strongest_nodes():
    """The rule of the reference code: argmax of operations, top k of inputs."""
    space = make("s2")
    scores = [
        torch.rand(len(slot.operations), generator=generator(0, "toy", i)).log() for i, slot in enumerate(space.slots)
    ]
    best = space.best([row.tolist() for row in scores], None)
    for place, row, choice in zip(space.choosers, scores[space.blocks :], best[space.blocks :], strict=True):
        expected = sorted(row.topk(space.parents[place]).indices.tolist())
        assert [choice] == expected if isinstance(choice, int) else list(choice) == expected


def test_a_choice_equals_weights_of_one_for_what_it_takes():
    space = make("s3")
    supernet = space.supernet().eval()
    initialise(supernet, generator(0, "weights"))
    x = torch.randn(2, 3, 8, 8, generator=generator(0, "x"))
    choices = space.sample(generator(3, "toy"))
    gates = []
    for slot, choice in zip(space.slots, choices, strict=True):
        gate = torch.zeros(len(slot.operations))
        gate[list(choice) if isinstance(choice, tuple) else choice] = 1
        gates.append(gate)
    torch.testing.assert_close(supernet(x, gates), supernet(x, choices))


@pytest.mark.parametrize("wrong", ["output(1,2)", "a(1)|b(2)", "maxpool3x3(input)|" * 4 + "output(3,4)"])
def test_a_wrong_notation_is_refused(wrong):
    with pytest.raises(InputError):
        make("s1").parse(wrong)


def test_too_few_inputs_left_is_refused():
    space = make("s2")
    with pytest.raises(InputError, match="no legal choice"):
        space.restrict({len(space.slots) - 1: ["input", "1"]})
