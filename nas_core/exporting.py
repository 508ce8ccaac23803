"""The student in forms that other programs run: ONNX, torch.export and safetensors.

What is exported takes pixels in [0, 1]: the teacher's normalisation is part of the graph, or is written beside the
weights. Each form is read back and compared with the network before it is given out.
"""

import importlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.ops.stochastic import Noise
from nas_core.search_spaces import rebuild_network
from nas_core.seeding import generator

# Largest difference of a logit that two orders of float32 additions may make, relative to the largest logit.
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 5)
# The key of all that is known about the model, as JSON: one entry, because safetensors writes several in any order.
METADATA = "dfnas"

Predict = Callable[[Tensor], Tensor]


class ModelFormat(StrEnum):
    """What a model file is: an ONNX graph, a program of torch.export, or weights with what is needed to rebuild it."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"
    SAFETENSORS = "safetensors"

    @property
    def suffix(self) -> str:
        """Ending of the file's name."""
        return {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}[self]


class Classifier(nn.Module):
    """A network that takes pixels.

    Args:
        network: Takes (pixels - mean) / std.
        mean: Per channel, in units of pixels.
        std: Per channel, in units of pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, pixels: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of images with pixels in [0, 1]."""
        return self.network((pixels - self.mean) / self.std)


@dataclass(frozen=True)
class Exported:
    """A model file, and how it compares with the network that it was made from.

    Attributes:
        content: The file.
        difference: Largest absolute difference of a logit, on random pixels in batches of several sizes.
        largest_logit: Largest absolute value of a logit on the same pixels.
    """

    content: bytes
    difference: float
    largest_logit: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within what the order of additions explains."""
        return self.difference <= TOLERANCE * max(1.0, self.largest_logit)


def export_model(network: nn.Module, about: Mapping[str, Any], form: ModelFormat) -> Exported:
    """Make a model file, read it back, and compare what it answers.

    Args:
        network: On the CPU, in eval mode; takes normalised images.
        about: Becomes the file's metadata: "architecture", "space", "input_shape", "mean", "std", "class_names", and
            whatever else is JSON.
        form: Which kind of file.

    Raises:
        InputError: If a package that the form needs is missing, or the network draws random numbers when it predicts.
    """
    model = Classifier(network, about["mean"], about["std"]).eval()
    if form is not ModelFormat.SAFETENSORS and any(isinstance(part, Noise) for part in network.modules()):
        raise InputError(
            f"the architecture holds noise operations, which draw random numbers when it predicts, and a {form} file "
            "cannot: choose --format safetensors"
        )
    content = _WRITERS[form](model, about)
    predict = _READERS[form](content)
    differences, logits = [], []
    with torch.no_grad():
        for position, batch in enumerate(CHECKED_BATCHES):
            pixels = torch.rand(batch, *about["input_shape"], generator=generator(0, "export.check", position))
            expected = model(pixels)
            differences.append((predict(pixels) - expected).abs().max())
            logits.append(expected.abs().max())
    # Unlike Python's, this maximum is NaN if anything is.
    return Exported(content, *(float(torch.stack(values).max()) for values in (differences, logits)))


def load_classifier(content: bytes) -> tuple[Classifier, dict[str, Any]]:
    """The network in an exported safetensors file; no code in it can run.

    Returns:
        The network in eval mode on the CPU, its weights without gradients, from pixels in [0, 1] to logits; and the
        metadata of `export_model`.

    Raises:
        InputError: If it is no such file.
    """
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"][METADATA])
        shape, classes = tuple(about["input_shape"]), len(about["class_names"])
        network = rebuild_network(about["space"], shape, classes, about["architecture"])
        network.load_state_dict(safetensors.torch.load(content))
        return Classifier(network, about["mean"], about["std"]).eval().requires_grad_(False), about
    except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"this is no model that `dfnas export --format safetensors` wrote ({reason}); export it anew"
        ) from error


def _to_onnx(model: Classifier, about: Mapping[str, Any]) -> bytes:
    onnx, _ = _onnx_packages()
    program = torch.onnx.export(
        model,
        (_example(about),),
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model_proto = program.model_proto  # each access makes a new one
    onnx.helper.set_model_props(model_proto, {METADATA: json.dumps(dict(about))})
    return model_proto.SerializeToString()


def _from_onnx(content: bytes) -> Predict:
    _, runtime = _onnx_packages()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(["logits"], {"pixels": pixels.numpy()})[0])


def _onnx_packages() -> tuple[Any, Any]:
    try:
        importlib.import_module("onnxscript")
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(
            f"ONNX files need onnx, onnxscript and onnxruntime ({error}); install them with: pip install 'dfnas[onnx]'"
        ) from error


def _to_torch_export(model: Classifier, about: Mapping[str, Any]) -> bytes:
    program = torch.export.export(model, (_example(about),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{METADATA}.json": json.dumps(dict(about))})
    return buffer.getvalue()


def _from_torch_export(content: bytes) -> Predict:
    return torch.export.load(io.BytesIO(content)).module()


def _to_safetensors(model: Classifier, about: Mapping[str, Any]) -> bytes:
    weights = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    return safetensors.torch.save(weights, {METADATA: json.dumps(dict(about))})


def _example(about: Mapping[str, Any]) -> Tensor:
    """What the graph is traced with: of two images, because PyTorch takes a size of one for a constant."""
    return torch.zeros(2, *about["input_shape"])


_WRITERS: dict[ModelFormat, Callable[[Classifier, Mapping[str, Any]], bytes]] = {
    ModelFormat.ONNX: _to_onnx,
    ModelFormat.TORCH_EXPORT: _to_torch_export,
    ModelFormat.SAFETENSORS: _to_safetensors,
}
_READERS: dict[ModelFormat, Callable[[bytes], Predict]] = {
    ModelFormat.ONNX: _from_onnx,
    ModelFormat.TORCH_EXPORT: _from_torch_export,
    ModelFormat.SAFETENSORS: lambda content: load_classifier(content)[0],
}
