"""The command line: bad input ends in one clear sentence and exit code 2, before anything is written."""

import importlib.metadata
import os
from pathlib import Path

import pytest
import torch
import yaml
from doubles import Bomb
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flows import cli
from flows.config_file import read_config
from nas_core.errors import InputError
from tests.flows.conftest import Dfnas

PROJECT = Path(__file__).parents[2]
DIGITS = PROJECT / "configs" / "digits.yaml"


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch):
    """The demo's paths are relative to the project."""
    monkeypatch.chdir(PROJECT)


def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and everything printed, as the installed command gives them."""
    monkeypatch.setattr("sys.argv", ["dfnas", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out + captured.err


BAD_SETTINGS = {
    "search.strategy.epoch=5": "search.strategy.epoch is no setting",
    "search.strategy.epochs=0": "search.strategy.epochs is 0: input should be greater than or equal to 1",
    "search.strategy.name=nope": "search.strategy.name is 'nope'; known: 'training-free', 'spos', 'proxyless',",
    "search.space=null": "search.space",
    "teacher.weights=nowhere.safetensors": "nowhere.safetensors",
    "synthesis.canvas=[7, 8]": "synthesis.canvas is 7x8, smaller than the teacher's input 8x8",
    "synthesis.canvas=[100000, 100000]": "sides above",
    "synthesis.batch_size=1000000000": "canvases of 10x10 takes at least",
    "search.max_macs=10": "raise it to",
    "search.max_parameters=10": "give one of max_macs, max_parameters, max_latency_ms",
    "search.latency_table=nowhere.json": "with latency_table the limit is max_latency_ms, not max_macs",
    "name=../outside": "name is '../outside'",
    "name=/outside": "name is '/outside'",
    "teacher.weights=/dev/zero": "there is no weights file '/dev/zero'",
    "evaluation.data.path=/dev/zero": "/dev/zero",
    "synthesis.engine.losses={classification: 0, batch_norm: 0, total_variation: 0, l2: 0}": "all weights are zero",
    "evaluation.data.path=nowhere.npz": "nowhere.npz",
    "device=abacus": "device 'abacus' cannot be used here",
    "evaluation.held_out=0.999": "too few",
    "name=Not A Name": "name is 'Not A Name'",
    "name=[7]": "name is [7]: input should be a valid string",
    "seed=!!int x": "'!!int x' is no valid YAML value",
    "seed=0x10": "seed is '0x10': input should be a valid integer",
    "teacher.mean=[0.5, 0.5]": "mean",
    "retrain=darts": "'nasbench201' have no paths that could be dropped; set retrain.drop_path to 0",
    "retrain=fancy": "retrain",
    "retrain.style=fancy": "retrain.style is 'fancy'",
    "retrain.style=[darts]": "retrain.style is ['darts']",
    "retrain.style={name: darts}": "retrain.style is {'name': 'darts'}",
    "retrain.cutout=8": "can take all of an image of 8 x 8 pixels",
    "retrain.width=100": "retrain.width is 100",
    "finetune={data: {name: npz, path: examples/digits/held_out.npz}}": "the same images",
    "finetune.data={name: npz, path: nowhere.npz}": "nowhere.npz is no .npz file",
    "baselines=[random, random]": "each baseline may be named once",
    "baselines=[oracle]": "baselines.0 is 'oracle'",
    "synthesis.engine.learning_rate=.inf": "synthesis.engine.learning_rate is inf: input should be a finite number",
    "synthesis.labels.temperature=.inf": "synthesis.labels.temperature is inf: input should be a finite number",
    "teacher.mean=[.nan]": "teacher.mean.0 is nan: input should be a finite number",
    "seed": "is not of the form key=value",
    "seed.deep=1": "'seed' is a single value",
}


@pytest.mark.parametrize("setting", list(BAD_SETTINGS))
def test_bad_settings_end_in_a_sentence(setting: str, monkeypatch, capsys, tmp_path: Path):
    directory = tmp_path / "run"
    code, text = run_main(monkeypatch, capsys, "run", str(DIGITS), "--run-dir", str(directory), "--set", setting)
    assert code == 2
    assert BAD_SETTINGS[setting] in text
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) <= 2
    assert not directory.exists()


def test_a_missing_config_is_named(monkeypatch, capsys):
    code, text = run_main(monkeypatch, capsys, "run", "nowhere.yaml")
    assert code == 2
    assert "cannot read the config nowhere.yaml" in text


def test_images_that_cannot_be_imported_are_refused_before_anything_is_written(monkeypatch, capsys, tmp_path: Path):
    arguments = ("import-dataset", str(tmp_path / "nowhere"), str(DIGITS), "--run-dir", str(tmp_path / "run"))
    assert run_main(monkeypatch, capsys, *arguments) == (2, f"dfnas: {tmp_path}/nowhere is no folder\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["a: [", "just words", ""])
def test_a_config_that_is_no_mapping_is_refused(content: str, monkeypatch, capsys, tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    code, text = run_main(monkeypatch, capsys, "validate", str(path))
    assert code == 2
    assert str(path) in text


def test_a_pickle_with_code_in_place_of_weights_is_refused_and_not_run(monkeypatch, capsys, tmp_path: Path):
    torch.save(Bomb(tmp_path / "ran"), tmp_path / "weights.pt")
    code, _ = run_main(monkeypatch, capsys, "validate", str(DIGITS), "--set", f"teacher.weights={tmp_path}/weights.pt")
    assert code == 2
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, monkeypatch, capsys, tmp_path: Path):
    weights = load_file(PROJECT / "examples" / "digits" / "teacher.safetensors")
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name].view(-1)[-1] = value
    save_file(weights, tmp_path / "weights.safetensors")
    setting = f"teacher.weights={tmp_path}/weights.safetensors"
    code, text = run_main(monkeypatch, capsys, "run", str(DIGITS), "--run-dir", str(tmp_path / "run"), "--set", setting)
    assert code == 2
    assert f"the tensor '{name}' in" in text
    assert "NaN or infinite" in text
    assert not (tmp_path / "run").exists()


def test_an_unknown_stage_is_refused(monkeypatch, capsys, tmp_path: Path):
    arguments = ("run", str(DIGITS), "--run-dir", str(tmp_path / "run"), "--until", "lunch")
    code, text = run_main(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "choose from synthesis, search, retrain, evaluate, report" in text


def test_validate_accepts_the_demo(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["dfnas", "validate", str(DIGITS)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    assert "is valid: 1024 images, spos on nasbench201" in capsys.readouterr().out


def test_latency_is_measured_and_then_limits_a_run(monkeypatch, capsys, tmp_path: Path):
    table, small = tmp_path / "latency.json", "search.space={name: nasbench201, channels: 2, cells: 1}"
    code, text = run_main(
        monkeypatch, capsys, "measure-latency", str(DIGITS), str(table), "--repetitions", "1", "--set", small
    )
    assert code == 0
    assert "parts of nasbench201 on" in text
    limits = ("search.max_macs=null", f"search.latency_table={table}", "search.max_latency_ms=0.0001", small)
    code, text = run_main(
        monkeypatch, capsys, "validate", str(DIGITS), *(word for limit in limits for word in ("--set", limit))
    )
    assert code == 2
    assert "max_latency_ms = 0.000100 is below the smallest network of nasbench201" in text
    assert table.read_text().startswith('{\n "provenance"')


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("spaces", {"nasbench201"}),
        ("strategies", {"darts", "spos"}),
        ("engines", {"pixels", "generator", "imported"}),
        ("teachers", {"checkpoint", "reference", "torchvision"}),
    ],
)
def test_list_names_and_describes(kind: str, names: set[str]):
    result = CliRunner().invoke(cli.app, ["list", kind])
    assert result.exit_code == 0
    described = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.output.splitlines()}
    assert names <= described.keys()
    assert all(len(text) > 10 for text in described.values())


def test_what_is_no_run_directory_is_refused(monkeypatch, capsys, tmp_path: Path):
    for command in (["status"], ["report"], ["verify"], ["repair"], ["export-dataset", "--format=webdataset"]):
        out = [str(tmp_path / "out")] if command[0] == "export-dataset" else []
        code, text = run_main(monkeypatch, capsys, *command, str(tmp_path), *out)
        assert code == 2
        assert "is no run directory" in text


@pytest.mark.parametrize("command", ["verify", "repair", "export-dataset"])
def test_a_run_directory_with_a_link_to_outside_is_not_read(monkeypatch, capsys, tmp_path: Path, command: str):
    directory, outside = tmp_path / "run", tmp_path / "outside"
    directory.mkdir()
    outside.mkdir()
    (directory / "config.yaml").touch()
    (directory / "dataset.zarr").symlink_to(outside)
    out = [str(tmp_path / "out")] if command == "export-dataset" else []
    code, text = run_main(monkeypatch, capsys, command, str(directory), *out)
    assert code == 2
    assert "dataset.zarr is a symbolic link to outside of" in text


def test_settings_override_the_file_and_keep_their_type():
    config = read_config(DIGITS, ["seed=7", "search.strategy={name: darts, epochs: 2}", "evaluation.data=null"])
    assert config.seed == 7
    assert config.search.strategy.name == "darts"
    assert config.evaluation.data is None


@pytest.mark.parametrize("name", ["2026-11-23", "2024-13-01", "7", "007", "0x10", "1-30"])
def test_a_name_may_look_like_a_date_or_a_number(name: str, tmp_path: Path):
    """It stays what it is: on the command line, in a file, and in the config that a run writes."""
    config = read_config(DIGITS, [f"name={name}"])
    assert config.name == name
    path = tmp_path / "config.yaml"
    path.write_text(DIGITS.read_text().replace("name: digits\n", f"name: {name}\n"))
    assert read_config(path) == config
    path.write_text(yaml.safe_dump(config.content()))
    assert read_config(path) == config


def test_a_prefect_server_that_does_not_answer_is_one_sentence_and_the_log_has_the_rest(tmp_path: Path):
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(tmp_path / "prefect")}
    dfnas, directory = Dfnas(environment), tmp_path / "run"
    for result in (dfnas("run", DIGITS, "--run-dir", directory), dfnas("repair", directory)):
        assert result.returncode == 1
        _, outage, details = result.stderr.splitlines()
        assert outage.startswith("dfnas: the Prefect server http://127.0.0.1:9/api does not answer (")
        assert "start it (`prefect server start`), or unset PREFECT_API_URL" in outage
        assert details == f"Details: {directory}/dfnas.log. The same command resumes."
    assert "Traceback" in (directory / "dfnas.log").read_text()


def test_several_mistakes_are_all_named():
    with pytest.raises(InputError) as error:
        read_config(DIGITS, ["seed=-1", "retrain.epochs=x"])
    assert "seed is -1" in str(error.value)
    assert "retrain.epochs is 'x'" in str(error.value)


def test_the_default_of_the_deployments_is_the_demo():
    deployments = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    demo = yaml.safe_load(DIGITS.read_text())
    assert [d["name"] for d in deployments] == ["full", "synthesis", "search", "retrain", "evaluate"]
    for deployment in deployments:
        assert deployment["parameters"]["config"] == demo
        assert deployment["parameters"].get("until", "full") == deployment["name"]


def test_a_resumed_config_file_reads_back_equal(tmp_path: Path):
    """config.yaml as resolved is a config of its own."""
    config = read_config(DIGITS)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert read_config(path) == config


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    code, text = run_main(monkeypatch, capsys, "--version")
    assert (code, text) == (0, f"dfnas {importlib.metadata.version('dfnas')}\n")


def test_a_default_that_depends_on_the_run_is_in_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    code, text = run_main(monkeypatch, capsys, "run", "--help")
    assert code == 0
    assert "runs/<name>" in text
