"""A teacher that also reports the statistics of what enters its BatchNorm layers.

Synthesis spends its time here, in one forward pass and one gradient to the images per step. Three choices make a
step with statistics cost little more than the bare network: convolutions in bfloat16 where the machine has it in
hardware, channels-last activations, and one autograd function per BatchNorm layer instead of a hook. Uncompiled, a
first step costs what the others do. Numbers: docs/results/synthesis-speed.md.
"""

import copy
import functools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_core.precision import mixed_precision, resolve_precision
from nas_core.settings.precision import Precision
from nas_core.synthesis.losses import statistics_size
from nas_core.teachers.teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerStatistics:
    """What entered one BatchNorm layer in one call, beside what the layer remembers of its training.

    Attributes:
        batch_mean: Mean over batch, height and width, with a gradient to the images.
        batch_var: Biased variance of the same, with a gradient to the images.
        running_mean: The layer's stored mean.
        running_var: The layer's stored variance.
        size: The `statistics_size` of these two, which no step changes.
    """

    batch_mean: Float[Tensor, " channels"]
    batch_var: Float[Tensor, " channels"]
    running_mean: Float[Tensor, " channels"]
    running_var: Float[Tensor, " channels"]
    size: Float[Tensor, ""]


class ObservedTeacher:
    """A teacher whose call returns the logits and the statistics of every BatchNorm call, in order of execution.

    Works on a copy of the module. A layer that is used twice reports twice; one without running statistics does not
    report. Images, logits and statistics are float32 whatever the precision inside. The same images give the same
    bytes on the same machine with the same number of threads.

    Args:
        teacher: The frozen teacher; its copy stays on the same device.
        precision: Arithmetic of the layers and of what they exchange; what "auto" chose is logged.
        compile: Whether the caller compiles it, for the log.

    Attributes:
        dtype: That arithmetic, as resolved for this machine.
    """

    def __init__(self, teacher: Teacher, precision: Precision = "auto", *, compile: bool = False) -> None:  # noqa: A002
        self.dtype = resolve_precision(precision, teacher.device)
        how = "compiled" if compile else "uncompiled"
        logger.info("teacher runs on %s in %s, channels-last, %s", teacher.device, self.dtype, how)
        self._records: list[LayerStatistics] = []
        self._device = teacher.device
        self._module = copy.deepcopy(teacher.module).to(memory_format=torch.channels_last)
        observed: dict[nn.Module, _ObservedBatchNorm] = {}
        for module in self._module.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
                continue  # nothing to compare its input with
            if type(module) is nn.BatchNorm2d:
                observed[module] = _ObservedBatchNorm(module, self._records)
            elif isinstance(module, nn.BatchNorm2d):
                # A subclass may do more than normalise (timm fuses the activation), so it runs as it is.
                module.register_forward_pre_hook(functools.partial(self._observe, _size(module)))
            elif type(module) in (nn.Conv2d, nn.Linear):
                module.to(self.dtype)  # autocast would do it again at every step
        # Every place of a layer that has several.
        for name, module in list(self._module.named_modules(remove_duplicate=False)):
            if module in observed:
                self._module.set_submodule(name, observed[module])

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch classes"], list[LayerStatistics]]:
        """Logits and statistics of normalised images, both differentiable with respect to `x`."""
        self._records.clear()
        with mixed_precision(self.dtype, self._device):
            logits = self._module(x.to(self.dtype, memory_format=torch.channels_last))
        records = list(self._records)
        self._records.clear()
        return logits.float(), records

    def _observe(self, size: Tensor, layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert layer.running_mean is not None
        identity = torch.ones_like(layer.running_mean), torch.zeros_like(layer.running_mean)
        same, mean, var = _AffineWithStatistics.apply(inputs[0], *identity)
        self._records.append(_beside_running(layer, mean, var, size))
        return (same, *inputs[1:])


def _size(layer: nn.BatchNorm2d) -> Tensor:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return statistics_size(layer.running_mean, layer.running_var)


def _beside_running(layer: nn.BatchNorm2d, mean: Tensor, var: Tensor, size: Tensor) -> LayerStatistics:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return LayerStatistics(mean, var, layer.running_mean, layer.running_var, size)


class _ObservedBatchNorm(nn.Module):
    """An eval-mode BatchNorm layer as one affine map that also records the statistics of its input."""

    def __init__(self, layer: nn.BatchNorm2d, records: list[LayerStatistics]) -> None:
        super().__init__()
        self.size: Tensor
        self.layer = layer
        self._records = records
        assert layer.running_var is not None
        scale = torch.rsqrt(layer.running_var + layer.eps)
        scale = scale if layer.weight is None else scale * layer.weight
        assert layer.running_mean is not None
        shift = -layer.running_mean * scale
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift if layer.bias is None else shift + layer.bias)
        self.register_buffer("size", _size(layer))

    def forward(self, x: Tensor) -> Tensor:
        output, mean, var = _AffineWithStatistics.apply(x, self.scale, self.shift)
        self._records.append(_beside_running(self.layer, mean, var, self.size))
        return output


class _AffineWithStatistics(torch.autograd.Function):
    """x * scale + shift, with the channel mean and biased variance of x in the precision of `scale`.

    One function instead of three graph nodes: it saves only `x`, and its backward is one affine expression of the
    incoming gradient and `x`:  dx = dy * scale + d_mean / n + 2 d_var (x - mean) / n,  n values per channel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        mean, var = channel_statistics(x, scale.dtype)
        ctx.save_for_backward(x, scale, mean)
        return _affine(x, scale, shift), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        d_output, d_mean, d_var = gradients
        x, scale, mean = ctx.saved_tensors
        batch, channels, height, width = x.shape
        count = batch * height * width
        slope = d_var * (2 / count)
        gradient = _affine(x, slope, d_mean / count - slope * mean)
        # As rows of width * channels values: to broadcast over 16 channels alone takes twice the time.
        rows = gradient.permute(0, 2, 3, 1).view(batch * height, width * channels)
        wide_scale = scale.to(x.dtype).expand(width, channels).reshape(-1)
        rows.addcmul_(d_output.permute(0, 2, 3, 1).reshape_as(rows), wide_scale)
        return gradient, None, None


def channel_statistics(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, summed in `dtype`."""
    if x.device.type != "cpu":
        var, mean = torch.var_mean(x.to(dtype), dim=(0, 2, 3), correction=0)
        return mean, var
    # What BatchNorm itself runs in training: two passes, no copy. `torch.var_mean` over these dimensions of a
    # channels-last tensor is some fifty times slower on a CPU. All that the buffer does is fix the sums' precision.
    unused = torch.empty(x.shape[1], dtype=dtype)
    return torch.batch_norm_update_stats(x, unused, unused, 0.0)


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Per channel, x * scale + shift, rounded once to the precision of `x`.

    As a BatchNorm of mean 0 and variance 1: the one kernel that applies float32 factors to bfloat16 values.
    """
    mean, var = torch.zeros_like(scale), torch.ones_like(scale)
    return torch.native_batch_norm(x, scale, shift, mean, var, False, 0.0, 0.0)[0]
