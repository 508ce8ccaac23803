"""Curvature of a loss: the largest eigenvalue and the trace of its Hessian for a few parameters.

A rising largest eigenvalue of the validation loss over architecture weights foretells that differentiable search
collapses (Zela et al., arXiv:1909.09656).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Beyond this number of parameters the Hessian is not written out: DARTS has 224, NAS-Bench-201 30.
EXACT_UP_TO = 256
LANCZOS_STEPS = 40
TRACE_PROBES = 40

# The Hessian times a flat vector.
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Curvature:
    """Of a loss over some parameters.

    Attributes:
        largest_eigenvalue: The largest, not the largest in size.
        trace: Sum of all eigenvalues.
    """

    largest_eigenvalue: float
    trace: float


def curvature(loss: Tensor, parameters: Sequence[Tensor], generator: torch.Generator) -> Curvature:
    """Largest eigenvalue and trace of a loss's Hessian: exact for up to `EXACT_UP_TO` parameters, else estimated.

    Args:
        loss: With a graph to the parameters.
        parameters: Tensors of any shape.
        generator: Draws the vectors of the estimates; not used by the exact way.
    """
    size = sum(parameter.numel() for parameter in parameters)
    if size <= EXACT_UP_TO:
        matrix = hessian(loss, parameters)
        return Curvature(float(torch.linalg.eigvalsh(matrix)[-1]), float(matrix.trace()))
    product = hessian_product(loss, parameters)
    start = torch.randn(size, generator=generator).to(loss)
    return Curvature(
        lanczos_largest(product, start, LANCZOS_STEPS), hutchinson_trace(product, size, TRACE_PROBES, generator, loss)
    )


def hessian(loss: Tensor, parameters: Sequence[Tensor]) -> Float[Tensor, "size size"]:
    """All second derivatives, row by row, made symmetric.

    Args:
        loss: With a graph to the parameters.
        parameters: Their flattened values, in this order, are the coordinates.
    """
    gradient = _flat(torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True), parameters)
    rows = [_derivative(component, parameters) for component in gradient]
    matrix = torch.stack(rows)
    return (matrix + matrix.T) / 2


def hessian_product(loss: Tensor, parameters: Sequence[Tensor]) -> Product:
    """The map from a flat vector to the Hessian times it, at the cost of one backward pass each."""
    gradient = _flat(torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True), parameters)
    return lambda vector: _derivative(gradient @ vector, parameters)


def lanczos_largest(product: Product, start: Float[Tensor, " size"], steps: int) -> float:
    """The largest eigenvalue of a symmetric matrix from its products, by Lanczos with full re-orthogonalisation.

    Args:
        product: The matrix times a vector.
        start: A random vector, not orthogonal to the eigenvector sought.
        steps: Products at most; the result is exact once they reach the number of distinct eigenvalues.

    Returns:
        A lower bound that converges to the eigenvalue, usually within a few dozen steps.
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(start))):
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        # Twice, because once leaves rounding errors that come back as copies of eigenvalues.
        for _ in range(2):
            image = image - torch.stack(basis).T @ (torch.stack(basis) @ image)
        length = float(image.norm())
        if length <= 1e-6 * max(1e-12, max(map(abs, diagonal))):
            break
        beside.append(length)
        basis.append(image / length)
    size = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if size > 1:
        off = torch.tensor(beside[: size - 1], dtype=torch.float64)
        tridiagonal = tridiagonal + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(tridiagonal)[-1])


def hutchinson_trace(product: Product, size: int, probes: int, generator: torch.Generator, like: Tensor) -> float:
    """An unbiased estimate of a trace: the mean of v . (matrix v) over random signs v.

    Args:
        product: The matrix times a vector.
        size: Length of the vectors.
        probes: Vectors to average over.
        generator: Draws them.
        like: A tensor of the dtype and on the device of the vectors.
    """
    signs = [torch.randint(2, (size,), generator=generator).to(like) * 2 - 1 for _ in range(probes)]
    return float(torch.stack([vector @ product(vector) for vector in signs]).mean())


def _derivative(value: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Derivatives of a scalar for all parameters, flat; zeros where the scalar depends on none."""
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(parameter).flatten() for parameter in parameters])
    return _flat(torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True), parameters).detach()


def _flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).flatten()
            for gradient, parameter in zip(gradients, parameters, strict=True)
        ]
    )
