"""The generator engine: a network learns once to draw what the teacher was trained on, then draws every shard.

Optimising pixels shares nothing between images; a generator learns what they have in common, and its convolutions
are a strong image prior. What couples the shards is only what `learn` returns, an artifact of its own: a shard copies
a snapshot of the generator, adapts the copy to its own latents and targets, and leaves nothing behind. So shards are
independent, and each can be made again alone.
"""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.ops.initialisation import initialise
from nas_core.precision import mixed_precision, resolve_precision
from nas_core.schedule import warmup_cosine
from nas_core.seeding import generator as seeded
from nas_core.settings.precision import Precision
from nas_core.settings.synthesis import GeneratorSpec, LabelCalibration, LossWeights, PixelSpec, engines
from nas_core.synthesis.engine import SynthesisEngine
from nas_core.synthesis.generator_network import FIRST_LAYER, ImageGenerator, kept_tensors
from nas_core.synthesis.labels import one_hot, shard_classes
from nas_core.synthesis.losses import mode_seeking, soft_cross_entropy
from nas_core.synthesis.objective import Objective, StatisticsMemory
from nas_core.synthesis.pixels import PixelSynthesis
from nas_core.synthesis.shard import RECORDS_PER_SHARD, ShardImages, history, refuse_divergence
from nas_core.teachers.teacher import Teacher


