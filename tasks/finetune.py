"""Fine-tuning of the student on the user's real images: a result of its own, which is not data-free."""

from nas_core.finetuning import finetune
from storage.files import digest_of_file, digest_of_json, write_json
from storage.manifests import Manifest
from tasks.artifacts import task_progress
from tasks.real_data import real_images
from tasks.retrain import load_model, write_weights
from tasks.run import Run
from tasks.stage import Product, round_figure, stage_checkpoint


def finetune_student(run: Run, piece: str, key: str, _model: Manifest) -> Product:
    """Train a copy of the student further on the images of `finetune.data`; the student stays as it is."""
    config, teacher = run.config.finetune, run.teacher()
    assert config is not None
    network, description = load_model(run.directory)
    images = real_images("finetune.data", config.data, teacher, run.sources.get("finetune.data"))
    checkpoint = stage_checkpoint(run, piece, key)
    progress = task_progress(piece, run.artifact(piece))
    history = finetune(network.to(teacher.device), images, config, run.config.seed, checkpoint, progress)
    tuned = run.layout.finetuned
    write_weights(network, tuned.weights)
    write_json(tuned.architecture, description | {"finetuned_on": {"images": len(images), "source": images.source}})
    write_json(tuned.training, history)
    return Product(
        digest=digest_of_json([digest_of_file(tuned.weights), digest_of_file(tuned.architecture)]),
        files=[tuned.weights, tuned.architecture, tuned.training],
        figures={"loss": round_figure(history[-1]["loss"]), "accuracy": round_figure(history[-1]["accuracy"])},
    )
