"""Retraining of the found architecture, and the trained student as users load it."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from nas_core.errors import InputError
from nas_core.reporting.figures import record_curves
from nas_core.search_spaces import rebuild_network
from nas_core.training.retraining import augmentation, retrain
from storage.errors import StorageError
from storage.files import digest_of_file, digest_of_json, read_json, write_bytes, write_json
from storage.layout import ModelLayout, RunLayout
from storage.locations import location
from storage.manifests import Manifest
from tasks.artifacts import show_pictures, task_progress
from tasks.data import batches, load_images
from tasks.run import Run
from tasks.stage import Product, round_figure, stage_checkpoint
from tasks.verification import check_pieces


def retrain_architecture(run: Run, piece: str, key: str, _dataset: Manifest, found: Manifest) -> Product:
    """Train the found architecture from new weights on all synthetic images that are not held out."""
    layout, space = run.layout, run.retrain_space()
    network = space.network(space.parse(found.figures["architecture"])).to(run.teacher().device)
    history = distil(run, network, piece, key)
    write_weights(network, layout.weights)
    write_json(layout.architecture, _description(run, found.figures["architecture"]))
    write_json(layout.training, history)
    show_pictures(
        run.artifact("training-curve"),
        "Retraining",
        [(record_curves(history), f"training of `{found.figures['architecture']}`")],
        "Retraining over the epochs",
    )
    digests = [digest_of_file(layout.weights), digest_of_file(layout.architecture)]
    return Product(
        digest=digest_of_json(digests),
        files=[layout.weights, layout.architecture, layout.training],
        figures={"loss": round_figure(history[-1]["loss"]), "agreement": round_figure(history[-1]["agreement"])},
    )


def distil(run: Run, network: nn.Module, piece: str, key: str) -> list[dict[str, Any]]:
    """Train any network as the config says, on all images that are not held out; what `retrain` returns."""
    config = run.config.retrain
    images, split = load_images(run)
    chosen = torch.cat([split.train, split.validation])
    training = batches(run, images, chosen, config.batch_size, augmentation(config))
    checkpoint, progress = stage_checkpoint(run, piece, key), task_progress(piece, run.artifact(piece))
    return retrain(network, training, config, run.config.seed, checkpoint, progress)


def write_weights(network: nn.Module, path: Path) -> None:
    """Write all weights and running statistics of a trained network as safetensors.

    Raises:
        InputError: If one is not finite; the training loop sees only what happened before its last step.
    """
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    if broken := next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None):
        raise InputError(
            f"training ended with NaN or infinite values in '{broken}'; lower its learning_rate or gradient_clip"
        )
    write_bytes(path, safetensors.torch.save(weights))


def load_model(directory: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The student of a finished run, ready for use.

    Args:
        directory: The run directory, or its URL.

    Returns:
        The network in eval mode on the CPU, and its description: "architecture", "space", "input_shape", "mean",
        "std" and "class_names". It takes (pixels - mean) / std with pixels in [0, 1], and returns logits.

    Raises:
        StorageError: If the run has no finished student, or its files are damaged or of another version.
    """
    layout = RunLayout(location(directory))
    return _load(layout, "retrain", layout.model)


def load_finetuned(directory: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The same after fine-tuning on real images; the description also has "finetuned_on" {"images", "source"}.

    Raises:
        StorageError: The same, or the run was not asked to fine-tune.
    """
    layout = RunLayout(location(directory))
    return _load(layout, "finetune", layout.finetuned)


def _load(layout: RunLayout, piece: str, model: ModelLayout) -> tuple[nn.Module, dict[str, Any]]:
    check_pieces(layout, piece)
    description = read_json(model.architecture)
    network = rebuild_network(
        description["space"],
        tuple(description["input_shape"]),
        len(description["class_names"]),
        description["architecture"],
    )
    try:
        network.load_state_dict(safetensors.torch.load(model.weights.read_bytes()))
    except RuntimeError as error:
        raise StorageError(f"{model.weights} is of another network than this version makes: run again") from error
    return network.eval(), description


def _description(run: Run, notation: str) -> dict[str, Any]:
    teacher = run.teacher()
    return {
        "architecture": notation,
        "space": run.retrain_space_spec.model_dump(mode="json"),
        "input_shape": list(teacher.input_shape),
        "mean": list(teacher.mean),
        "std": list(teacher.std),
        "class_names": list(teacher.class_names),
    }
