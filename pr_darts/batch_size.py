"""The batch size, by the memory that the pools of a cycle need (III-C)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator


@dataclass(frozen=True)
class BatchRule:
    """Sizes b_min + n b_mult up to b_max.

    Attributes:
        least: b_min, which a cycle on a GPU begins with.
        step: b_mult.
        most: b_max.
        threshold: the share of the memory that may be expected to be used.
        processes: share out a batch equally, so steps are such that they can.
    """

    least: int
    step: int
    most: int
    threshold: float
    processes: int = 1

    def largest(self, bound: float) -> int:
        """The largest size that is not above a bound; b_min if none is."""
        step = math.lcm(self.step, self.processes)
        n = (min(bound, self.most) - self.least) // step
        return self.least + max(0, int(n)) * step

    def by_memory(self, size: int, used: float) -> int:
        """On a GPU: memory is taken to be proportional to the batch size ("linear", III-C).

        Args:
            size: that the memory was measured at.
            used: the share of the memory that was used at most, of the fullest GPU.

        Returns:
            The next size, at most the double (authors' code).

        Deviation: smaller again where the threshold was passed, as it can be when alpha's steps
        set in after the grace epochs; the authors' code, whose steps all need the same, only grows.
        """
        return self.largest(min(self.threshold * size / used, 2 * size))

    def by_candidates(self, now: int, first: int) -> int:
        """On a CPU, whose memory says little: as many images as keep images times candidates.

        Args:
            now: candidates of all edges in this cycle.
            first: in the first cycle, which has b_max.
        """
        return self.largest(self.most * first / now)


def used_memory(accelerator: Accelerator, size_gib: float | None = None) -> float:
    """The share of its memory that the fullest GPU of all processes used at its peak.

    That is since `torch.cuda.reset_peak_memory_stats`; its memory is what is free and what torch
    holds.

    Args:
        accelerator: of all processes.
        size_gib: what a GPU's memory is taken to be, where it is larger (`--memory-gib`).
    """
    device = accelerator.device
    free, _ = torch.cuda.mem_get_info(device)
    peak = torch.cuda.max_memory_allocated(device)
    there = free + torch.cuda.memory_reserved(device)
    if size_gib is not None:
        there = min(there, size_gib * 2**30)
    return fullest(accelerator, peak / there)


def fullest(accelerator: Accelerator, share: float) -> float:
    """The largest share of all processes, the same on all of them."""
    shares = accelerator.gather(torch.tensor([share], device=accelerator.device))
    return shares.max().item()
