"""BatchNorm in supernets: running statistics for one path, leading channels, and gates as scales."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_core.ops.stochastic import reseed
from nas_core.seeding import generator


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """All BatchNorm layers of a network."""
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def unscaled_batch_norm(
    x: Float[Tensor, "batch channels height width"], norm: nn.BatchNorm2d, weight: Float[Tensor, ""] | None = None
) -> Float[Tensor, "batch channels height width"]:
    """BatchNorm without scale and shift, by a layer's running statistics, which it updates in training.

    Args:
        x: As many channels as the layer has, or fewer: then the leading ones of the layer are meant.
        norm: The layer; it must not have a scale and a shift of its own.
        weight: What the output is multiplied by; unlike a product, it costs nothing.
    """
    assert not norm.affine
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    channels = x.shape[1]
    # Copied out, because the kernels read one number per channel from memory.
    scale = None if weight is None else weight.to(norm.running_var.dtype).repeat(channels)
    return functional.batch_norm(
        x,
        norm.running_mean[:channels],
        norm.running_var[:channels],
        weight=scale,
        training=norm.training,
        momentum=norm.momentum,
        eps=norm.eps,
    )


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Forward passes inside leave no trace in the buffers of a network, whatever its mode."""
    kept = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(module.buffers(), kept, strict=True):
            buffer.copy_(value)


@torch.no_grad()
def recalibrate(
    module: nn.Module,
    forward: Callable[[Tensor], Tensor],
    batches: Iterable[Float[Tensor, "batch channels height width"]],
) -> None:
    """Replace the running statistics by the plain average over some batches, and leave the network in eval mode.

    Statistics gathered while many paths shared the weights fit none of them, so a path's score means nothing before
    this. A plain average, unlike a moving one, needs few batches and keeps nothing of the initial values.

    Args:
        module: The network whose BatchNorm layers are meant.
        forward: Runs the network the way it will be judged, such as one path of a supernet.
        batches: Normalised images; batches of equal size.

    Source:
        Single Path One-Shot NAS, arXiv:1904.00420, section 3.4 ("Inference").
    """
    norms = batch_norms(module)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    module.train()
    # What random layers draw must not depend on what ran before.
    reseed(module, generator(0, "recalibration"))
    for position, images in enumerate(batches, start=1):
        for norm in norms:
            # Same as momentum None, which would read its step counter back from the device at every layer.
            norm.momentum = 1 / position
        forward(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()
