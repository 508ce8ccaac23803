"""Weights from untrusted files: tensors are read, code is never run, and what does not fit is named."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nas_core.errors import InputError

WRAPPERS = ("state_dict", "state_dict_ema", "model")
"""Keys under which training scripts commonly nest the state dict; the first that is there counts."""


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the weights of a file into a module.

    Args:
        module: Receives every parameter and buffer, by name.
        path: See `read_state_dict`. What wrappers such as DataParallel (`module.`), torch.compile (`_orig_mod.`) or
            Lightning (`model.`) put in front of every name is dropped.

    Raises:
        InputError: If names or shapes differ (the first ten of each kind are listed), or the file is unusable.
            A missing `num_batches_tracked` is no difference: files of old PyTorch versions lack it.
    """
    expected = module.state_dict()
    state = without_prefix(read_state_dict(path), next(iter(expected), ""))
    differences = {
        "missing": [name for name in expected if name not in state and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(differences.values()):
        found = "; ".join(f"{kind}: {_first_ten(names)}" for kind, names in differences.items() if names)
        raise InputError(f"the weights in '{path}' do not fit the network ({found}); check the network and the file")
    module.load_state_dict(state, strict=False)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a weights file, on the CPU.

    Args:
        path: A `.safetensors` file, or any other file written by `torch.save` that holds a state dict, plain or
            under "state_dict", "state_dict_ema" or "model".

    Raises:
        InputError: If the file is missing, is damaged, holds code or anything but tensors, or a value is not finite.
    """
    if not path.is_file():
        raise InputError(f"there is no weights file '{path.absolute()}'; relative paths start at the current directory")
    state = _read(path)
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise InputError(f"'{path}' holds no state dict; save it with torch.save(model.state_dict(), path)")
    strangers = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strangers:
        raise InputError(
            f"'{path}' holds more than tensors: {_first_ten(strangers)}; "
            "save it with torch.save(model.state_dict(), path)"
        )
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InputError(f"the tensor '{name}' in '{path}' has values that are NaN or infinite; use other weights")
    return state


def without_prefix(state: dict[str, Tensor], known: str) -> dict[str, Tensor]:
    """Drop what stands in front of every name, if without it a known one is among them.

    Args:
        state: Tensors by name.
        known: Name of a parameter or buffer of the bare network.
    """
    if known in state:
        return state
    for prefix in (name.removesuffix(known) for name in state if name.endswith(f".{known}")):
        if all(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise InputError(
            f"'{path}' is damaged or holds code, which is never run; convert it to safetensors, "
            "or save it with torch.save(model.state_dict(), path)"
        ) from error


def _first_ten(names: list[Any]) -> str:
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(str, names[:10])) + rest
