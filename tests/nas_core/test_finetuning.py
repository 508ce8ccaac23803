"""Fine-tuning learns labels of real images, from wherever it was interrupted."""

import copy
import math
import weakref

import pytest
import torch
from torch import nn

from nas_core.checkpoint import Checkpoint
from nas_core.evaluation.data import LabelledImages
from nas_core.finetuning import FinetuneRecipe, LabelledBatches, finetune, smoothed_cross_entropy
from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator

RECIPE = FinetuneRecipe(epochs=3, warmup_epochs=0, learning_rate=0.1, batch_size=8, precision="float32")


@pytest.fixture(scope="module")
def images(teacher) -> LabelledImages:
    """Images of four brightnesses, which are their classes."""
    labels = torch.arange(32) % 4
    noise = torch.randint(16, (32, 3, 8, 8), generator=generator(0, "real"))
    pixels = (60 * labels.reshape(-1, 1, 1, 1) + noise).to(torch.uint8)
    return LabelledImages("toy", labels, lambda i: pixels[i], teacher)


def network() -> nn.Module:
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    initialise(made, generator(0, "toy"))
    return made


def test_it_learns_the_labels(images):
    records = finetune(network(), images, RECIPE.model_copy(update={"epochs": 30}), 0, Checkpoint())
    assert records[-1]["accuracy"] > 0.9 > records[0]["accuracy"]
    assert records[-1]["loss"] < records[0]["loss"]
    assert "agreement" not in records[0]


def test_an_interrupted_fine_tuning_ends_with_the_same_bytes(images):
    states, rest = [], []
    whole, resumed = network(), network()
    finetune(whole, images, RECIPE, 0, Checkpoint(None, lambda state: states.append(copy.deepcopy(state))))
    finetune(resumed, images, RECIPE, 0, Checkpoint(states[0], rest.append))
    assert (len(states), len(rest)) == (3, 2)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_every_image_comes_with_its_label(images):
    batches = LabelledBatches(images, 8)
    seen = list(batches.epoch(generator(0, "epoch")))
    assert len(seen) == len(batches) == 4
    brightness = torch.cat([batch.images.mean(dim=(1, 2, 3)) for batch in seen])
    labels = torch.cat([batch.teacher_logits.argmax(1) for batch in seen])
    assert labels.bincount().tolist() == [8] * 4
    assert torch.equal(labels[brightness.argsort()], torch.arange(4).repeat_interleave(8))


def test_the_images_are_kept_once(images, monkeypatch):
    """What was decoded is let go before the next one is."""
    decoded: list[weakref.ref] = []

    def fit(*_) -> torch.Tensor:
        assert all(reference() is None for reference in decoded)
        image = torch.full((3, 8, 8), len(decoded), dtype=torch.uint8)
        decoded.append(weakref.ref(image))
        return image

    monkeypatch.setattr("nas_core.finetuning.fit", fit)
    assert LabelledBatches(images, 8).pixels[:, 0, 0, 0].tolist() == list(range(32))


def test_smoothing_spreads_a_share_over_all_classes():
    """Even logits of two classes: ln 2 whatever the target; logits (0, ln 3) give -0.75 ln 0.75 - 0.25 ln 0.25."""
    target = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(smoothed_cross_entropy(torch.zeros(1, 2), target, 0.5), torch.tensor(math.log(2)))
    loss = smoothed_cross_entropy(torch.tensor([[0.0, math.log(3)]]), target, 0.5)
    torch.testing.assert_close(loss, torch.tensor(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
