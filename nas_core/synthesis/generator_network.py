"""The network that draws canvases: from latent vectors and class probabilities to images in the valid range."""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from nas_core.ops.initialisation import initialise

# The shorter side that a generator starts from is as near above this as halving the canvas, at least once, allows.
SMALLEST_START = 8
# The name of the layer that lays out what the others paint.
FIRST_LAYER = "project"
# Where early layers stop growing wider; the image of a large canvas passes through the widest ones at small size.
WIDEST = 4


class ImageGenerator(nn.Module):
    """Upsampling and convolutions, each with BatchNorm and LeakyReLU 0.2; a sigmoid keeps pixels in the valid range.

    Soft targets need no other input than hard ones: the class code is linear in the probabilities. BatchNorm always
    uses the batch's own statistics (the network is called in train mode), so an image depends on its batch.

    Args:
        canvas: (channels, height, width) of the canvases.
        num_classes: Length of a target.
        latent: Length of a latent vector.
        width: Channels at full resolution are half of this, at half resolution this; they double once more below.

    Source:
        The generator of DAFL, CMI and FastDFKD (arXiv:2112.06253), made class-conditional.
    """

    def __init__(self, canvas: tuple[int, int, int], num_classes: int, latent: int, width: int) -> None:
        super().__init__()
        channels, height, number = canvas[0], min(canvas[1:]), 1
        number = max(1, int(math.log2(height / SMALLEST_START))) if height >= SMALLEST_START else 1
        # Channels from the start to full resolution: ..., 2 width, 2 width, width, width / 2.
        widths = [max(1, min(width * 2**level // 2, WIDEST * width // 2)) for level in reversed(range(number + 1))]
        self.canvas_size = canvas[1:]
        self.start = (widths[0], *(-(-side // 2**number) for side in self.canvas_size))
        self.class_code = nn.Linear(num_classes, latent, bias=False)
        self.project = nn.Linear(latent, math.prod(self.start))
        self.first_norm = nn.BatchNorm2d(widths[0])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for after in widths[1:])
        self.paint = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew; the class code starts as large for a thousand classes as for ten.

        A linear layer's weights shrink with the root of the number of its inputs, of which a class is a single one.
        """
        initialise(self, generator)
        self.class_code.weight.mul_(math.sqrt(self.class_code.in_features / 10))

    def forward(
        self, latents: Float[Tensor, "batch latent"], targets: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, "batch channels canvas_height canvas_width"]:
        """Pixels in [0, 1], in float32 whatever the precision inside."""
        x = self.project(latents + self.class_code(targets)).view(-1, *self.start)
        x = self.first_norm(x.contiguous(memory_format=torch.channels_last))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(F.interpolate(x, scale_factor=2))), 0.2)
        height, width = self.canvas_size
        return self.paint(x)[:, :, :height, :width].float().sigmoid()


def kept_tensors(network: ImageGenerator, adapted: bool) -> dict[str, Tensor]:
    """What a snapshot holds: without the first layer, most of all weights, if every shard draws that anew."""
    state = network.state_dict()
    return {name: tensor for name, tensor in state.items() if not (adapted and name.startswith(f"{FIRST_LAYER}."))}
