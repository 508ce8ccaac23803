"""A budget that nothing can keep is refused."""

import pytest

from nas_core.errors import InputError
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.strategies import check_budget


def test_an_impossible_budget_is_refused_with_the_smallest_possible():
    space = NasBench201(4, 1, input_shape=(3, 8, 8), num_classes=4)
    smallest, _ = space.macs_range()
    check_budget(space, None)
    check_budget(space, smallest)
    with pytest.raises(InputError, match=f"raise it to {smallest} or more"):
        check_budget(space, smallest - 1)
