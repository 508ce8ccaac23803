"""Whatever the teacher, the proposed config is valid, data-free, and fits it."""

import pytest
import torchvision
from doubles import Particular
from torch import nn

from nas_core.config import RunConfig
from nas_core.errors import InputError
from nas_core.memory import check_memory, shard_bytes
from nas_core.proposal import propose, run_name
from nas_core.search_spaces import spaces
from nas_core.strategies import macs_budget, strategies
from nas_core.synthesis.build import check_synthesis
from nas_core.teachers import Teacher, teachers
from nas_core.teachers.networks import digits_resnet, resnet20

SPEC = teachers.spec("torchvision").model_validate({"name": "torchvision", "network": "resnet18"})


def proposal_for(network: nn.Module, input_shape: tuple[int, int, int], classes: int) -> tuple[RunConfig, Teacher]:
    channels = input_shape[0]
    names = tuple(map(str, range(classes)))
    teacher = Teacher(network, input_shape, (0.5,) * channels, (0.5,) * channels, names)
    return propose("first", SPEC, teacher), teacher


def without_norms(classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


TEACHERS = {
    "particular": (Particular, (1, 8, 8), 10, "pixels", "nasbench201", "training-free"),
    "digits": (lambda: digits_resnet(1, 10), (1, 8, 8), 10, "pixels", "nasbench201", "training-free"),
    "cifar": (lambda: resnet20(3, 100), (3, 32, 32), 100, "generator", "nasbench201", "training-free"),
    "odd": (lambda: resnet20(1, 3), (1, 27, 31), 3, "generator", "nasbench201", "training-free"),
    "imagenet": (lambda: torchvision.models.resnet18(), (3, 224, 224), 1000, "pixels", "shufflenet", "spos"),
    "no BatchNorm": (lambda: without_norms(5), (3, 96, 96), 5, "pixels", "shufflenet", "spos"),
}


@pytest.mark.parametrize("kind", list(TEACHERS))
def test_the_proposal_fits_the_teacher(kind: str):
    make, shape, classes, engine, space_name, strategy = TEACHERS[kind]
    config, teacher = proposal_for(make(), shape, classes)
    assert config == RunConfig.model_validate(config.model_dump(mode="json", exclude_unset=True))
    assert (config.synthesis.engine.name, config.search.space.name) == (engine, space_name)
    assert config.search.strategy.name == strategy
    assert config.evaluation.data is None
    assert config.synthesis.images >= 4 * classes
    assert config.retrain.temperature == (5 if classes >= 100 else 20)
    check_synthesis(teacher, config.synthesis)
    check_memory(teacher, config.synthesis)
    space = spaces.build(config.search.space, input_shape=shape, num_classes=classes)
    strategies.build(config.search.strategy).check(space, macs_budget(config.search.max_macs))


def test_less_memory_gives_smaller_batches(monkeypatch: pytest.MonkeyPatch):
    teacher = proposal_for(resnet20(3, 10), (3, 32, 32), 10)[1]
    memory = 40 * 2**20
    monkeypatch.setattr("nas_core.proposal.total_memory", lambda _: memory)
    config = propose("first", SPEC, teacher)
    assert 2 <= config.synthesis.batch_size < 256
    assert config.synthesis.images >= 8192
    assert 2 * shard_bytes(teacher, config.synthesis) <= memory / 2


def test_names_of_networks_become_names_of_runs():
    assert run_name("resnet18.a1_in1k") == "resnet18-a1-in1k"
    with pytest.raises(InputError, match="name"):
        run_name("___")
