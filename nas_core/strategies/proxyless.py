"""ProxylessNAS: each step runs one path drawn from softmax(alpha); alpha learns from two paths, or from rewards.

Source: Cai, Zhu and Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware",
arXiv:1812.00332; weighed is the cost that the search limits, latency or another. One cosine spans the epochs in which
the weights learn alone and those in which alpha learns too; in the paper each has its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.errors import InputError
from nas_core.ops.batch_norm import kept_statistics
from nas_core.ops.mixed import Gate, Subset
from nas_core.search_spaces.base import SearchSpace, Supernet
from nas_core.seeding import generator
from nas_core.settings.strategies import ProxylessSpec, strategies
from nas_core.strategies.alpha import ArchitectureWeights
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy
from nas_core.strategies.budget import Budget
from nas_core.strategies.evolution import Choices
from nas_core.strategies.progressive import SKIP
from nas_core.training.batches import Batch
from nas_core.training.loop import Averages, Step, Trainee, train

# As published, by the form of the loss.
COST_FACTORS = {"mul-log": 0.2, "add-linear": 0.1}


def pair_gradient(slopes: Float[Tensor, " 2"], chances: Float[Tensor, " 2"]) -> Float[Tensor, " 2"]:
    """The gradient for two logits from that for their gates: sum over j of slope_j p_j (delta_ij - p_i), eq. 4.

    Args:
        slopes: Derivative of the loss by each gate.
        chances: Softmax of the two logits.
    """
    return chances * (slopes - (slopes * chances).sum())


def pair_update(
    before: Float[Tensor, " operations"], after: Float[Tensor, " operations"], pair: Sequence[int]
) -> Float[Tensor, " operations"]:
    """Logits of which only a sampled pair moved, shifted so that the chances of all others stay.

    Args:
        before: Logits before the step.
        after: Logits after it; only those of the pair count.
        pair: Indices of the two operations.
    """
    indices = list(pair)
    updated = before.clone()
    shift = after[indices].logsumexp(0) - before[indices].logsumexp(0)
    updated[indices] = after[indices] - shift
    return updated


def reinforce_gradient(
    logits: Sequence[Tensor], paths: Sequence[Choices], rewards: Sequence[float], baseline: float
) -> list[Tensor]:
    """An unbiased estimate of the gradient of minus the expected reward: minus the mean of (R - b) grad log p(path).

    Args:
        logits: One vector per slot.
        paths: Drawn from their softmax.
        rewards: One per path.
        baseline: Any number that does not depend on these paths.
    """
    gradients = []
    for slot, values in enumerate(logits):
        chances = values.detach().softmax(0)
        chosen = torch.nn.functional.one_hot(torch.tensor([path[slot] for path in paths]), len(values)).to(chances)
        advantages = torch.tensor([reward - baseline for reward in rewards]).to(chances)
        gradients.append(-(advantages[:, None] * (chosen - chances)).mean(dim=0))
    return gradients


class BinaryGates(Trainee):
    """A supernet of which each step trains one path drawn from softmax(alpha).

    Args:
        supernet: Its weights learn.
        task: Gives validation images, loss and budget.
        settings: How alpha learns.

    Attributes:
        alpha: The architecture weights.
        curve: One record per epoch, see `end_epoch`.
    """

    def __init__(self, supernet: Supernet, task: SearchTask, settings: ProxylessSpec) -> None:
        super().__init__(supernet)
        self.curve: list[dict[str, Any]] = []
        self.alpha = ArchitectureWeights(task.space, generator(task.seed, "search.alpha"), task.device)
        self._optimiser = torch.optim.Adam(
            self.alpha.logits, lr=settings.alpha_learning_rate, betas=settings.alpha_betas
        )
        self._task, self._settings = task, settings
        self._reference = task.budget.reference(task.space)
        self._baseline: float | None = None

    def start_epoch(self, epoch: int) -> None:
        """Start the epoch's streams."""
        self._learns = epoch >= int(round(self._settings.alpha_start * self._settings.epochs, 6))
        self._steps = 0
        self._paths, self._pairs = (generator(self._task.seed, f"search.{use}", epoch) for use in ("paths", "pairs"))
        self._validation = self._task.endless_validation(epoch)
        self._averages = Averages(self._task.device)

    def before_step(self, _step: Step, /) -> None:
        """A step of the architecture weights, where one is due."""
        if self._learns and self._steps % self._settings.alpha_every == 0:
            batch = next(self._validation)
            if self._settings.update == "two-path":
                self._two_path_step(batch)
            else:
                self._reinforce_step(batch)
        self._steps += 1

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits along a path drawn from the architecture weights."""
        return self.network(images, self._draw_path(self._paths))

    def end_epoch(self, record: dict[str, Any], /) -> None:
        """Add to the search curve what the validation batches showed and what the architecture would now be.

        {"epoch", "loss", "validation_loss", "validation_agreement" (absent where alpha did not learn), "architecture",
        "macs", "skip_connect", "expected_macs", "gates" (softmax per slot)}; under a budget of another cost also that
        cost by its name, and its expectation instead.
        """
        architecture = self.alpha.derive(self._task.budget)
        with torch.no_grad():
            mixture = self.alpha.mixture()
        entry = {
            "epoch": record["epoch"],
            "loss": record["loss"],
            "architecture": str(architecture),
            **self._task.budget.record(self._task.space, self._task.space.choices(architecture)),
            "skip_connect": architecture.operations.count(SKIP),
            f"expected_{self._task.budget.name}": float(self._task.budget.expected(self._task.space, mixture)),
            "gates": [weights.tolist() for weights in mixture],
        }
        if self._learns:
            entry |= {f"validation_{name}": value for name, value in self._averages.read().items()}
        self.curve.append(entry)

    def state(self) -> dict[str, Any]:
        """Architecture weights, their optimiser, the baseline, and the curve so far."""
        return {
            "alpha": self.alpha.state(),
            "optimiser": self._optimiser.state_dict(),
            "baseline": self._baseline,
            "curve": self.curve,
        }

    def load(self, state: dict[str, Any], /) -> None:
        """Take up a `state`."""
        self.alpha.load(state["alpha"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._baseline, self.curve = state["baseline"], state["curve"]

    def _two_path_step(self, batch: Batch) -> None:
        """Update two sampled logits per slot; the chances of the other operations stay."""
        before = [logits.detach().clone() for logits in self.alpha.logits]
        # A slot with one operation has nothing to learn.
        open_slots = [slot for slot, logits in enumerate(before) if len(logits) > 1]
        pairs = {slot: self._draw_pair(before[slot]) for slot in open_slots}
        chances = {slot: before[slot][list(pair)].softmax(0).requires_grad_() for slot, pair in pairs.items()}
        gates: list[Gate] = [0] * len(before)
        weights = {}
        for slot, pair in pairs.items():
            active = int(torch.multinomial(chances[slot].detach().cpu(), 1, generator=self._pairs))
            weights[slot] = torch.nn.functional.one_hot(torch.tensor(active), 2).to(before[slot]).requires_grad_()
            gates[slot] = Subset(pair, weights[slot])
        logits = self.network(batch.images, gates)
        loss = self._task.objective(logits, batch.teacher_logits)
        self._averages.add(loss, logits, batch.teacher_logits)
        total = self._with_cost(loss, pairs, chances)
        leaves = [*weights.values(), *chances.values()]
        found = torch.autograd.grad(total, leaves, allow_unused=True)
        slopes = [torch.zeros_like(leaf) if slope is None else slope for slope, leaf in zip(found, leaves, strict=True)]
        for parameter in self.alpha.logits:
            parameter.grad = torch.zeros_like(parameter)
        for slot, by_gate, by_chance in zip(pairs, slopes[: len(pairs)], slopes[len(pairs) :], strict=True):
            gradient = self.alpha.logits[slot].grad
            assert gradient is not None
            gradient[list(pairs[slot])] = pair_gradient(by_gate + by_chance, chances[slot].detach())
        self._optimiser.step()
        with torch.no_grad():
            for slot, pair in pairs.items():
                parameter = self.alpha.logits[slot]
                parameter.copy_(pair_update(before[slot], parameter, pair))

    def _with_cost(self, loss: Tensor, pairs: dict[int, tuple[int, int]], chances: dict[int, Tensor]) -> Tensor:
        """The loss with the expected cost of the sampled pairs."""
        settings = self._settings
        if settings.cost_loss == "none":
            return loss
        factor = COST_FACTORS[settings.cost_loss] if settings.cost_factor is None else settings.cost_factor
        # All of a slot's chance is on its sampled pair, or on its only operation.
        mixture = [loss.new_zeros(len(slot.operations)) for slot in self._task.space.slots]
        for slot, weights in enumerate(mixture):
            drawn = list(pairs.get(slot, (0,)))
            mixture[slot] = weights.index_put((torch.tensor(drawn),), chances.get(slot, loss.new_ones(1)))
        expected = self._task.budget.expected(self._task.space, mixture)
        if settings.cost_loss == "add-linear":
            return loss + factor * (expected - self._reference) / self._reference
        ratio = torch.log(expected) / torch.log(torch.tensor(float(self._reference)))
        return factor * loss * ratio**settings.cost_power

    def _reinforce_step(self, batch: Batch) -> None:
        """Follow the rewards of sampled paths; the first time, only the baseline is set.

        The baseline is that of earlier steps, so that it does not depend on the paths that it judges.
        """
        paths = [self._draw_path(self._pairs) for _ in range(self._settings.samples)]
        rewards = [self._reward(batch, path) for path in paths]
        mean = sum(rewards) / len(rewards)
        if self._baseline is None:
            self._baseline = mean
            return
        gradients = reinforce_gradient(self.alpha.logits, paths, rewards, self._baseline)
        for logits, gradient in zip(self.alpha.logits, gradients, strict=True):
            logits.grad = gradient
        self._optimiser.step()
        decay = self._settings.baseline_decay
        self._baseline = decay * self._baseline + (1 - decay) * mean

    @torch.no_grad()
    def _reward(self, batch: Batch, path: Choices) -> float:
        """Agreement with the teacher x (reference / cost)^exponent, by the batch's own statistics."""
        with kept_statistics(self.network):
            logits = self.network(batch.images, path)
        self._averages.add(self._task.objective(logits, batch.teacher_logits), logits, batch.teacher_logits)
        agreement = (logits.argmax(1) == batch.teacher_logits.argmax(1)).float().mean()
        return (
            float(agreement)
            * (self._reference / self._task.budget.of(self._task.space, path)) ** self._settings.reward_exponent
        )

    def _draw_path(self, draws: torch.Generator) -> Choices:
        """One operation per slot from softmax(alpha)."""
        return tuple(
            int(torch.multinomial(logits.detach().softmax(0).cpu(), 1, generator=draws)) for logits in self.alpha.logits
        )

    def _draw_pair(self, logits: Tensor) -> tuple[int, int]:
        """Two operations from softmax(logits), without replacement."""
        first, second = torch.multinomial(logits.softmax(0).cpu(), 2, generator=self._pairs).tolist()
        return first, second


