"""Model files of networks with cells, and what is no model file."""

import json

import pytest
import safetensors.torch
import torch

from nas_core import exporting
from nas_core.errors import InputError
from nas_core.exporting import ModelFormat, export_model, load_classifier
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces import spaces
from nas_core.seeding import generator

DARTS = {"name": "darts", "network_channels": 2, "network_cells": 3}


def darts(operation: str, subspace: str = "none"):
    """A network of DARTS cells with one operation on every chosen edge that offers it, and its description."""
    spec = spaces.spec("darts").model_validate(DARTS | {"subspace": subspace})
    space = spaces.build(spec, input_shape=(3, 9, 9), num_classes=4)
    scores = [[float(name == operation) for name in slot.operations] for slot in space.slots]
    architecture = space.architecture(space.best(scores, None))
    network = space.network(architecture).eval()
    initialise(network, generator(0, "weights"))
    about = {
        "architecture": architecture.notation,
        "space": spec.model_dump(mode="json"),
        "input_shape": [3, 9, 9],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "class_names": list("abcd"),
    }
    return network, about


def test_cells_with_pooling_and_odd_sides_are_exported_to_onnx():
    pytest.importorskip("onnxscript")
    exported = export_model(*darts("max_pool_3x3"), ModelFormat.ONNX)
    assert exported.agrees
    assert exported.largest_logit > 0


@pytest.mark.parametrize("form", [ModelFormat.ONNX, ModelFormat.TORCH_EXPORT])
def test_an_architecture_that_draws_when_it_predicts_is_refused(form):
    with pytest.raises(InputError, match=r"noise operations.*--format safetensors"):
        export_model(*darts("noise", "s4"), form)


def test_weights_with_metadata_hold_even_an_architecture_that_draws():
    network, about = darts("noise", "s4")
    exported = export_model(network, about, ModelFormat.SAFETENSORS)
    assert exported.difference == 0
    model, read = load_classifier(exported.content)
    assert read == about
    pixels = torch.rand(2, 3, 9, 9, generator=generator(0, "pixels"))
    mean, std = (torch.tensor(about[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(model(pixels), network((pixels - mean) / std))


@pytest.mark.parametrize("bad_batch", [1, 5])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_file_that_answers_with_no_number_does_not_agree(value, bad_batch, monkeypatch):
    def read(content):
        model = load_classifier(content)[0]
        return lambda pixels: model(pixels) if len(pixels) != bad_batch else torch.full((bad_batch, 4), value)

    monkeypatch.setitem(exporting._READERS, ModelFormat.SAFETENSORS, read)
    assert not export_model(*darts("skip_connect"), ModelFormat.SAFETENSORS).agrees


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense" * 3,
        safetensors.torch.save({"weight": torch.ones(2)}),
        safetensors.torch.save({"weight": torch.ones(2)}, {"dfnas": "[]"}),
        safetensors.torch.save({"weight": torch.ones(2)}, {"dfnas": json.dumps(darts("noise", "s4")[1])}),
    ],
)
def test_what_is_no_exported_model_is_refused(content: bytes):
    with pytest.raises(InputError, match="this is no model"):
        load_classifier(content)
