"""Choice of the arithmetic in which networks run, in synthesis and in training."""

from contextlib import AbstractContextManager, nullcontext

import torch

from nas_core.settings.precision import Precision


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype that a precision names on a device.

    Args:
        name: "float32" and "bfloat16" are taken at their word, even where bfloat16 is emulated and slow.
        device: Where the network runs.
    """
    if name == "auto":
        return torch.bfloat16 if _computes_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def mixed_precision(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to `dtype`, in which convolutions and matrix products then run; nothing for float32.

    Weights and their updates stay float32.
    """
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether matrix products of bfloat16 are instructions of the device, not emulations."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Older PyTorch cannot be asked; float32 is right everywhere.
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False
