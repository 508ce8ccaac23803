"""Curvature of functions whose Hessian is known."""

import pytest
import torch

from nas_core.evaluation import hessian as module
from nas_core.evaluation.hessian import curvature, hessian, hessian_product, hutchinson_trace, lanczos_largest


def quadratic(size: int, eigenvalues: torch.Tensor, seed: int = 0):
    """X A x / 2 at a random x, with A of the given eigenvalues; A, the loss, and x in two pieces."""
    draws = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=draws, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(eigenvalues) @ basis.T
    x = torch.randn(size, generator=draws, dtype=torch.float64)
    pieces = [x[:3].clone().requires_grad_(), x[3:].reshape(1, -1).clone().requires_grad_()]
    flat = torch.cat([piece.flatten() for piece in pieces])
    return matrix, flat @ matrix @ flat / 2, pieces


def test_hessian_of_a_quadratic_is_its_matrix():
    matrix, loss, pieces = quadratic(8, torch.linspace(-2, 5, 8, dtype=torch.float64))
    torch.testing.assert_close(hessian(loss, pieces), matrix)


def test_exact_and_estimated_curvature_agree(monkeypatch):
    """Eigenvalues -9 to 5; the one of largest size is not asked for when it is negative."""
    values = torch.linspace(-9, 5, 12, dtype=torch.float64)
    draws = torch.Generator().manual_seed(1)
    _, loss, pieces = quadratic(12, values)
    exact = curvature(loss, pieces, draws)
    assert exact.largest_eigenvalue == pytest.approx(5)
    assert exact.trace == pytest.approx(float(values.sum()))
    monkeypatch.setattr(module, "EXACT_UP_TO", 4)
    _, loss, pieces = quadratic(12, values)
    assert curvature(loss, pieces, draws).largest_eigenvalue == pytest.approx(5, rel=1e-6)


def test_lanczos_finds_an_outlier_in_few_steps():
    """One eigenvalue 3 above 199 in [0, 1]: ten products are enough."""
    values = torch.cat([torch.linspace(0, 1, 199, dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)])
    _, loss, pieces = quadratic(200, values)
    start = torch.randn(200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert lanczos_largest(hessian_product(loss, pieces), start, 10) == pytest.approx(3, rel=1e-4)


def test_lanczos_ends_early_where_all_eigenvalues_are_equal():
    asked = []

    def product(vector):
        asked.append(1)
        return 4 * vector

    assert lanczos_largest(product, torch.ones(50), 40) == pytest.approx(4)
    assert len(asked) == 1


def test_trace_estimate_is_exact_for_a_diagonal_and_unbiased_else():
    draws = torch.Generator().manual_seed(3)
    diagonal = torch.linspace(-1, 2, 30, dtype=torch.float64)
    assert hutchinson_trace(lambda v: diagonal * v, 30, 2, draws, diagonal) == pytest.approx(float(diagonal.sum()))
    matrix, loss, pieces = quadratic(30, diagonal)
    # Variance of one probe: 2 (||A||^2 - sum of squared diagonal entries).
    spread = float(2 * (matrix.square().sum() - matrix.diag().square().sum())) ** 0.5
    estimate = hutchinson_trace(hessian_product(loss, pieces), 30, 400, draws, diagonal)
    assert abs(estimate - float(diagonal.sum())) < 4 * spread / 400**0.5


def test_what_the_loss_does_not_depend_on_has_zeros():
    x, unused = torch.tensor([2.0, 1.0], requires_grad=True), torch.zeros(1, requires_grad=True)
    expected = torch.tensor([[12.0, 0, 0], [0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(hessian(x[0] ** 3 + x[1], [x, unused]), expected)
