"""How networks are judged: by their loss on the validation images, under BatchNorm statistics of their own."""

import itertools

import torch
from torch import Tensor, nn

from nas_core.ops.batch_norm import recalibrate
from nas_core.ops.mixed import Gates
from nas_core.seeding import generator
from nas_core.strategies.base import SearchTask
from nas_core.strategies.candidates import negative_loss


class Rating:
    """Scores networks, and supernets under gates; all on the same images.

    Args:
        task: The data and the loss.
        recalibration_batches: Training batches for the BatchNorm statistics, of several epochs if one has fewer.
    """

    def __init__(self, task: SearchTask, recalibration_batches: int) -> None:
        draws = generator(task.seed, "search.recalibration")
        endless = itertools.chain.from_iterable(task.train.epoch(draws) for _ in itertools.count())
        self._recalibration = [batch.images for batch in itertools.islice(endless, recalibration_batches)]
        self._validation = task.rating_batches()
        self._objective = task.objective

    @torch.no_grad()
    def __call__(self, network: nn.Module, *gates: Gates) -> float:
        """The score; higher is better.

        Args:
            network: Its running statistics become those that the score is under, and it is left in eval mode.
            gates: Those of a supernet; nothing for a network that stands alone.
        """

        def forward(images: Tensor) -> Tensor:
            return network(images, *gates)

        recalibrate(network, forward, self._recalibration)
        return negative_loss(forward, self._validation, self._objective)
