"""The batch size, which follows the memory that a cycle's pools need (III-C)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator


@dataclass(frozen=True)
class BatchRule:
    """Sizes b_min + n b_mult up to b_max.

    Attributes:
        least: b_min, the size at the start of a cycle on a GPU.
        step: b_mult.
        most: b_max.
        threshold: largest expected share of the memory.
        processes: each takes an equal part of a batch.
    """

    least: int
    step: int
    most: int
    threshold: float
    processes: int = 1

    def largest(self, bound: float) -> int:
        """The largest size up to a bound; b_min at least."""
        step = math.lcm(self.step, self.processes)
        n = (min(bound, self.most) - self.least) // step
        return self.least + max(0, int(n)) * step

    def by_memory(self, size: int, used: float) -> int:
        """On a GPU: assumes memory proportional to the batch size ("linear", III-C).

        Deviation: the size can also shrink, if the threshold was passed, for example when arch
        steps start after the grace epochs. In the authors' code it only grows.

        Args:
            size: the current size.
            used: peak share of the fullest GPU's memory at this size.

        Returns:
            The next size, at most doubled (authors' code).
        """
        return self.largest(min(self.threshold * size / used, 2 * size))

    def by_candidates(self, now: int, first: int) -> int:
        """On a CPU: keeps images times candidates constant.

        Args:
            now: number of candidates, over all edges, in this cycle.
            first: the same in the first cycle, whose size is b_max.
        """
        return self.largest(self.most * first / now)


def used_memory(accelerator: Accelerator, size_gib: float | None = None) -> float:
    """Peak share of its memory that the fullest GPU has used.

    The peak since `torch.cuda.reset_peak_memory_stats`, over what is free or held by torch.

    Args:
        accelerator: of all processes.
        size_gib: assume at most this much memory (`--memory-gib`).
    """
    device = accelerator.device
    free, _ = torch.cuda.mem_get_info(device)
    peak = torch.cuda.max_memory_allocated(device)
    there = free + torch.cuda.memory_reserved(device)
    if size_gib is not None:
        there = min(there, size_gib * 2**30)
    return fullest(accelerator, peak / there)


def fullest(accelerator: Accelerator, share: float) -> float:
    """The largest share over all processes."""
    shares = accelerator.gather(torch.tensor([share], device=accelerator.device))
    return shares.max().item()
