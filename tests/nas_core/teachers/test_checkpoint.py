from pathlib import Path

import pytest
import torch
from doubles import Bomb
from pydantic import ValidationError
from safetensors.torch import save_file

from nas_core.errors import InputError
from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.teachers import Teacher, teachers
from nas_core.teachers.networks import digits_resnet


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    network = digits_resnet()
    initialise(network, generator(0, "test.checkpoint"))
    return network.state_dict()


def build(weights: Path, **changes) -> Teacher:
    fields = {
        "factory": "nas_core.teachers.networks:digits_resnet",
        "weights": weights,
        "input_shape": [1, 8, 8],
        "mean": [0.3],
        "std": [0.4],
        "num_classes": 10,
    }
    return teachers.build(teachers.spec("checkpoint").model_validate(fields | changes))


def saved(content, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_every_format_gives_the_same_teacher(state, tmp_path):
    parallel, compiled, lightning = (
        {prefix + name: tensor for name, tensor in state.items()} for prefix in ("module.", "_orig_mod.", "net.model.")
    )
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "plain.safetensors")
    files = [
        tmp_path / "plain.safetensors",
        saved(state, tmp_path / "plain.pt"),
        saved(parallel, tmp_path / "parallel.pt"),
        saved(compiled, tmp_path / "compiled.pt"),
        saved({"epoch": 3, "state_dict": parallel}, tmp_path / "nested.pt"),
        saved({"epoch": 3, "state_dict": lightning, "hyper_parameters": {"width": 4}}, tmp_path / "lightning.ckpt"),
        saved({"epoch": 3, "state_dict_ema": state}, tmp_path / "average.pt"),
        saved({"model": state, "note": "best"}, tmp_path / "model.pt"),
        saved(old, tmp_path / "old.pt"),
    ]
    assert len({build(file).fingerprint() for file in files}) == 1


def test_weights_and_arguments_reach_the_network(state, tmp_path):
    state["linear.weight"], state["linear.bias"] = torch.zeros(4, 96), torch.tensor([1.0, 2.0, 3.0, 4.0])
    file = saved(state, tmp_path / "four.pt")
    teacher = build(file, arguments={"num_classes": 4}, num_classes=None, class_names=["a", "b", "c", "d"])
    assert teacher.logits(torch.zeros(1, 1, 8, 8)).tolist() == [[1, 2, 3, 4]]
    assert teacher.class_names == ("a", "b", "c", "d")


def test_numbered_classes_are_named_by_their_numbers(state, tmp_path):
    assert build(saved(state, tmp_path / "w.pt")).class_names == tuple("0123456789")


def test_relative_paths_start_at_the_current_directory(state, tmp_path, monkeypatch):
    saved(state, tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    assert build(Path("w.pt")).num_classes == 10


def test_missing_file_is_named_with_the_path_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"no weights file '{tmp_path}/absent.pt'"):
        build(Path("absent.pt"))


def test_misfits_are_listed_by_kind(state, tmp_path):
    for name in [name for name in state if name.startswith("layer1")]:
        state[f"other.{name}"] = state.pop(name)
    state["linear.weight"] = torch.zeros(10, 7)
    with pytest.raises(InputError) as caught:
        build(saved(state, tmp_path / "w.pt"))
    message = str(caught.value)
    assert "missing: layer1.0.conv1.weight, layer1.0.bn1.weight" in message
    assert "unexpected: other.layer1.0.conv1.weight" in message
    assert "and 2 more" in message
    assert "of another shape: linear.weight (10, 7) instead of (10, 96)" in message


def test_code_in_a_file_is_refused_and_not_run(state, tmp_path):
    with pytest.raises(InputError, match="holds code, which is never run; convert it to safetensors"):
        build(saved({**state, "extra": Bomb(tmp_path / "ran")}, tmp_path / "w.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut off"])
def test_damaged_files_are_refused(name, content, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match="damaged or holds code"):
        build(file)


@pytest.mark.parametrize("content", [torch.zeros(3), {}, [1, 2]])
def test_files_without_a_state_dict_are_refused(content, tmp_path):
    with pytest.raises(InputError, match="holds no state dict"):
        build(saved(content, tmp_path / "w.pt"))


def test_other_entries_than_tensors_are_named(state, tmp_path):
    with pytest.raises(InputError, match=r"more than tensors: epoch;"):
        build(saved({**state, "epoch": 3}, tmp_path / "w.pt"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_names_its_tensor(value, state, tmp_path):
    state["layer2.0.bn1.bias"][5] = value
    with pytest.raises(InputError, match=r"tensor 'layer2\.0\.bn1\.bias' .* NaN or infinite"):
        build(saved(state, tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("factory", "arguments", "complaint"),
    [
        ("no_such_package:net", {}, "cannot be imported .*PYTHONPATH"),
        ("nas_core.teachers.networks:resnet21", {}, "cannot be imported .*resnet21"),
        ("nas_core.teachers.networks:digits_resnet", {"depth": 3}, "refused the arguments .*depth"),
        ("builtins:dict", {}, "returned a dict; it must return a torch.nn.Module"),
        ("json:loads", {"s": "{"}, r"raised JSONDecodeError: Expecting property name.*; fix it, or its arguments"),
    ],
)
def test_a_wrong_factory_is_explained(factory, arguments, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint):
        build(tmp_path / "w.pt", factory=factory, arguments=arguments)


def test_a_module_that_cannot_even_be_imported_is_explained(tmp_path, monkeypatch):
    (tmp_path / "half_written.py").write_text("def build(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="importing the factory 'half_written:build' raised SyntaxError: "):
        build(tmp_path / "w.pt", factory="half_written:build")


def test_class_count_that_the_network_does_not_have_is_found(state, tmp_path):
    with pytest.raises(InputError, match=r"shape \(2, 10\), but the config's 7 classes"):
        build(saved(state, tmp_path / "w.pt"), num_classes=7)


@pytest.mark.parametrize("classes", [{"num_classes": None}, {"class_names": list("0123456789")}])
def test_config_takes_exactly_one_of_names_and_count(classes, tmp_path):
    with pytest.raises(ValidationError, match="exactly one"):
        build(tmp_path / "w.pt", **classes)


@pytest.mark.parametrize("wrong", [{"std": [0.0]}, {"input_shape": [8, 8]}, {"factory": "net"}, {"typo": 1}])
def test_config_refuses_values_out_of_bounds(wrong, tmp_path):
    with pytest.raises(ValidationError):
        build(tmp_path / "w.pt", **wrong)
