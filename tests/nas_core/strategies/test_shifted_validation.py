"""Other validation images than training images: what is chosen looks at them, and no weight learns from them."""

import pytest

from nas_core.checkpoint import Checkpoint
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.strategies import SearchOutcome, strategies
from nas_core.training.augmentation import Augmentation

SMALL = {
    "random": {"architectures": 3},
    "spos": {"population": 3, "generations": 1, "parents": 1, "crossovers": 0, "mutants": 0},
    "darts": {"alpha_start": 0.5, "alpha_learning_rate": 0.1},
}


@pytest.fixture
def both(make_task):
    """Searches by validation images as they are, and of other colours."""

    def search(name: str) -> list[SearchOutcome]:
        space = NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)
        strategy = strategies.build(strategies.spec(name).model_validate({"epochs": 2, **SMALL[name]}))
        outcomes = []
        for augmentation in (Augmentation(), Augmentation(color_jitter=1.0)):
            task = make_task(space)
            task.validation.augmentation = augmentation
            outcomes.append(strategy.search(task, Checkpoint()))
        return outcomes

    return search


@pytest.mark.parametrize("name", ["random", "spos"])
def test_candidates_are_rated_on_them(both, name: str):
    plain, shifted = both(name)
    assert plain.training == shifted.training
    pairs = list(zip(plain.candidates, shifted.candidates, strict=True))
    assert len(pairs) == 3
    assert all(one["architecture"] == other["architecture"] for one, other in pairs)
    assert all(one["score"] != other["score"] for one, other in pairs)


def test_architecture_weights_learn_from_them(both):
    """In the first of two epochs the network's weights learn alone."""
    plain, shifted = both("darts")
    assert plain.training[0] == shifted.training[0]
    assert plain.search[0]["gates"] == shifted.search[0]["gates"]
    assert plain.search[1]["validation_loss"] != shifted.search[1]["validation_loss"]
    assert plain.search[1]["gates"] != shifted.search[1]["gates"]
