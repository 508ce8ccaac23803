"""Compiled code for a step that is taken thousands of times, by `torch.compile`."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeVar, cast

import torch

from nas_core.errors import InputError

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function, device: torch.device) -> Function:
    """The function as compiled code; on CUDA also replayed as CUDA graphs, which spares the host its launches.

    What it returns on CUDA is overwritten by its next call: copy what has to last.

    Args:
        function: A pure function of tensors, but for attributes that it sets.
        device: Where the tensors are.
    """
    mode = "reduce-overhead" if device.type == "cuda" else None
    return cast(Function, torch.compile(function, dynamic=False, mode=mode))


def check_compiler(device: torch.device, field: str) -> None:
    """Raise InputError if this machine has not what `compiled` needs.

    Args:
        device: Where the compiled code is to run.
        field: The config's field that asked for it.
    """
    if device.type == "cuda":
        missing = None if find_spec("triton") else "Triton, which comes with PyTorch's CUDA builds"
    else:
        # The one that torch.compile runs, which looks for no other.
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        missing = None if shutil.which(compiler.partition(" ")[0]) else f"a C++ compiler ('{compiler}')"
    if missing:
        raise InputError(f"{field} is true, but this machine lacks {missing}; install it, or set {field} to false")
