"""A GPU computes what the CPU computes, and the same bytes every time: run with `--device cuda`."""

import pytest
import torch
from doubles import Interruption
from torch import Tensor

from nas_core.checkpoint import Checkpoint
from nas_core.memory import near
from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.settings.synthesis import GeneratorSpec, LabelCalibration, LossWeights, PixelSpec, PixelStage
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.engine import SynthesisEngine
from nas_core.synthesis.labels import one_hot
from nas_core.synthesis.objective import Objective
from nas_core.synthesis.shard import ShardImages
from nas_core.teachers.networks import resnet20
from nas_core.teachers.teacher import Teacher
from nas_core.training.augmentation import Augmentation
from nas_core.training.batches import Batch, SyntheticBatches
from nas_core.training.retraining import retrain
from nas_core.training.styles import RetrainConfig

CLASSES = tuple("abcdefghij")
TARGETS = one_hot(torch.arange(16) % 10, 10)
ENGINES = {
    "pixels": PixelSpec(stages=(PixelStage(iterations=12),), warmup=2),
    "generator": GeneratorSpec(steps=12, snapshots=2, warmup=2, latent=16, width=8, adaptation=4),
}


@pytest.fixture(autouse=True)
def _only_where_there_is_something_to_compare(device):
    if device.type == "cpu":
        pytest.skip("compares a device with the CPU; run it with --device cuda or --device mps")


def teacher_on(device: torch.device | str) -> Teacher:
    network = resnet20()
    initialise(network, generator(0, "toy.teacher"))
    return Teacher(network, (3, 32, 32), (0.5,) * 3, (0.25,) * 3, CLASSES).to(torch.device(device))


def judge(teacher: Teacher, precision, compile: bool = False) -> tuple[dict[str, Tensor], Tensor]:  # noqa: A002
    objective = Objective(teacher, LossWeights(), precision=precision, compile=compile)
    view = torch.randn(16, 3, 32, 32, generator=generator(0, "toy.view")).to(teacher.device).requires_grad_()
    terms, _ = objective(view, TARGETS.to(teacher.device), 2.0)
    (gradient,) = torch.autograd.grad(terms["total"], view)
    return {name: value.detach().cpu() for name, value in terms.items()}, gradient.cpu()


def engine_on(device: torch.device | str, name: str) -> SynthesisEngine:
    config = SynthesisConfig(canvas=(36, 36), batch_size=16, engine=ENGINES[name], labels=LabelCalibration(windows=2))
    return build_engine(teacher_on(device), config)


def shard(device: torch.device, name: str, checkpoint: Checkpoint | None = None) -> ShardImages:
    engine = engine_on(device, name)
    engine.load(engine.learn(torch.arange(10), 16, 0, Checkpoint())[0])
    return engine.make(TARGETS, generator(0, "toy.shard"), checkpoint=checkpoint)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.15)])
@pytest.mark.parametrize("compile", [False, True])
# PyTorch's own, of the compiler of 2.11.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_losses_and_gradients_are_those_of_the_cpu(device, monkeypatch, precision, tolerance, compile):  # noqa: A002
    # The convolutions of CUDA round float32 to 10 bits of mantissa unless told otherwise.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected, expected_gradient = judge(teacher_on("cpu"), "float32")
    terms, gradient = judge(teacher_on(device), precision, compile)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=tolerance, atol=tolerance)
    assert (gradient - expected_gradient).norm() < tolerance * expected_gradient.norm()


@pytest.mark.parametrize("name", list(ENGINES))
def test_the_same_seed_gives_the_same_images(device, name):
    first, second = shard(device, name), shard(device, name)
    assert torch.equal(first.canvases, second.canvases)
    assert torch.equal(first.soft_labels, second.soft_labels)


def test_interrupted_learning_ends_with_the_same_bytes(device):
    expected, _ = engine_on(device, "generator").learn(torch.arange(10), 16, 0, Checkpoint())
    saved = []

    def save(state):
        saved.append(state)
        if len(saved) == 5:
            raise Interruption

    with pytest.raises(Interruption):
        engine_on(device, "generator").learn(torch.arange(10), 16, 0, Checkpoint(None, save, seconds=0.0))
    resumed, _ = engine_on(device, "generator").learn(torch.arange(10), 16, 0, Checkpoint(saved[-1]))
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_retraining_gives_the_same_weights(device):
    def weights() -> dict[str, Tensor]:
        student = resnet20()
        initialise(student, generator(1, "toy.student"))
        canvases = torch.randint(256, (64, 3, 36, 36), generator=generator(0, "toy.canvases")).to(torch.uint8)
        data = SyntheticBatches(canvases, teacher_on(device), 16)
        retrain(student.to(device), data, RetrainConfig(epochs=2, warmup_epochs=0), 0, Checkpoint(), lambda *_: None)
        return student.state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(), Augmentation(color_jitter=0.4), Augmentation(crop_scale=0.3, cutout=9, mixup=0.7)],
)
def test_canvases_in_the_devices_memory_give_the_same_batches(device, augmentation):
    canvases = torch.randint(256, (40, 3, 36, 38), generator=generator(0, "toy.canvases")).to(torch.uint8)

    def passes(where: Tensor) -> list[Batch]:
        data = SyntheticBatches(where, teacher_on(device), 16, augmentation)
        return [*data.epoch(generator(0, "toy.epoch")), *data.fixed(), *data.fresh(generator(0, "toy.fresh"))]

    here, there = passes(canvases), passes(canvases.to(device))
    assert len(here) == len(there) == 2 + 3 + 3
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.teacher_logits, other.teacher_logits)


def test_small_canvases_go_to_the_device_and_large_ones_do_not(device, monkeypatch):
    if device.type != "cuda":
        pytest.skip("other devices have no memory of their own, or do not tell how much")
    canvases = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert near(canvases, device).is_cuda
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * 95, 8 * 95))
    assert near(canvases, device) is canvases


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning")
def test_no_step_waits_for_the_device(device):
    """A step of the pixel engine that read a value back would keep the host from running ahead."""
    if device.type != "cuda":
        pytest.skip("only CUDA tells")
    engine = engine_on(device, "pixels")
    counted = []

    def progress(done: int, total: int, _: dict) -> None:
        counted.append(done)
        # From the third step to the last but one: what starts and what ends may wait.
        torch.cuda.set_sync_debug_mode("error" if 2 <= done < total - 1 else "default")

    assert isinstance(engine.make(TARGETS, generator(0, "toy.shard"), progress=progress).canvases, Tensor)
    assert len(counted) == 12
