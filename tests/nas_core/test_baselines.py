"""Baselines cost what the found network costs, and are built again from plain values."""

import json

import pytest
import torch
from torch import nn

from nas_core.baselines import (
    build_baseline,
    check_baselines,
    handmade,
    random_architecture,
    residual_macs,
    shrunk_teacher,
)
from nas_core.errors import InputError
from nas_core.ops.cost import count_macs
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.strategies import macs_budget
from nas_core.teachers.networks import ResNet, digits_resnet, resnet20
from nas_core.teachers.teacher import Teacher

TOLERANCE = 0.05


def cost_of(sizes: dict, shape: tuple[int, int, int]) -> int:
    return count_macs(build_baseline({"resnet": sizes}, shape, 10), shape)


@pytest.mark.parametrize(
    ("shape", "macs", "blocks"),
    [((1, 8, 8), 230_208, 1), ((3, 32, 32), 8_000_000, 2), ((3, 32, 32), 40_000_000, 3), ((3, 128, 96), 60_000_000, 3)],
)
def test_a_handmade_network_costs_what_was_asked_for(shape, macs, blocks):
    sizes = handmade(shape, 10, macs)
    assert cost_of(sizes, shape) == pytest.approx(macs, rel=TOLERANCE)
    assert sizes["blocks"] == blocks
    first, second, third = sizes["widths"]
    assert 1.5 < second / first < 2.7
    assert 1.5 < third / second < 2.7


def test_large_images_are_halved_before_a_handmade_network():
    assert handmade((3, 64, 64), 10, 10_000_000)["halvings"] == 0
    assert handmade((3, 224, 224), 10, 10_000_000)["halvings"] == 2


def test_a_budget_below_the_smallest_network_gets_the_smallest():
    assert handmade((1, 8, 8), 10, 100) == {"blocks": 1, "halvings": 0, "widths": [1, 1, 1]}


@pytest.mark.parametrize(("shape", "halvings"), [((1, 8, 8), 0), ((3, 37, 41), 1)])
def test_the_cost_is_that_of_the_network(shape, halvings):
    sizes = {"blocks": 2, "halvings": halvings, "widths": [3, 4, 7]}
    assert residual_macs(shape, 10, **sizes) == cost_of(sizes, shape)


def teacher(network: nn.Module, channels: int = 1, side: int = 8) -> Teacher:
    return Teacher(network, (channels, side, side), (0.5,) * channels, (0.5,) * channels, tuple("0123456789"))


def test_a_shrunk_teacher_keeps_its_depth_and_costs_what_was_asked_for():
    sizes = shrunk_teacher(teacher(resnet20(), 3, 32), 10_000_000)
    assert sizes["blocks"] == 3
    assert cost_of(sizes, (3, 32, 32)) == pytest.approx(10_000_000, rel=TOLERANCE)
    assert all(width < own for width, own in zip(sizes["widths"], (16, 32, 64), strict=True))


def test_a_shrunk_teacher_is_never_larger_than_the_teacher():
    assert shrunk_teacher(teacher(digits_resnet()), 10**9)["widths"] == [24, 48, 96]


def test_a_teacher_whose_widths_are_not_known_is_not_shrunk():
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match=r"needs a teacher of the kind `reference`.*is a Sequential"):
        check_baselines(["teacher-shrunk"], teacher(other))
    check_baselines(["handmade", "random"], teacher(other))
    check_baselines(["teacher-shrunk"], teacher(digits_resnet()))


def test_a_random_architecture_keeps_the_budget_and_costs_about_the_same():
    space = NasBench201(4, 1, input_shape=(1, 8, 8), num_classes=10)
    cheapest, dearest = space.macs_range()
    budget = (cheapest + dearest) // 2
    found = space.sample(generator(0, "found"))
    while space.macs(found) > budget:
        found = space.sample(generator(space.macs(found), "found"))
    drawn = space.choices(space.parse(random_architecture(space, found, macs_budget(budget), seed=3)))
    assert drawn != found
    assert space.macs(drawn) <= budget
    assert space.macs(drawn) == pytest.approx(space.macs(found), rel=0.1)
    assert random_architecture(space, found, macs_budget(budget), seed=3) == str(space.architecture(drawn))


def test_a_description_survives_json():
    space = NasBench201(4, 1, input_shape=(1, 8, 8), num_classes=10)
    notation = str(space.architecture(space.sample(generator(0, "found"))))
    for description in (
        {"resnet": handmade((1, 8, 8), 10, 200_000)},
        {"space": {"name": "nasbench201", "channels": 4, "cells": 1}, "architecture": notation},
    ):
        network = build_baseline(json.loads(json.dumps(description)), (1, 8, 8), 10)
        assert network.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_reference_network_says_how_large_it_is():
    network = resnet20()
    assert isinstance(network, ResNet)
    assert (network.blocks, network.widths) == (3, (16, 32, 64))
