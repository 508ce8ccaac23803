"""What several benchmarks share: CIFAR-10's images, labels and teacher, the device, what figures depend on."""

import argparse
import io
import os
import platform
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from nas_core.seeding import generator
from nas_core.settings.teachers import ReferenceSpec
from nas_core.synthesis.labels import one_hot
from nas_core.teachers import Teacher, teachers
from nas_core.training.batches import Batch, SyntheticBatches

Canvases = UInt8[Tensor, "images channels height width"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option --device."""
    parser.add_argument("--device", default="cpu", help="where to compute: auto, cpu, cuda, cuda:N or mps")


def hardware(device: torch.device) -> dict[str, Any]:
    """Versions and machine, which figures depend on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.machine()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def read_images(archive: Path, split: str, count: int, draws: torch.Generator | None = None) -> tuple[Canvases, Tensor]:
    """A random choice of a split's images with their class indices.

    Args:
        archive: A tar file with {train,test}/<class>/<name>.
        split: "train" or "test".
        count: How many; fewer if there are not as many.
        draws: Draws the choice; None: always the same one.
    """
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if m.name.removeprefix("./").startswith(f"{split}/") and m.isfile()]
        members.sort(key=lambda member: member.name)
        order = torch.randperm(len(members), generator=draws or generator(0, f"benchmark.{split}"))[:count]
        chosen = sorted((members[i] for i in order.tolist()), key=lambda member: member.offset)
        images = [decode(tar.extractfile(member)) for member in tqdm(chosen, desc=f"read {split}", disable=None)]
    labels = [CLASSES.index(member.name.split("/")[-2]) for member in chosen]
    return torch.stack(images), torch.tensor(labels)


def decode(file: Any) -> Tensor:
    """One image as bytes, [3, 32, 32]."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(file.read())).convert("RGB"))).permute(2, 0, 1)


def load_teacher(weights: Path) -> Teacher:
    """The teacher."""
    spec = ReferenceSpec(
        network="resnet20",
        weights=weights,
        input_shape=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        class_names=CLASSES,
    )
    return teachers.build(spec)


class TrueLabels(SyntheticBatches):
    """Real images whose labels are not the teacher's: logits that leave no doubt about the true class.

    Args:
        canvases: The images.
        classes: Their class indices.
        teacher: Normalises the images, and is not asked.
        batch_size: Images per batch.
    """

    def __init__(self, canvases: Canvases, classes: Tensor, teacher: Teacher, batch_size: int) -> None:
        # The index of an image travels with it as one more channel, so that its label is found after the shuffle.
        index = torch.arange(len(canvases)).reshape(-1, 1, 1, 1).expand(-1, 2, *canvases.shape[2:])
        high, low = index[:, :1] // 256, index[:, 1:] % 256
        super().__init__(torch.cat([canvases, high.byte(), low.byte()], dim=1), teacher, batch_size)
        self._classes = classes

    def _labelled(
        self,
        images: UInt8[Tensor, "batch channels height width"],
        generator: torch.Generator | None = None,
    ) -> Batch:
        assert not self.augmentation.mixup, "a mixture has no true label"
        index = images[:, -2, 0, 0].long() * 256 + images[:, -1, 0, 0].long()
        normalised = self._normalised(images[:, :-2], generator)
        return Batch(normalised, 1000 * one_hot(self._classes[index], len(CLASSES)).to(self.teacher.device))
