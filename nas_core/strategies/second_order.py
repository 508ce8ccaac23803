"""The gradient of architecture weights through one step of the network's weights.

Source: DARTS, arXiv:1806.09055, eqs. 7 and 8, and its reference code for weight decay and (plain) momentum.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Size of the finite-difference step: weights move by this over the norm of the direction.
FINITE_DIFFERENCE = 0.01

# A loss at the present values of all weights, with a graph to them.
Loss = Callable[[], Tensor]


def second_order_gradient(
    training_loss: Loss, validation_loss: Loss, optimiser: torch.optim.SGD, alphas: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The validation loss after one step of the weights on the training loss, and its gradient for alpha.

    The mixed second derivative times a vector is a central difference of two gradients for alpha.

    Args:
        training_loss: What the step follows.
        validation_loss: What alpha is to lower.
        optimiser: The weights' optimiser; its learning rate xi (one for all weights), weight decay and momentum
            buffers decide the step w' = w - xi v, v = momentum x buffer + gradient + weight decay x w, which
            Nesterov momentum replaces by gradient + weight decay x w + momentum x v. Its weights end as they were.
        alphas: The architecture weights.

    Returns:
        The loss, and one gradient per architecture weight:
        d L_val(w', alpha) - xi [d L_train(w+, alpha) - d L_train(w-, alpha)] / 2R, with w+- = w +- R d L_val / d w';
        with Nesterov momentum xi (1 + momentum) in the place of xi, because the step takes so much of the gradient.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    group = optimiser.param_groups[0]
    share = group["lr"] * (1 + group["momentum"] if group["nesterov"] else 1)
    before = [weight.detach().clone() for weight in weights]
    gradients = torch.autograd.grad(training_loss(), weights, allow_unused=True)
    _move(weights, before, _sgd_steps(optimiser, gradients), scale=-1.0)
    loss = validation_loss()
    found = torch.autograd.grad(loss, [*alphas, *weights], materialize_grads=True)
    result, slopes = found[: len(alphas)], found[len(alphas) :]
    norm = torch.stack([slope.norm() for slope in slopes]).norm()
    # Where the loss is flat in the weights, alpha has no effect through them.
    if norm > 0:
        radius = FINITE_DIFFERENCE / float(norm)
        for sign in (1, -1):
            _move(weights, before, slopes, scale=sign * radius)
            sides = torch.autograd.grad(training_loss(), alphas, materialize_grads=True)
            result = [
                gradient - sign * share / (2 * radius) * side for gradient, side in zip(result, sides, strict=True)
            ]
    _move(weights, before, [None] * len(weights), scale=0.0)
    return loss.detach(), list(result)


def _sgd_steps(optimiser: torch.optim.SGD, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """What each weight would lose in a step, see `second_order_gradient`."""
    steps: list[Tensor | None] = []
    remaining = iter(gradients)
    for group in optimiser.param_groups:
        for weight in group["params"]:
            gradient = next(remaining)
            if gradient is None:
                # The optimiser leaves a weight without a gradient alone.
                steps.append(None)
                continue
            step = velocity = gradient + group["weight_decay"] * weight.detach()
            # Per weight: one that had no gradient so far has no buffer.
            buffer = optimiser.state.get(weight, {}).get("momentum_buffer")
            if buffer is not None:
                velocity = velocity + group["momentum"] * buffer
            steps.append(group["lr"] * (step + group["momentum"] * velocity if group["nesterov"] else velocity))
    return steps


@torch.no_grad()
def _move(
    weights: Sequence[Tensor], origin: Sequence[Tensor], direction: Sequence[Tensor | None], scale: float
) -> None:
    """Set each weight to its origin plus scale x direction."""
    for weight, start, along in zip(weights, origin, direction, strict=True):
        weight.copy_(start if along is None else start + scale * along)
