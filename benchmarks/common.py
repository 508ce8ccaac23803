"""What several benchmarks share: CIFAR-10's images and teacher, the device, what figures depend on."""

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
from nas_core.teachers import Teacher, teachers

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
