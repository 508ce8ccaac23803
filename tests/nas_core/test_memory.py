"""The memory that a shard takes at least, by hand; and refusal with both numbers."""

from pathlib import Path

import pytest
import torch

from nas_core import memory
from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.execution import Local, Processes
from nas_core.memory import (
    activations,
    canvas_memory,
    check_memory,
    learned_bytes,
    near,
    shard_bytes,
    total_memory,
)
from nas_core.settings.synthesis import GeneratorSpec, PixelSpec
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.config import SynthesisConfig
from nas_core.teachers.teacher import Teacher


def test_the_toy_teacher_keeps_two_layers_of_eight_3x3_maps(teacher: Teacher):
    """A 3x3 convolution of stride 2 makes 3x3 of 8x8; BatchNorm gives as many."""
    assert activations(teacher) == 2 * 8 * 3 * 3


def test_a_shard_is_its_canvases_four_times_and_the_activations(teacher: Teacher):
    config = SynthesisConfig(canvas=(10, 12), batch_size=5)
    assert shard_bytes(teacher, config) == 5 * (3 * 10 * 12 * 16 + 144 * 2)


def test_a_generator_keeps_the_maps_of_its_own_layers_too(teacher: Teacher):
    """Of a canvas of 8 x 8: a norm of two channels at 4 x 4; at 8 x 8 a convolution and a norm of one, three pixels."""
    spec = GeneratorSpec(width=2)
    pixels, drawn = (SynthesisConfig(canvas=(8, 8), batch_size=5, engine=engine) for engine in (PixelSpec(), spec))
    more = shard_bytes(teacher, drawn) - shard_bytes(teacher, pixels)
    assert more == 5 * 2 * (2 * 4 * 4 + (1 + 1 + 3) * 8 * 8)


@pytest.mark.parametrize("adaptation", [0, 3])
def test_the_size_of_what_a_generator_learns_is_known_before(teacher: Teacher, adaptation: int):
    spec = GeneratorSpec(width=2, latent=4, steps=4, snapshots=2, warmup=1, adaptation=adaptation)
    config = SynthesisConfig(canvas=(8, 8), batch_size=5, engine=spec)
    learned, _ = build_engine(teacher, config).learn(torch.arange(2), 5, 0, Checkpoint())
    snapshots = [tensor for name, tensor in learned.items() if name.startswith("generator.")]
    assert learned_bytes(teacher, config) == sum(tensor.nbytes for tensor in snapshots) > 0
    pixels = config.model_copy(update={"engine": PixelSpec()})
    assert learned_bytes(teacher, pixels) == 0


def test_a_shard_larger_than_memory_is_refused_with_both_numbers(teacher: Teacher, monkeypatch):
    config = SynthesisConfig(canvas=(8192, 8192), batch_size=100)  # 300 GiB of canvases
    monkeypatch.setattr(memory, "total_memory", lambda _: 64 * 2**30)
    with pytest.raises(InputError, match=r"100 canvases of 8192x8192 takes at least 300\.0 GiB .* cpu has 64\.0 GiB"):
        check_memory(teacher, config)
    monkeypatch.setattr(memory, "total_memory", lambda _: 512 * 2**30)
    check_memory(teacher, config)
    with pytest.raises(InputError, match=r"2 shards at once of 100 .* 600\.0 GiB .* execution\.workers"):
        check_memory(teacher, config, at_once=2)


@pytest.mark.parametrize(("limit", "size"), [("max", None), ("1048576", 1048576)])
def test_a_control_group_may_have_less_than_the_machine(monkeypatch, tmp_path: Path, limit: str, size: int | None):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    whole = total_memory(torch.device("cpu"))
    monkeypatch.setattr(memory, "CGROUP_LIMIT", tmp_path / "memory.max")
    found = total_memory(torch.device("cpu"))
    assert found == size if size else found >= whole > 2**27


def test_canvases_may_take_a_quarter_of_the_memory_shared_by_the_workers(monkeypatch):
    monkeypatch.setattr(memory, "total_memory", lambda _: 64 * 2**30)
    assert canvas_memory(Local()) == 16 * 2**30
    assert canvas_memory(Processes(workers=4)) == 4 * 2**30
    assert canvas_memory(Processes(workers=4, canvas_memory_gib=1.5)) == 3 * 2**29


def test_canvases_stay_where_they_are_without_a_device():
    canvases = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert near(canvases, torch.device("cpu")) is canvases
