"""From a teacher to a first config, an estimate, and a look at the installation."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from typer.testing import CliRunner

from flows import cli
from flows.config_file import read_config
from flows.first_contact import commented
from nas_core import estimation
from nas_core.errors import InputError
from tasks.first_contact import proposed_config, teacher_section

PROJECT = Path(__file__).parents[2]
WEIGHTS = str(PROJECT / "examples" / "digits" / "teacher.safetensors")
DIGITS = [
    "--set", "teacher.input_shape=[1, 8, 8]", "--set", "teacher.mean=[0.3]", "--set", "teacher.std=[0.4]",
    "--set", "teacher.num_classes=10",
]  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimation, "PATIENCE", 0.05)


def init(output: Path, *arguments: str):
    command = ["init", "--output", str(output), "--weights", WEIGHTS, *arguments]
    return CliRunner().invoke(cli.app, command)


def test_init_writes_a_commented_config_that_reads_back_and_says_what_the_run_will_take(tmp_path: Path):
    output = tmp_path / "mine.yaml"
    result = init(output, "--teacher", "reference:digits_resnet", *DIGITS, "--set", "search.strategy.generations=7")
    assert result.exit_code == 0, result.output
    config = read_config(output)
    assert config.teacher.name == "reference"
    assert config.search.strategy.generations == 7
    assert config.evaluation.data is None
    text = output.read_text()
    assert text.startswith(f"# dfnas run {output}\n")
    assert "# every random draw of the run derives from it\nseed: 0\n" in text
    assert {"time:", "memory:", "disk:"} <= {line.split()[0] for line in result.output.splitlines()}

    again = init(output, "--teacher", "reference:digits_resnet", *DIGITS)
    assert isinstance(again.exception, InputError)
    assert "choose another --output" in str(again.exception)


def test_what_is_not_known_of_a_teacher_is_asked_for(tmp_path: Path):
    result = init(tmp_path / "c.yaml", "--teacher", "reference:digits_resnet", *DIGITS[:2])
    assert "give --set teacher.mean=VALUE; give --set teacher.std=VALUE" in str(result.exception)
    with pytest.raises(InputError, match="give --weights FILE"):
        proposed_config("my.models:build", None, {})
    with pytest.raises(InputError, match="give exactly one of them"):
        proposed_config("m.n:b", WEIGHTS, {"input_shape": [1, 8, 8], "mean": [0.3], "std": [0.4]})
    with pytest.raises(InputError, match="such as torchvision:resnet18"):
        teacher_section("resnet18", None)
    with pytest.raises(InputError, match="similar: resnet18"):
        teacher_section("torchvision:resnet19", None)


@pytest.mark.parametrize(("name", "save"), [("mine.pt", torch.save), ("mine.safetensors", save_file)])
def test_a_torchvision_network_with_a_file_is_a_checkpoint_with_its_preprocessing(tmp_path: Path, name: str, save):
    """Also of a file that keeps its tensors in another order than the network: safetensors sorts them."""
    path = tmp_path / name
    save(torchvision.models.squeezenet1_1(num_classes=7).state_dict(), path)
    section = teacher_section("torchvision:squeezenet1_1", str(path))
    assert section == {
        "name": "checkpoint",
        "factory": "torchvision.models:squeezenet1_1",
        "arguments": {"num_classes": 7},
        "weights": str(path),
        "input_shape": [3, 224, 224],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 7,
    }
    with pytest.raises(InputError, match=rf"{name}' has no 'fc.bias', the last layer of resnet18"):
        teacher_section("torchvision:resnet18", str(path))
    assert teacher_section("torchvision:resnet18", "IMAGENET1K_V1")["weights"] == "IMAGENET1K_V1"
    assert teacher_section("torchvision:resnet18", None) == {"name": "torchvision", "network": "resnet18"}
    assert teacher_section("timm:resnet18", None) == {"name": "timm", "network": "resnet18"}


@pytest.mark.parametrize("network", ["inception_v3", "googlenet"])
def test_a_network_that_changes_its_input_does_so_as_with_pretrained_weights(tmp_path: Path, network: str):
    save_file({"fc.weight": torch.zeros(7, 1), "fc.bias": torch.zeros(7)}, tmp_path / "mine.safetensors")
    section = teacher_section(f"torchvision:{network}", str(tmp_path / "mine.safetensors"))
    assert section["arguments"] == {"num_classes": 7, "transform_input": True}


@pytest.mark.parametrize("config", ["cifar.yaml", "paper-imagenet.yaml", "imagenet-lite.yaml"])
def test_any_config_can_be_written_with_comments(config: str, tmp_path: Path):
    original = read_config(PROJECT / "configs" / config)
    (tmp_path / "copy.yaml").write_text(commented(original, ["a copy"]))
    assert read_config(tmp_path / "copy.yaml") == original


def test_doctor_prints_its_findings_and_leaves_with_1_if_something_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.doctor._prefect_home", lambda: tasks_finding())
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 1
    assert "missing  Prefect's folder" in result.output
    assert "-> set PREFECT_HOME" in result.output
    assert "ok       torch" in result.output


def tasks_finding():
    from tasks.doctor import Finding, Verdict

    return Finding(Verdict.MISSING, "Prefect's folder", "read-only", "set PREFECT_HOME")
