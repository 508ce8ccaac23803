"""Training-free scores of networks: what an architecture promises at initialisation, from one batch and no training.

Each score takes a network with fresh weights and the images (and teacher's logits) that it would learn from; a higher
score is better. What a network cannot be scored on (no gradient reaches a layer, all features are zero) scores minus
infinity. Scores of one kind can be compared within a space, not across spaces. Many scores mostly count operations, and
none should be believed that does not beat counting.

Sources: naswot: Mellor et al., arXiv:2006.04647v3; synflow: Tanaka et al., arXiv:2006.05467, as a score of
architectures: Abdelfattah et al., arXiv:2101.08134; ZiCo: Li et al., arXiv:2301.11300; expressivity, progressivity
and trainability: AZ-NAS, Lee and Ham, arXiv:2403.19232.
"""

import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from nas_core.settings.strategies import Score
from nas_core.training.batches import Batch

WORST = -math.inf
# Of ratios and logarithms; far below what they are compared with.
EPSILON = 1e-8


def naswot(network: nn.Module, images: Float[Tensor, "batch channels height width"]) -> float:
    """How differently the images switch the network's ReLUs: log |det K|, with K summed over the ReLUs.

    K[i, j] counts the units on which images i and j agree, active or not.

    Args:
        network: Runs in train mode, so that BatchNorm uses the batch's own statistics.
        images: Normalised images, >= 2.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        active = (output > 0).flatten(1).float()
        kernel.add_((active @ active.T + (1 - active) @ (1 - active).T).double())

    with torch.no_grad(), hooked([part for part in network.modules() if isinstance(part, nn.ReLU | nn.ReLU6)], count):
        network.train()(images)
    sign, log_determinant = torch.linalg.slogdet(kernel)
    return float(log_determinant) if sign != 0 else WORST


def synflow(network: nn.Module, images: Float[Tensor, "batch channels height width"]) -> float:
    """Saliency of all weights for a signal that no data shapes: log of the sum of |weight x gradient|.

    A copy of the network has absolute weights in float64, no BatchNorm, ReLU in place of ReLU6, and an image of ones.
    Its signal only grows: above 6 a ReLU6 would pass no gradient, and all networks would score the same.

    Args:
        network: Any network; it is not changed.
        images: Only their shape counts.
    """
    linear = copy.deepcopy(network).double().eval()
    for part in linear.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, nn.Identity())
            elif isinstance(child, nn.ReLU6):
                setattr(part, name, nn.ReLU())
    weights = list(linear.parameters())
    for weight in weights:
        weight.detach_().abs_().requires_grad_()
    ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
    gradients = torch.autograd.grad(linear(ones).sum(), weights, allow_unused=True)
    saliency = [(w * g).abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None]
    return _finite(torch.stack(saliency).sum().log().item())


def zico(
    network: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    teacher_logits: Float[Tensor, "batch classes"],
) -> float:
    """How large and how steady gradients are: sum over layers of log sum |mean| / std of each weight's gradient.

    The gradients are those of the cross-entropy to the teacher's soft labels, on the two halves of the batch.

    Args:
        network: Runs in train mode.
        images: Normalised images, >= 4.
        teacher_logits: The teacher's logits for them.
    """
    layers = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    network.train()
    halves = []
    for half, logits in zip(images.chunk(2), teacher_logits.chunk(2), strict=True):
        loss = F.cross_entropy(network(half), logits.softmax(dim=1))
        halves.append(torch.autograd.grad(loss, layers, allow_unused=True))
    total = 0.0
    for first, second in zip(*halves, strict=True):
        if first is None or second is None:
            continue
        mean, deviation = (first.abs() + second.abs()) / 2, (first - second).abs() / 2
        moving = deviation > 0
        if moving.any():
            total += math.log(float((mean[moving] / deviation[moving]).sum()) + EPSILON)
    return _finite(total) if total else WORST


@dataclass(frozen=True)
class Features:
    """What the blocks of a network hand on, each still in one graph.

    Attributes:
        outputs: Feature maps of the blocks, in order.
    """

    outputs: tuple[Float[Tensor, "batch _channels _height _width"], ...]

    @classmethod
    def of(cls, network: nn.Module, images: Float[Tensor, "batch channels height width"]) -> "Features":
        """Run a network in train mode and keep what its blocks return.

        The blocks (a space may call them cells) are the network's longest list of modules.
        """
        lists = [child for child in network.children() if isinstance(child, nn.ModuleList)]
        blocks = max(lists, key=len)
        outputs: list[Tensor] = []
        with hooked(blocks, lambda _module, _inputs, output: outputs.append(output)):
            network.train()(images)
        return cls(tuple(outputs))

    @functools.cached_property
    def entropies(self) -> list[float]:
        """Per block, the entropy of the normalised eigenvalues of its channels' covariance, in nats."""
        found = []
        for output in self.outputs:
            values = output.detach().movedim(1, -1).flatten(0, -2)
            eigenvalues = torch.linalg.eigvalsh(torch.cov(values.T, correction=0).reshape(values.shape[1], -1))
            shares = eigenvalues.clamp(min=0) / eigenvalues.clamp(min=0).sum()
            found.append(float(-(shares * (shares + EPSILON).log()).sum()))
        return found

    def expressivity(self) -> float:
        """Sum of the entropies: features that spread over all directions."""
        return _finite(sum(self.entropies))

    def progressivity(self) -> float:
        """The smallest gain of entropy from a block to the next; a network of one block has none to lose: 0."""
        gains = [after - before for before, after in itertools.pairwise(self.entropies)]
        return _finite(min(gains, default=0.0)) if all(map(math.isfinite, self.entropies)) else WORST

    def trainability(self, generator: torch.Generator) -> float:
        """How near the blocks' backward maps are to keeping the length of a gradient: mean of 2 - s - 1 / s, <= 0.

        s is the largest singular value of the cross-covariance between a random gradient of signs behind a block and
        what reaches the block before it.

        Args:
            generator: Source of the signs.
        """
        scores = []
        for before, after in itertools.pairwise(self.outputs):
            if not (before.requires_grad and after.requires_grad):
                return WORST
            signs = torch.randint(2, after.shape, generator=generator).to(after) * 2 - 1
            (gradient,) = torch.autograd.grad(after, before, signs, retain_graph=True, allow_unused=True)
            if gradient is None or (gradient.shape == signs.shape and torch.equal(gradient, signs)):
                return WORST
            gradient = _folded(gradient, signs.shape[2], signs.shape[3])
            incoming, outgoing = (tensor.movedim(1, -1).flatten(0, -2) for tensor in (gradient, signs))
            largest = torch.linalg.matrix_norm(incoming.T @ outgoing / len(outgoing), ord=2).item()
            scores.append(2 - largest - 1 / (largest + EPSILON))
        return _finite(sum(scores) / len(scores)) if scores else 0.0