@engines.register(GeneratorSpec)
class GeneratorSynthesis(SynthesisEngine):
    """Image synthesis by a generator that goes down the same loss as pixels would.

    Args:
        teacher: The frozen teacher, on the device where the work happens.
        canvas_size: Height and width of a canvas, at least the teacher's input.
        labels: How the images' soft labels are made.
        steps: Steps of learning.
        snapshots: Copies of the generator that are kept.
        adaptation: Steps by which a shard adapts its copy.
        latent: Length of a latent vector.
        width: Channels of the generator at half resolution.
        learning_rate: Peak learning rate of Adam for the generator.
        latent_learning_rate: Learning rate of Adam for latent vectors in adaptation.
        warmup: Steps of linear warm-up, < steps.
        betas: Adam's decay rates.
        memory: Share of earlier batches in the statistics, see `StatisticsMemory`.
        diversity: Weight of the mode-seeking loss in learning.
        losses: Weights of the loss terms.
        precision: Arithmetic of teacher and generator; losses and updates are float32 in any case.
        compile: Whether teacher and losses run as compiled code.
        refinement: Settings of a pixel engine that goes on from the drawn canvases, or None.

    Source:
        A generator trained by classification loss and BatchNorm statistics: DAFL (arXiv:1904.01186), FastDFKD
        (arXiv:2112.06253, memory of statistics, adaptation of weights and latents). Here the classes are an input, and
        no student takes part.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        canvas_size: tuple[int, int],
        labels: LabelCalibration,
        steps: int,
        snapshots: int,
        adaptation: int,
        latent: int,
        width: int,
        learning_rate: float,
        latent_learning_rate: float,
        warmup: int,
        betas: tuple[float, float],
        memory: float,
        diversity: float,
        losses: LossWeights,
        precision: Precision = "auto",
        compile: bool = False,  # noqa: A002 - the config's name
        refinement: PixelSpec | None = None,
    ) -> None:
        self.objective = Objective(teacher, losses, precision=precision, compile=compile)
        self.teacher, self.canvas_size, self.labels = teacher, canvas_size, labels
        self.steps, self.snapshots, self.adaptation, self.warmup = steps, snapshots, adaptation, warmup
        self.latent, self.width, self.memory, self.diversity = latent, width, memory, diversity
        self.learning_rate, self.latent_learning_rate, self.betas = learning_rate, latent_learning_rate, betas
        self._dtype = resolve_precision(precision, teacher.device)
        self._learned: Mapping[str, Tensor] = {}
        self._refine = None
        if refinement is not None:
            self._refine = PixelSynthesis(
                teacher,
                canvas_size=canvas_size,
                labels=labels,
                section="synthesis.engine.refinement",
                **refinement.values(),
            )

    def check(self) -> None:
        """Check the loss, and the refinement."""
        self.objective.check()
        if self._refine is not None:
            self._refine.check()

    def learn(
        self,
        classes: Int64[Tensor, " chosen"],
        batch_size: int,
        seed: int,
        checkpoint: Checkpoint,
        progress: Progress = no_progress,
    ) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Train the generator on fresh latents at every step; see `SynthesisEngine.learn`."""
        network = self._network()
        network.initialise(seeded(seed, "synthesis.generator.weights"))
        optimiser = torch.optim.Adam(network.parameters(), lr=self.learning_rate, betas=self.betas)
        memory = StatisticsMemory(self.memory)
        kept: list[dict[str, Tensor]] = []
        records: list[tuple[int, dict[str, Tensor]]] = []
        first, snapshot_steps = 0, self._snapshot_steps()
        if checkpoint.state is not None:
            saved = copy.deepcopy(checkpoint.state)
            first, kept, records, memory.past = (saved[name] for name in ("step", "kept", "records", "memory"))
            network.load_state_dict(saved["network"])
            optimiser.load_state_dict(saved["optimiser"])
        for step in range(first, self.steps):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * warmup_cosine(step, self.steps, self.warmup)
            # Both halves of a batch ask for the same classes, so that the diversity loss compares like with like.
            half = one_hot(classes[shard_classes(seed, step, batch_size // 2, len(classes))], self.teacher.num_classes)
            draws = seeded(seed, "synthesis.generator", step)
            terms = self._descend(network, optimiser, half.repeat(2, 1), draws, memory)
            if step + 1 in snapshot_steps:
                kept.append(self._kept(network))
            if step % max(1, self.steps // RECORDS_PER_SHARD) == 0 or step == self.steps - 1:
                refuse_divergence(terms["total"])
                records.append((step, terms))
            checkpoint.offer(functools.partial(_learning_state, step + 1, network, optimiser, memory, kept, records))
            progress(step + 1, self.steps, {})
        parts = [(f"generator.{number}", snapshot) for number, snapshot in enumerate(kept)]
        parts += [
            (f"memory.{number}", {"mean": mean.cpu(), "var": var.cpu()})
            for number, (mean, var) in enumerate(memory.past)
        ]
        learned = {f"{part}.{name}": tensor for part, tensors in parts for name, tensor in tensors.items()}
        return learned, history(records)

    def load(self, learned: Mapping[str, Tensor]) -> None:
        """Take up the snapshots and the statistics that `learn` returned."""
        self._learned = learned

    def make(
        self,
        targets: Float[Tensor, "batch classes"],
        generator: torch.Generator,
        *,
        target_temperature: float = 1.0,
        start: UInt8[Tensor, "batch channels canvas_height canvas_width"] | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Progress = no_progress,
    ) -> ShardImages:
        """Draw one batch of canvases with an adapted copy of a snapshot; see `SynthesisEngine.make`."""
        if start is not None:
            raise ValueError("the generator draws canvases anew and cannot start from given ones")
        checkpoint = checkpoint or Checkpoint()
        refine = self._refine and functools.partial(
            self._refine.make, targets, generator, target_temperature=target_temperature, progress=progress
        )
        if refine and checkpoint.state is not None and checkpoint.state.get("part") != "adaptation":
            # The refinement's own state: it had begun, and needs no drawing to start from.
            return refine(checkpoint=checkpoint)
        device_targets = targets.to(self.teacher.device)
        network = self._snapshot(generator)
        latents = torch.randn(len(targets), self.latent, generator=generator).to(self.teacher.device)
        records = self._adapt(network, latents, device_targets, target_temperature, generator, checkpoint, progress)
        with torch.no_grad():
            canvas = self._draw(network, latents, device_targets)
        refuse_divergence(canvas)  # before bytes hide it
        if refine:
            return refine(start=self.teacher.to_bytes(canvas), checkpoint=dataclasses.replace(checkpoint, state=None))
        progress(self.adaptation + 1, self.adaptation + 1, {})
        with torch.no_grad():
            view = self.objective.view(canvas, generator)
            terms, logits = self.objective(view, device_targets, target_temperature, self._memory())
        return ShardImages(
            canvases=self.teacher.to_bytes(canvas).cpu(),
            targets=targets,
            soft_labels=self.objective.soft_labels(canvas, logits, self.labels, generator).cpu(),
            losses=soft_cross_entropy(logits / target_temperature, device_targets).cpu(),
            history=history([*records, (self.adaptation, terms)]),
        )

    def _descend(
        self,
        network: ImageGenerator,
        optimiser: torch.optim.Adam,
        targets: Tensor,
        draws: torch.Generator,
        memory: StatisticsMemory,
    ) -> dict[str, Tensor]:
        """One step of learning; returns the loss terms."""
        device = self.teacher.device
        latents = torch.randn(len(targets), self.latent, generator=draws).to(device)
        view = self.objective.view(self._draw(network, latents, targets.to(device)), draws)
        terms, _ = self.objective(view, targets.to(device), 1.0, memory)
        terms["diversity"] = mode_seeking(view, latents)
        terms["total"] = terms["total"] + self.diversity * terms["diversity"]
        optimiser.zero_grad(set_to_none=True)
        terms["total"].backward()
        optimiser.step()
        memory.remember()
        return {name: value.detach() for name, value in terms.items()}

    def _adapt(
        self,
        network: ImageGenerator,
        latents: Tensor,
        targets: Tensor,
        temperature: float,
        draws: torch.Generator,
        checkpoint: Checkpoint,
        progress: Progress,
    ) -> list[tuple[int, dict[str, Tensor]]]:
        """Move a shard's copy of the generator and its latents, in place, towards its own targets."""
        latents.requires_grad_()
        groups = [{"params": network.parameters()}, {"params": [latents], "lr": self.latent_learning_rate}]
        optimiser = torch.optim.Adam(groups, lr=self.learning_rate, betas=self.betas)
        first, records, memory = 0, [], self._memory()
        if checkpoint.state is not None:
            saved = copy.deepcopy(checkpoint.state)
            first, records = saved["step"], saved["records"]
            network.load_state_dict(saved["network"])
            optimiser.load_state_dict(saved["optimiser"])
            latents.data.copy_(saved["latents"])
            draws.set_state(saved["draws"])
        for step in range(first, self.adaptation):
            view = self.objective.view(self._draw(network, latents, targets), draws)
            terms, _ = self.objective(view, targets, temperature, memory)
            optimiser.zero_grad(set_to_none=True)
            terms["total"].backward()
            optimiser.step()
            if step % max(1, self.adaptation // RECORDS_PER_SHARD) == 0:
                records.append((step, {name: value.detach() for name, value in terms.items()}))
            checkpoint.offer(
                functools.partial(_adaptation_state, step + 1, network, latents, optimiser, draws, records)
            )
            progress(step + 1, self.adaptation + 1, {})
        return records

    def _draw(self, network: ImageGenerator, latents: Tensor, targets: Tensor) -> Tensor:
        """Normalised canvases."""
        with mixed_precision(self._dtype, self.teacher.device):
            pixels = network(latents, targets)
        black, white = self.teacher.valid_range(pixels.device)
        return black + (white - black) * pixels

    def _network(self) -> ImageGenerator:
        canvas = (self.teacher.input_shape[0], *self.canvas_size)
        return ImageGenerator(canvas, self.teacher.num_classes, self.latent, self.width).to(self.teacher.device)

    def _snapshot_steps(self) -> set[int]:
        """After how many steps a copy is kept: at equal distances after the first tenth, the last step included."""
        return {self.steps - int(number * 0.9 * self.steps / self.snapshots) for number in range(self.snapshots)}

    def _snapshot(self, draws: torch.Generator) -> ImageGenerator:
        """A copy of one of the snapshots, at random; if it is going to be adapted, with a fresh first layer.

        The first layer lays out what the others paint. Fresh weights give every shard layouts of its own, which a few
        steps make into images of their classes; from the learned ones all shards of a snapshot compose alike. The idea
        is NAYER's noisy layer (arXiv:2310.00258), which is drawn anew for every batch.
        """
        network = self._network()
        part = self._part(f"generator.{int(torch.randint(self.snapshots, (), generator=draws))}")
        if self.adaptation:
            initialise(network.project, draws)
            part |= {f"{FIRST_LAYER}.{name}": tensor for name, tensor in network.project.state_dict().items()}
        network.load_state_dict(part)
        return network.train()

    def _kept(self, network: ImageGenerator) -> dict[str, Tensor]:
        """A snapshot of the generator as it is now."""
        tensors = kept_tensors(network, adapted=self.adaptation > 0)
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def _memory(self) -> StatisticsMemory:
        """The statistics at the end of learning, which no shard changes."""
        calls = len([name for name in self._learned if name.startswith("memory.") and name.endswith(".mean")])
        parts = [self._part(f"memory.{number}") for number in range(calls)]
        device = self.teacher.device
        return StatisticsMemory(self.memory, [(part["mean"].to(device), part["var"].to(device)) for part in parts])

    def _part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of one part of what was learned, by name."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor for name, tensor in self._learned.items() if name.startswith(start)}


def _learning_state(
    step: int,
    network: ImageGenerator,
    optimiser: torch.optim.Adam,
    memory: StatisticsMemory,
    kept: list[dict[str, Tensor]],
    records: list[tuple[int, dict[str, Tensor]]],
) -> dict[str, Any]:
    """What continues learning at `step`."""
    return {
        "step": step,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "memory": memory.past,
        "kept": list(kept),
        "records": list(records),
    }


def _adaptation_state(
    step: int,
    network: ImageGenerator,
    latents: Tensor,
    optimiser: torch.optim.Adam,
    draws: torch.Generator,
    records: list[tuple[int, dict[str, Tensor]]],
) -> dict[str, Any]:
    """What continues a shard's adaptation at `step`."""
    return {
        "part": "adaptation",
        "step": step,
        "network": network.state_dict(),
        "latents": latents.detach(),
        "optimiser": optimiser.state_dict(),
        "draws": draws.get_state(),
        "records": list(records),
    }
