"""Every config of the project is valid, and says in its first line how to run it."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from nas_core.config import RunConfig
from nas_core.settings.synthesis import LabelCalibration
from nas_core.synthesis.config import SynthesisConfig

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_is_valid_and_starts_with_its_command(path: Path):
    config = RunConfig.model_validate(yaml.safe_load(path.read_text()))
    assert config.name == path.stem
    command = path.read_text().splitlines()[0]
    assert command.startswith(f"# dfnas run configs/{path.name}")


def test_the_papers_preset_has_the_papers_numbers():
    """1,000 images a round, 10 rounds, 5,000 steps each, labels of one window at temperature 1, and its weights."""
    synthesis = RunConfig.model_validate(yaml.safe_load((CONFIGS / "paper-imagenet.yaml").read_text())).synthesis
    assert synthesis.shards * synthesis.batch_size == 1000
    assert synthesis.images == 10_000
    assert [(stage.divisor, stage.iterations) for stage in synthesis.engine.stages] == [(2, 2000), (1, 3000)]
    assert synthesis.labels == LabelCalibration(temperature=1, windows=1, start="noise")
    assert synthesis.canvas == (256, 256)
    engine = synthesis.engine
    assert (engine.learning_rate, engine.warmup, engine.betas, engine.min_scale) == (0.25, 100, (0.5, 0.9), 1)
    losses = engine.losses
    assert losses.total_variation == pytest.approx(1e-4 * 50**0.5, rel=1e-3)
    assert (losses.classification, losses.batch_norm, losses.first_batch_norm, losses.l2) == (1, 0.01, 10, 1e-5)
    assert losses.total_variation_l1 == losses.relative_batch_norm == 0


def test_darts_on_nasbench201_has_the_benchmarks_protocol():
    """Nesterov momentum and decay 5e-4; the 200 epochs of its networks at .1, batches of 256."""
    config = RunConfig.model_validate(yaml.safe_load((CONFIGS / "nasbench201-full.yaml").read_text()))
    strategy, retrain = config.search.strategy, config.retrain
    assert (strategy.nesterov, strategy.weight_decay, strategy.epochs) == (True, 5e-4, 50)
    assert (retrain.nesterov, retrain.weight_decay, retrain.epochs) == (True, 5e-4, 200)
    assert (retrain.learning_rate, retrain.batch_size) == (0.1, 256)


def test_the_papers_labels_are_a_preset_by_name():
    assert SynthesisConfig(labels="paper").labels == LabelCalibration(temperature=1, windows=1, start="noise")
    with pytest.raises(ValidationError, match="'papre' is no preset; give 'paper', or the fields"):
        SynthesisConfig(labels="papre")


def test_a_tilde_in_a_path_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Where no shell has expanded it: in a file, after `--set KEY=`, in Prefect's form."""
    monkeypatch.setenv("HOME", str(tmp_path))
    values = yaml.safe_load((CONFIGS / "digits.yaml").read_text())
    values["teacher"]["weights"] = "~/teacher.safetensors"
    values["search"] |= {"latency_table": "~/latency.json", "max_macs": None}
    values["evaluation"] |= {
        "table": {"path": "~/table.csv", "column": "top1"},
        "data": {"name": "folder", "path": "~/images"},
    }
    config = RunConfig.model_validate(values)
    assert config.teacher.weights == tmp_path / "teacher.safetensors"
    assert config.search.latency_table == tmp_path / "latency.json"
    assert config.evaluation.table.path == tmp_path / "table.csv"
    assert config.evaluation.data.path == tmp_path / "images"
    values["teacher"]["weights"] = "~nobody-of-this-name/teacher.safetensors"
    with pytest.raises(ValidationError, match="~nobody-of-this-name is the home directory of no known user"):
        RunConfig.model_validate(values)


def test_no_training_is_left_with_batches_of_one_image():
    """BatchNorm would have no variance there: ten images, of which one would be left for validation."""
    values = yaml.safe_load((CONFIGS / "digits.yaml").read_text())
    with pytest.raises(ValidationError, match=r"retrain\.batch_size\n.*greater than or equal to 2"):
        RunConfig.model_validate(values | {"retrain": {"batch_size": 1}})
    values["synthesis"] |= {"rounds": 1, "shards": 1, "batch_size": 10}
    with pytest.raises(ValidationError, match="10 synthetic images are too few"):
        RunConfig.model_validate(values | {"search": values["search"] | {"validation_fraction": 0.1}})
    RunConfig.model_validate(values | {"search": values["search"] | {"validation_fraction": 0.2}})


@pytest.mark.parametrize(
    ("learned", "judging"),
    [
        ({"name": "npz", "path": "examples/../examples/digits.npz"}, {"name": "npz", "path": "examples/digits.npz"}),
        ({"name": "folder", "path": "real"}, {"name": "folder", "path": str(Path("real").resolve()), "resize": 40}),
        (
            {"name": "torchvision", "dataset": "MNIST", "root": "real", "download": True},
            {"name": "torchvision", "dataset": "MNIST", "root": "./real", "split": "test"},
        ),
    ],
)
def test_a_network_is_not_judged_on_what_it_learned_from_however_that_is_written(learned: dict, judging: dict):
    values = yaml.safe_load((CONFIGS / "digits.yaml").read_text())
    with pytest.raises(ValidationError, match="are the same images"):
        RunConfig.model_validate(values | {"finetune": {"data": learned}, "evaluation": {"data": judging}})


@pytest.mark.parametrize(
    ("imported", "judging", "same"),
    [
        ("real", "./real/../real", True),
        ("real", "real/validation", True),
        ("real/cats", "real", True),
        ("real", "real-validation", False),
        ("real/training", "real/validation", False),
    ],
)
def test_a_network_is_not_judged_on_the_images_that_were_imported(imported: str, judging: str, same: bool):
    values = yaml.safe_load((CONFIGS / "digits.yaml").read_text())
    values["synthesis"]["engine"] = {"name": "imported", "path": imported, "listing": "0"}
    values["evaluation"]["data"] = {"name": "folder", "path": judging}
    if not same:
        assert RunConfig.model_validate(values).synthesis.engine.name == "imported"
        return
    with pytest.raises(ValidationError, match=r"synthesis\.engine\.path and evaluation\.data are the same images"):
        RunConfig.model_validate(values)


def test_the_training_split_is_other_images_than_the_test_split():
    values = yaml.safe_load((CONFIGS / "digits.yaml").read_text())
    test = {"name": "torchvision", "dataset": "MNIST", "root": "real"}
    finetune = {"data": test | {"split": "train"}}
    RunConfig.model_validate(values | {"finetune": finetune, "evaluation": {"data": test}})
