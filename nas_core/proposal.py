"""A config that fits a teacher: the modest first run that `dfnas init` writes.

Nothing here is tuned: the numbers follow from the size of the images, the classes and the memory, by the rules below,
and every one of them is meant to be changed.
"""

from typing import Any

import torch

from nas_core.config import RunConfig
from nas_core.errors import InputError
from nas_core.memory import PEAK_FACTOR, shard_bytes, total_memory
from nas_core.ops.cost import macs_of_call
from nas_core.registry import Spec
from nas_core.search_spaces import SearchSpace, spaces
from nas_core.synthesis.build import check_synthesis
from nas_core.synthesis.config import SynthesisConfig
from nas_core.teachers import Teacher

TINY_SIDE = 16  # pixels; up to here, moving pixels is quick and makes good images (docs/synthesis.md)
SMALL_SIDE = 64  # pixels; up to here, a generator and the cells of NAS-Bench-201; above, mobile blocks
MANY_CLASSES = 50  # more: labels at temperature 1, as in the paper, and distillation at 5 (docs/retraining.md)
MEMORY_SHARE = 0.5  # of the device's memory that a shard may take at its measured peak
SUPERNET_STEPS, RETRAIN_STEPS = 2_000, 3_000
CELLS = ((16, 5), (16, 3), (16, 1), (8, 1), (4, 1))  # NAS-Bench-201's channels and cells per stage, larger first


