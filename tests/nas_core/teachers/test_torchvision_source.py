from pathlib import Path

import pytest
import torch
from doubles import Bomb
from torchvision.models import shufflenet_v2_x0_5

from nas_core.errors import InputError
from nas_core.teachers import Teacher, teachers

FILE_NAME = "shufflenetv2_x0.5-f707e7126e.pth"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty torch hub cache, on a machine whose downloads fail."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def build(network: str = "shufflenet_v2_x0_5", **fields) -> Teacher:
    return teachers.build(teachers.spec("torchvision")(network=network, **fields))


def test_cached_weights_come_with_their_preprocessing_and_class_names(cache):
    original = shufflenet_v2_x0_5().eval()
    torch.save(original.state_dict(), cache / FILE_NAME)
    teacher = build()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(teacher.logits(images), original(images).detach())
    assert teacher.input_shape == (3, 224, 224)
    assert teacher.mean == (0.485, 0.456, 0.406)
    assert teacher.std == (0.229, 0.224, 0.225)
    assert teacher.class_names[0] == "tench"
    assert teacher.num_classes == 1000
    assert teacher.flip_invariant


def test_failed_download_says_which_file_to_put_where(cache):
    with pytest.raises(InputError, match=f"put the file https://.*/{FILE_NAME} at '{cache / FILE_NAME}'"):
        build()


def test_code_in_a_cached_file_is_refused_and_not_run(cache):
    torch.save({"extra": Bomb(cache / "ran")}, cache / FILE_NAME)
    with pytest.raises(InputError, match="neither be read nor downloaded"):
        build()
    assert not (cache / "ran").exists()


def test_cached_file_of_another_network_is_refused(cache):
    torch.save({"fc.weight": torch.zeros(3)}, cache / FILE_NAME)
    with pytest.raises(InputError, match="neither be read nor downloaded"):
        build()


def test_misspelt_network_lists_similar_ones():
    with pytest.raises(InputError, match=r"no torchvision network 'resnet19'; similar: .*resnet18"):
        build("resnet19")


def test_misspelt_weights_list_similar_ones():
    with pytest.raises(InputError, match=r"no weights of resnet50 'IMAGENET1K_V3'; similar: .*IMAGENET1K_V2"):
        build("resnet50", weights="IMAGENET1K_V3")


def test_name_like_no_other_lists_all_known():
    with pytest.raises(InputError, match=r"known: .*alexnet.*wide_resnet50_2"):
        build("???")
