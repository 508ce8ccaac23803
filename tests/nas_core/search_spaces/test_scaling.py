"""Scale transfer: the same architecture in a wider and deeper network."""

import pytest

from nas_core.errors import InputError
from nas_core.ops.cost import count_parameters
from nas_core.search_spaces import spaces
from nas_core.seeding import generator

SPECS = {
    "darts": ({"network_channels": 16, "network_cells": 8}, {"network_channels": 36, "network_cells": 20}),
    "nasbench201": ({"channels": 16, "cells": 1}, {"channels": 36, "cells": 20}),
    "nasbench1shot1": ({"network_channels": 16, "cells": 1}, {"network_channels": 36, "cells": 20}),
}


@pytest.mark.parametrize("name", list(SPECS))
def test_a_wider_and_deeper_space_holds_the_same_architectures(name: str):
    small, large = (spaces.spec(name).model_validate(values) for values in SPECS[name])
    assert small.scaled(2.25, 20) == large
    assert small.scaled(1.0, None) == small
    one, other = (spaces.build(spec, input_shape=(3, 8, 8), num_classes=2) for spec in (small, small.scaled(1.5, 9)))
    notation = str(one.architecture(one.sample(generator(0, "scaling"))))
    networks = [space.network(space.parse(notation)) for space in (one, other)]
    assert count_parameters(networks[1]) > count_parameters(networks[0])


@pytest.mark.parametrize(("name", "stages"), [("proxyless", (4, 6)), ("shufflenet", (18, 20))])
def test_rows_of_blocks_are_made_wider_but_not_deeper(name: str, stages):
    spec = spaces.spec(name).model_validate({"stage_blocks": [1, 2], "stage_channels": stages, "strides": [1, 2, 2]})
    assert spec.scaled(1.5, None).stage_channels == tuple(2 * round(channels * 0.75) for channels in stages)
    with pytest.raises(InputError, match=rf"retrain.cells = 4 has no meaning in search space '{name}'"):
        spec.scaled(1.0, 4)


def test_sizes_that_a_space_does_not_take_are_named():
    spec = spaces.spec("nasbench201").model_validate({"channels": 400})
    with pytest.raises(InputError, match=r"retrain.width = 2.0 .* channels would be 800; .* less than or equal to 512"):
        spec.scaled(2.0, None)
