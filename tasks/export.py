"""The student as a file for other programs, with its model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.errors import InputError
from nas_core.exporting import Classifier, ModelFormat, export_model, load_classifier
from nas_core.reporting.model_card import model_card
from nas_core.reporting.wording import command
from storage.errors import StorageError
from storage.files import read_json, write_bytes
from tasks.retrain import load_finetuned, load_model
from tasks.run import Run, refuse_unfinished
from tasks.verification import check_pieces


@dataclass(frozen=True)
class ModelFile:
    """What `export_student` wrote.

    Attributes:
        model: The model file.
        card: Its card, in Markdown.
        difference: Largest absolute difference of a logit to the network's, where it was checked.
    """

    model: Path
    card: Path
    difference: float


def export_student(run: Run, form: ModelFormat, output: Path | None = None, *, finetuned: bool = False) -> ModelFile:
    """Write the student of a finished run in a form that other programs run, and its card.

    Args:
        run: The run; its teacher is not needed.
        form: Which kind of file.
        output: The file, replaced if it exists; None: `export/<name of the run>` in the run directory. The card gets
            the same name with `.md` behind it.
        finetuned: The student after fine-tuning on real images instead, which is not data-free.

    Raises:
        StorageError: If the file would answer differently from the network: then none is written.
        InputError: If the run is not finished, the form needs packages that are missing, or cannot hold this
            architecture, or there is no fine-tuned student.
    """
    layout = run.layout
    refuse_unfinished(run, layout.results)
    results = read_json(layout.results)
    if "finetuned" not in results:
        raise StorageError(
            f"{layout.results} was written by an earlier version: {command('report', run.directory)} writes it anew"
        )
    check_pieces(layout, "report")
    if finetuned and results["finetuned"] is None:
        raise InputError(f"{run.directory} has no fine-tuned student: its config has no section finetune")
    network, description = (load_finetuned if finetuned else load_model)(run.directory)
    about = description | {"teacher": {"name": run.teacher_name, "fingerprint": run.fingerprint}}
    exported = export_model(network, about, form)
    if not exported.agrees:
        raise StorageError(
            f"the {form} file would answer differently from the network (a logit differs by {exported.difference:.3g}, "
            f"and the largest is {exported.largest_logit:.3g}), so it was not written: choose another format, and "
            "please report this with the architecture"
        )
    name = f"{run.config.name}-finetuned" if finetuned else run.config.name
    model = output or layout.exports / f"{name}{form.suffix}"
    card = model.with_name(f"{model.name}.md")
    write_bytes(model, exported.content)
    write_bytes(card, model_card(results, about, form, model.name, exported).encode())
    return ModelFile(model, card, exported.difference)


def load_exported(path: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """The network in a file of `dfnas export --format safetensors`.

    Returns:
        The network in eval mode on the CPU, its weights without gradients, from pixels in [0, 1] to logits; and what is
        known about it: "class_names", "input_shape", "mean", "std", "architecture", "space" and "teacher".

    Raises:
        InputError: If it is no such file.
    """
    return load_classifier(Path(path).read_bytes())
