"""Fine-tuning is asked for by name, stays beside the student, and is called what it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.errors import InputError
from nas_core.exporting import ModelFormat
from storage.files import read_json
from storage.integrity import verify_run
from tasks.building import preflight
from tasks.export import export_student, load_exported
from tasks.retrain import load_finetuned, load_model
from tasks.run import Run

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Some of the held-out digits."""
    with np.load(PROJECT / "examples" / "digits" / "held_out.npz") as arrays:
        np.savez(tmp_path / "real.npz", images=arrays["images"][:40], labels=arrays["labels"][:40])
    return tmp_path / "real.npz"


def test_the_fine_tuned_network_lies_beside_the_student_and_is_marked(damageable: Run, complete, real: Path):
    student = damageable.layout.weights.read_bytes()
    values = damageable.config.model_dump(mode="json")
    values["finetune"] = {"data": {"name": "npz", "path": str(real)}, "epochs": 2, "batch_size": 8}
    run = damageable.model_copy(update={"config": type(damageable.config).model_validate(values)})
    complete(run)
    assert run.layout.weights.read_bytes() == student
    assert verify_run(run.layout, lambda *_: None).faults == ()
    (before, _), (after, about) = load_model(run.directory), load_finetuned(run.directory)
    assert not torch.equal(next(before.parameters()), next(after.parameters()))
    assert about["finetuned_on"] == {"images": 40, "source": "npz real.npz"}

    results, page = read_json(run.layout.results), run.layout.report.read_text()
    assert results["finetuned"]["trained_on"] == about["finetuned_on"]
    assert results["finetuned"]["macs"] == results["student"]["macs"]
    assert "Fine-tuned on real images: not data-free" in page
    assert "for the fine-tuned network beside the student: 40 (npz real.npz)" in page

    written = export_student(run, ModelFormat.SAFETENSORS, finetuned=True)
    assert written.model.name == "tiny-finetuned.safetensors"
    assert load_exported(written.model)[1]["finetuned_on"] == about["finetuned_on"]
    card = written.card.read_text()
    assert "Then it was fine-tuned on 40 labelled real images (npz real.npz): it is **not data-free**" in card
    assert "Training data: **none**" not in card


def test_a_single_image_is_too_few_to_learn_from(finished: Run, real: Path):
    values = finished.config.model_dump(mode="json")
    values["finetune"] = {"data": {"name": "npz", "path": str(real)}}
    with np.load(real) as arrays:
        np.savez(real, images=arrays["images"][:1], labels=arrays["labels"][:1])
    with pytest.raises(InputError, match=r"finetune.data: npz real.npz holds one image, and a batch needs two"):
        preflight(type(finished.config).model_validate(values))


def test_more_images_than_memory_holds_are_refused_before_they_are_read(finished: Run, real: Path, monkeypatch):
    """40 images of 8 x 8 pixels and one channel are 2,560 bytes."""
    values = finished.config.model_dump(mode="json")
    values["finetune"] = {"data": {"name": "npz", "path": str(real)}}
    config = type(finished.config).model_validate(values)
    monkeypatch.setattr("nas_core.finetuning.total_memory", lambda _: 2560)
    preflight(config)
    monkeypatch.setattr("nas_core.finetuning.total_memory", lambda _: 2559)
    with pytest.raises(InputError, match=r"^finetune\.data: the 40 images of npz real\.npz take 2\.5 KiB of memory"):
        preflight(config)


@pytest.mark.parametrize(("kind", "judging"), [("folder", "real"), ("npz", "real.npz")])
def test_a_copy_of_the_judging_images_is_refused_to_learn_from(
    finished: Run, kind: str, judging: str, real: Path, tmp_path: Path
):
    """Images of equal names, sizes and labels are others if their pixels are."""
    for name, shade in (("real", 0), ("copy-of-real", 0), ("other-than-real", 255)):
        for index in range(10):
            path = tmp_path / name / str(index) / "image.bmp"
            path.parent.mkdir(parents=True)
            Image.new("L", (8, 8), shade).save(path)
    (tmp_path / "copy-of-real.npz").write_bytes(real.read_bytes())
    with np.load(real) as arrays:
        np.savez(tmp_path / "other-than-real.npz", images=255 - arrays["images"], labels=arrays["labels"])

    values = finished.config.model_dump(mode="json")
    values["evaluation"]["data"] = {"name": kind, "path": str(tmp_path / judging)}
    values["finetune"] = {"data": {"name": kind, "path": str(tmp_path / f"other-than-{judging}")}}
    checked = preflight(type(finished.config).model_validate(values))
    assert checked.sources.keys() == {"finetune.data", "evaluation.data"}
    values["finetune"] = {"data": {"name": kind, "path": str(tmp_path / f"copy-of-{judging}")}}
    with pytest.raises(InputError, match=r"finetune\.data holds the same images as evaluation\.data"):
        preflight(type(finished.config).model_validate(values))


def test_a_fault_of_the_real_images_names_their_section(finished: Run, tmp_path: Path):
    values = finished.config.model_dump(mode="json")
    values["finetune"] = {"data": {"name": "folder", "path": str(tmp_path / "nowhere")}}
    with pytest.raises(InputError, match=r"^finetune\.data: .*nowhere is no folder; give one"):
        preflight(type(finished.config).model_validate(values))


def test_repaired_labels_are_other_images_to_learn_from(finished: Run, real: Path):
    values = finished.config.model_dump(mode="json")
    values["finetune"] = {"data": {"name": "npz", "path": str(real)}}
    config = type(finished.config).model_validate(values)
    before, again = preflight(config), preflight(config)
    with np.load(real) as arrays:
        np.savez(real, images=arrays["images"], labels=9 - arrays["labels"])
    after = preflight(config)
    assert before == again
    assert before.sources.keys() == after.sources.keys() == {"finetune.data"}
    assert before.sources != after.sources


def test_without_the_section_there_is_nothing_fine_tuned(finished: Run):
    assert read_json(finished.layout.results)["finetuned"] is None
    assert "not data-free" not in finished.layout.report.read_text()
    with pytest.raises(InputError, match="has no fine-tuned student"):
        export_student(finished, ModelFormat.SAFETENSORS, finetuned=True)
