"""A teacher that stands still in the middle of a shard, so that a test can do something meanwhile, on any machine."""

import time
from pathlib import Path

from torch import Tensor

from nas_core.teachers.networks import ResNet
from tasks.stopping import STOP


class PatientResNet(ResNet):
    """The network of the digits teacher. Its first step of synthesis writes `waiting`, and waits for `go` or its end.

    Args:
        folder: Where these files are.
        lingers: Whether it writes `told` when it is told to end, and then goes on waiting for `go`.
    """

    def __init__(self, folder: str, lingers: bool = False) -> None:
        super().__init__(blocks=1, widths=(24, 48, 96), in_channels=1, num_classes=10)
        self.folder, self.lingers = Path(folder), lingers

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised images."""
        waiting = self.folder / "waiting"
        if x.requires_grad and not waiting.exists():
            waiting.touch()
            while not (STOP.is_set() or (self.folder / "go").exists()):
                time.sleep(0.01)
            while self.lingers and not (self.folder / "go").exists():
                (self.folder / "told").touch()
                time.sleep(0.01)
        return super().forward(x)
