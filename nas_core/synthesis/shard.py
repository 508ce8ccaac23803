"""What one synthesis shard-round takes and gives, whichever engine makes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from nas_core.errors import InputError

# Enough for a smooth curve, few enough not to weigh beside the images.
RECORDS_PER_SHARD = 50


@dataclass(frozen=True)
class ShardImages:
    """One batch of synthetic images of one round, on the CPU.

    Attributes:
        canvases: The images.
        targets: The class probabilities that they were optimised for; rows sum to 1.
        soft_labels: The teacher's soft predictions at the end, the next round's targets; rows sum to 1.
        losses: Cross-entropy between target and teacher of each image at the end, in nats, at the temperature of the
            targets: 1 in round 0, that of the labels afterwards.
        history: Records of the optimisation: {"step", "total", "classification", "batch_norm", ...}.

    Raises:
        InputError: If the optimisation diverged: losses or labels that are no finite numbers are nobody's images.
    """

    canvases: UInt8[Tensor, "batch channels canvas_height canvas_width"]
    targets: Float[Tensor, "batch classes"]
    soft_labels: Float[Tensor, "batch classes"]
    losses: Float[Tensor, " batch"]
    history: list[dict[str, Any]]

    def __post_init__(self) -> None:
        """Refuse what diverged."""
        refuse_divergence(self.losses, self.soft_labels)


def refuse_divergence(*figures: Tensor) -> None:
    """Raise InputError if one of these is no finite number."""
    if not all(figure.isfinite().all() for figure in figures):
        raise InputError(
            "synthesis diverged: its losses are no longer finite numbers; lower the learning_rate of synthesis.engine "
            "(of its refinement, if that came last), and check the weights of the teacher"
        )


def history(records: Sequence[tuple[int, dict[str, Tensor]]]) -> list[dict[str, Any]]:
    """Records of (step, loss terms) as plain numbers, read from the device only now."""
    return [{"step": step} | {name: float(value) for name, value in terms.items()} for step, terms in records]
