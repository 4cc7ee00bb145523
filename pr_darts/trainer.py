"""The trainer of a search in cycles: warm restarts, changing batch size, pools in checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from common.data.images import Images
from common.data.split import Split
from common.run.config import SearchConfig
from common.run.folder import Run
from common.supernet.measures import Measures
from common.training.bilevel import BilevelTrainer, optimizers
from common.training.schedules import LearningRate
from pr_darts.batch_size import BatchRule, used_memory
from pr_darts.cycles import Cycle, cycles
from pr_darts.pools import Pool
from pr_darts.supernet import PRDARTSSuperNet

RESIZE_EVERY = 5  # "we try to increase the batch size every five training steps" (III-C)


class CycleTrainer(BilevelTrainer):
    """The steps of a search whose network and batch size change.

    Args:
        config: with Table I and the batch sizes.
        supernet: of the first cycle, on the CPU.
        run: its folder.
        images: all training images, on the CPU.
        split: the halves.

    Attributes:
        cycle: the current cycle.
    """

    def __init__(
        self, config: SearchConfig, supernet: PRDARTSSuperNet, run: Run, images: Images,
        split: Split,
    ):
        self.columns = cycles(config)  # of Table I
        self.cycle = self.columns[0]
        self.rule = BatchRule(
            config.batch_size, config.batch_step, config.batch_max, config.memory_threshold,
            run.accelerator.num_processes,
        )
        self.first_candidates = supernet.count()
        super().__init__(config, supernet, run, images, split)
        if self.global_step == 0:
            self._begin_cycle()

    def cycles(self) -> Iterator[Cycle]:
        """The remaining cycles; a resumed search may be within the first, or at its end."""
        yield from self.columns[self.cycle.number - 1 :]

    def resize_batch(self) -> None:
        """On a GPU, every five steps: the largest batch that fits its memory (III-C)."""
        if self.accelerator.device.type == "cuda" and (self.step + 1) % RESIZE_EVERY == 0:
            used = used_memory(self.accelerator, self.config.memory_gib)
            self.set_batch_size(self.rule.by_memory(self.batch_size, used))

    def restart(self) -> None:
        """Start the next cycle on the rebuilt supernet, with new optimisers."""
        self.cycle = self.columns[self.cycle.number]
        self._renew_optimizers()
        self.measures = Measures(self.supernet)
        self._begin_cycle()

    @property
    def batch_size(self) -> int:
        """Images of a step, over all processes."""
        return self.train_batches.batch_size

    def set_batch_size(self, size: int) -> None:
        """Set it for both halves; when it changes, measure a GPU's peak memory anew."""
        if size != self.batch_size and self.accelerator.device.type == "cuda":
            self.peak_before = self.peak_memory_mib()
            torch.cuda.reset_peak_memory_stats(self.accelerator.device)
        self.train_batches.batch_size = self.valid_batches.batch_size = size

    def _begin_cycle(self) -> None:
        """On a GPU start at the minimum; on a CPU follow the number of candidates (III-C)."""
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
            self.set_batch_size(self.rule.least)
        else:
            now = self.supernet.count()
            self.set_batch_size(self.rule.by_candidates(now, self.first_candidates))

    def schedule_of(
        self, config: SearchConfig, sgd: torch.optim.SGD, warmup: int = 0
    ) -> WarmRestart:
        """A cosine within each cycle (IV-A)."""
        return WarmRestart(sgd, self.cycle, config.learning_rate_min)

    def held_out_metrics(self, **given: Any) -> dict[str, Any]:
        """Also the cycle and the batch size."""
        own = {"cycle": self.cycle.number, "batch_size": self.batch_size}
        return {**super().held_out_metrics(**given), **own}

    def architecture(self) -> dict[str, Any]:
        """See `BilevelTrainer.architecture`; with each edge's own candidates."""
        supernet = self.supernet
        return {
            "epoch": self.epoch + 1,
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
        pools = {
            kind: [pool.to_json() for pool in pools]
            for kind, pools in self.supernet.pools.items()
        }
        return {
            **super().state(), "pools": pools, "cycle": self.cycle.number,
            "batch_size": self.batch_size,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Rebuild the state's network, then load it."""
        self.supernet.rebuild({
            kind: [Pool.from_json(pool) for pool in pools]
            for kind, pools in state["pools"].items()
        })
        self.cycle = self.columns[state["cycle"] - 1]
        self._renew_optimizers()
        super().load_state(state)
        self.set_batch_size(state["batch_size"])

    def _renew_optimizers(self) -> None:
        supernet, fused = self.supernet, self.accelerator.device.type in ("cpu", "cuda")
        self.weights, self.arch = supernet.weight_parameters(), supernet.arch_parameters()
        self.optimizers = optimizers(self.config, self.weights, self.arch, fused)
        self.optimizer, self.arch_optimizer = self.optimizers
        self.schedule = self.schedule_of(self.config, self.optimizer)


class WarmRestart(LearningRate):
    """A cosine within a cycle, from the optimizer's learning rate to `lowest` (IV-A)."""

    def __init__(self, optimizer: torch.optim.SGD, cycle: Cycle, lowest: float):
        super().__init__("cosine", optimizer, cycle.end - cycle.start, lowest)
        self.start = cycle.start

    def step(self, epoch: int) -> None:
        """Set the learning rate of this epoch of the search."""
        super().step(epoch - self.start)
