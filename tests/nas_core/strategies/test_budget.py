"""One budget, whichever the cost: kept exactly, refused with the smallest possible, weighed in its own unit."""

from collections.abc import Mapping

import pytest
import torch
from doubles import favour_the_dearest
from pydantic import ValidationError

from nas_core.checkpoint import Checkpoint
from nas_core.config import SearchConfig
from nas_core.errors import InputError
from nas_core.ops.cost import count_parameters
from nas_core.ops.latency import LatencyTable, key
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.strategies import Budget, latency_budget, macs_budget, parameter_budget, strategies
from nas_core.strategies.rating import Rating

SPACE = NasBench201(4, 1, input_shape=(3, 8, 8), num_classes=4)


# Milliseconds of an operation in each stage; the rest takes nothing.
SLOW_CONVOLUTIONS = {"nor_conv_3x3": 0.7, "avg_pool_3x3": 0.1}
FAST_CONVOLUTIONS = {"nor_conv_3x3": 0.01, "nor_conv_1x1": 0.7}


def made_up_latencies(times: Mapping[str, float] = SLOW_CONVOLUTIONS) -> LatencyTable:
    """Of these times, and of a skeleton that takes 2.05 ms."""
    fixed, slots = SPACE.parts()
    entries = {key(part): times.get(part.kind, 0.0) for slot in slots for operation in slot for part in operation}
    return LatencyTable(entries | {key(part): 2.05 for part in fixed}, {})


BUDGETS = {
    "macs": macs_budget,
    "parameters": parameter_budget,
    "latency_ms": lambda limit=None: latency_budget(made_up_latencies(), limit),
}


def tight(name: str) -> Budget:
    """A tenth of the way from the cheapest architecture to the dearest."""
    free = BUDGETS[name]()
    low, high = SPACE.cost_range(free.table(SPACE))
    limit = low + (high - low) // 10
    return BUDGETS[name](limit / free.steps if free.steps > 1 else limit)


@pytest.mark.parametrize("name", BUDGETS)
def test_an_impossible_budget_is_refused_with_the_smallest_possible(name):
    free = BUDGETS[name]()
    smallest = SPACE.cost_range(free.table(SPACE))[0]
    free.check(SPACE)
    written = free.written(smallest)
    number = float(written) if name == "latency_ms" else int(written)
    BUDGETS[name](number).check(SPACE)
    below = number - 1e-3 if name == "latency_ms" else number - 1
    with pytest.raises(InputError, match=f"{free.setting} = .* raise it to {written} or more"):
        BUDGETS[name](below).check(SPACE)


def test_costs_are_those_of_the_whole_network():
    """Six 3x3 convolutions in three stages, and what is around them."""
    convolutions = (3,) * 6
    network = SPACE.network(SPACE.architecture(convolutions))
    assert BUDGETS["parameters"]().of(SPACE, convolutions) == count_parameters(network)
    assert BUDGETS["latency_ms"]().of(SPACE, convolutions) == pytest.approx(2.05 + 6 * 3 * 0.7, abs=1e-9)


def test_a_mixture_costs_what_its_paths_cost_on_average():
    mixture = [torch.tensor([0.5, 0.0, 0.0, 0.5, 0.0])] * 6
    assert float(BUDGETS["latency_ms"]().expected(SPACE, mixture)) == pytest.approx(2.05 + 6 * 3 * 0.7 / 2, rel=1e-6)


SMALL = {"epochs": 1, "alpha_start": 0, "alpha_every": 1, "population": 4, "generations": 2, "parents": 1}
SMALL |= {"crossovers": 1, "mutants": 1, "recalibration_batches": 1, "images": 8, "scores": ("macs",)}
SMALL |= {"architectures": 2, "rungs": 2, "eta": 2}
PRIOR = {"pool": 8, "images": 8, "scores": ("macs",)}
STRATEGIES = {
    "darts": {}, "proxyless": {}, "proxyless-rl": {}, "spos": {}, "spos from a prior": {"prior": PRIOR},
    "random": {"rungs": 1}, "successive-halving": {"prior": PRIOR}, "training-free": {},
}  # fmt: skip


