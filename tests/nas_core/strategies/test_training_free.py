"""Search by training-free scores."""

import json
import math

import pytest

from nas_core.checkpoint import Checkpoint
from nas_core.ops.cost import count_macs, count_parameters
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.settings.strategies import PriorSpec
from nas_core.strategies import strategies
from nas_core.strategies.training_free import TrainingFreeRating, log_rank_sums, promising

SMALL = {"population": 6, "generations": 3, "parents": 2, "crossovers": 2, "mutants": 2, "images": 8}


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)


def search(name: str = "training-free", **values):
    return strategies.build(strategies.spec(name).model_validate({"name": name, **SMALL, **values}))


def test_published_scores_have_the_published_number_of_images():
    """Naswot's code takes 128, AZ-NAS's 64."""
    naswot, az_nas = (strategies.spec(name)().images for name in ("naswot", "az-nas"))
    assert (naswot, az_nas) == (128, 64)


def test_ranks_are_put_together_as_in_az_nas():
    """Ranks of a: 1, 2.5, 2.5 of 3; of b: 3, 2, 1, where None is worse than any number."""
    figures = [{"a": 1.0, "b": 9.0}, {"a": 5.0, "b": 8.0}, {"a": 5.0, "b": None}]
    expected = [math.log(1 / 3) + math.log(1), math.log(2.5 / 3) + math.log(2 / 3), math.log(2.5 / 3) + math.log(1 / 3)]
    assert log_rank_sums(figures) == pytest.approx(expected)
    assert log_rank_sums([]) == []


def test_counting_parameters_finds_the_largest_network_within_the_budget(make_task, space):
    """The score is the parameters, so that the answer is known: six 3 x 3 convolutions, or the three that fit."""
    everything = {"scores": ["parameters"], "population": 60, "generations": 8, "crossovers": 20, "mutants": 20}
    outcome = search(**everything, parents=10).search(make_task(space), Checkpoint())
    assert outcome.architecture.operations == ("nor_conv_3x3",) * 6
    budget = sum(space.macs_range()) // 2
    outcome = search(**everything, parents=10).search(make_task(space, budget), Checkpoint())
    assert all(candidate["macs"] <= budget for candidate in outcome.candidates)
    assert outcome.architecture.operations.count("nor_conv_3x3") == 3


def test_every_candidate_is_compared_with_all_and_none_is_scored_twice(make_task, space):
    outcome = search().search(make_task(space), Checkpoint())
    assert len({candidate["architecture"] for candidate in outcome.candidates}) == len(outcome.candidates) == 18
    scores = [candidate["score"] for candidate in outcome.candidates]
    assert scores == log_rank_sums([candidate["scores"] for candidate in outcome.candidates])
    assert outcome.search[-1]["best_score"] == max(scores)
    assert outcome.training == []
    json.loads(json.dumps(outcome.candidates), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_costs_are_those_of_the_network_and_need_none(make_task, space, monkeypatch):
    path = space.sample(generator(0, "path"))
    network = space.network(space.architecture(path))
    rating = TrainingFreeRating(make_task(space), ("parameters", "macs"), 8, "noise")
    monkeypatch.setattr(NasBench201, "network", lambda *_: pytest.fail("a network was built"))
    expected = {"parameters": count_parameters(network), "macs": count_macs(network, space.input_shape)}
    assert rating(path) == {"scores": expected}


def test_an_interrupted_search_ends_with_the_same_bytes(check_resume, make_task, space):
    check_resume(search(), make_task(space), saves=3)


def test_a_prior_takes_the_best_of_its_pool(make_task, space):
    task = make_task(space)
    prior = PriorSpec(scores=("macs",), pool=30, images=8)
    three, all_ = promising(prior, task, 3), promising(prior, task, 30)
    assert three == all_[:3]
    assert [space.macs(path) for path in all_] == sorted((space.macs(path) for path in all_), reverse=True)


@pytest.mark.parametrize(("asked", "scored"), [(10, 10), (64, 16)])
def test_synthetic_images_are_those_of_one_epochs_full_batches_at_most(make_task, space, monkeypatch, asked, scored):
    """Of 20 images in batches of 8 an epoch has 16."""
    seen = []

    def count(_network, batch, _scores, _signs):
        seen.append(len(batch.images))
        return {"naswot": 0.0}

    monkeypatch.setattr("nas_core.strategies.training_free.training_free_scores", count)
    TrainingFreeRating(make_task(space, images=20), ("naswot",), asked, "synthetic")((1,) * 6)
    assert seen == [scored]


@pytest.mark.parametrize("inputs", ["noise", "synthetic"])
def test_scores_depend_on_the_images_unless_they_are_noise(make_task, space, inputs: str):
    """Two tasks of one seed whose images differ; counting parameters needs none."""
    small, large = make_task(space, images=32), make_task(space, images=64)
    first, second = (
        search(name="naswot", inputs=inputs).search(task, Checkpoint()).candidates[0]["scores"]["naswot"]
        for task in (small, large)
    )
    assert (first == second) == (inputs == "noise")


def test_each_score_sees_what_its_paper_showed_it(make_task, space):
    """AZ-NAS's figures are those on noise, naswot's those on synthetic images, in one search."""
    task = make_task(space)
    path = space.sample(generator(0, "path"))
    every = ("expressivity", "progressivity", "trainability", "naswot", "macs")
    on = {
        kind: TrainingFreeRating(task, every, 8, kind)(path)["scores"] for kind in ("noise", "synthetic", "published")
    }
    assert on["published"].keys() == set(every)
    for name in every:
        assert on["published"][name] == on["synthetic" if name == "naswot" else "noise"][name]
    assert on["noise"]["naswot"] != on["synthetic"]["naswot"]
    assert on["noise"]["expressivity"] != on["synthetic"]["expressivity"]
