"""What every registered search space promises; a new space joins by an entry in SMALL."""

import functools
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from nas_core.errors import InputError
from nas_core.exporting import ModelFormat, export_model
from nas_core.ops.cost import count_macs, count_parameters
from nas_core.ops.initialisation import initialise
from nas_core.ops.latency import LatencyTable, key
from nas_core.ops.mixed import MixedOperation, indices_of
from nas_core.registry import Spec
from nas_core.search_spaces import SearchSpace, rebuild_network, spaces
from nas_core.seeding import generator
from nas_core.strategies import parameter_budget

ENTRIES = yaml.safe_load(Path(__file__).with_name("small.yaml").read_text())
SMALL = {entry: {"name": entry} | values for entry, values in ENTRIES.items()}
SHAPES = [(3, 16, 16), (1, 17, 19)]


def small_spec(name: str, **values) -> Spec:
    return spaces.spec(SMALL[name]["name"]).model_validate(SMALL[name] | values)


def build(name: str, input_shape=(3, 16, 16), **values) -> SearchSpace:
    spec = small_spec(name, **values)
    return spaces.build(spec, input_shape=input_shape, num_classes=3)


@functools.cache
def small(name: str) -> SearchSpace:
    return build(name)


def draws(*position: int) -> torch.Generator:
    return generator(0, "contract", *position)


def images(space: SearchSpace) -> torch.Tensor:
    return torch.randn(2, *space.input_shape, generator=draws(1))


def weights(space: SearchSpace) -> list[torch.Tensor]:
    return [torch.rand(len(slot.operations), generator=draws(2)) for slot in space.slots]


every_space = pytest.mark.parametrize("name", sorted(SMALL))


def test_every_space_is_under_contract():
    assert {values["name"] for values in SMALL.values()} == set(spaces.names())


@every_space
@pytest.mark.parametrize("shape", SHAPES)
def test_supernet_runs_choices_and_weights(name, shape):
    space = build(name, shape)
    supernet = space.supernet()
    initialise(supernet, draws())
    for gates in (space.sample(draws(0)), weights(space)):
        logits = supernet(images(space), gates)
        assert logits.shape == (2, 3)
        assert logits.isfinite().all()


@every_space
def test_gradients_reach_every_gate(name):
    space = small(name)
    supernet = space.supernet()
    initialise(supernet, draws())
    gates = [gate.requires_grad_() for gate in weights(space)]
    supernet(images(space), gates)[:, 0].sum().backward()
    assert all(gate.grad is not None for gate in gates)


@every_space
def test_a_choice_computes_and_trains_nothing_of_the_other_operations(name):
    space = small(name)
    supernet = space.supernet()
    choices = space.sample(draws(3))
    mixed = [module for module in supernet.modules() if isinstance(module, MixedOperation)]
    ran: dict[MixedOperation, list[int]] = {module: [] for module in mixed}
    for module in mixed:
        for index, operation in enumerate(module.operations):
            operation.register_forward_hook(lambda *_, calls=ran[module], index=index: calls.append(index))
    supernet(images(space), choices).sum().backward()
    # Each runs once what one of the choices names, or is left out.
    possible = {tuple(indices_of(choice)) for choice in choices} | {()}
    assert any(ran.values())
    for module, calls in ran.items():
        assert tuple(calls) in possible
        # Operations of several widths share weights.
        trained = {parameter for index in calls for parameter in module.operations[index].parameters()}
        assert all(parameter.grad is None for parameter in set(module.operations.parameters()) - trained)


@every_space
def test_samples_are_legal_and_come_back_from_their_notation(name):
    space = small(name)
    for position in range(5):
        choices = space.sample(draws(position))
        architecture = space.architecture(choices)
        assert space.choices(architecture) == choices
        assert space.parse(str(architecture)) == architecture


@every_space
@pytest.mark.parametrize("notation", ["", "?", "0", "__import__('os')", "(" * 400])
def test_what_is_no_architecture_is_refused(name, notation):
    with pytest.raises(InputError):
        small(name).parse(notation)


@every_space
@pytest.mark.parametrize("shape", SHAPES)
def test_a_network_runs_and_costs_what_the_space_says(name, shape):
    space = build(name, shape)
    for position in range(2):
        choices = space.sample(draws(position))
        network = space.network(space.architecture(choices))
        initialise(network, draws())
        assert network(images(space)).shape == (2, 3)
        assert space.macs(choices) == count_macs(network, space.input_shape)
        assert parameter_budget().of(space, choices) == count_parameters(network)
        cheapest, dearest = space.macs_range()
        assert cheapest <= space.macs(choices) <= dearest


@every_space
def test_latencies_are_those_of_networks_with_as_many_classes(name):
    space = small(name)
    fixed, slots = space.parts()
    parts = [*fixed, *(part for slot in slots for operation in slot for part in operation)]
    table = LatencyTable({key(part): 1.0 for part in parts}, {})
    assert table.of(space, space.sample(draws())) > 0
    fewer = spaces.build(small_spec(name), input_shape=space.input_shape, num_classes=2)
    with pytest.raises(InputError, match=r"the latency table has no '.* 2 classes on "):
        table.table(fewer)


