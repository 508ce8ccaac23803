"""Search tasks on canvases that the tiny teacher labels, and a check of resuming."""

import io
import itertools

import pytest
import torch
from doubles import Interruption

from nas_core.checkpoint import Checkpoint
from nas_core.search_spaces import SearchSpace
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.strategies import Budget, SearchOutcome, SearchTask, Strategy, macs_budget


@pytest.fixture
def make_task(make_batches):
    def make(
        space: SearchSpace, max_macs: int | None = None, images: int = 32, budget: Budget | None = None
    ) -> SearchTask:
        return SearchTask(
            space=space,
            train=make_batches(images, 8, seed=0),
            validation=make_batches(images // 2, 8, seed=1),
            budget=budget or macs_budget(max_macs),
            temperature=2.0,
            seed=5,
            device=torch.device("cpu"),
        )

    return make


@pytest.fixture(scope="session")
def convolutions_or_skips() -> tuple[SearchSpace, set[str]]:
    """A space of 64 cells, and the seven dearest of them: with six or with five convolutions."""
    space = NasBench201(2, 1, ("skip_connect", "nor_conv_3x3"), input_shape=(3, 8, 8), num_classes=4)
    paths = sorted(itertools.product(range(2), repeat=6), key=space.macs)
    assert space.macs(paths[-8]) < space.macs(paths[-7])
    return space, {str(space.architecture(path)) for path in paths[-7:]}


@pytest.fixture
def check_resume():
    """Interrupts a search, resumes it from each of its saves, and compares with one that never stopped."""

    def check(strategy: Strategy, task: SearchTask, saves: int) -> None:
        def search(state: object) -> tuple[SearchOutcome, list]:
            saved: list = []
            outcome = strategy.search(task, Checkpoint(state, lambda state: saved.append(as_from_a_file(state))))
            return outcome, saved

        def interrupt(_: object) -> None:
            raise Interruption

        with pytest.raises(Interruption):
            strategy.search(task, Checkpoint(None, interrupt))
        expected, saved = search(None)
        assert len(saved) == saves
        for done, state in enumerate(saved, start=1):
            resumed, again = search(state)
            assert resumed == expected
            assert len(again) == saves - done, "what was saved is done again"
            if again:
                assert_same(saved[-1], again[-1])

    return check


def as_from_a_file(state: object) -> object:
    """What survives of it: no code, and no tensor shared with the interrupted run."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def assert_same(first, second) -> None:
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second
