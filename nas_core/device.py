"""Choice of the device on which a stage runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

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
    """The torch device that a config's `device` names.

    Args:
        name: "auto" (CUDA, else Apple's MPS, else CPU) or a torch device such as "cpu", "cuda:1", "mps".

    Raises:
        InputError: If the name is no device, or that device is absent from this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device '{name}' cannot be used here ({reason}); use 'auto', 'cpu', 'cuda' or 'mps'"
        ) from error
    return device
