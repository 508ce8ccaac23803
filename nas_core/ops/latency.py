"""Latency of architectures as a sum over their parts, measured on the machine at hand.

Source: Cai, Zhu and Han, "ProxylessNAS", arXiv:1812.00332, section 3.3: a table of operations' latencies predicts a
network's well enough to be optimised.
"""

import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nas_core.errors import InputError
from nas_core.ops.cost import CostTable, Part
from nas_core.ops.mixed import Choice

if TYPE_CHECKING:
    from nas_core.search_spaces.base import SearchSpace


@dataclass(frozen=True)
class LatencyTable:
    """Mean latency of an architecture in milliseconds.

    Attributes:
        entries: Milliseconds of each kind of part, by `key`.
        provenance: Where and how they were measured.
    """

    entries: dict[str, float]
    provenance: dict[str, str | int]

    def table(self, space: "SearchSpace") -> CostTable[float]:
        """Milliseconds of the fixed parts of a space, and of each operation of each slot.

        Raises:
            InputError: If a part of the space was not measured.
        """

        def look_up(part: Part) -> float:
            if key(part) not in self.entries:
                raise InputError(
                    f"the latency table has no '{key(part)}'; measure it for this space, image size and settings"
                )
            return self.entries[key(part)]

        return space.costs(look_up)

    def of(self, space: "SearchSpace", choices: Sequence[Choice]) -> float:
        """Milliseconds of an architecture of a space, one image batch as in the provenance."""
        return self.table(space).of(choices)

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
            return cls(entries, dict(content["provenance"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is no latency table ({error!r}); measure one anew") from None


def key(part: Part) -> str:
    """What a latency depends on: the kind of part (layer, expansion, kernel, stride, width, shortcut) and its input."""
    return f"{part.kind} on {'x'.join(map(str, part.input_shape))}"


def measure_latency(
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
        entries[key(part)] = _median_milliseconds(part, device, batch_size, warm_up, repetitions)
        return entries[key(part)]

    space.costs(measure)
    provenance: dict[str, str | int] = {
        "space": space.name,
        "device": str(device),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
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
def _median_milliseconds(part: Part, device: torch.device, batch_size: int, warm_up: int, repetitions: int) -> float:
    module = part.make().to(device).eval()
    x = torch.zeros(batch_size, *part.input_shape, device=device)
    times = []
    for _ in range(warm_up + repetitions):
        _wait_for(device)
        start = time.perf_counter()
        module(x)
        _wait_for(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[warm_up:])


def _wait_for(device: torch.device) -> None:
    """Until everything queued on an accelerator is done; a CPU queues nothing."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
