"""Checkpoints of work in progress: a dict of tensors and plain values, written atomically, read without code.

A file is a line that names the format, a line with the SHA-256 of the rest, and what `torch.save` gives. PyTorch checks
no checksums itself, and a flipped bit in a weight would otherwise go on into the result.
"""

import hashlib
import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from storage.files import write_bytes

FORMAT = b"dfnas checkpoint 1"
logger = logging.getLogger(__name__)


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write a state together with the key of the work that it belongs to."""
    buffer = io.BytesIO()
    torch.save({"key": key, "state": state}, buffer)
    content = buffer.getvalue()
    write_bytes(path, b"\n".join([FORMAT, _checksum(content), content]))


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The state saved for the same work, or None if there is none.

    A checkpoint that is damaged, of another version, or of other work is worth no more than none: the work starts
    anew, and a warning in the log says why.
    """
    if not path.exists():
        return None
    form, _, rest = path.read_bytes().partition(b"\n")
    checksum, _, content = rest.partition(b"\n")
    if form != FORMAT:
        return _ignored(path, "it was written by another version, or is no checkpoint")
    if checksum != _checksum(content):
        return _ignored(path, "it is damaged")
    try:
        saved = torch.load(io.BytesIO(content), weights_only=True)
    except pickle.UnpicklingError:
        return _ignored(path, "it holds more than tensors and plain values")
    except (RuntimeError, EOFError) as error:  # a GPU's tensors where there is none, for instance
        return _ignored(path, f"it cannot be read on this machine ({str(error).partition('. ')[0]})")
    if saved["key"] != key:
        return _ignored(path, "it belongs to work with other inputs, or of another version")
    return saved["state"]


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _ignored(path: Path, reason: str) -> None:
    logger.warning("the checkpoint %s is ignored: %s; the work starts anew", path, reason)
