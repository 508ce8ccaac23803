"""Networks that were not searched for, trained like the found one: one stage each, on request."""

from typing import Any, cast

import safetensors.torch
from torch import nn

from nas_core.baselines import build_baseline, handmade, random_architecture, shrunk_teacher
from nas_core.config import Baseline
from nas_core.ops.cost import count_macs
from storage.files import digest_of_file, digest_of_json, read_json, write_json
from storage.manifests import Manifest
from tasks.retrain import distil, write_weights
from tasks.run import Run
from tasks.stage import Product, round_figure
from tasks.verification import check_pieces


def train_baseline(run: Run, piece: str, key: str, _dataset: Manifest, found: Manifest) -> Product:
    """Train a network of about the found one's cost that nobody searched for, on the same images alike."""
    kind = cast(Baseline, piece.removeprefix("baseline-"))
    description = _design(run, kind, found.figures["architecture"])
    trained = run.layout.baseline(kind)
    network = build_baseline(description, run.teacher().input_shape, run.teacher().num_classes)
    history = distil(run, network.to(run.teacher().device), piece, key)
    write_weights(network, trained.weights)
    write_json(trained.architecture, description)
    write_json(trained.training, history)
    return Product(
        digest=digest_of_json([digest_of_file(trained.weights), digest_of_file(trained.architecture)]),
        files=[trained.weights, trained.architecture, trained.training],
        figures={"title": description["title"], "agreement": round_figure(history[-1]["agreement"])},
    )


def load_baseline(run: Run, kind: Baseline) -> tuple[nn.Module, str]:
    """A trained baseline in eval mode on the CPU, and what it is in a few words."""
    trained, teacher = run.layout.baseline(kind), run.teacher()
    description = read_json(trained.architecture)
    network = build_baseline(description, teacher.input_shape, teacher.num_classes)
    network.load_state_dict(safetensors.torch.load(trained.weights.read_bytes()))
    return network.eval(), description["title"]


def _design(run: Run, kind: Baseline, found: str) -> dict[str, Any]:
    """What to train: a description for `build_baseline`, with a title."""
    teacher, seed = run.teacher(), run.config.seed
    if kind == "random":
        space = run.space()
        choices = space.choices(space.parse(found))
        if run.config.search.latency_table is not None:
            check_pieces(run.layout, "costs")
        notation = random_architecture(space, choices, run.budget(), seed)
        spec = run.retrain_space_spec.model_dump(mode="json")
        return {"title": "random architecture", "space": spec, "architecture": notation}
    space = run.retrain_space()
    macs = count_macs(space.network(space.parse(found)), teacher.input_shape)
    if kind == "handmade":
        sizes = handmade(teacher.input_shape, teacher.num_classes, macs)
        name = f"ResNet-{6 * sizes['blocks'] + 2}"
    else:
        sizes = shrunk_teacher(teacher, macs)
        name = "teacher"
    return {"title": f"{name}, {'-'.join(map(str, sizes['widths']))} channels", "resnet": sizes}
