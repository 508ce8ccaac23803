"""When differentiable search ends: after its epochs, or when the validation loss becomes too curved in alpha.

Source: DARTS-ES of Zela et al., "Understanding and Robustifying Differentiable Architecture Search",
arXiv:1909.09656, section 4.3, with the constants of their reference code.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from nas_core.registry import Spec


class Stopping(Spec):
    """Whether the search may end before its last epoch."""

    rule: Literal["epochs", "hessian"] = Field(
        default="epochs",
        description="epochs: never; hessian: when the largest eigenvalue has grown by `ratio`, going back to before",
    )
    window: int = Field(default=5, ge=1, description="evaluations in the moving average of the largest eigenvalue; odd")
    ratio: float = Field(default=1.3, gt=1, description="growth of the moving average at which the search ends")
    lookback: int = Field(
        default=4, ge=1, description="evaluations between the two averages; the result is that of the earlier one"
    )
    earliest: int = Field(default=10, ge=0, description="first epoch, counted from 0, whose result may be returned")

    @model_validator(mode="after")
    def _window_has_a_middle(self) -> "Stopping":
        if self.window % 2 == 0:
            raise ValueError(f"window = {self.window} must be odd, so that the moving average belongs to an epoch")
        return self

    def stop_epoch(self, epochs: Sequence[int], eigenvalues: Sequence[float]) -> int | None:
        """The epoch to go back to, if the search should end now.

        The moving average exists from (window + 1) / 2 evaluations on, is the mean of all until there are `window`,
        and belongs to the evaluation (window - 1) / 2 before its last one.

        Args:
            epochs: When the eigenvalues were computed, equally spaced; the search's last epoch is not among them.
            eigenvalues: The largest eigenvalue at the end of each.

        Returns:
            One of `epochs`, or None if the search goes on.
        """
        half = self.window // 2
        earlier = len(eigenvalues) - 1 - half - self.lookback
        if earlier < 0 or epochs[earlier] < self.earliest:
            return None
        previous = _mean_of_last(eigenvalues[: len(eigenvalues) - self.lookback], self.window)
        # A loss that was not curved upwards has no growth to speak of.
        grown = previous > 0 and _mean_of_last(eigenvalues, self.window) > self.ratio * previous
        return epochs[earlier] if grown else None


def _mean_of_last(values: Sequence[float], count: int) -> float:
    last = values[-count:]
    return sum(last) / len(last)
