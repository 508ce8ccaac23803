"""Single Path One-Shot on toy spaces."""

import math
import operator

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.ops.cost import CostTable
from nas_core.ops.mixed import MixedOperation
from nas_core.ops.primitives import Zero
from nas_core.search_spaces.base import Architecture, SearchSpace, Slot, Supernet
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.settings.strategies import PriorSpec, ScoresSpec, SposSpec
from nas_core.strategies import strategies
from nas_core.strategies.rating import Rating
from nas_core.strategies.sampling import Uniform
from nas_core.strategies.spos import SinglePath
from nas_core.training.augmentation import Augmentation
from nas_core.training.loop import train
from nas_core.training.recipe import Recipe


class ChainSupernet(Supernet):
    def __init__(self, slots: int) -> None:
        super().__init__()
        self.chain = nn.ModuleList(MixedOperation([Zero(), nn.Identity()]) for _ in range(slots))
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x, gates):
        for mixed, gate in zip(self.chain, gates, strict=True):
            x = mixed(x, gate)
        return self.head(self.features(x).mean(dim=(2, 3)))


class Chain(SearchSpace):
    """Three links in a row: a single `none` and the classifier sees nothing, so only one architecture is any good."""

    name = "chain"

    def __init__(self) -> None:
        self.slots = tuple(Slot(str(link), ("none", "skip_connect")) for link in range(3))
        self.input_shape, self.num_classes = (3, 8, 8), 4

    def supernet(self, *, partial=1):
        assert partial == 1
        return ChainSupernet(len(self.slots))

    def network(self, architecture):
        raise NotImplementedError

    def notation(self, operations):
        return ",".join(operations)

    def parse(self, notation):
        return Architecture(tuple(notation.split(",")), notation)

    def parts(self):
        raise NotImplementedError

    @property
    def macs_table(self):
        return CostTable(10, ((0, 1),) * len(self.slots))


def spos(**values):
    defaults = {
        "epochs": 2,
        "recalibration_batches": 2,
        "population": 4,
        "generations": 3,
        "parents": 2,
        "crossovers": 1,
        "mutants": 2,
    }
    return strategies.build(SposSpec.model_validate(defaults | values))


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)


def test_the_evidently_best_operation_is_found(make_task):
    outcome = spos(epochs=10, generations=10).search(make_task(Chain(), images=64), Checkpoint())
    assert outcome.architecture.operations == ("skip_connect",) * 3
    assert len(outcome.candidates) == 8  # All there are; then it ends by itself.
    ranked = sorted(outcome.candidates, key=lambda candidate: candidate["score"])
    assert ranked[-1]["score"] > ranked[-2]["score"]


def test_a_prior_chooses_the_first_generation(make_task, convolutions_or_skips):
    """By their cost, of all 64: six convolutions, and the six cells of five."""
    space, dearest = convolutions_or_skips
    prior = PriorSpec(scores=("macs",), pool=64, images=8)
    outcome = spos(prior=prior, population=7).search(make_task(space), Checkpoint())
    first = [candidate["architecture"] for candidate in outcome.candidates if candidate["generation"] == 0]
    assert len(first) == 7
    assert set(first) == dearest
    assert len({candidate["architecture"] for candidate in outcome.candidates}) == 21


def test_a_budget_is_kept_and_nothing_is_rated_twice(make_task, space):
    cheapest, dearest = space.macs_range()
    budget = (2 * cheapest + dearest) // 3
    outcome = spos().search(make_task(space, budget), Checkpoint())
    assert len({candidate["architecture"] for candidate in outcome.candidates}) == len(outcome.candidates) == 12
    assert all(candidate["macs"] <= budget for candidate in outcome.candidates)
    best = max(outcome.candidates, key=lambda candidate: candidate["score"])
    assert str(outcome.architecture) == best["architecture"]
    assert [record["generation"] for record in outcome.search] == [0, 1, 2]
    assert outcome.search[-1]["best_score"] == best["score"]
    assert [record["epoch"] for record in outcome.training] == [0, 1]


def test_training_free_scores_are_put_together_with_the_supernet_by_their_ranks(make_task, space):
    """Of N candidates log(rank / N) of both, the best rank being N: by hand from the records."""
    outcome = spos(training_free=ScoresSpec(scores=("macs",))).search(make_task(space), Checkpoint())
    rated = [candidate["scores"] for candidate in outcome.candidates]
    assert {name for scores in rated for name in scores} == {"supernet", "macs"}
    assert [scores["macs"] for scores in rated] == [candidate["macs"] for candidate in outcome.candidates]

    def rank(name: str, own: dict[str, float]) -> float:
        below, equal = (sum(compare(s[name], own[name]) for s in rated) for compare in (operator.lt, operator.eq))
        return (below + (equal + 1) / 2) / len(rated)

    for candidate in outcome.candidates:
        own = candidate["scores"]
        assert candidate["score"] == pytest.approx(math.log(rank("supernet", own)) + math.log(rank("macs", own)))
    assert str(outcome.architecture) == max(outcome.candidates, key=lambda c: c["score"])["architecture"]


