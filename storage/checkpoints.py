"""Checkpoints of work in progress: a dict of tensors and plain values, written atomically, read without code."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from storage.errors import StorageError
from storage.files import write_bytes


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write a state together with the key of the work that it belongs to."""
    buffer = io.BytesIO()
    torch.save({"key": key, "state": state}, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The state saved for the same work, or None if there is none, or it belongs to other work.

    Raises:
        StorageError: If the file is damaged.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StorageError(f"the checkpoint {path} is damaged: delete it and run again") from error
    return content["state"] if content["key"] == key else None
