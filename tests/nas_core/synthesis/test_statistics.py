"""The observed teacher is the teacher, and reports what a plain implementation computes."""

import copy
import gc
import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nas_core import precision as precisions
from nas_core.synthesis.losses import statistics_distance
from nas_core.synthesis.statistics import ObservedTeacher, _AffineWithStatistics, channel_statistics
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


def reused_in_sequence() -> nn.Module:
    """One BatchNorm layer in two places of a sequence."""
    norm = nn.BatchNorm2d(5)
    layers = [nn.Conv2d(3, 5, 3), norm, nn.ReLU(), nn.Conv2d(5, 5, 3), norm]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))


class ActivatedBatchNorm(nn.BatchNorm2d):
    """A subclass that does more than normalise, as timm has them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


def subclassed() -> nn.Module:
    """A layer of a subclass, in two places."""
    norm = ActivatedBatchNorm(5)
    layers = [nn.Conv2d(3, 5, 3), norm, nn.Conv2d(5, 5, 3), nn.Sequential(norm)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))


NETWORKS = {
    "resnet": lambda: resnet20(num_classes=4),
    "mobilenet": lambda: torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.25),
    "densenet": lambda: torchvision.models.DenseNet(4, (2, 2), 8, num_classes=4),
    "reused": ReusedBatchNorm,
    "reused in sequence": reused_in_sequence,
    "subclassed": subclassed,
}


def lively_teacher(name: str) -> Teacher:
    """A network whose BatchNorm layers have statistics and affine parameters unlike the initial ones."""
    draws = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(1)  # no activation so near a kink of ReLU that float32 and float64 take different sides
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


def loss_and_gradient(observed: ObservedTeacher, images: Tensor) -> tuple[Tensor, Tensor]:
    """The same loss from the observed teacher."""
    x = images.clone().requires_grad_()
    logits, statistics = observed(x)
    distances = [statistics_distance(s.batch_mean, s.batch_var, s.running_mean, s.running_var) for s in statistics]
    loss = logits.log_softmax(1)[:, 0].mean() + torch.stack(distances).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    assert logits.dtype == gradient.dtype == torch.float32
    assert all(s.batch_mean.dtype == s.batch_var.dtype == torch.float32 for s in statistics)
    return loss.detach(), gradient


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize(
    ("precision", "loss_tolerance", "gradient_tolerance"), [("float32", 1e-4, 1e-4), ("bfloat16", 5e-3, 0.08)]
)
def test_losses_and_pixel_gradients_equal_the_plain_float64_implementation(
    name: str, precision, loss_tolerance: float, gradient_tolerance: float
):
    teacher, images = lively_teacher(name), noise(6, 3, 32, 32)
    expected_loss, expected_gradient = plain_loss_and_gradient(teacher, images)
    loss, gradient = loss_and_gradient(ObservedTeacher(teacher, precision), images)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=loss_tolerance, atol=loss_tolerance / 5)
    assert (gradient.double() - expected_gradient).norm() < gradient_tolerance * expected_gradient.norm()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (300.0, 0.1), (-5.0, 1e-3)])
def test_statistics_survive_a_mean_far_larger_than_the_deviation(mean: float, deviation: float, layout):
    """E[x^2] - E[x]^2 in float32 would leave nothing of the variance of the last two."""
    x = (noise(16, 5, 40, 40) * deviation + mean).to(memory_format=layout)
    batch_mean, batch_var = channel_statistics(x, torch.float32)
    exact = x.double()
    torch.testing.assert_close(batch_mean.double(), exact.mean((0, 2, 3)), rtol=1e-5, atol=1e-2 * deviation)
    torch.testing.assert_close(batch_var.double(), exact.var((0, 2, 3), correction=0), rtol=1e-4, atol=0)


def test_statistics_of_bfloat16_values_are_summed_in_float32():
    x = (noise(16, 5, 40, 40) + 8).bfloat16().to(memory_format=torch.channels_last)
    batch_mean, batch_var = channel_statistics(x, torch.float32)
    exact = x.double()
    torch.testing.assert_close(batch_mean.double(), exact.mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(batch_var.double(), exact.var((0, 2, 3), correction=0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fused_layers_gradient_is_that_of_its_outputs(layout):
    """Against finite differences, in float64."""
    x = noise(2, 3, 4, 5).double().to(memory_format=layout).requires_grad_()
    scale, shift = noise(3).double(), noise(1, 3)[0].double()
    assert torch.autograd.gradcheck(_AffineWithStatistics.apply, (x, scale, shift))


def test_other_parts_of_the_graph_keep_their_values():
    """The gradient is written in place: into memory of its own, not that of a gradient or input others share."""
    x = noise(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    output, mean, var = _AffineWithStatistics.apply(x, torch.full((3,), 2.0), torch.ones(3))
    incoming, before = noise(2, 3, 4, 4), x.detach().clone()
    kept = incoming.clone()
    torch.autograd.grad([output, mean, var], x, [incoming, torch.ones(3), torch.ones(3)])
    assert torch.equal(incoming, kept)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["reused", "reused in sequence", "subclassed"])
def test_a_layer_used_twice_reports_twice(name: str):
    _, statistics = ObservedTeacher(lively_teacher(name))(noise(2, 3, 8, 8))
    assert len(statistics) == 2
    assert not torch.equal(statistics[0].batch_mean, statistics[1].batch_mean)


def test_observing_leaves_the_teacher_as_it_was():
    teacher = lively_teacher("resnet")
    before = teacher.fingerprint()
    ObservedTeacher(teacher)(noise(2, 3, 32, 32))
    assert teacher.fingerprint() == before
    assert all(type(module) is nn.BatchNorm2d for module in teacher.batch_norms.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_images_give_the_same_bytes_in_a_process_of_their_own(precision):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import torch, test_statistics; torch.set_num_threads(int(sys.argv[3]))\n"
        "print(test_statistics.digest_of_two_calls(sys.argv[2]))"
    )
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", script, folder, precision, str(torch.get_num_threads())]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert fresh == digest_of_two_calls(precision)


def digest_of_two_calls(precision) -> str:
    observed = ObservedTeacher(lively_teacher("resnet"), precision)
    first, second = (loss_and_gradient(observed, noise(16, 3, 32, 32)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    return hashlib.sha256(first[1].numpy().tobytes() + first[0].numpy().tobytes()).hexdigest()


def test_steps_leave_no_tensor_behind():
    observed = ObservedTeacher(lively_teacher("densenet"), "bfloat16")

    def tensors_after_a_step() -> int:
        loss_and_gradient(observed, noise(2, 3, 32, 32))
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    tensors_after_a_step()
    # What other tests left in cycles must neither be counted nor vanish between two counts.
    gc.collect()
    gc.disable()
    try:
        assert len({tensors_after_a_step() for _ in range(4)}) == 1
    finally:
        gc.enable()


def test_no_value_is_read_back_from_the_device():
    """On the meta device there are no values: a step that asked for one, and so waited for the device, would fail."""
    teacher = lively_teacher("mobilenet").to(torch.device("meta"))
    images = torch.empty(2, 3, 32, 32, device="meta", requires_grad=True)
    logits, statistics = ObservedTeacher(teacher, "float32")(images)
    (gradient,) = torch.autograd.grad(logits.sum() + sum(s.batch_var.sum() for s in statistics), images)
    assert gradient.shape == images.shape


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_where_the_hardware_has_it_and_says_so(native, dtype, monkeypatch, caplog):
    monkeypatch.setattr(precisions, "_computes_bfloat16", lambda _device: native)
    with caplog.at_level(logging.INFO):
        assert ObservedTeacher(lively_teacher("reused")).dtype is dtype
    assert f"on cpu in {dtype}" in caplog.text
