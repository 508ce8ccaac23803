"""Latency on the machine at hand: of a network, and of architectures as a sum over their parts.

Source: Cai, Zhu and Han, "ProxylessNAS", arXiv:1812.00332, section 3.3: a table of operations' latencies predicts a
network's well enough to be optimised.
"""

import json
import math
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from nas_core.errors import InputError
from nas_core.ops.cost import CostTable, Part
from nas_core.ops.mixed import Choice

if TYPE_CHECKING:
    from nas_core.search_spaces.base import SearchSpace

# In a millisecond.
NANOSECONDS = 1_000_000


@dataclass(frozen=True)
class LatencyTable:
    """Mean latency of an architecture in milliseconds.

    Attributes:
        entries: Milliseconds of each kind of part, by `key`.
        provenance: Where and how they were measured.
    """

    entries: dict[str, float]
    provenance: dict[str, str | int]

    def table(self, space: "SearchSpace") -> CostTable[int]:
        """Nanoseconds of the fixed parts of a space, and of each operation of each slot; whole, so that sums are exact.

        Raises:
            InputError: If a part of the space was not measured.
        """

        def look_up(part: Part) -> int:
            if key(part) not in self.entries:
                raise InputError(
                    f"the latency table has no '{key(part)}'; measure it for this space, image size and settings"
                )
            return round(NANOSECONDS * self.entries[key(part)])

        return space.costs(look_up)

    def of(self, space: "SearchSpace", choices: Sequence[Choice]) -> float:
        """Milliseconds of an architecture of a space, one image batch as in the provenance."""
        return self.table(space).of(choices) / NANOSECONDS

    def to_json(self) -> str:
        """The table as text that `from_json` reads."""
        return json.dumps({"provenance": self.provenance, "milliseconds": self.entries}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "LatencyTable":
        """Read a table.

        Raises:
            InputError: If the text is not one.
        """
        try:
            content = json.loads(text)
            entries = {str(name): float(value) for name, value in content["milliseconds"].items()}
            if not all(math.isfinite(value) and value >= 0 for value in entries.values()):
                raise ValueError("a latency is negative or no number")
            return cls(entries, dict(content["provenance"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is no latency table ({error!r}); measure one anew") from None


def key(part: Part) -> str:
    """What a latency depends on: the kind of part, which says how it is made, and its input."""
    return f"{part.kind} on {'x'.join(map(str, part.input_shape))}"


def measure_parts(
    space: "SearchSpace", device: torch.device, *, batch_size: int = 1, warm_up: int = 10, repetitions: int = 50
) -> LatencyTable:
    """Time every kind of part of a space's networks, in evaluation mode.

    Args:
        space: Whose parts to time.
        device: Where.
        batch_size: Images per forward pass, >= 1.
        warm_up: Passes that are not counted.
        repetitions: Passes of which the median is taken, >= 1.
    """
    entries: dict[str, float] = {}

    def measure(part: Part) -> float:
        module = part.make().to(device)
        entries[key(part)] = median_milliseconds(module, part.input_shape, device, batch_size, warm_up, repetitions)
        return entries[key(part)]

    space.costs(measure)
    provenance: dict[str, str | int] = {
        "space": space.name,
        "device": str(device),
        "processor": processor_name(device),
        "machine": platform.machine(),
        "system": platform.platform(terse=True),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "warm_up": warm_up,
        "repetitions": repetitions,
        "input_shape": "x".join(map(str, space.input_shape)),
    }
    return LatencyTable(entries, provenance)


@torch.no_grad()
def median_milliseconds(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    device: torch.device,
    batch_size: int = 1,
    warm_up: int = 10,
    repetitions: int = 50,
    seconds: float = math.inf,
) -> float:
    """Time of a forward pass in evaluation mode: the median, in milliseconds.

    Args:
        module: On the device; takes one tensor (batch, *input_shape). It stays in evaluation mode.
        input_shape: (channels, height, width).
        device: Where.
        batch_size: Images per pass, >= 1.
        warm_up: Passes that are not counted.
        repetitions: Passes of which the median is taken, >= 1.
        seconds: No further pass is started after so long, if there is one that counts.
    """
    module.eval()
    x = torch.zeros(batch_size, *input_shape, device=device)
    times = []
    begin = time.perf_counter()
    for _ in range(warm_up + repetitions):
        _wait_for(device)
        start = time.perf_counter()
        if start - begin > seconds and len(times) > 1:
            break
        module(x)
        _wait_for(device)
        times.append(1e3 * (time.perf_counter() - start))
    # A slow module that got no further than its warm-up: the first pass alone does not count.
    return statistics.median(times[min(warm_up, len(times) - 1) :])


def processor_name(device: torch.device) -> str:
    """What the device is called by those who sell it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _wait_for(device: torch.device) -> None:
    """Until everything queued on an accelerator is done; a CPU queues nothing."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
