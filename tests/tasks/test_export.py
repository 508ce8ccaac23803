"""`dfnas export`: files that other programs run, which answer like the student."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows import cli
from nas_core import exporting
from tasks.export import load_exported
from tasks.retrain import load_model
from tasks.run import Run

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected(finished: Run, pixels: torch.Tensor) -> torch.Tensor:
    """The student's logits, by the documented way to load it."""
    network, about = load_model(finished.directory)
    with torch.no_grad():
        return network((pixels - about["mean"][0]) / about["std"][0])


@pytest.fixture(scope="module")
def onnx_file(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert export(monkeypatch, finished.directory, "--output", str(path)) == 0
    return path


def export(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of the installed command."""
    monkeypatch.setattr("sys.argv", ["dfnas", "export", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def answer_of(monkeypatch, capsys, script: str, model: Path, pixels: torch.Tensor, folder: Path) -> str:
    """What an example prints for an image file."""
    image = folder / "image.png"
    Image.fromarray((pixels[0] * 255).round().to(torch.uint8).numpy()).save(image)
    monkeypatch.setattr(sys, "argv", [script, str(model), str(image)])
    runpy.run_path(str(PROJECT / "examples" / script))
    return capsys.readouterr().out.strip()


def test_an_onnx_file_answers_like_the_student_for_any_batch_size(onnx_file: Path, pixels, expected):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(onnx_file)
    for batch in (1, 7):
        logits = session.run(["logits"], {"pixels": pixels[:batch].numpy()})[0]
        np.testing.assert_allclose(logits, expected[:batch].numpy(), atol=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["dfnas"])
    assert about["class_names"] == list("0123456789")
    assert about["teacher"]["name"] == "digits_resnet (reference)"


def test_the_card_says_what_the_file_is_and_what_is_not_known(onnx_file: Path, finished: Run):
    card = onnx_file.with_name("student.onnx.md").read_text()
    results = json.loads(finished.layout.results.read_text())
    assert "Training data: **none**; 32 synthetic images" in card
    assert finished.fingerprint in card
    assert results["digests"]["model"] in card
    assert results["search"]["architecture"].replace("|", "\\|") in card
    assert f"| multiply-accumulates | 1.67 M | {results['student']['macs'] / 1e3:.3g} k |" in card
    assert "its accuracy on real images is unknown" in card
    assert 'InferenceSession("student.onnx")' in card
    assert "do not apply it" in card


def test_a_torch_export_file_answers_like_the_student_for_any_batch_size(
    finished: Run, pixels, expected, tmp_path: Path, monkeypatch, capsys
):
    path = tmp_path / "student.pt2"
    assert export(monkeypatch, finished.directory, "--format", "torch-export", "--output", str(path)) == 0
    assert "a logit differs by 0 at most" in capsys.readouterr().out
    extra = {"dfnas.json": ""}
    model = torch.export.load(path, extra_files=extra).module()
    for batch in (1, 7):
        torch.testing.assert_close(model(pixels[:batch]), expected[:batch])
    assert json.loads(extra["dfnas.json"])["input_shape"] == [1, 8, 8]


def test_a_safetensors_file_brings_architecture_and_preprocessing(
    finished: Run, pixels, expected, tmp_path: Path, monkeypatch, capsys
):
    path = tmp_path / "student.safetensors"
    assert export(monkeypatch, finished.directory, "--format", "safetensors", "--output", str(path)) == 0
    model, about = load_exported(path)
    torch.testing.assert_close(model(pixels), expected)
    assert about["space"]["name"] == "nasbench201"
    answer = answer_of(monkeypatch, capsys, "predict_safetensors.py", path, pixels[0], tmp_path)
    assert answer.splitlines()[-1].split()[0] == str(int(expected[0].argmax()))


def test_the_onnx_example_names_the_class_of_an_image(
    onnx_file: Path, pixels, expected, tmp_path: Path, monkeypatch, capsys
):
    answer = answer_of(monkeypatch, capsys, "predict.py", onnx_file, pixels[0], tmp_path)
    share = expected[0].softmax(0).max()
    name, percent = answer.split()
    assert name == str(int(expected[0].argmax()))
    assert float(percent.strip("(%)")) == pytest.approx(100 * float(share), abs=1)


def test_by_default_the_file_lies_in_the_run_directory_and_changes_nothing_else(damageable: Run, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in damageable.layout.root.rglob("*") if path.is_file()}
    assert export(monkeypatch, damageable.directory, "--format", "safetensors") == 0
    after = {path: path.stat().st_mtime_ns for path in damageable.layout.root.rglob("*") if path.is_file()}
    assert {path.name for path in after.keys() - before.keys()} == {"tiny.safetensors", "tiny.safetensors.md"}
    assert all(after[path] == time for path, time in before.items())


def refusal(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    code = export(monkeypatch, *arguments)
    text = capsys.readouterr().err
    assert len(text.strip().splitlines()) == 1
    return code, text


def test_a_file_that_disagrees_is_not_written(finished: Run, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    path = str(tmp_path / "student.safetensors")
    code, text = refusal(monkeypatch, capsys, finished.directory, "--format", "safetensors", "--output", path)
    assert code == 1
    assert "would answer differently from the network" in text
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_error_says_how_to_install_it(finished: Run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, text = refusal(monkeypatch, capsys, finished.directory)
    assert code == 2
    assert "pip install 'dfnas[onnx]'" in text


def test_an_unfinished_run_has_nothing_to_export(damageable: Run, monkeypatch, capsys):
    damageable.layout.results.unlink()
    code, text = refusal(monkeypatch, capsys, damageable.directory)
    assert code == 2
    assert "is not finished" in text


def test_results_of_an_earlier_version_are_to_be_written_anew(damageable: Run, monkeypatch, capsys):
    results = json.loads(damageable.layout.results.read_text())
    del results["finetuned"], results["latency"]
    damageable.layout.results.write_text(json.dumps(results))
    code, text = refusal(monkeypatch, capsys, damageable.directory, "--format", "safetensors")
    assert code == 1
    assert "`dfnas report" in text


def test_an_unknown_format_lists_the_known_ones(finished: Run, monkeypatch, capsys):
    code, text = refusal(monkeypatch, capsys, finished.directory, "--format", "tflite")
    assert code == 2
    assert "choose from onnx, torch-export, safetensors" in text