class TheDearerTheBetter(Rating):
    """A score of a path, or of a network that stands alone."""

    def __init__(self, *_) -> None:
        pass

    def __call__(self, network, *path) -> float:
        return float(SPACE.macs(*path) if path else count_parameters(network))


@pytest.mark.parametrize("kind", STRATEGIES)
def test_every_kind_of_strategy_keeps_any_budget_that_its_favourites_exceed(make_task, kind, monkeypatch):
    """Of all that is recorded nothing is beyond a limit that the result without one exceeds."""
    favour_the_dearest(monkeypatch)
    for module in ("spos", "successive_halving"):
        monkeypatch.setattr(f"nas_core.strategies.{module}.Rating", TheDearerTheBetter)
    monkeypatch.setattr("nas_core.strategies.mixture.RECALIBRATION_BATCHES", 1)
    spec = strategies.spec(kind.split()[0])
    values = {field: value for field, value in SMALL.items() if field in spec.model_fields}
    strategy = strategies.build(spec.model_validate(values | STRATEGIES[kind]))
    unlimited = strategy.search(make_task(SPACE, images=16), Checkpoint())
    for name in BUDGETS:
        budget = tight(name)
        limit = budget.reference(SPACE)
        assert budget.of(SPACE, SPACE.choices(unlimited.architecture)) > limit
        outcome = strategy.search(make_task(SPACE, images=16, budget=budget), Checkpoint())
        cost = budget.of(SPACE, SPACE.choices(outcome.architecture))
        assert outcome.search[-1][name] == cost
        for record in [*outcome.search, *outcome.candidates]:
            assert record[name] == budget.of(SPACE, SPACE.choices(SPACE.parse(record["architecture"]))) <= limit
        front = [record[name] for record in outcome.front(name)]
        assert front == sorted(front)
        assert all(paid <= limit for paid in front)


TWO = SPACE.restrict(dict.fromkeys(range(6), ("nor_conv_1x1", "nor_conv_3x3")))
HEAVY = {
    "darts": {"cost_weight": 1000.0},
    "proxyless": {"cost_loss": "add-linear", "cost_factor": 1000.0},
    "proxyless-rl": {"samples": 10, "reward_exponent": 8.0},
}


@pytest.mark.parametrize(("cost", "found"), [("macs", "nor_conv_1x1"), ("latency_ms", "nor_conv_3x3")])
@pytest.mark.parametrize("name", HEAVY)
def test_the_cost_that_is_weighed_is_latency_where_there_is_a_table(make_task, name, cost, found):
    """Of two convolutions the small one is cheap, and by this table the large one is fast."""
    budget = latency_budget(made_up_latencies(FAST_CONVOLUTIONS)) if cost == "latency_ms" else macs_budget()
    spec = strategies.spec(name)
    settings = {"epochs": 6, "alpha_start": 0, "alpha_learning_rate": 0.2, "alpha_every": 1} | HEAVY[name]
    values = {field: value for field, value in settings.items() if field in spec.model_fields}
    outcome = strategies.build(spec.model_validate(values)).search(make_task(TWO, budget=budget), Checkpoint())
    assert outcome.architecture.operations == (found,) * 6


def test_a_logarithm_of_less_than_a_millisecond_is_refused():
    table = LatencyTable({name: value / 10 for name, value in made_up_latencies().entries.items()}, {})
    with pytest.raises(InputError, match=r"take only 0\.205000 ms; choose cost_loss = add-linear"):
        strategies.build(strategies.spec("proxyless")()).check(SPACE, latency_budget(table))
    # Rewards take none.
    strategies.build(strategies.spec("proxyless-rl")()).check(SPACE, latency_budget(table))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_macs": 1, "max_parameters": 1}, "give one of max_macs"),
        ({"max_latency_ms": 1}, "needs latency_table"),
        ({"latency_table": "t.json", "max_macs": 1}, "the limit is max_latency_ms, not max_macs"),
        ({"strategy": "naswot", "validation_mixup": 0.5}, "validation_mixup changes .* and naswot looks at none"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        SearchConfig.model_validate({"space": "nasbench201", "strategy": "spos"} | settings)
