"""Train the digits teacher: 8x8 handwritten digits, a small ResNet, reproducible to the byte.

Run from anywhere: `python examples/digits/train_teacher.py`. It writes `teacher.safetensors` and `held_out.npz`
next to this file. The held-out digits are for the final figure only: neither this training nor a run's search
sees them.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Int64, UInt8
from safetensors.torch import save
from sklearn.datasets import load_digits
from torch import Tensor

from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.teachers.networks import digits_resnet
from nas_core.teachers.teacher import Teacher

Images = UInt8[Tensor, "images 1 8 8"]
Labels = Int64[Tensor, " images"]

FOLDER = Path(__file__).parent
SEED, HELD_OUT = 0, 500
EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 60, 64, 0.1, 5e-4


def digits() -> tuple[Images, Labels]:
    """All 1,797 digits in a seeded random order; scikit-learn stores grey levels 0 to 16."""
    grey, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(grey * 255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    order = torch.randperm(len(images), generator=generator(SEED, "digits.split"))
    return images[order], torch.from_numpy(labels)[order]


def shifted(images: Images, draws: torch.Generator) -> Images:
    """Each image moved by -1, 0 or 1 pixel in each direction; black moves in."""
    rows, columns = torch.randint(3, (2, len(images), 1, 1), generator=draws)
    index, pixels = torch.arange(len(images)).reshape(-1, 1, 1), torch.arange(8)
    return F.pad(images, (1, 1, 1, 1))[index, 0, rows + pixels.reshape(8, 1), columns + pixels].unsqueeze(1)


def trained(images: Images, labels: Labels) -> Teacher:
    """A teacher trained with SGD under a one-cycle schedule."""
    pixels = images.double() / 255
    mean, std = round(pixels.mean().item(), 4), round(pixels.std().item(), 4)
    network = digits_resnet()
    initialise(network, generator(SEED, "digits.weights"))
    teacher = Teacher(network, (1, 8, 8), (mean,), (std,), tuple("0123456789"), flip_invariant=False)
    network.train().requires_grad_(True)
    optimiser = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = len(images) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        draws = generator(SEED, "digits.epoch", epoch)
        for batch in torch.randperm(len(images), generator=draws)[: steps * BATCH_SIZE].split(BATCH_SIZE):
            loss = F.cross_entropy(network(teacher.normalise(shifted(images[batch], draws))), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval().requires_grad_(False)
    return teacher


def main() -> None:
    """Train, measure on the held-out digits, and write both files."""
    torch.set_num_threads(1)  # the order of additions, and so the last bits, depends on the number of threads
    images, labels = digits()
    teacher = trained(images[HELD_OUT:], labels[HELD_OUT:])
    held_out, truth = images[:HELD_OUT], labels[:HELD_OUT]
    accuracy = (teacher.logits(teacher.normalise(held_out)).argmax(1) == truth).double().mean().item()
    about = {
        "network": "digits_resnet",
        "held_out_accuracy": accuracy,
        "mean": teacher.mean,
        "std": teacher.std,
        "seed": SEED,
        "versions": {package: version(package) for package in ("torch", "scikit-learn")},
    }
    # One metadata entry, because safetensors writes several in a random order.
    (FOLDER / "teacher.safetensors").write_bytes(save(teacher.module.state_dict(), {"about": json.dumps(about)}))
    np.savez_compressed(FOLDER / "held_out.npz", images=held_out.numpy(), labels=truth.numpy())
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
