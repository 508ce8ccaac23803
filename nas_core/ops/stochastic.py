"""Layers that draw random numbers, from generators that are handed to them and never from global state.

In training the loop gives all of a network's layers one generator per epoch (`reseed`), so that a resumed run draws
what an uninterrupted one does. In evaluation a network that has such layers starts its stream anew at every forward
pass (`SeededForward`), which makes it a function of its weights and its input.
"""

import functools
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_core.seeding import generator


class Stochastic(nn.Module):
    """A layer with random numbers of its own, from one stream in training and another in evaluation.

    Attributes:
        draws_in_evaluation: Whether it draws outside of training too.
    """

    draws_in_evaluation: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._streams = {mode: generator(0, "layers") for mode in (True, False)}

    @property
    def draws(self) -> torch.Generator:
        """Source of the numbers in the present mode, on the CPU; all layers of a network share it."""
        return self._streams[self.training]

    def draw_from(self, draws: torch.Generator) -> None:
        """Set the source of the present mode."""
        self._streams[self.training] = draws


def reseed(module: nn.Module, draws: torch.Generator) -> None:
    """Let all random layers of a network draw from one generator from now on, in the mode that it is in."""
    for part in module.modules():
        if isinstance(part, Stochastic):
            part.draw_from(draws)


class SeededForward(nn.Module):
    """Base of networks with layers that draw in evaluation too: each forward pass then sees the same numbers."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Forward; outside of training the stream of random numbers starts anew, if any layer reads it."""
        if not self.training and self._drawing_in_evaluation:
            draws = generator(0, "evaluation")
            for part in self._drawing_in_evaluation:
                part.draw_from(draws)
        return super().__call__(*args, **kwargs)

    @functools.cached_property
    def _drawing_in_evaluation(self) -> tuple[Stochastic, ...]:
        """The layers that do; looked for once, because forward passes are timed."""
        return tuple(part for part in self.modules() if isinstance(part, Stochastic) and part.draws_in_evaluation)


class Dropout(Stochastic):
    """Sets single values to zero in training and scales up the rest.

    Args:
        rate: Chance of each value to be dropped, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """In training x mask / (1 - rate), else x."""
        if not self.training or self.rate == 0:
            return x
        return x * (torch.rand(x.shape, generator=self.draws) >= self.rate).to(x) / (1 - self.rate)


class DropPath(Stochastic):
    """Drops the whole map of an image in training and scales up that of the others.

    Attributes:
        rate: Chance of each image to be dropped, in [0, 1); 0 until `set_drop_path`.

    Source:
        Larsson et al., FractalNet, arXiv:1605.07648, as used by DARTS, arXiv:1806.09055.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """In training x mask / (1 - rate) with one mask value per image, else x."""
        if not self.training or self.rate == 0:
            return x
        mask = torch.rand(len(x), 1, 1, 1, generator=self.draws) >= self.rate
        return x * mask.to(x) / (1 - self.rate)


def set_drop_path(module: nn.Module, rate: float) -> None:
    """Set the rate, in [0, 1), of every `DropPath` of a network."""
    for part in module.modules():
        if isinstance(part, DropPath):
            part.rate = rate


class Noise(Stochastic):
    """Standard normal noise in place of the input: an operation that no sane search may choose.

    Args:
        stride: Step in pixels by which the map shrinks.

    Source:
        Zela et al., "Understanding and Robustifying Differentiable Architecture Search", arXiv:1909.09656, space S4.
    """

    draws_in_evaluation = True

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """N(0, 1) of the strided shape, in training and in evaluation."""
        shape = x[:, :, :: self.stride, :: self.stride].shape
        return torch.randn(shape, generator=self.draws).to(x)
