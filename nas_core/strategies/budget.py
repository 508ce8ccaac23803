"""Architectures under a limit on multiply-accumulates."""

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