def test_the_smallest_possible_budget_ends_with_the_only_network(make_task):
    """Ten multiply-accumulates leave the chain of `none` alone."""
    outcome = spos().search(make_task(Chain(), 10), Checkpoint())
    assert [candidate["architecture"] for candidate in outcome.candidates] == ["none,none,none"]


def test_an_impossible_budget_is_refused_at_once(make_task):
    with pytest.raises(InputError, match="raise it to 10 or more"):
        spos().search(make_task(Chain(), 9), Checkpoint(), lambda *_: pytest.fail("something was computed"))


@pytest.mark.parametrize("training_free", [None, ScoresSpec(scores=("naswot", "macs"), images=8)])
def test_an_interrupted_search_ends_with_the_same_bytes(check_resume, make_task, space, training_free):
    """Two epochs of the supernet, then generations."""
    check_resume(spos(training_free=training_free), make_task(space), saves=5)


def test_every_step_trains_one_path_and_paths_vary(make_task, space):
    task = make_task(space, images=64)
    supernet = task.supernet()
    paths: list[tuple[int, ...]] = []
    ran: list[int] = []

    class Recorder(SinglePath):
        def forward(self, images):
            logits = super().forward(images)
            paths.append(tuple(ran))
            ran.clear()
            return logits

    cells = [block for block in supernet.body if hasattr(block, "edges")]
    for edge in (edge for cell in cells for edge in cell.edges):
        for index, operation in enumerate(edge.operations):
            operation.register_forward_hook(lambda *_, index=index: ran.append(index))
    recipe = Recipe(epochs=2, warmup_epochs=0)
    made = Recorder(supernet, 5, Uniform(space))
    train(made, task.train, recipe, task.objective, seed=5, stage="toy", checkpoint=Checkpoint())
    assert len(paths) == 16
    # One operation per edge and nothing of the others, the same in each of the three cells.
    assert len(cells) == 3
    assert all(path == 3 * path[: len(space.slots)] for path in paths)
    assert len(set(paths)) > 12


def test_a_rating_depends_on_nothing_but_path_and_weights(make_task, space):
    task = make_task(space)
    supernet, rate = task.supernet(), Rating(task, 2)
    path, other = (3, 1, 2, 1, 4, 3), (1,) * 6
    first = rate(supernet, path)
    assert rate(supernet, other) != first
    assert rate(supernet, path) == first


def test_statistics_are_of_as_many_batches_as_are_asked_for_also_beyond_an_epoch(make_task, space, monkeypatch):
    """Two batches per epoch: five take three of them, each in an order of its own; two are those of the first."""
    task = make_task(space, images=16)
    seen = {}

    def keep(_network, _forward, batches):
        seen[len(batches)] = batches

    monkeypatch.setattr("nas_core.strategies.rating.recalibrate", keep)
    for count in (2, 5):
        Rating(task, count)(task.supernet().eval(), (1,) * 6)
    assert set(seen) == {2, 5}
    first = list(task.train.epoch(generator(task.seed, "search.recalibration")))
    for batches in seen.values():
        assert all(torch.equal(images, batch.images) for images, batch in zip(batches[:2], first, strict=True))
    assert not any(torch.equal(images, batch.images) for images, batch in zip(seen[5][2:4], first, strict=True))


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(mixup=0.5, color_jitter=1.0)])
def test_a_rating_is_the_negative_loss_under_the_paths_own_statistics(make_task, augmentation):
    """Computed again with plain averages of batch statistics and one loss over all validation images."""
    task = make_task(Chain(), images=40)  # 20 validation images: two batches of 8 and one of 4.
    task.validation.augmentation = augmentation
    supernet = task.supernet()
    score = Rating(task, 2)(supernet, (1, 1, 1))
    convolution, _, relu = supernet.features
    epoch = task.train.epoch(generator(task.seed, "search.recalibration"))
    maps = [convolution(next(epoch).images).detach() for _ in range(2)]
    mean = torch.stack([m.mean(dim=(0, 2, 3)) for m in maps]).mean(dim=0)
    variance = torch.stack([m.var(dim=(0, 2, 3)) for m in maps]).mean(dim=0)
    images, teacher_logits = (
        torch.cat([getattr(batch, name) for batch in task.validation.fixed(generator(task.seed, "search.rating"))])
        for name in ("images", "teacher_logits")
    )
    features = relu(nn.functional.batch_norm(convolution(images), mean, variance))
    loss = task.objective(supernet.head(features.mean(dim=(2, 3))), teacher_logits)
    assert score == pytest.approx(-loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    "values", [{"population": 4, "mutants": 3, "crossovers": 2}, {"epochs": 1, "warmup_epochs": 1}]
)
def test_contradicting_settings_are_refused(values):
    with pytest.raises(ValidationError):
        SposSpec.model_validate(values)
