"""What every pair of a search space and a strategy keeps: it works, is refused with the reason, and resumes.

Whatever is registered takes part. Settings are made small by the names of their fields.
"""

import copy
import functools
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from doubles import favour_the_dearest

from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.registry import Spec
from nas_core.search_spaces import SearchSpace, rebuild_network, spaces
from nas_core.seeding import generator
from nas_core.strategies import Budget, Strategy, macs_budget, strategies
from nas_core.strategies.alpha import ArchitectureWeights

ENTRIES = yaml.safe_load(Path(__file__).with_name("small.yaml").read_text())
SMALL_SPACES = {entry: {"name": entry} | values for entry, values in ENTRIES.items()}
SMALL_SEARCH = {
    "epochs": 2,
    "alpha_start": 0.0,
    "alpha_every": 1,
    "recalibration_batches": 1,
    "population": 3,
    "parents": 2,
    "architectures": 2,
    "images": 8,
    "progression": {"stages": [{}, {"extra_cells": 1, "operations": 3, "skip_dropout": 0.4}]},
}
# What cannot work: where slots are no edges there is nothing to normalise, and no stack of equal cells to deepen.
EDGELESS = ("nasbench1shot1", "proxyless", "shufflenet", "shufflenet-channels")
REFUSED = {(space, strategy) for space in EDGELESS for strategy in ("p-darts", "pc-darts")}
# Every strategy on one space; on the others one of each kind of gate, and those that need what a space may lack.
ON_EVERY_SPACE = ("darts", "nasp", "p-darts", "pc-darts", "proxyless", "random", "spos")
PAIRS = [
    (space, strategy)
    for space in SMALL_SPACES
    for strategy in strategies.names()
    if space == "nasbench201" or strategy in ON_EVERY_SPACE
]


# Of the spaces with many operations per slot, some of each kind: the time goes with their number.
KEPT_OPERATIONS = {"darts": ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")}


@functools.cache
def small_space(name: str) -> SearchSpace:
    """A space for images of 8 x 8 pixels, with its multiply-accumulates counted once."""
    spec = spaces.spec(SMALL_SPACES[name]["name"]).model_validate(SMALL_SPACES[name])
    space = spaces.build(spec, input_shape=(3, 8, 8), num_classes=4)
    kept = KEPT_OPERATIONS.get(name)
    return space.restrict(dict.fromkeys(range(len(space.slots)), kept)) if kept else space


def small_strategy(name: str) -> Spec:
    spec = strategies.spec(name)
    fields = spec.model_fields
    values = {field: value for field, value in SMALL_SEARCH.items() if field in fields}
    whole = spec().model_dump()
    if whole.get("stopping", {}).get("rule") == "hessian":
        values |= {"epochs": 3, "hessian_every": 1, "stopping": {"window": 1, "lookback": 1, "earliest": 0}}
    several = {"grid": len(whole.get("grid", ())) > 1, "progression": len(_stages(whole)) > 1}
    if any(several.values()):
        values["epochs"] = 1
    if several["grid"]:
        values["grid"] = [whole["grid"][0], whole["grid"][-1]]
    if not several["progression"]:
        values.pop("progression", None)
    if "rungs" in fields and fields["rungs"].default > 1:
        values |= {"rungs": 2, "eta": 2, "prior": {"pool": 4, "images": 8}}
    for field in ("crossovers", "mutants"):
        if field in fields and fields[field].default:
            values[field] = 1
    if "generations" in fields:
        values["generations"] = min(2, fields["generations"].default)
    return spec.model_validate(values)


def _stages(settings: dict) -> list:
    return settings.get("progression", {"stages": []})["stages"]


def refusal(strategy: Strategy, space: SearchSpace, budget: Budget) -> str | None:
    """Why a strategy refuses a space, or None."""
    try:
        strategy.check(space, budget)
    except InputError as reason:
        return str(reason)
    return None


@pytest.mark.parametrize(("space_name", "strategy_name"), PAIRS, ids=lambda name: name)
def test_a_pair_searches_and_resumes_or_says_why_not(make_task, monkeypatch, space_name: str, strategy_name: str):
    """Within a tenth of the way from the cheapest architecture to the dearest, which architecture weights favour."""
    favour_the_dearest(monkeypatch)
    space, strategy = small_space(space_name), strategies.build(small_strategy(strategy_name))
    cheapest, dearest = space.macs_range()
    task = make_task(space, cheapest + (dearest - cheapest) // 10)
    favourite = ArchitectureWeights(space, generator(task.seed, "toy.alpha"), task.device).derive(macs_budget())
    assert not task.budget.allows(space, space.choices(favourite))
    reason = refusal(strategy, space, task.budget)
    assert (reason is not None) == ((space_name, strategy_name) in REFUSED), reason
    if reason is not None:
        with pytest.raises(InputError, match=re.escape(reason)):
            strategy.search(task, Checkpoint(), lambda *_: pytest.fail("something was computed"))
        return
    states = []
    outcome = strategy.search(task, Checkpoint(None, lambda state: states.append(copy.deepcopy(state))))

    assert task.budget.allows(space, space.choices(outcome.architecture))
    assert space.parse(json.loads(json.dumps(outcome.architecture.notation))) == outcome.architecture
    rebuilt = rebuild_network(SMALL_SPACES[space_name], space.input_shape, space.num_classes, str(outcome.architecture))
    assert rebuilt.eval()(torch.zeros(2, *space.input_shape)).shape == (2, space.num_classes)
    # What the search curve names, and what is rated, is within the budget at any time.
    for record in [*outcome.search, *outcome.candidates]:
        assert task.budget.allows(space, space.choices(space.parse(record["architecture"])))
    json.dumps([outcome.search, outcome.training, outcome.candidates])

    # From a state in the middle, the rest of the way is the same, and no more than the rest.
    middle, rest = (len(states) - 1) // 2, []
    assert strategy.search(task, Checkpoint(copy.deepcopy(states[middle]), rest.append)) == outcome
    assert len(rest) == len(states) - 1 - middle


@pytest.mark.parametrize(
    "name", [name for name in strategies.names() if "epochs" in strategies.spec(name).model_fields]
)
def test_a_preset_takes_an_override_and_keeps_the_rest(name: str):
    spec = strategies.spec(name)
    other = spec.model_validate({"name": name, "epochs": 70})
    assert other == spec().model_copy(update={"epochs": 70})
    assert spec.model_validate(json.loads(other.model_dump_json())) == other


def test_what_a_space_lacks_is_named():
    """Two channels cannot be divided by four."""
    space = spaces.build(
        spaces.spec("nasbench201").model_validate({"channels": 2, "cells": 1}), input_shape=(3, 8, 8), num_classes=4
    )
    with pytest.raises(InputError, match="channels = 2 cannot be divided by partial channels 1/4"):
        strategies.build(strategies.spec("pc-darts")()).check(space, macs_budget())
