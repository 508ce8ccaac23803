"""Top-1 and agreement against counts made by hand."""

import pytest
import torch
from torch import nn

from nas_core.evaluation.accuracy import agreement, top1
from nas_core.teachers.teacher import Teacher
from nas_core.training.batches import SyntheticBatches


class Pixel(nn.Module):
    """The image's two pixels are its logits; `swapped` exchanges them."""

    def __init__(self, swapped: bool = False):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.norm = nn.Identity()
        self.swapped = swapped

    def forward(self, x):
        assert not self.training
        logits = self.norm(x[:, 0, 0]) * self.scale
        return logits.flip(1) if self.swapped else logits


def images_of(classes):
    """One normalised image of 1 x 1 x 2 per class, whose larger pixel is the class."""
    return torch.eye(2)[torch.tensor(classes)].reshape(-1, 1, 1, 2)


def test_top1_weighs_images_not_batches():
    """2 of 3 right in one batch and 0 of 1 in the other are 2/4, not the mean of 2/3 and 0."""
    batches = [(images_of([0, 1, 1]), torch.tensor([0, 1, 0])), (images_of([0]), torch.tensor([1]))]
    assert top1(Pixel(), batches) == 0.5


def test_top1_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        top1(Pixel(), [])


def test_every_module_returns_to_its_own_mode():
    network = Pixel().train()
    network.norm.eval()
    top1(network, [(images_of([0]), torch.tensor([0]))])
    assert network.training
    assert not network.norm.training


def test_mode_returns_even_after_an_error():
    network = Pixel().train()
    with pytest.raises(IndexError):
        top1(network, [(torch.zeros(1, 1, 0, 2), torch.tensor([0]))])
    assert network.training


@pytest.fixture
def batches():
    """Canvases of 3 x 4 whose central 1 x 2 window names class 0, 1, 1; all else points the other way."""
    teacher = Teacher(Pixel(), (1, 1, 2), mean=(0.5,), std=(0.5,), class_names=("a", "b"))
    canvases = torch.zeros(3, 1, 3, 4, dtype=torch.uint8)
    canvases[[0, 1, 2], 0, 1, [1, 2, 2]] = 255
    return SyntheticBatches(canvases, teacher, batch_size=2)


def test_a_network_agrees_with_itself(batches):
    assert agreement(Pixel(), batches) == 1.0


def test_the_opposite_network_never_agrees(batches):
    assert agreement(Pixel(swapped=True), batches) == 0.0


def test_a_constant_network_agrees_on_the_share_of_its_class(batches):
    """Always class 1, while the teacher says 0, 1, 1 on the central windows."""

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    assert agreement(Constant(), batches) == pytest.approx(2 / 3)
