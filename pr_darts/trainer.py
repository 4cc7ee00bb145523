"""What a search in cycles asks of a trainer: warm restarts, batches that change, pools saved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from common.data.batches import Batch
from common.data.datasets import Images, Split
from common.run.config import SearchConfig
from common.run.folder import Run
from common.supernet.measures import Measures
from common.training.bilevel import BilevelTrainer
from pr_darts.batch_size import BatchRule, used_memory
from pr_darts.cycles import Cycle, cycles
from pr_darts.pools import Pool
from pr_darts.supernet import PRDARTSSuperNet

RESIZE_EVERY = 5  # "we try to increase the batch size every five training steps" (III-C)


class CycleTrainer(BilevelTrainer):
    """The verbs of a search whose network and batch size change.

    Positions in the data are counted in images, as a step has no fixed number of them.

    Args:
        config: with Table I and the batch rule's numbers.
        supernet: of the first cycle, on the CPU.
        run: its folder.
        images: all training images, on the CPU.
        split: the halves.

    Attributes:
        cycle: whose network the supernet is.
        seen: images in this epoch so far.
        valid_at: the pass over the validation half, and the images of it that were seen.
        steps_before: this epoch.
        peak_before: MiB of a GPU's memory, at most, before the batch had the size it has.
    """

    def __init__(
        self, config: SearchConfig, supernet: PRDARTSSuperNet, run: Run, images: Images,
        split: Split,
    ):
        self.table = cycles(config)
        self.cycle = self.table[0]
        self.seen, self.valid_at, self.steps_before = 0, (0, 0), 0
        self.rule = BatchRule(
            config.batch_size, config.batch_step, config.batch_max, config.memory_threshold,
            run.accelerator.num_processes,
        )
        self.first_candidates = supernet.count()
        self.peak_before = 0.0
        super().__init__(config, supernet, run, images, split)
        del self.schedule  # a cosine in each cycle instead; it would keep the first one's weights

    # --------------------------------------------------------------------------------- the verbs

    def cycles(self) -> Iterator[Cycle]:
        """The cycles still to run; the first of them may have epochs behind it, or all of them."""
        yield from self.table[self.cycle.number - 1 :]

    def batches(self) -> Iterator[tuple[Batch, Batch]]:
        """See `BilevelTrainer.batches`; both of the size that the batch has now."""
        for step in self.steps():
            size, (turn, start) = self.batch_size, self.valid_at
            if start + size > len(self.valid_batches.indices):
                turn, start = turn + 1, 0
            self.valid_at = turn, start + size
            train = self.train_batches.cut(self.epoch, self.seen, step)
            yield train, self.valid_batches.cut(turn, start, step)
            self.seen += size

    def resize_batch(self) -> None:
        """On a GPU, every five steps: as many images as its memory allows (III-C)."""
        if self.accelerator.device.type == "cuda" and (self.step + 1) % RESIZE_EVERY == 0:
            used = used_memory(self.accelerator, self.config.memory_gib)
            self._set_batch_size(self.rule.by_memory(self.batch_size, used))

    def restart(self) -> None:
        """The next cycle, with the supernet that was rebuilt for it: optimisers have no past."""
        self.cycle = self.table[self.cycle.number]
        self._renew_optimizers()
        self.measures = Measures(self.supernet)

    # ------------------------------------------------------------------ what the loop asks of it

    @property
    def batch_size(self) -> int:
        """Images of the next step, over all processes together."""
        return self.train_batches.batch_size

    @property
    def items_seen(self) -> int:
        """See `Loop.items_seen`."""
        return self.seen

    @property
    def global_step(self) -> int:
        """See `Loop.global_step`."""
        return self.steps_before + self.step

    def more_steps(self) -> bool:
        """Whether the pass over the training half has another whole batch."""
        return self.seen + self.batch_size <= len(self.train_batches.indices)

    def next_epoch(self) -> None:
        """See `Loop.next_epoch`."""
        self.steps_before, self.seen = self.global_step, 0
        super().next_epoch()

    def set_learning_rate(self) -> None:
        """A cosine within each cycle ("warm restarts", IV-A)."""
        high, low = self.config.learning_rate, self.config.learning_rate_min
        done = (self.epoch - self.cycle.start) / (self.cycle.end - self.cycle.start)
        for group in self.optimizer.param_groups:
            group["lr"] = low + (high - low) * (1 + math.cos(math.pi * done)) / 2

    def begin_epoch(self) -> None:
        """Where a cycle begins, so does the batch size: by its rule."""
        if (self.epoch, self.step) == (self.cycle.start, 0):
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
                self._set_batch_size(self.rule.least)
            else:
                now = self.supernet.count()
                self._set_batch_size(self.rule.by_candidates(now, self.first_candidates))

    def report(self) -> dict[str, Any]:
        """See `BilevelTrainer.report`; with the cycle and the batch size."""
        own = {"cycle": self.cycle.number, "batch_size": self.batch_size}
        return {**super().report(), **own}

    def peak_memory_mib(self) -> float:
        """See `Loop.peak_memory_mib`."""
        return max(self.peak_before, super().peak_memory_mib())

    def architecture(self) -> dict[str, Any]:
        """See `BilevelTrainer.architecture`; of each edge its own candidates."""
        supernet = self.supernet
        return {
            "epoch": self.epoch,
            "cycle": self.cycle.number,
            "edges": supernet.edges,
            "candidates": {
                kind: [[str(op) for op in pool.candidates] for pool in pools]
                for kind, pools in supernet.pools.items()
            },
            "parameters": {
                f"alpha_{kind}": supernet.by_pool(kind, supernet.arch[f"alpha_{kind}"])
                for kind in supernet.kinds
            },
            "weights": {
                kind: {"op": supernet.weights(kind), "edge": None} for kind in supernet.kinds
            },
        }

    def state(self) -> dict[str, Any]:
        """See `Loop.state`."""
        pools = {
            kind: [pool.to_json() for pool in pools]
            for kind, pools in self.supernet.pools.items()
        }
        return {
            **super().state(), "pools": pools, "cycle": self.cycle.number,
            "batch_size": self.batch_size, "seen": self.seen, "valid_at": list(self.valid_at),
            "steps_before": self.steps_before,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Loop.load_state`; the network is built that the state is of."""
        self.supernet.rebuild({
            kind: [Pool.from_json(pool) for pool in pools]
            for kind, pools in state["pools"].items()
        })
        self._renew_optimizers()
        super().load_state(state)
        self.cycle = self.table[state["cycle"] - 1]
        self.seen, self.steps_before = state["seen"], state["steps_before"]
        self.valid_at = tuple(state["valid_at"])
        self._set_batch_size(state["batch_size"])

    def _renew_optimizers(self) -> None:
        self.optimizers = self.new_optimizers(self.config, self.accelerator.device)
        self.optimizer, _ = self.optimizers

    def _set_batch_size(self, size: int) -> None:
        """Of both halves; where it changes, a GPU's peak is that of the new size from now on."""
        if size != self.batch_size and self.accelerator.device.type == "cuda":
            self.peak_before = self.peak_memory_mib()
            torch.cuda.reset_peak_memory_stats(self.accelerator.device)
        self.train_batches.batch_size = self.valid_batches.batch_size = size
