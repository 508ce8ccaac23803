"""Evaluation: data-free figures always; top-1 on real images where the user has some."""

from nas_core.evaluation.accuracy import agreement, top1
from nas_core.evaluation.data import data_sources
from nas_core.ops.cost import count_macs, count_parameters
from storage.files import digest_of_json, write_json
from storage.manifests import Manifest
from tasks.data import batches, load_images
from tasks.retrain import load_model
from tasks.run import Run
from tasks.stage import Product, stage


@stage("evaluate", version=1, sections=("evaluation", "search.validation_fraction"))
def evaluate_student(run: Run, _piece: str, _key: str, _dataset: Manifest, _model: Manifest) -> Product:
    """Judge the student on held-out synthetic images, count what it costs, and compare on real images if given.

    This is the only task that opens the real images of `evaluation.data`.
    """
    config, teacher = run.config.evaluation, run.teacher()
    student, description = load_model(run.layout.root)
    student.to(teacher.device)
    images, split = load_images(run)
    held_out = batches(run, images, split.held_out, config.batch_size)
    input_shape = tuple(description["input_shape"])
    figures = {
        "teacher": {
            "top1": None,
            "macs": count_macs(teacher.module, teacher.input_shape),
            "params": count_parameters(teacher.module),
        },
        "student": {
            "top1": None,
            "agreement": agreement(student, held_out),
            "macs": count_macs(student, input_shape),
            "params": count_parameters(student),
        },
        "evaluation": {"images": 0, "source": None},
    }
    if config.data is not None:
        real = data_sources.build(config.data, teacher=teacher)
        figures["teacher"]["top1"] = top1(teacher.module, real.batches(config.batch_size))
        figures["student"]["top1"] = top1(student, real.batches(config.batch_size))
        figures["evaluation"] = {"images": len(real), "source": real.source}
    write_json(run.layout.evaluation, figures)
    return Product(digest=digest_of_json(figures), files=[run.layout.evaluation], figures=figures["student"])
