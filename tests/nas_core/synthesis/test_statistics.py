"""The observed teacher is the teacher, and reports what a plain implementation computes."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nas_core.synthesis.losses import statistics_distance
from nas_core.synthesis.statistics import ObservedTeacher
from nas_core.teachers.networks import resnet20
from nas_core.teachers.teacher import Teacher


class ReusedBatchNorm(nn.Module):
    """One BatchNorm layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        return self.head(self.norm(self.second(x)).mean((2, 3)))


class ActivatedBatchNorm(nn.BatchNorm2d):
    """A subclass that does more than normalise, as timm has them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


def subclassed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), ActivatedBatchNorm(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    )


NETWORKS = {
    "resnet": lambda: resnet20(num_classes=4),
    "mobilenet": lambda: torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.25),
    "densenet": lambda: torchvision.models.DenseNet(4, (2, 2), 8, num_classes=4),
    "reused": ReusedBatchNorm,
    "subclassed": subclassed,
}


def lively_teacher(name: str) -> Teacher:
    """A network whose BatchNorm layers have statistics and affine parameters unlike the initial ones."""
    draws = torch.Generator().manual_seed(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=draws) * 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=draws) + 0.5)
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.num_features, generator=draws) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=draws) * 0.1)
    return Teacher(network, (3, 32, 32), (0.5,) * 3, (0.25,) * 3, tuple("abcd"))


def plain_loss_and_gradient(teacher: Teacher, images: Tensor) -> tuple[Tensor, Tensor]:
    """The textbook way in float64: forward hooks, mean and variance from their definitions."""
    network = copy.deepcopy(teacher.module).double()
    distances = []

    def observe(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        mean = inputs[0].mean((0, 2, 3), keepdim=True)
        var = ((inputs[0] - mean) ** 2).mean((0, 2, 3))
        distances.append((mean.flatten() - layer.running_mean).norm() + (var - layer.running_var).norm())

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(observe)
    x = images.double().requires_grad_()
    loss = network(x).log_softmax(1)[:, 0].mean() + torch.stack(distances).sum()
    loss.backward()
    assert x.grad is not None
    return loss.detach(), x.grad


@pytest.mark.parametrize("name", list(NETWORKS))
def test_losses_and_pixel_gradients_equal_the_plain_float64_implementation(name: str):
    teacher = lively_teacher(name)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected_loss, expected_gradient = plain_loss_and_gradient(teacher, images)

    x = images.clone().requires_grad_()
    logits, statistics = ObservedTeacher(teacher)(x)
    distances = [statistics_distance(s.batch_mean, s.batch_var, s.running_mean, s.running_var) for s in statistics]
    loss = logits.log_softmax(1)[:, 0].mean() + torch.stack(distances).sum()
    (gradient,) = torch.autograd.grad(loss, x)

    torch.testing.assert_close(loss.detach().double(), expected_loss, rtol=1e-4, atol=1e-5)
    error = (gradient.double() - expected_gradient).norm() / expected_gradient.norm()
    assert error < 1e-4
    torch.testing.assert_close(logits.detach(), teacher.logits(images), rtol=1e-4, atol=1e-4)


def test_a_layer_used_twice_reports_twice():
    _, statistics = ObservedTeacher(lively_teacher("reused"))(torch.randn(2, 3, 8, 8))
    assert len(statistics) == 2
    assert not torch.equal(statistics[0].batch_mean, statistics[1].batch_mean)


def test_observing_leaves_the_teacher_as_it_was():
    teacher = lively_teacher("resnet")
    before = teacher.fingerprint()
    ObservedTeacher(teacher)(torch.randn(2, 3, 32, 32))
    assert teacher.fingerprint() == before
    assert all(type(module) is nn.BatchNorm2d for module in teacher.batch_norms.values())
