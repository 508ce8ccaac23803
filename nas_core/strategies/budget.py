"""Architectures under a limit on multiply-accumulates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nas_core.errors import InputError
from nas_core.search_spaces.base import SearchSpace


def check_budget(space: SearchSpace, max_macs: int | None) -> None:
    """Refuse a limit that no architecture of a space can keep.

    Raises:
        InputError: If `max_macs` is below the cheapest architecture; the message names its cost.
    """
    cheapest, _ = space.macs_range()
    if max_macs is not None and max_macs < cheapest:
        raise InputError(
            f"max_macs = {max_macs} is below the smallest network of {space.name}, which takes {cheapest} "
            f"multiply-accumulates per image; raise it to {cheapest} or more"
        )


def expected_macs(space: SearchSpace, mixture: Sequence[Tensor]) -> Tensor:
    """Multiply-accumulates per image of an architecture drawn from a mixture, on average; gradients reach the mixture.

    Args:
        space: Gives the cost of each operation.
        mixture: Chance of each operation, one vector per slot.

    Source:
        The expected latency of ProxylessNAS, arXiv:1812.00332, eq. 6, with multiply-accumulates in its place.
    """
    table = space.macs_table
    prices = [
        torch.tensor(costs, dtype=chances.dtype).to(chances.device)
        for costs, chances in zip(table.operations, mixture, strict=True)
    ]
    return table.fixed + torch.stack([chances @ costs for chances, costs in zip(mixture, prices, strict=True)]).sum()


def reference_macs(space: SearchSpace, max_macs: int | None) -> int:
    """What expected multiply-accumulates are measured against: the budget, or the dearest architecture without one."""
    return space.macs_range()[1] if max_macs is None else max_macs
