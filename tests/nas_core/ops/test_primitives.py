"""Operations against values computed by hand."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.ops.primitives import Zero, average_pool, relu_conv_bn


def test_zero_is_zero_even_for_infinite_input():
    assert torch.equal(Zero()(torch.full((1, 1, 2, 2), torch.inf)), torch.zeros(1, 1, 2, 2))


def test_average_pool_leaves_the_padding_out():
    """A corner window of a 2x2 map holds all four pixels: 1, 2, 3, 6 have mean 3; with padding it would be 12 / 9."""
    pooled = average_pool(3)(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]))
    torch.testing.assert_close(pooled, torch.full((1, 1, 2, 2), 3.0))


def test_relu_comes_first_and_leaves_its_input_alone():
    """Negative input becomes 0, a convolution of zeros is 0, and a fresh BatchNorm keeps 0 in eval mode."""
    x = torch.full((2, 3, 4, 4), -1.0)
    y = relu_conv_bn(3, 5, 3, stride=2).eval()(x)
    assert torch.equal(y, torch.zeros(2, 5, 2, 2))
    assert torch.equal(x, torch.full((2, 3, 4, 4), -1.0))


@settings(max_examples=20, deadline=None)
@given(side=st.integers(1, 9), kernel=st.sampled_from([1, 3, 5]))
def test_stride_one_keeps_the_size(side, kernel):
    x = torch.zeros(2, 1, side, side + 1)
    assert relu_conv_bn(1, 1, kernel).eval()(x).shape == average_pool(kernel)(x).shape == x.shape


def test_without_affine_only_the_convolution_has_parameters():
    assert [p.numel() for p in relu_conv_bn(2, 4, 3, affine=False).parameters()] == [2 * 4 * 9]