def training_free_scores(
    network: nn.Module, batch: Batch, scores: Sequence[Score], generator: torch.Generator
) -> dict[str, float]:
    """Several scores of one network.

    Args:
        network: Freshly initialised, on the batch's device.
        batch: Images with the teacher's logits.
        scores: Which ones.
        generator: Source of random signs.
    """
    kinds: dict[str, Callable[[], float]] = {
        "naswot": lambda: naswot(network, batch.images),
        "synflow": lambda: synflow(network, batch.images),
        "zico": lambda: zico(network, batch.images, batch.teacher_logits),
    }
    if not set(scores) <= set(kinds):
        features = Features.of(network, batch.images)
        kinds |= {
            "expressivity": features.expressivity,
            "progressivity": features.progressivity,
            "trainability": lambda: features.trainability(generator),
        }
    return {name: kinds[name]() for name in scores}


@contextmanager
def hooked(
    modules: Sequence[nn.Module] | nn.ModuleList, hook: Callable[[nn.Module, object, Tensor], None]
) -> Iterator[None]:
    """Forward hooks for the time of a with block."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _folded(maps: Tensor, height: int, width: int) -> Tensor:
    """Feature maps at a lower resolution, what is too much in space moved to the channels."""
    factor = max(-(-maps.shape[2] // height), -(-maps.shape[3] // width))
    padded = F.pad(maps, (0, factor * width - maps.shape[3], 0, factor * height - maps.shape[2]))
    return F.pixel_unshuffle(padded, factor)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else WORST
