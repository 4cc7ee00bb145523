"""What a search and a retraining share: epochs, progress, figures, checkpoints, resuming.

All randomness follows from the seed and the step (see `distributed.seed_of`), and everything else
that changes is in a checkpoint; so a run that was killed and resumed ends in the bits of one that
was not. Before anything is saved or reported, what differs between processes is averaged, always
at the same steps.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil  # accelerate brings it
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from timm.scheduler.scheduler import Scheduler
from timm.utils import AverageMeter, accuracy
from torch import Tensor, nn
from torch.nn import functional as F

from common.data.batches import Passes
from common.distributed import average, seed_of
from common.errors import InputError, NotFinite
from common.run.config import RunConfig
from common.run.folder import Run
from common.training.running_statistics import average_statistics
from common.training.schedules import schedule

MEND = "no checkpoint was written since. A smaller --learning-rate is the usual mend."


class Loop:
    """Trains one network for some epochs. Subclasses say what a step is and what an epoch leaves.

    Args:
        config: the run's flags.
        run: its folder.
        network: on its device already.
        optimizer: of the weights.
        batches: of training images.
        optimizers: further ones that belong to the state.

    Attributes:
        unit: what the progress bar counts.
        items: what `metrics.jsonl` counts.
        quantities: of a step, averaged over an epoch.
    """

    unit, items = "img", "images"
    quantities = ("loss", "top1")

    def __init__(
        self, config: RunConfig, run: Run, network: nn.Module, optimizer: torch.optim.Optimizer,
        batches: Passes, *optimizers: torch.optim.Optimizer,
    ):
        self.config, self.run, self.accelerator = config, run, run.accelerator
        self.network, self.optimizer, self.train_batches = network, optimizer, batches
        self.optimizers = (optimizer, *optimizers)
        self.schedule = self.new_schedule()
        self.steps_per_epoch = len(batches)
        self.epoch = self.step = 0  # the step counts within the epoch
        self.seconds = 0.0  # that the epoch has taken so far, in runs before this one too
        self.meters = {name: AverageMeter() for name in self.quantities}
        self.first_bad_step = torch.full((), -1, device=self.accelerator.device)
        self.averaged = [network]  # whose running statistics differ between processes
        self.bar = self.arriving = None
        self._resume()

    # --------------------------------------------------------------------- what subclasses say

    def new_schedule(self) -> Scheduler:
        """Of the weights' learning rate, from `self.optimizer`'s on."""
        config = self.config
        return schedule("cosine", self.optimizer, config.epochs, config.learning_rate_min)

    def begin_epoch(self) -> None:
        """Before an epoch's first step, also when resuming within it."""

    def set_learning_rate(self) -> None:
        """That of this epoch; constant within it."""
        self.schedule.step(self.epoch)  # timm counts from 0

    def more_steps(self) -> bool:
        """Whether the epoch has steps left."""
        return self.step < self.steps_per_epoch

    def ends_early(self) -> bool:
        """Between epochs: whether the run is over before its last one."""
        return False

    def next_epoch(self) -> None:
        """Count on, at an epoch's end."""
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0

    def peak_memory_mib(self) -> float:
        """The most memory used so far."""
        return peak_memory_mib(self.accelerator.device)

    def train_figures(self, means: dict[str, float]) -> dict[str, float]:
        """What `metrics.jsonl` says of the means of the steps' quantities."""
        return {f"train_{name}": mean for name, mean in means.items()}

    def summary(self, split: str, figures: dict[str, Any]) -> str:
        """What a person reads of a split's figures."""
        return f"loss {figures[f'{split}_loss']:.3f} top-1 {figures[f'{split}_top1']:5.2f} %"

    def report(self) -> dict[str, Any]:
        """After an epoch's last step: its figures, and whatever files an epoch leaves."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------- epochs

    @property
    def global_step(self) -> int:
        """Steps since the run's first."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def items_seen(self) -> int:
        """In this epoch so far, by all processes together."""
        return self.step * self.config.batch_size

    def epochs(self, until: int | None = None) -> Iterator[int]:
        """The epochs still to run; after each one's body its figures and state are saved.

        Args:
            until: stop before this one; None: run all.
        """
        until = self.config.epochs if until is None else until
        per_epoch = self.steps_per_epoch * self.config.batch_size
        self.bar = tqdm(
            total=self.config.epochs * per_epoch, initial=self.epoch * per_epoch + self.items_seen,
            unit=self.unit, unit_scale=True, dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10, smoothing=0.1,
        )
        try:
            while self.epoch < until and not self.ends_early():
                self.set_learning_rate()
                self.begin_epoch()
                self.bar.set_description(f"epoch {self.epoch + 1}/{self.config.epochs}")
                self.started = time.perf_counter() - self.seconds
                yield self.epoch
                self._end_epoch()
        finally:
            self.bar.close()

    def steps(self) -> Iterator[int]:
        """The epoch's steps still to run, as numbers since the run's first."""
        self.network.train()
        shown = time.perf_counter()
        while self.more_steps():
            torch.manual_seed(
                seed_of(self.config.seed, self.accelerator.process_index, self.global_step)
            )
            seen = self.items_seen
            yield self.global_step
            self.step += 1
            if time.perf_counter() - shown > 0.5:
                shown = time.perf_counter()
                self._show()
            self.bar.update(self.items_seen - seen)
            if self.more_steps() and self.step % self.config.checkpoint_steps == 0:
                self.seconds = time.perf_counter() - self.started
                self._save()

    def record(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a training step's loss and accuracy, on the device."""
        loss = loss.detach()
        self.meters["loss"].update(loss, len(labels))
        self.meters["top1"].update(accuracy(logits.detach(), labels)[0], len(labels))
        self.watch(loss)

    def watch(self, loss: Tensor) -> None:
        """Remember the first step whose loss is not finite, without waiting for the device."""
        bad = ~loss.detach().isfinite() & (self.first_bad_step < 0)
        self.first_bad_step = torch.where(bad, self.global_step, self.first_bad_step)

    @torch.no_grad()
    def evaluate(
        self, network: Callable[[Tensor], Tensor], batches: Passes
    ) -> tuple[float, float, float]:
        """Mean loss, top-1 and top-5 accuracy (percent) over all images.

        Args:
            network: images to logits, in the mode (train or eval) that the caller put it in.
            batches: of the images.
        """
        sums = torch.zeros(4, device=self.accelerator.device)
        for images, labels in batches.evaluate():
            logits = network(images)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            first = (logits.argmax(1) == labels).sum()
            five = logits.topk(min(5, logits.shape[1])).indices  # [B, 5]
            among_five = (five == labels[:, None]).sum()
            sums += torch.stack([loss, first, among_five, torch.full_like(loss, len(labels))])
        loss, top1, top5, count = self.accelerator.reduce(sums).tolist()
        return loss / count, 100 * top1 / count, 100 * top5 / count

    def held_out(self, network: nn.Module, batches: Passes) -> tuple[float, float, float]:
        """Mean loss, top-1 and top-5 accuracy (percent) by running statistics.

        Raises:
            NotFinite: the loss is not.
        """
        loss, top1, top5 = self.evaluate(network.eval(), batches)
        if not math.isfinite(loss):
            raise NotFinite(
                f"the loss on held-out images was not finite after epoch {self.epoch + 1}; {MEND}"
            )
        return loss, top1, top5

    def _end_epoch(self) -> None:
        self._synchronise()  # which waits for the device
        trained = time.perf_counter() - self.started
        figures = {
            "epoch": self.epoch,
            **self.train_figures({k: float(meter.avg) for k, meter in self.meters.items()}),
            **self.report(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self.started, 3),
            f"{self.items}_per_second": round(self.items_seen / trained, 1),
            "peak_memory_mib": round(self.peak_memory_mib(), 1),
        }
        self.run.append("metrics.jsonl", figures)
        self.accelerator.log(figures, step=self.epoch)
        self._say(figures)
        for meter in self.meters.values():
            meter.reset()
        self.next_epoch()
        self._save()

    def _say(self, figures: dict[str, Any]) -> None:
        parts = [f"epoch {self.epoch + 1:>3}/{self.config.epochs}"]
        for split in ("train", "valid", "test"):
            if figures.get(f"{split}_loss") is not None:
                parts.append(f"{split} {self.summary(split, figures)}")
        rate = figures[f"{self.items}_per_second"]
        parts.append(
            f"{figures['seconds']:.1f} s   {rate:,.0f} {self.unit}/s   "
            f"{figures['peak_memory_mib']:,.0f} MiB"
        )
        if self.accelerator.is_main_process:
            self.bar.write("   ".join(parts))

    def _show(self) -> None:
        """The figures that were on their way last time; reading those of now would wait."""
        if self.arriving is not None:
            means, copied = self.arriving
            if copied is None or copied.query():
                figures = self.train_figures(dict(zip(self.meters, means.tolist(), strict=True)))
                self.bar.set_postfix_str(self.summary("train", figures), refresh=False)
        means = torch.stack([meter.avg for meter in self.meters.values()])
        copied = torch.cuda.Event() if means.is_cuda else None
        self.arriving = means.to("cpu", non_blocking=True), copied
        if copied is not None:
            copied.record()

    # -------------------------------------------------------------------------------- the state

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,  # of the epoch so far
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "meters": [
                {"sum": meter.sum, "count": meter.count, "avg": meter.avg}
                for meter in self.meters.values()
            ],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.network.load_state_dict(state["network"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        for meter, values in zip(self.meters.values(), state["meters"], strict=True):
            for key, value in values.items():
                on_device = isinstance(value, Tensor)
                setattr(meter, key, value.to(self.accelerator.device) if on_device else value)

    def _resume(self) -> None:
        state = self.run.load_checkpoint() if self.config.resume else None
        if state is not None:
            try:
                self.load_state(state)
            except (InputError, torch.OutOfMemoryError):
                raise
            except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"--resume {self.run.folder}: its checkpoints are of another version, or of "
                    f"other flags ({str(error).splitlines()[0]}); start a new run"
                ) from error
            self.run.say(f"resuming at epoch {self.epoch + 1}, step {self.step + 1}")
        self.run.rewind(self.epoch)

    def _save(self) -> None:
        self._synchronise()
        self.run.save_checkpoint(self.epoch, self.step, self.state())

    def _synchronise(self) -> None:
        """Make processes equal: running statistics and meters; stop if a loss was not finite."""
        bad = self.accelerator.gather(self.first_bad_step.reshape(1))
        bad = bad[bad >= 0]
        if len(bad) > 0:
            step = int(bad.min()) - (self.global_step - self.step)  # looked at in each epoch
            raise NotFinite(
                f"the loss was not finite at step {int(bad.min())} (epoch {self.epoch + 1}, step "
                f"{step + 1} of it); {MEND}"
            )
        # A finite loss can still have made weights that are not.
        if not torch.stack([p.isfinite().all() for p in self.network.parameters()]).all():
            raise NotFinite(
                f"a parameter was not finite after epoch {self.epoch + 1}, step {self.step}; {MEND}"
            )
        for network in self.averaged:
            average_statistics(self.accelerator, network)
        meters = list(self.meters.values())
        if self.accelerator.num_processes > 1 and meters[0].count > 0:
            means = average(self.accelerator, [meter.sum for meter in meters])
            for meter, mean in zip(meters, means, strict=True):
                meter.sum, meter.avg = mean.clone(), mean / meter.count


def prepare(accelerator: Accelerator, network: nn.Module) -> nn.Module:
    """On its device and under accelerate's mixed precision; no wrapper (see `distributed`)."""
    return accelerator.prepare_model(network, evaluation_mode=True)


def peak_memory_mib(device: torch.device) -> float:
    """The most memory used so far: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
