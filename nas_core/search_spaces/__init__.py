"""The search spaces, by name; importing this package registers what builds them."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from nas_core.search_spaces import darts as darts
from nas_core.search_spaces import nasbench1shot1 as nasbench1shot1
from nas_core.search_spaces import nasbench201 as nasbench201
from nas_core.search_spaces import proxyless as proxyless
from nas_core.search_spaces import shufflenet as shufflenet
from nas_core.search_spaces.base import Architecture, Gate, Gates, SearchSpace, Slot, Subset, Supernet
from nas_core.settings.spaces import spaces

__all__ = ["Architecture", "Gate", "Gates", "SearchSpace", "Slot", "Subset", "Supernet", "rebuild_network", "spaces"]


def rebuild_network(
    space: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int, notation: str
) -> nn.Module:
    """A new stand-alone network from plain values, as a manifest keeps them; its weights are still to be loaded.

    Args:
        space: The space's config section with its name, such as {"name": "nasbench201", "channels": 16}.
        input_shape: (channels, height, width) of the images.
        num_classes: Number of logits.
        notation: The architecture in the space's own notation.

    Raises:
        InputError: If the space is unknown, or the notation is none of its architectures.
    """
    spec = spaces.spec(space["name"]).model_validate(dict(space))
    built = spaces.build(spec, input_shape=input_shape, num_classes=num_classes)
    return built.network(built.parse(notation))
