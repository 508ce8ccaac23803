"""A teacher that also reports the statistics of what enters its BatchNorm layers."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_core.teachers.teacher import Teacher


@dataclass(frozen=True)
class LayerStatistics:
    """What entered one BatchNorm layer in one call, beside what the layer remembers of its training.

    Attributes:
        batch_mean: Mean over batch, height and width, with a gradient to the images.
        batch_var: Biased variance of the same, with a gradient to the images.
        running_mean: The layer's stored mean.
        running_var: The layer's stored variance.
    """

    batch_mean: Float[Tensor, " channels"]
    batch_var: Float[Tensor, " channels"]
    running_mean: Float[Tensor, " channels"]
    running_var: Float[Tensor, " channels"]


class ObservedTeacher:
    """A teacher whose call returns the logits and the statistics of every BatchNorm call, in order of execution.

    Works on a copy of the module. A layer that is used twice reports twice.

    Args:
        teacher: The frozen teacher; its copy stays on the same device.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._records: list[LayerStatistics] = []
        self._module = copy.deepcopy(teacher.module)
        for parent in list(self._module.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.BatchNorm2d:
                    setattr(parent, name, _ObservedBatchNorm(child, self._records))
                elif isinstance(child, nn.BatchNorm2d):
                    # A subclass may do more than normalise (timm fuses the activation), so it runs as it is.
                    child.register_forward_pre_hook(self._observe)

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch classes"], list[LayerStatistics]]:
        """Logits and statistics of normalised images, both differentiable with respect to `x`."""
        self._records.clear()
        logits = self._module(x)
        records = list(self._records)
        self._records.clear()
        return logits, records

    def _observe(self, layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
        self._records.append(_beside_running(layer, mean, var))


def _beside_running(layer: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> LayerStatistics:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return LayerStatistics(mean, var, layer.running_mean, layer.running_var)


class _ObservedBatchNorm(nn.Module):
    """An eval-mode BatchNorm layer as one affine map that also records the statistics of its input."""

    def __init__(self, layer: nn.BatchNorm2d, records: list[LayerStatistics]) -> None:
        super().__init__()
        self.layer = layer
        self._records = records
        assert layer.running_var is not None
        scale = torch.rsqrt(layer.running_var + layer.eps)
        scale = scale if layer.weight is None else scale * layer.weight
        assert layer.running_mean is not None
        shift = -layer.running_mean * scale
        self.register_buffer("scale", scale.reshape(1, -1, 1, 1))
        self.register_buffer("shift", (shift if layer.bias is None else shift + layer.bias).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        output, mean, var = _AffineWithStatistics.apply(x, self.scale, self.shift)
        self._records.append(_beside_running(self.layer, mean, var))
        return output


class _AffineWithStatistics(torch.autograd.Function):
    """x * scale + shift, with the channel mean and biased variance of x in float32.

    One function instead of three graph nodes: it saves only `x`, and its backward is one affine expression of the
    incoming gradient and `x`:  dx = dy * scale + d_mean / n + 2 d_var (x - mean) / n,  n values per channel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        ctx.save_for_backward(x, scale, mean)
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype)), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        d_output, d_mean, d_var = gradients
        x, scale, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = d_var * (2 / count)
        offset = d_mean / count - slope * mean
        shape = (1, -1, 1, 1)
        gradient = torch.addcmul(offset.reshape(shape).to(x.dtype), x, slope.reshape(shape).to(x.dtype))
        return gradient.addcmul_(d_output, scale.to(x.dtype)), None, None