def propose(name: str, teacher_spec: Spec, teacher: Teacher) -> RunConfig:
    """A valid, data-free config for a teacher on its device.

    Args:
        name: Name of the run, as `RunConfig.name` wants it.
        teacher_spec: The config section that the teacher was made from.
        teacher: The teacher, on the device where the run will happen.

    Returns:
        The config; `model_fields_set` of its sections says what was decided, all else is at its default.

    Raises:
        InputError: If the teacher's images are of no use, such as a side of one pixel.
    """
    synthesis = _synthesis(teacher)
    space, max_macs = _space(teacher)
    batch = 128 if max(teacher.input_shape[1:]) <= SMALL_SIDE else 64
    batch = min(batch, synthesis.images // 8)
    temperature = {"temperature": 5.0} if teacher.num_classes > MANY_CLASSES else {}
    # Of all images a tenth is held out and 30 % of the rest rate architectures: the defaults.
    supernet_images, retrain_images = 0.63 * synthesis.images, 0.9 * synthesis.images
    return RunConfig.model_validate(
        {
            "name": name,
            "seed": 0,
            "teacher": _set_values(teacher_spec),
            "synthesis": _set_values(synthesis),
            "search": {
                "space": space,
                "batch_size": batch,
                "max_macs": max_macs,
                "strategy": _strategy(space["name"], supernet_images, batch),
            },
            "retrain": {"epochs": _epochs(RETRAIN_STEPS, retrain_images, batch), "batch_size": batch, **temperature},
        }
    )


def _strategy(space: str, images: float, batch: int) -> dict[str, Any]:
    """What finds more in less time where that was measured (docs/results/nasbench201.md), elsewhere a supernet."""
    if space == "nasbench201":
        return {"name": "training-free", "population": 50, "generations": 4}
    return {
        "name": "spos",
        "epochs": _epochs(SUPERNET_STEPS, images, batch),
        "population": 20,
        "generations": 5,
        "parents": 5,
        "crossovers": 8,
        "mutants": 8,
        "recalibration_batches": 4,
    }


def _synthesis(teacher: Teacher) -> SynthesisConfig:
    """Engine, canvas, batch and number of shards."""
    height, width = teacher.input_shape[1:]
    side, classes = max(height, width), teacher.num_classes
    values: dict[str, Any] = {"canvas": [_canvas_side(height), _canvas_side(width)]}
    if not teacher.batch_norms:
        # Class loss and priors alone: worse images, but the only ones that such a teacher gives.
        values |= {"rounds": 2, "engine": {"name": "pixels", "losses": {"batch_norm": 0.0}}}
        images, batch = max(1024, 4 * classes), 64
    elif side <= TINY_SIDE:
        engine = {"stages": [{"iterations": 200}], "warmup": 20, "losses": {"batch_norm": 1.0, "total_variation": 1e-3}}
        values |= {"rounds": 2, "engine": {"name": "pixels", **engine}}
        images, batch = max(1024, 16 * classes), 64
    elif side <= SMALL_SIDE:
        values |= {"rounds": 1, "engine": {"name": "generator", "steps": 500}}
        images, batch = max(8192, 64 * classes), 256
    else:
        values |= {"rounds": 2, "engine": {"name": "pixels"}}
        images, batch = max(1024, 4 * classes), 64
    if classes > MANY_CLASSES:
        values["labels"] = {"temperature": 1.0}
    batch = _fitting_batch(teacher, values, batch)
    shards = -(-images // (batch * values["rounds"]))
    ordered = {"rounds": values.pop("rounds"), "shards": shards, "batch_size": batch, **values}
    config = SynthesisConfig.model_validate(ordered)
    check_synthesis(teacher, config)
    return config


def _canvas_side(side: int) -> int:
    """About 8/7 of a side, as in the paper, in whole steps that stages of lower resolution can divide."""
    step = 4 if side > TINY_SIDE and side % 4 == 0 else 2 if side % 2 == 0 else 1
    return max(side + 2, step * round(side * 8 / 7 / step))


def _fitting_batch(teacher: Teacher, values: dict[str, Any], wanted: int) -> int:
    """The largest power of two up to `wanted` whose shard leaves room in the memory; at least 2."""
    batch, room = wanted, MEMORY_SHARE * total_memory(teacher.device)
    while batch > 2:
        config = SynthesisConfig.model_validate(values | {"shards": 1, "batch_size": batch})
        if PEAK_FACTOR * shard_bytes(teacher, config) <= room:
            break
        batch //= 2
    return batch


def _space(teacher: Teacher) -> tuple[dict[str, Any], int]:
    """A search space for the teacher's images, as plain values, and a budget inside it.

    The budget is a quarter of the teacher's multiply-accumulates, moved into the space where it lies outside.
    """
    side = min(teacher.input_shape[1:])
    macs = macs_of_call(teacher.module, torch.zeros(1, *teacher.input_shape, device=teacher.device))
    if side <= SMALL_SIDE:
        choices = [{"name": "nasbench201", "channels": channels, "cells": cells} for channels, cells in CELLS]
    else:
        choices = [{"name": "shufflenet"}]
    built = [(values, _build(values, teacher)) for values in choices]
    values, space = next(((v, s) for v, s in built if s.macs_range()[1] <= macs), built[-1])
    cheapest, dearest = space.macs_range()
    budget = min(max(macs // 4, cheapest + (dearest - cheapest) // 3), dearest)
    return values, max(cheapest, _two_digits(budget))


def _build(values: dict[str, Any], teacher: Teacher) -> SearchSpace:
    spec = spaces.spec(values["name"]).model_validate(values)
    return spaces.build(spec, input_shape=teacher.input_shape, num_classes=teacher.num_classes)


def _two_digits(number: int) -> int:
    """Rounded to two significant digits, for people."""
    return int(float(f"{number:.2g}"))


def _epochs(steps: int, images: float, batch: int) -> int:
    """Epochs of about so many steps, between 10 and 100."""
    return min(100, max(10, round(steps / max(1, images // batch))))


def _set_values(spec: Spec) -> dict[str, Any]:
    """The values that were given, as plain ones, with the names by which specs are told apart."""
    values = spec.model_dump(mode="json", exclude_unset=True)
    return ({"name": spec.model_dump()["name"]} if "name" in type(spec).model_fields else {}) | values


def run_name(text: str) -> str:
    """A run's name from any text: lower case, digits and dashes.

    Raises:
        InputError: If nothing is left of it.
    """
    name = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split())
    if not name:
        raise InputError(f"no name for the run can be made from '{text}'; give one with --set name=NAME")
    return name
