"""The mixed operation: an index runs one operation, weights run a weighted sum."""

import copy

import pytest
import torch
from torch import nn

from nas_core.ops.initialisation import initialise
from nas_core.ops.mixed import MixedOperation, Subset, WeightedEdge
from nas_core.ops.primitives import Zero, relu_conv_bn
from nas_core.seeding import generator


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * x


@pytest.fixture
def image():
    return torch.ones(1, 2, 3, 3)


def test_weights_give_the_weighted_sum(image):
    """0.25 * 2x + 0.75 * 4x = 3.5x."""
    mixed = MixedOperation([Scale(2.0), Scale(4.0)])
    torch.testing.assert_close(mixed(image, torch.tensor([0.25, 0.75])), 3.5 * image)


def test_one_hot_weights_equal_the_index(image):
    mixed = MixedOperation([Scale(2.0), Zero(), nn.Identity()])
    for index in range(3):
        one_hot = nn.functional.one_hot(torch.tensor(index), 3).float()
        torch.testing.assert_close(mixed(image, one_hot), mixed(image, index))


def test_gradient_of_a_weight_is_its_operations_output(image):
    """d/dw sum(w0 2x + w1 4x) over 18 ones is (36, 72)."""
    weights = torch.tensor([0.5, 0.5], requires_grad=True)
    MixedOperation([Scale(2.0), Scale(4.0)])(image, weights).sum().backward()
    torch.testing.assert_close(weights.grad, torch.tensor([36.0, 72.0]))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_with_its_weight_as_scale_is_the_product(affine, training):
    """Values, running statistics, gradients, and the second derivatives that the Hessian of alpha is made of."""
    operations = [relu_conv_bn(3, 4, kernel, affine=affine).double() for kernel in (1, 3)]
    for operation in operations:
        initialise(operation, generator(0, "mixed"))
    mixed = MixedOperation(operations).train(training)
    copies = copy.deepcopy(operations)
    draws = generator(0, "images")
    x = torch.randn(4, 3, 5, 5, generator=draws, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    slope = torch.randn(4, 4, 5, 5, generator=draws, dtype=torch.float64)

    def derivatives(out: torch.Tensor, parts: list[nn.Sequential]) -> list[torch.Tensor]:
        loss = (slope * out).sum().square()
        first = torch.autograd.grad(loss, [x, weights, *(part[1].weight for part in parts)], create_graph=True)
        return [out, *first, *torch.autograd.grad(first[1].square().sum(), [x, weights])]

    expected = derivatives(sum(w * part(x) for w, part in zip(weights, copies, strict=True)), copies)
    for found, wanted in zip(derivatives(mixed(x, weights), operations), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    for found, wanted in zip(operations, copies, strict=True):
        torch.testing.assert_close(found[2].running_var, wanted[2].running_var)


def test_an_index_computes_nothing_of_the_other_operations(image):
    mixed = MixedOperation([relu_conv_bn(2, 2, 1), relu_conv_bn(2, 2, 3), Scale(2.0)])
    ran = []
    for index, operation in enumerate(mixed.operations):
        operation.register_forward_hook(lambda *_, index=index: ran.append(index))
    mixed(image, 1).sum().backward()
    assert ran == [1]
    assert [all(p.grad is None for p in operation.parameters()) for operation in mixed.operations] == [
        True,
        False,
        True,
    ]


def test_a_gate_of_the_wrong_length_is_refused(image):
    with pytest.raises(ValueError, match="argument"):
        MixedOperation([Zero(), Zero()])(image, torch.ones(3))


def test_a_subset_computes_only_its_operations(image):
    """0.5 * 4x + 1 * 3x = 5x."""
    mixed = MixedOperation([Scale(2.0), Scale(4.0), Scale(3.0)])
    ran = []
    for index, operation in enumerate(mixed.operations):
        operation.register_forward_hook(lambda *_, index=index: ran.append(index))
    torch.testing.assert_close(mixed(image, Subset((1, 2), torch.tensor([0.5, 1.0]))), 5 * image)
    assert ran == [1, 2]


@pytest.mark.parametrize("gate", [1, torch.tensor([0.5, 0.5])])
def test_with_partial_channels_the_others_bypass_and_all_are_shuffled(gate):
    """Channels 0 to 7, K = 4: the first two are tripled; groups of two are then read column by column."""
    x = torch.arange(8.0).reshape(1, 8, 1, 1)
    mixed = MixedOperation([Scale(3.0), Scale(3.0)], partial=4)
    assert mixed(x, gate).flatten().tolist() == [0, 2, 4, 6, 3, 3, 5, 7]


def test_the_weight_of_an_edge_reaches_its_bypass_too():
    x = torch.ones(1, 4, 2, 2)
    mixed = MixedOperation([nn.Identity(), nn.Identity()], partial=2)
    torch.testing.assert_close(mixed(x, WeightedEdge(torch.tensor(0.3), torch.tensor([0.5, 0.5]))), 0.3 * x)


def test_what_bypasses_the_operations_says_nothing_about_them():
    """Ones through `none` and the identity at 0.4 and 0.6 of an edge of 0.5, whose other half bypasses both."""
    x = torch.ones(1, 2, 1, 1)
    edge, weights = torch.tensor(0.5, requires_grad=True), torch.tensor([0.4, 0.6], requires_grad=True)
    MixedOperation([Zero(), nn.Identity()], partial=2)(x, WeightedEdge(edge, weights)).sum().backward()
    torch.testing.assert_close(weights.grad, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(edge.grad, torch.tensor(1.6))


def test_the_bypass_is_pooled_where_operations_halve_the_sides():
    x = torch.arange(18.0).reshape(1, 2, 3, 3)
    mixed = MixedOperation([nn.AvgPool2d(2, ceil_mode=True)], partial=2)
    out = mixed(x, 0)
    assert out.shape == (1, 2, 2, 2)
    assert out[0, 1].tolist() == [[13, 14], [16, 17]]