@strategies.register(ProxylessSpec)
class Proxyless(Strategy):
    """ProxylessNAS.

    Args:
        settings: The fields of `ProxylessSpec`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = ProxylessSpec(**settings)

    def check(self, space: SearchSpace, budget: Budget) -> None:
        """Refuse also costs of which mul-log would take the logarithm, but which are too small for it."""
        super().check(space, budget)
        if self.settings.update != "two-path" or self.settings.cost_loss != "mul-log":
            return
        # Of all choices: what is sampled while weights learn need not connect input and output.
        table = budget.table(space)
        cheapest = table.fixed + sum(map(min, table.operations))
        if cheapest <= budget.steps:
            raise InputError(
                f"cost_loss = mul-log takes the logarithm of the cost, and the cheapest choices of {space.name} take "
                f"only {budget.written(cheapest)} {budget.unit}; choose cost_loss = add-linear"
            )

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Train weights and architecture weights together, then derive; state is saved after every epoch."""
        self.check(task.space, task.budget)
        trainee = BinaryGates(task.supernet(), task, self.settings)
        training = train(
            trainee,
            task.train,
            self.settings,
            task.objective,
            seed=task.seed,
            stage="search",
            checkpoint=checkpoint,
            progress=progress,
        )
        return SearchOutcome(trainee.alpha.derive(task.budget), training, trainee.curve)
