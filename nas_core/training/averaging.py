"""A moving average of a network's weights, which predicts better than the last of them."""

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage:
    """Exponential moving average of all weights and running statistics of a network.

    Args:
        network: Whose; not changed.
        decay: Share of the average that one step keeps, in (0, 1). It is smaller in the first steps, min(decay,
            (1 + n) / (10 + n)) after n of them, so that a short training does not end near its initial weights.

    Source:
        The exponential moving average of MobileNetV3, arXiv:1905.02244, section 6.1.1, with TensorFlow's warm-up.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        def average(averaged: Any, current: Any, count: Tensor | int) -> None:
            done = int(count)
            get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averaged, current, count)

        self._average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    def update(self, network: nn.Module) -> None:
        """Take the weights in after a step."""
        self._average.update_parameters(network)

    def copy_to(self, network: nn.Module) -> None:
        """Give a network the averages as its weights."""
        network.load_state_dict(self._average.module.state_dict())

    def state(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return self._average.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Take up a `state`."""
        self._average.load_state_dict(state)
