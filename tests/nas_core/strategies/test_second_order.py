"""Second-order gradients against closed forms and exact differentiation."""

import pytest
import torch

from nas_core.checkpoint import Checkpoint
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.strategies import second_order as module
from nas_core.strategies import strategies
from nas_core.strategies.second_order import second_order_gradient


def sgd(weights, **values) -> torch.optim.SGD:
    return torch.optim.SGD(weights, **{"lr": 0.1, **values})


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_quadratic_bilevel_problem_has_its_closed_form(rate, nesterov):
    """L_train = (w - 2a)^2 / 2 and L_val = (w - 1)^2 / 2 + a^2.

    w' = w - share (w - 2a), so that d L_val(w', a) / da = (w' - 1) 2 share + 2a. At rate 0 it is 2a, the first order.
    The share is the rate, and in the first step of Nesterov momentum 0.9 the rate times 1.9.
    """
    w, a = torch.tensor(3.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    optimiser = sgd([w], lr=rate, momentum=0.9, nesterov=nesterov)
    loss, [gradient] = second_order_gradient(
        lambda: (w - 2 * a).square() / 2, lambda: (w - 1).square() / 2 + a.square(), optimiser, [a]
    )
    share = 1.9 * rate if nesterov else rate
    after = 3 - share * (3 - 1)
    assert float(gradient) == pytest.approx((after - 1) * 2 * share + 1, abs=1e-4)
    assert float(loss) == pytest.approx((after - 1) ** 2 / 2 + 0.25)
    assert float(w.detach()) == 3


def test_momentum_and_weight_decay_belong_to_the_step():
    """The step is w - xi (0.9 x buffer + gradient + decay x w) = 2 - 0.1 (0.9 x 5 + 2 + 0.5 x 2) = 1.25."""
    w, a = torch.tensor(2.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    optimiser = sgd([w], momentum=0.9, weight_decay=0.5)
    optimiser.state[w]["momentum_buffer"] = torch.tensor(5.0)
    seen = []

    def validation():
        seen.append(float(w.detach()))
        return w + a

    second_order_gradient(lambda: w.square() / 2, validation, optimiser, [a])
    assert seen == [pytest.approx(1.25)]


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_search_looks_ahead_along_the_step_that_its_settings_take(make_task, monkeypatch, nesterov):
    """Of the published preset: xi is the learning rate of plain momentum. The next step is then that of the weights."""
    seen = []

    def spy(training_loss, validation_loss, optimiser, alphas):
        seen.append([group["nesterov"] for group in optimiser.param_groups])
        return second_order_gradient(training_loss, validation_loss, optimiser, alphas)

    monkeypatch.setattr("nas_core.strategies.mixture.second_order_gradient", spy)
    settings = {"epochs": 1, "nesterov": True} if nesterov else {"epochs": 1}
    spec = strategies.spec("darts-2nd").model_validate(settings)
    space = NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)
    strategies.build(spec).search(make_task(space, images=8), Checkpoint())
    assert seen
    assert all(group == nesterov for groups in seen for group in groups)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_weights_move_as_the_optimiser_would_move_them(nesterov):
    """In the first step, without a buffer, and in two after it."""
    w = torch.tensor([2.0, -1.0], requires_grad=True)
    a = torch.tensor(0.3, requires_grad=True)
    optimiser = sgd([w], momentum=0.9, weight_decay=0.5, nesterov=nesterov)
    for _ in range(3):
        seen = []

        def validation(seen=seen):
            seen.append(w.detach().clone())
            return w.sum() + a

        second_order_gradient(lambda: (a * w).square().sum(), validation, optimiser, [a])
        optimiser.zero_grad()
        (a.detach() * w).square().sum().backward()
        optimiser.step()
        torch.testing.assert_close(seen[0], w.detach())


def test_a_weight_that_does_not_take_part_stays_and_needs_no_buffer():
    used, idle = torch.tensor(1.0, requires_grad=True), torch.tensor(7.0, requires_grad=True)
    a = torch.tensor(1.0, requires_grad=True)
    optimiser = sgd([used, idle], momentum=0.9, weight_decay=0.1)
    optimiser.state[used]["momentum_buffer"] = torch.tensor(1.0)
    _, [gradient] = second_order_gradient(lambda: a * used.square(), lambda: used.square(), optimiser, [a])
    assert (float(used.detach()), float(idle.detach())) == (1, 7)
    assert float(gradient) != 0


def test_the_finite_difference_converges_to_exact_differentiation(monkeypatch):
    """Against autograd through the step of a small smooth network: a tenth of the radius has 1 % of the error."""
    draws = torch.Generator().manual_seed(0)
    first, second = (torch.randn(6, 6, generator=draws, dtype=torch.float64) / 2 for _ in range(2))
    x, y = (torch.randn(16, 6, generator=draws, dtype=torch.float64) for _ in range(2))
    alpha = torch.randn(3, generator=draws, dtype=torch.float64).requires_grad_()
    weights = [first.requires_grad_(), second.requires_grad_()]

    def loss(parameters, inputs, targets):
        hidden = inputs @ parameters[0]
        options = (hidden.tanh(), hidden, torch.zeros_like(hidden))
        mixed = sum(gate * option for gate, option in zip(alpha.softmax(0), options, strict=True))
        return (mixed @ parameters[1] - targets).square().mean()

    inner = torch.autograd.grad(loss(weights, x, y), weights, create_graph=True)
    moved = [weight - 0.3 * gradient for weight, gradient in zip(weights, inner, strict=True)]
    [exact] = torch.autograd.grad(loss(moved, y, x), alpha)

    def error() -> float:
        _, [found] = second_order_gradient(
            lambda: loss(weights, x, y), lambda: loss(weights, y, x), sgd(weights, lr=0.3), [alpha]
        )
        return float((found - exact).norm() / exact.norm())

    published = error()
    monkeypatch.setattr(module, "FINITE_DIFFERENCE", 0.1 * module.FINITE_DIFFERENCE)
    assert published < 1e-4
    assert published / error() == pytest.approx(100, rel=0.05)
    [first_order] = torch.autograd.grad(loss(weights, y, x), alpha)
    assert float((first_order - exact).norm() / exact.norm()) > 1e-2