@every_space
def test_a_network_in_evaluation_is_a_function_of_its_input(name):
    space = small(name)
    network = space.network(space.architecture(space.sample(draws()))).eval()
    initialise(network, draws())
    assert torch.equal(network(images(space)), network(images(space)))


@every_space
def test_no_layer_draws_from_the_global_state(name):
    space = small(name)
    networks: list[nn.Module] = [space.network(space.architecture(space.sample(draws()))), space.supernet()]
    state = torch.get_rng_state()
    networks[0](images(space))
    networks[1](images(space), weights(space))
    assert torch.equal(state, torch.get_rng_state())


@every_space
def test_the_best_architecture_is_legal_and_keeps_the_budget(name):
    space = small(name)
    cheapest, dearest = space.macs_range()
    scores = [gate.log().tolist() for gate in weights(space)]
    for share in (0.0, 0.1, 0.5):
        budget = round(cheapest + share * (dearest - cheapest))
        best = space.best(scores, budget)
        assert space.macs(best) <= budget
        assert space.choices(space.architecture(best)) == best
    with pytest.raises(ValueError, match="or less"):
        space.best(scores, cheapest - 1)


@every_space
def test_no_sample_scores_more_than_the_best(name):
    space = small(name)
    scores = [gate.log().tolist() for gate in weights(space)]

    def total(choices) -> float:
        return sum(row[i] for row, choice in zip(scores, choices, strict=True) for i in indices_of(choice))

    best = total(space.best(scores, None))
    assert all(total(space.sample(draws(position))) <= best + 1e-9 for position in range(50))


@every_space
def test_a_child_is_legal_and_a_cheaper_one_is_cheaper(name):
    space = small(name)
    first, second = space.sample(draws(0)), space.sample(draws(1))
    coins = [position % 2 == 0 for position in range(len(space.decisions))]
    child = space.crossed(first, second, coins)
    assert space.choices(space.architecture(child)) == child
    assert space.crossed(first, second, [False] * len(coins)) == first
    found = [cheaper for options in space.cheaper(child) for cheaper in options[:3]]
    assert found
    for cheaper in found:
        assert space.macs(cheaper) < space.macs(child)
        assert space.choices(space.architecture(cheaper)) == cheaper


@every_space
def test_a_restriction_keeps_its_promise(name):
    """Only one operation left where an architecture uses one: the slot then always holds it, or nothing."""
    space = small(name)
    architecture = space.architecture(space.sample(draws(4)))
    index, kept = next((i, op) for i, op in enumerate(architecture.operations) if isinstance(op, str))
    restricted = space.restrict({index: [kept]})
    assert restricted.size < space.size
    assert restricted.slots[index].operations == (kept,)
    choices = restricted.choices(architecture)
    assert restricted.architecture(choices) == architecture
    assert restricted.macs(choices) == count_macs(restricted.network(architecture), space.input_shape)
    assert restricted.supernet()(images(space), choices).shape == (2, 3)
    for position in range(5):
        assert restricted.architecture(restricted.sample(draws(position))).operations[index] in (kept, ())


@every_space
def test_a_network_is_rebuilt_from_plain_values(name):
    space = small(name)
    notation = str(space.architecture(space.sample(draws(5))))
    network = space.network(space.parse(notation))
    plain = small_spec(name).model_dump(mode="json")
    rebuilt = rebuild_network(plain, space.input_shape, 3, notation)
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt.eval()(images(space)), network.eval()(images(space)))


@every_space
@pytest.mark.parametrize(
    ("form", "difference"),
    [(ModelFormat.TORCH_EXPORT, 0.0), pytest.param(ModelFormat.ONNX, 1e-4, marks=pytest.mark.slow)],
)
def test_an_exported_network_answers_like_the_network(name, form, difference):
    """An ONNX runtime adds in another order; torch.export runs the same operations."""
    if form is ModelFormat.ONNX:
        pytest.importorskip("onnxscript")
    space = small(name)
    architecture = space.architecture(space.sample(draws(6)))
    network = space.network(architecture).eval()
    initialise(network, draws())
    about = {
        "architecture": architecture.notation,
        "space": small_spec(name).model_dump(mode="json"),
        "input_shape": list(space.input_shape),
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "class_names": list("abc"),
    }
    exported = export_model(network, about, form)
    assert exported.largest_logit > 0
    assert exported.difference <= difference * max(1, exported.largest_logit)


@every_space
@pytest.mark.parametrize("wrong", [{"input_shape": (3, 0, 16)}, {"num_classes": 0}])
def test_sizes_that_are_not_positive_are_refused(name, wrong):
    values = {"input_shape": (3, 16, 16), "num_classes": 3} | wrong
    with pytest.raises(InputError):
        spaces.build(small_spec(name), **values)
