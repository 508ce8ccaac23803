"""What one synthesis shard-round takes and gives, whichever engine makes it."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class ShardImages:
    """One batch of synthetic images of one round, on the CPU.

    Attributes:
        canvases: The images.
        targets: The class probabilities that they were optimised for; rows sum to 1.
        soft_labels: The teacher's soft predictions at the end, the next round's targets; rows sum to 1.
        losses: Cross-entropy between target and teacher of each image at the end, in nats.
        history: Records of the optimisation: {"step", "total", "classification", "batch_norm", ...}.
    """

    canvases: UInt8[Tensor, "batch channels canvas_height canvas_width"]
    targets: Float[Tensor, "batch classes"]
    soft_labels: Float[Tensor, "batch classes"]
    losses: Float[Tensor, " batch"]
    history: list[dict[str, Any]]
