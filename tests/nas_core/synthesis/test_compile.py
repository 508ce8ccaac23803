"""`compile: true` changes the speed of a judgement, not its result, and is refused where nothing can compile."""

import shutil

import pytest
import torch
from torch import nn

from nas_core import compilation
from nas_core.compilation import check_compiler, compiled
from nas_core.errors import InputError
from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.settings.synthesis import GeneratorSpec, LossWeights, PixelSpec
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.labels import one_hot
from nas_core.synthesis.objective import Objective, StatisticsMemory
from nas_core.teachers.teacher import Teacher

TARGETS = one_hot(torch.arange(8) % 4, 4)


def small_teacher() -> Teacher:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    )
    initialise(network, generator(0, "toy.teacher"))
    return Teacher(network, (1, 8, 8), (0.5,), (0.25,), ("a", "b", "c", "d"))


def two_judgements(compile: bool) -> tuple[list[dict], list[torch.Tensor]]:  # noqa: A002
    """Of a mirrored window and one as it is, the second with the memory of the first."""
    objective = Objective(small_teacher(), LossWeights(), precision="float32", compile=compile)
    canvas = torch.randn(8, 1, 10, 10, generator=generator(0, "toy.canvas")).requires_grad_()
    memory, terms, gradients = StatisticsMemory(0.9), [], []
    for view in (canvas[:, :, 1:9, 2:10], canvas[:, :, :8, :8].flip(3)):
        found, _ = objective(view, TARGETS, 2.0, memory)
        gradients += torch.autograd.grad(found["total"], canvas)
        terms.append({name: value.detach() for name, value in found.items()})
        memory.remember()
    return terms, gradients


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_compiled_losses_and_gradients_are_the_uncompiled_ones():
    (expected, expected_gradients), (terms, gradients) = two_judgements(compile=False), two_judgements(compile=True)
    for before, after in zip(expected, terms, strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-6)
    for before, after in zip(expected_gradients, gradients, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("engine", [PixelSpec(compile=True), GeneratorSpec(compile=True)])
def test_without_a_compiler_it_is_refused_before_any_work(monkeypatch, engine):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(
        InputError, match=r"synthesis\.engine\.compile is true, but this machine lacks a C\+\+ compiler"
    ):
        build_engine(small_teacher(), SynthesisConfig(canvas=(10, 10), engine=engine)).check()


def test_the_compiler_is_the_one_that_torch_runs(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "clang++" else None)
    monkeypatch.setenv("CXX", "clang++ -stdlib=libc++")
    check_compiler(torch.device("cpu"), "synthesis.engine.compile")
    monkeypatch.setenv("CXX", "g++")
    with pytest.raises(InputError, match=r"lacks a C\+\+ compiler \('g\+\+'\)"):
        check_compiler(torch.device("cpu"), "synthesis.engine.compile")


def test_cuda_is_compiled_by_triton_into_graphs(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.update(options) or function)
    compiled(two_judgements, torch.device("cuda"))
    assert asked == {"dynamic": False, "mode": "reduce-overhead"}
    compiled(two_judgements, torch.device("cpu"))
    assert asked == {"dynamic": False, "mode": None}
    monkeypatch.setattr(compilation, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="this machine lacks Triton"):
        check_compiler(torch.device("cuda"), "synthesis.engine.compile")
