"""Evaluation: data-free figures always; top-1 on real images where the user has some."""

from typing import Any

import torch
from torch import nn

from nas_core.evaluation.accuracy import agreement, top1
from nas_core.ops.cost import count_parameters, macs_of_call
from storage.files import digest_of_json, write_json
from storage.manifests import Manifest
from tasks.baselines import load_baseline
from tasks.data import batches, load_images
from tasks.real_data import real_images
from tasks.retrain import load_finetuned, load_model
from tasks.run import Run
from tasks.stage import Product


def evaluate_student(
    run: Run, _piece: str, _key: str, _dataset: Manifest, _model: Manifest, _others: list[Manifest]
) -> Product:
    """Judge the networks on held-out synthetic images, count their cost, and compare them on real images if given.

    The others are the baselines and the fine-tuned student, as far as the config asks for them.

    This is the only task that opens the real images of `evaluation.data`.
    """
    config, teacher = run.config.evaluation, run.teacher()
    student, description = load_model(run.layout.root)
    images, split = load_images(run)
    held_out = batches(run, images, split.held_out, config.batch_size)
    began = run.sources.get("evaluation.data")
    real = None if config.data is None else real_images("evaluation.data", config.data, teacher, began)
    image = torch.zeros(1, *description["input_shape"], device=teacher.device)

    def judged(network: nn.Module) -> dict[str, Any]:
        network.to(teacher.device)
        return {
            "top1": None if real is None else top1(network, real.batches(config.batch_size)),
            "agreement": agreement(network, held_out),
            "macs": macs_of_call(network, image),
            "params": count_parameters(network),
        }

    networks = []
    for kind in run.config.baselines:
        network, title = load_baseline(run, kind)
        networks.append({"kind": kind, "title": title, **judged(network)})
    finetuned = None
    if run.config.finetune is not None:
        network, about = load_finetuned(run.directory)
        finetuned = judged(network) | {"trained_on": about["finetuned_on"]}
    judges = len(split.held_out) if real is None else len(real)
    measure = "agreement" if real is None else "top1"
    figures = {
        "teacher": {name: value for name, value in judged(teacher.module).items() if name != "agreement"},
        "student": judged(student),
        "evaluation": {
            "images": 0 if real is None else len(real),
            "source": None if real is None else real.source,
        },
        "finetuned": finetuned,
        "baselines": {"measure": measure, "images": judges, "networks": networks} if networks else None,
    }
    write_json(run.layout.evaluation, figures)
    return Product(digest=digest_of_json(figures), files=[run.layout.evaluation], figures=figures["student"])
