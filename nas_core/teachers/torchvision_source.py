"""A teacher from torchvision's classification models.

torchvision takes two seconds and 160 MB to import, so that happens where it is used; so do the other modules of this
package that use it.
"""

import difflib
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from nas_core.errors import InputError
from nas_core.settings.teachers import TorchvisionSpec, teachers
from nas_core.teachers.teacher import Teacher, checked


@teachers.register(TorchvisionSpec)
def torchvision_teacher(*, network: str, weights: str, flip_invariant: bool) -> Teacher:
    """Load a torchvision model with the crop size, mean, std and class names of its weights.

    The arguments are the fields of `TorchvisionSpec`.

    Raises:
        InputError: If the network or its weights are unknown, or the weights file can neither be read nor downloaded.
    """
    from torchvision import models

    known = one_of("torchvision network", network, models.list_models(module=models))
    entries = models.get_model_weights(known).__members__
    entry = entries[one_of(f"weights of {known}", weights, list(entries))]
    module = _load(known, entry)
    preprocessing = entry.transforms()
    side = preprocessing.crop_size[0]
    mean, std = tuple(map(float, preprocessing.mean)), tuple(map(float, preprocessing.std))
    return checked(Teacher(module, (3, side, side), mean, std, tuple(entry.meta["categories"]), flip_invariant))


def _load(network: str, entry: Any) -> nn.Module:
    """The model with its weights, a member of torchvision's enumeration, from torch hub's cache or the network."""
    from torchvision import models

    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(entry.url).path).name
    try:
        # torchvision would run code hidden in the cached file; reading it as mere tensors first refuses such a file.
        entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return models.get_model(network, weights=entry, progress=False)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"the weights {entry} can neither be read nor downloaded ({reason}); put the file {entry.url} at '{file}'"
        ) from error


def one_of(kind: str, name: str, known: list[str]) -> str:
    """The name, if it is known.

    Raises:
        InputError: If it is not; the message lists similar names, or else all.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        raise InputError(f"there is no {kind} '{name}'; {'similar' if near else 'known'}: {', '.join(near or known)}")
    return name
