"""The model card: what an exported file is, where it comes from, what it can do, and what it cannot."""

from collections.abc import Mapping
from typing import Any

from nas_core.exporting import METADATA, TOLERANCE, Exported, ModelFormat
from nas_core.reporting.imported import image_kind, imported_sentence
from nas_core.reporting.summary import comparison, machine
from nas_core.reporting.wording import percent

LOADING = {
    ModelFormat.ONNX: """import onnxruntime

session = onnxruntime.InferenceSession("{file}")
logits = session.run(["logits"], {{"pixels": pixels}})[0]  # float32 NumPy array, any batch size""",
    ModelFormat.TORCH_EXPORT: """import torch

model = torch.export.load("{file}").module()
logits = model(pixels)  # float32 tensor, any batch size; needs neither dfnas nor the network's code""",
    ModelFormat.SAFETENSORS: """from tasks.export import load_exported

model, about = load_exported("{file}")
logits = model(pixels)  # float32 tensor, any batch size""",
}


PRIVACY = "Made without data does not mean private: the synthetic images hold what the teacher remembers of its data."


def model_card(
    results: Mapping[str, Any], about: Mapping[str, Any], form: ModelFormat, file: str, exported: Exported
) -> str:
    """The card as Markdown.

    Args:
        results: The content of results.json.
        about: The file's metadata, see `export_model`; also "teacher" with its "name" and "fingerprint".
        form: Which kind of file it is about.
        file: The file's name.
        exported: The file, for how it was checked.
    """
    search = results["search"]
    digest = "model"
    if "finetuned_on" in about:
        results, digest = {**results, "student": {**results["student"], **results["finetuned"]}}, "finetuned"
    shape = " x ".join(map(str, about["input_shape"]))
    sections = [
        f"# {results['name']}: an image classifier {_title(results, about)}",
        f"A convolutional network that sorts images of {shape} (channels, height, width) into "
        f"{len(about['class_names'])} classes. Its architecture was found by {search['strategy']} in the space "
        f"{search['space']}, and it was trained by distillation from the teacher below. "
        + _training_data(results, about),
        _table(
            [
                ("file", f"`{file}` ({form})"),
                ("teacher", about["teacher"]["name"]),
                ("teacher's fingerprint", f"`{about['teacher']['fingerprint']}`"),
                ("architecture", f"`{_cell(about['architecture'])}`"),
                ("made with", f"dfnas {results['versions']['dfnas']}, torch {results['versions']['torch']}"),
                ("seed", str(results["seed"])),
                ("model digest", f"`{results['digests'][digest]}`"),
            ]
        ),
        "## Figures",
        _table(comparison(results), ("", "teacher", "this model")),
        _judged(results),
        "## Use",
        f"Input `pixels`: float32, (batch, {', '.join(map(str, about['input_shape']))}), RGB or gray in [0, 1]. "
        + _preprocessing(about, form)
        + f" Output `logits`: (batch, {len(about['class_names'])}); softmax makes probabilities of them. The class "
        f'names, in order, are in the file\'s metadata under "{METADATA}".',
        f"```python\n{LOADING[form].format(file=file)}\n```",
        f"The file was compared with the trained network on random pixels before it was written: the largest "
        f"difference of a logit is {exported.difference:.2g}, where logits reach {exported.largest_logit:.3g} "
        f"(accepted: {TOLERANCE:g} of that).",
        "## Limits",
        _limits(results, about),
    ]
    return "\n\n".join(sections) + "\n"


def _title(results: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    if "finetuned_on" in about:
        return "fine-tuned on real images"
    return "trained on imported images" if imported_sentence(results) else "made without data"


def _training_data(results: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    images, imported = results["synthesis"]["images"], imported_sentence(results)
    if imported is not None:
        tuned = ""
        if "finetuned_on" in about:
            real = about["finetuned_on"]
            tuned = f" Then it was fine-tuned on {real['images']:,} labelled real images ({real['source']})."
        return f"Training data: {images:,} images. {imported}{tuned}"
    recovered = f"{images:,} synthetic images were recovered from the teacher's weights and used instead"
    if "finetuned_on" not in about:
        return f"Training data: **none**; {recovered}."
    real = about["finetuned_on"]
    return (
        f"Up to here no data was used; {recovered}. Then it was fine-tuned on {real['images']:,} labelled real images "
        f"({real['source']}): it is **not data-free**."
    )


def _judged(results: Mapping[str, Any]) -> str:
    """What the figures stand on."""
    real, kind = results["evaluation"], image_kind(results)
    agreement = (
        f"Agreement is the share of held-out {kind} images on which this model and the teacher name the same class "
        f"({percent(results['student']['agreement'])})."
    )
    if results["latency"]:
        agreement += f" Latency was measured on {machine(results)}."
    if not real["images"]:
        return f"{agreement} No labelled real image judged it: its accuracy on real images is unknown."
    return (
        f"{agreement} Top-1 was measured on {real['images']:,} real images ({real['source']}), used for nothing else."
    )


def _preprocessing(about: Mapping[str, Any], form: ModelFormat) -> str:
    statistics = f"mean {about['mean']}, standard deviation {about['std']}"
    if form is ModelFormat.SAFETENSORS:
        return f"The normalisation ({statistics}) is in the metadata, and `load_exported` applies it."
    return f"The normalisation ({statistics}) is part of the model: do not apply it."


def _limits(results: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    kind = image_kind(results)
    seen = f"{kind} images, and the real ones named above" if "finetuned_on" in about else f"{kind} images alone"
    points = [
        "It imitates its teacher, with the teacher's errors and biases; the table says how it compares.",
        f"It has seen {seen}. On images unlike those that the teacher was trained on it has no claim.",
        "Calibration, robustness and fairness were not measured.",
        *([] if kind == "imported" else [PRIVACY]),
        "The licence of the teacher may extend to what is made from it.",
    ]
    if not results["evaluation"]["images"]:
        points.insert(0, "Measure its accuracy on labelled images of your own before you rely on it.")
    return "\n".join(f"- {point}" for point in points)


def _table(rows: list[tuple[str, str]] | list[tuple[str, str, str]], heading: tuple[str, ...] = ("", "")) -> str:
    lines = [heading, tuple("---" for _ in heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table, where a bar would end it."""
    return text.replace("|", "\\|")
