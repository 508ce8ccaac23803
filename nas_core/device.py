"""Choice of the device on which a stage runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

from nas_core.errors import InputError


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Within, PyTorch uses that many CPU threads; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resolve_device(name: str) -> torch.device:
    """The torch device that a config's `device` names; on CUDA, this process then computes repeatably.

    Args:
        name: "auto" (CUDA, else Apple's MPS, else CPU) or a torch device such as "cpu", "cuda:1", "mps".

    Raises:
        InputError: If the name is no device, or that device is absent from this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device '{name}' cannot be used here ({reason}); use 'auto', 'cpu', 'cuda' or 'mps'"
        ) from error
    if device.type == "cuda":
        _compute_repeatably()
    return device


def _compute_repeatably() -> None:
    """Let CUDA's libraries choose kernels that give the same bytes every time, as those of a CPU do.

    An operation that has no such kernel runs all the same, with PyTorch's warning.
    """
    # Read when cuBLAS is first used; a user's own setting stays.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill every new tensor, which is for finding bugs.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
