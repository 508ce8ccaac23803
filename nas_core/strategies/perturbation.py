"""Perturbation of the gates while the network's weights learn (SDARTS): a sharp minimum in alpha does not survive it.

The mixture of each slot (a point of the simplex) is moved, not the logits; architecture weights learn at the clean
mixture.

Source: Chen and Hsieh, "Stabilizing Differentiable Architecture Search via Perturbation-based Regularization",
arXiv:2002.05283, sections 4.1 (random) and 4.2 (adversarial), and their reference code.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nas_core.settings.differentiable import Perturbation

# One vector of operation weights per slot.
Mixture = Sequence[Tensor]


def project(weights: Float[Tensor, " operations"]) -> Float[Tensor, " operations"]:
    """Onto the simplex: cut to [0, 1] and divide by the sum; where nothing is left, all on the largest weight."""
    cut = weights.clamp(0, 1)
    alone = torch.nn.functional.one_hot(weights.argmax(), len(weights)).to(weights.dtype)
    # Below the smallest normal number a quotient is no longer exact.
    tiny = torch.finfo(cut.dtype).tiny
    return torch.where(cut.sum() >= tiny, cut / cut.sum().clamp(min=tiny), alone)


def random_offset(mixture: Mixture, epsilon: float, generator: torch.Generator) -> list[Tensor]:
    """Independent draws from U(-epsilon, epsilon), shaped like the mixture."""
    return [
        (epsilon * (2 * torch.rand(weights.shape, generator=generator) - 1)).to(weights.device) for weights in mixture
    ]


def random_mixture(mixture: Mixture, epsilon: float, generator: torch.Generator) -> list[Tensor]:
    """SDARTS-RS: the mixture plus a random offset, projected."""
    offsets = random_offset(mixture, epsilon, generator)
    return [project(weights + offset) for weights, offset in zip(mixture, offsets, strict=True)]


def adversarial_mixture(
    mixture: Mixture, epsilon: float, steps: int, loss: Callable[[Mixture], Tensor], generator: torch.Generator
) -> list[Tensor]:
    """SDARTS-ADV: from a random start, steps along the sign of the gradient, up the loss.

    Each step moves by 2 epsilon / steps, cuts the offset to [-epsilon, epsilon] and projects; projecting may leave
    the box a little, as in the reference code.

    Args:
        mixture: The clean weights.
        epsilon: Half the side of the box.
        steps: How many steps.
        loss: The loss of a mixture, the same function throughout.
        generator: Draws the start.

    Returns:
        The mixture found, or the clean one if its loss is the larger.
    """
    moved = random_mixture(mixture, epsilon, generator)
    for _ in range(steps):
        points = [weights.detach().requires_grad_() for weights in moved]
        gradients = torch.autograd.grad(loss(points), points, materialize_grads=True)
        moved = [
            project(clean + (point.detach() + 2 * epsilon / steps * slope.sign() - clean).clamp(-epsilon, epsilon))
            for clean, point, slope in zip(mixture, points, gradients, strict=True)
        ]
    with torch.no_grad():
        worse = bool(loss(moved) >= loss(mixture))
    return moved if worse else list(mixture)


def perturbed(
    mixture: Mixture,
    perturbation: Perturbation,
    epsilon: float,
    loss: Callable[[Mixture], Tensor],
    generator: torch.Generator,
) -> list[Tensor]:
    """The mixture that the weights learn at.

    Args:
        mixture: Clean weights per slot, without a graph.
        perturbation: Which kind, and in how many steps.
        epsilon: Half the side of the box.
        loss: The training loss of a mixture; asked by the adversarial perturbation only.
        generator: Source of all draws.
    """
    if perturbation.kind == "random":
        return random_mixture(mixture, epsilon, generator)
    if perturbation.kind == "adversarial":
        return adversarial_mixture(mixture, epsilon, perturbation.steps, loss, generator)
    return list(mixture)
