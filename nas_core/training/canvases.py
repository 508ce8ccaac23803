"""Where training takes its canvases from: memory, a device, or a reader of something larger than both.

Which one it is decides about speed alone: the same indices give the same bytes.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

READ_AHEAD_BYTES = 2**28


@runtime_checkable
class Canvases(Protocol):
    """Synthetic images as bytes: a tensor of them, or what reads them when they are asked for.

    Attributes:
        shape: (images, channels, height, width).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """See the class."""
        ...

    def __getitem__(self, indices: Tensor, /) -> Tensor:
        """The images at a tensor of indices, uint8 [batch, channels, height, width]; of a reader, from any thread."""
        ...


def read(
    canvases: Canvases, pieces: Iterable[Int64[Tensor, " _"]]
) -> Iterator[UInt8[Tensor, "_ channels height width"]]:
    """The canvases at each piece's indices in turn.

    A tensor is indexed where it lies, on a device too. A reader works ahead in a thread, by as many pieces as fit into
    `READ_AHEAD_BYTES`, two at least.
    """
    if isinstance(canvases, Tensor):
        for piece in pieces:
            yield canvases[piece.to(canvases.device)]
        return
    image_bytes = torch.Size(canvases.shape[1:]).numel()
    waiting: deque[Future[Tensor]] = deque()
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="canvases")
    try:
        for piece in pieces:
            waiting.append(thread.submit(canvases.__getitem__, piece))
            if len(waiting) > max(2, READ_AHEAD_BYTES // (len(piece) * image_bytes)):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Whoever takes only the first batches waits for no others, nor for the one that is being read.
        thread.shutdown(wait=False, cancel_futures=True)
