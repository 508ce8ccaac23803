import sys

import pytest
import torch
from safetensors.torch import save_file

from nas_core.errors import InputError
from nas_core.synthesis.config import SynthesisConfig
from nas_core.teachers import Teacher, teachers


def build(network: str = "resnet10t", **fields) -> Teacher:
    return teachers.build(teachers.spec("timm")(network=network, **fields))


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.data", None)
    with pytest.raises(InputError, match=r"needs timm .*pip install 'dfnas\[timm\]'"):
        build()


class TestWithTimm:
    @pytest.fixture(autouse=True)
    def timm(self):
        return pytest.importorskip("timm")

    def test_a_weights_file_comes_with_the_pretrained_preprocessing(self, timm, tmp_path):
        original = timm.create_model("resnet10t").eval()
        save_file(original.state_dict(), tmp_path / "weights.safetensors")
        teacher = build(weights=tmp_path / "weights.safetensors")
        images = torch.randn(2, *teacher.input_shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(teacher.logits(images), original(images).detach())
        assert teacher.input_shape == (3, 176, 176)
        assert teacher.mean == (0.485, 0.456, 0.406)
        assert teacher.num_classes == 1000
        assert SynthesisConfig().canvas_size(teacher.input_shape) == (201, 201)

    def test_class_names_set_the_number_of_classes(self, timm, tmp_path):
        save_file(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / "weights.safetensors")
        teacher = build(weights=tmp_path / "weights.safetensors", class_names=("a", "b", "c"))
        assert teacher.class_names == ("a", "b", "c")

    def test_misspelt_names_list_similar_ones(self):
        with pytest.raises(InputError, match=r"no timm network 'resnet19'; similar: .*resnet18"):
            build("resnet19")
        with pytest.raises(InputError, match=r"no weights of resnet18 'resnet18.a9_in1k'; similar: .*resnet18.a1_in1k"):
            build("resnet18.a9_in1k")

    def test_failed_download_asks_for_a_file(self, timm, monkeypatch):
        def fail(*_, **__):
            raise OSError("no route")

        monkeypatch.setattr(timm, "create_model", fail)
        with pytest.raises(InputError, match=r"'resnet10t' can neither be read nor downloaded \(no route\)"):
            build()
