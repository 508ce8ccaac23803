"""What a supernet loses at random while it learns: whole edges, identity skips, and squares of the images.

Drops are hooks on the supernet's mixed operations, so that no space needs to know of them.

Source: drop-path and cutout in the search, R-DARTS, arXiv:1909.09656, section 5.1; dropout of skips, P-DARTS,
arXiv:1904.12760, section 3.3.
"""

from typing import Any

import torch
from torch import Tensor, nn

from nas_core.ops.mixed import MixedOperation


class Drops:
    """Random losses inside a supernet, in train mode and only while they are switched on.

    Args:
        supernet: Gets a hook on every mixed operation and on every identity among its candidates.
    """

    def __init__(self, supernet: nn.Module) -> None:
        self.off()
        for module in supernet.modules():
            if isinstance(module, MixedOperation):
                module.register_forward_hook(self._drop_path)
                for operation in module.operations:
                    if isinstance(operation, nn.Identity):
                        operation.register_forward_hook(self._drop_skip)

    def on(self, generator: torch.Generator, path: float, skip: float) -> None:
        """Switch on.

        Args:
            generator: Source of the draws; one that starts anew gives all passes of a step the same losses.
            path: Chance of an image to lose an edge, in [0, 1).
            skip: Chance of each value of an identity skip to be lost, in [0, 1).
        """
        self._generator, self._path, self._skip = generator, path, skip

    def off(self) -> None:
        """Switch off."""
        self._path = self._skip = 0.0

    def _drop_path(self, module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return self._dropped(output, (len(output), 1, 1, 1), self._path) if module.training and self._path else None

    def _drop_skip(self, module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return self._dropped(output, tuple(output.shape), self._skip) if module.training and self._skip else None

    def _dropped(self, x: Tensor, shape: tuple[int, ...], chance: float) -> Tensor:
        """Zeros with a chance, the rest scaled so that the mean stays."""
        kept = torch.rand(shape, generator=self._generator) >= chance
        return x * (kept.to(x) / (1 - chance))
