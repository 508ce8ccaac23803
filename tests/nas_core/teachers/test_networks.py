import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.teachers import networks, teachers
from nas_core.teachers.networks import BasicBlock

DATA = Path(__file__).parents[4] / "shared" / "data"


def counted_by_hand(blocks: int, widths: tuple[int, int, int], in_channels: int, classes: int) -> int:
    """3x3 convolutions within and between the stages, scale and shift of each BatchNorm, the linear layer."""
    first, second, third = widths
    within = 2 * blocks * first**2 + (2 * blocks - 1) * (second**2 + third**2)
    between = in_channels * first + first * second + second * third
    batch_norms = first + 2 * blocks * sum(widths)
    return 9 * (within + between) + 2 * batch_norms + third * classes + classes


@pytest.mark.parametrize(
    ("name", "blocks", "exact", "published"),
    [
        ("resnet20", 3, 269_722, 0.27),
        ("resnet32", 5, 464_154, 0.46),
        ("resnet44", 7, 658_586, 0.66),
        ("resnet56", 9, 853_018, 0.85),
    ],
)
def test_parameters_match_hand_count_and_the_paper(name, blocks, exact, published):
    """Table 6 of arXiv:1512.03385 gives millions with two digits."""
    count = sum(p.numel() for p in getattr(networks, name)().parameters())
    assert count == exact == counted_by_hand(blocks, (16, 32, 64), 3, 10)
    assert round(count / 1e6, 2) == published


def test_digits_network_is_small_and_fits_digits():
    network = networks.digits_resnet()
    count = sum(p.numel() for p in network.parameters())
    assert count == counted_by_hand(1, (24, 48, 96), 1, 10) < 200_000
    assert network.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_state_dict_has_the_published_names():
    names = {name.rpartition(".")[0] for name in networks.resnet20().state_dict()}
    blocks = {
        f"layer{stage}.{block}.{part}"
        for stage in (1, 2, 3)
        for block in range(3)
        for part in ("conv1", "bn1", "conv2", "bn2")
    }
    assert names == {"conv1", "bn1", "linear"} | blocks


def test_shortcut_takes_every_second_pixel_between_zero_channels():
    """With the residual silenced, a block is its shortcut, rectified."""
    block = BasicBlock(2, 4, stride=2).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    with torch.no_grad():
        y = block(x)
    assert y[0, 0].count_nonzero() == y[0, 3].count_nonzero() == 0
    assert y[0, 1].tolist() == [[0, 2], [8, 10]]
    assert y[0, 2].tolist() == [[16, 18], [24, 26]]


def test_real_resnet20_classifies_cifar_images():
    """88.14 % on all 10,000 test images, as its file says; here on every tenth of them."""
    if not DATA.is_dir():
        pytest.skip(f"real weights and images are absent: no folder {DATA.name} in {DATA.parent}")
    spec = teachers.spec("reference").model_validate(
        {
            "network": "resnet20",
            "weights": DATA / "resnet20_cifar10jpeg.safetensors",
            "input_shape": [3, 32, 32],
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "num_classes": 10,
        }
    )
    teacher = teachers.build(spec)
    images, labels = every_tenth_test_image()
    logits = torch.cat([teacher.logits(teacher.normalise(batch)) for batch in images.split(250)])
    assert 0.85 <= (logits.argmax(1) == labels).float().mean() <= 0.91


def every_tenth_test_image() -> tuple[torch.Tensor, torch.Tensor]:
    """1,000 images in one pass over the archive; classes count in alphabetical order."""
    with tarfile.open(DATA / "cifar10_jpeg.tar.gz", "r|gz") as archive:
        files = {
            member.name: archive.extractfile(member).read()
            for member in archive
            if member.isfile() and member.name.startswith("test/")
        }
    chosen = sorted(files)[::10]
    classes = sorted({name.split("/")[1] for name in chosen})
    pixels = [np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB")) for name in chosen]
    labels = torch.tensor([classes.index(name.split("/")[1]) for name in chosen])
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), labels
