"""Seeded generators: every random draw of a run comes from one of these, never from global state."""

import hashlib

import torch


def derived_seed(run_seed: int, stage: str, *position: int) -> int:
    """A seed that depends on nothing but its arguments, the same on every machine and Python.

    Args:
        run_seed: The seed of the run, >= 0.
        stage: What the draws are for, such as "synthesis.noise"; two stages never share a stream.
        position: Where in the stage, such as (round, shard) or (epoch,).

    Returns:
        An integer in [0, 2**63).
    """
    text = "/".join([str(run_seed), stage, *map(str, position)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(run_seed: int, stage: str, *position: int) -> torch.Generator:
    """A CPU generator seeded with `derived_seed`.

    Draws are made on the CPU and moved to the device, so that a run sees the same numbers on every device.
    """
    return torch.Generator().manual_seed(derived_seed(run_seed, stage, *position))
