"""Shares of right answers: against labels (top-1) and against the teacher (agreement)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nas_core.training.batches import SyntheticBatches


@torch.no_grad()
def top1(
    network: nn.Module,
    batches: Iterable[tuple[Float[Tensor, "_ channels height width"], Int[Tensor, " _"]]],
) -> float:
    """Share of images whose largest logit is the label's.

    Args:
        network: Normalised images to logits, on the device of the batches; judged in eval mode and given back in
            the mode it came in.
        batches: Normalised images with class indices.

    Returns:
        The share over all images (not the mean over batches), in [0, 1].

    Raises:
        ValueError: Without any image.
    """
    right = images = 0
    with _eval_mode(network):
        for x, labels in batches:
            right += int((network(x).argmax(1) == labels).sum())
            images += len(labels)
    if not images:
        raise ValueError("top-1 of no images is undefined")
    return right / images


def agreement(network: nn.Module, batches: SyntheticBatches) -> float:
    """Share of synthetic images on which a network and the teacher name the same class.

    Both see the fixed central windows, so the figure needs no label and no real image.

    Args:
        network: Normalised images to logits, on the teacher's device.
        batches: The images; of use as a figure of merit if the network was not trained on them.

    Returns:
        The share, in [0, 1].
    """
    return top1(network, ((batch.images, batch.teacher_logits.argmax(1)) for batch in batches.fixed()))


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode within; then every module, not only the outermost, returns to its own mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
