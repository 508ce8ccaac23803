"""The pretrained network that everything is recovered from: a module with what is needed to feed it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nas_core.errors import InputError

# What networks raise for images of a size that they cannot take.
REFUSALS = (RuntimeError, ValueError, AssertionError)


@dataclass(frozen=True)
class Teacher:
    """A frozen classifier with its preprocessing.

    Images have three forms here: *bytes* (uint8, what is stored), *pixels* (float in [0, 1]), and
    *normalised* ((pixels - mean) / std, what networks see). Teacher and student share mean and std.

    Attributes:
        module: The classifier, in eval mode, without parameter gradients; normalised images to logits.
        input_shape: (channels, height, width) of the images it was trained on.
        mean: Per-channel mean of its preprocessing, in units of pixels.
        std: Per-channel standard deviation of its preprocessing, in units of pixels, > 0.
        class_names: One name per logit, in order.
        flip_invariant: Whether a horizontally mirrored image keeps its class (not so for digits or text).
        batch_norms: The module's BatchNorm layers that keep running statistics, by name.
    """

    module: nn.Module
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    flip_invariant: bool = True
    batch_norms: dict[str, nn.BatchNorm2d] = field(init=False, repr=False)
    _kept_statistics: dict[torch.device, tuple[Tensor, Tensor]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Freeze the module and check that it fits its description."""
        channels = self.input_shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise InputError(
                f"the teacher takes {channels} channels, but mean has {len(self.mean)} and std has {len(self.std)} "
                "values; give one per channel"
            )
        self.module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        norms = {name: m for name, m in self.module.named_modules() if isinstance(m, nn.BatchNorm2d)}
        usable = {name: norm for name, norm in norms.items() if norm.running_mean is not None}
        object.__setattr__(self, "batch_norms", usable)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return len(self.class_names)

    def positions(self, class_names: Sequence[str]) -> list[int]:
        """Where among the teacher's logits each of as many other classes is.

        Args:
            class_names: Their names, in their order.

        Returns:
            By name, if they are the teacher's in any order and each is there once; else the order is the same.
        """
        if len(set(class_names)) == self.num_classes and set(class_names) == set(self.class_names):
            return [self.class_names.index(name) for name in class_names]
        return list(range(self.num_classes))

    @property
    def device(self) -> torch.device:
        """Where the module's tensors are."""
        return next(self.module.parameters()).device

    def to(self, device: torch.device) -> "Teacher":
        """The same teacher with its module moved (in place) to a device."""
        self.module.to(device)
        return self

    @torch.no_grad()
    def logits(self, normalised: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of normalised images in float32, without a graph; autocast decides how they are computed."""
        return self.module(normalised).float()

    def normalise(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Bytes to normalised images, on the device of `images`."""
        mean, std = self._statistics(images.device)
        return (images.float() / 255 - mean) / std

    def to_bytes(
        self, normalised: Float[Tensor, "batch channels height width"]
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Normalised images to bytes, rounded and clipped to [0, 255]."""
        mean, std = self._statistics(normalised.device)
        return ((normalised * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def valid_range(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Normalised values of black and white, each of shape (1, channels, 1, 1)."""
        mean, std = self._statistics(device)
        return -mean / std, (1 - mean) / std

    def fingerprint(self) -> str:
        """SHA-256 over weights, buffers and preprocessing: what the teacher computes, not where it is stored."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        preprocessing = (self.input_shape, self.mean, self.std, self.class_names, self.flip_invariant)
        digest.update(repr(preprocessing).encode())
        return digest.hexdigest()

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # Kept, because a copy to the device at every step would make the host wait for it.
        if device not in self._kept_statistics:
            mean, std = (torch.tensor(values).reshape(1, -1, 1, 1).to(device) for values in (self.mean, self.std))
            self._kept_statistics[device] = mean, std
        return self._kept_statistics[device]


def reason_of(error: Exception) -> str:
    """What a network says when it refuses images: the first line, or the error's name if it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def checked(teacher: Teacher) -> Teacher:
    """The same teacher, once a forward pass of two zero images has given one logit per class.

    Raises:
        InputError: If the network cannot take images of `input_shape`, or returns anything else.
    """
    images = f"images of shape {teacher.input_shape}"
    try:
        with torch.no_grad():
            output = teacher.module(torch.zeros(2, *teacher.input_shape, device=teacher.device))
    except REFUSALS as error:
        raise InputError(f"the teacher's network cannot take {images} ({reason_of(error)}); fix input_shape") from error
    except Exception as error:
        raise InputError(
            f"the teacher's network raised {type(error).__name__}: {reason_of(error)}; it is called with nothing but "
            f"{images}, normalised"
        ) from error
    expected = (2, teacher.num_classes)
    if not isinstance(output, Tensor) or output.shape != expected:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
        raise InputError(
            f"the teacher's network answered two {images} with an output of {found}, but the config's "
            f"{teacher.num_classes} classes call for logits of shape {expected}; fix the number of classes"
        )
    return teacher
