"""The training loop: epochs, progress, metrics, checkpoints, resuming.

All randomness is a function of the seed and the step (see `distributed.seed_of`), and checkpoints
hold all other state, so a resumed run ends with the same bits as an uninterrupted one, wherever its
checkpoints were. Metrics and running statistics are averaged over the processes at the end of an
epoch; checkpoints within it have those of each process.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil  # a dependency of accelerate
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from torch import Tensor, nn

from common.data.batches import Stream
from common.distributed import Vote, average, seed_of
from common.errors import InputError, NotFinite
from common.preemption import Preempted, asked, waiting
from common.run.config import LoopConfig
from common.run.folder import Run
from common.run.trackers import log_metrics
from common.training.duration import in_words
from common.training.running_statistics import average_statistics
from common.training.schedules import LearningRate

ESTIMATE_AFTER = 15  # seconds of steps
LONG = 3_600  # seconds
FIX = "no checkpoint was written after it. A smaller --learning-rate usually helps."


class Loop:
    """Trains one network; the caller orders the steps.

        for epoch in loop.epochs():          # resumes, sets the learning rate, saves
            for step in loop.steps():        # the remaining steps of the epoch
                ...
            loop.validate()                  # measures, writes a line of metrics.jsonl

    The position within an epoch is a number of items, as the batch size may change.

    Args:
        config: the run's flags.
        run: its folder.
        network: on its device.
        optimizer: of the weights.
        schedule: sets the learning rate of each epoch; None: it is constant.
        stream: training batches.
        optimizers: further optimizers to save.

    Attributes:
        unit: unit of the progress bar.
        items: unit of `metrics.jsonl`.
        results: files that only a finished run has.
        quantities: metrics of a step that are averaged over an epoch.
        epoch, step, global_step, seen: the position: epoch, steps in it, steps since the start of
            the run, items in the epoch.
    """

    unit, items = "img", "images"
    results: tuple[str, ...] = ("result.json",)
    quantities = ("loss",)

    def __init__(
        self, config: LoopConfig, run: Run, network: nn.Module, optimizer: torch.optim.Optimizer,
        schedule: LearningRate | None, stream: Stream, *optimizers: torch.optim.Optimizer,
    ):
        from timm.utils import AverageMeter

        self.config, self.run, self.accelerator = config, run, run.accelerator
        self.network, self.optimizer, self.train_batches = network, optimizer, stream
        self.optimizers, self.schedule = (optimizer, *optimizers), schedule
        self.epoch = self.step = self.global_step = self.seen = 0
        self.started = time.perf_counter()  # of the epoch, less the seconds before a resume
        self.seconds = 0.0  # of the epoch so far, including before a resume
        self.peak_before = 0.0  # MiB, before the last reset of a GPU's peak
        self.meters = {name: AverageMeter() for name in self.quantities}
        self.first_bad_step = torch.full((), -1, device=self.accelerator.device)
        self.averaged = [network]  # networks with running statistics to average
        self.vote = Vote(self.accelerator)
        self.bar = self.arriving = None
        self.estimated = False
        self.validated = False
        self._resume()

    # --------------------------------------------------------------------- for subclasses

    def next_items(self) -> int:
        """Items of the next step, over all processes; 0: the epoch is over."""
        raise NotImplementedError

    def held_out_metrics(self, **given: Any) -> dict[str, Any]:
        """Measure on held-out data and write the files of an epoch.

        Args:
            **given: arguments of `validate`.
        """
        raise NotImplementedError

    def train_metrics(self, means: dict[str, float]) -> dict[str, float]:
        """Entries of `metrics.jsonl` for the means of `quantities`."""
        return {f"train_{name}": mean for name, mean in means.items()}

    def in_words(self, split: str, metrics: dict[str, Any]) -> str:
        """A split's metrics as text."""
        return f"loss {metrics[f'{split}_loss']:.3f}"

    def ends_early(self) -> bool:
        """Whether to stop before the next epoch."""
        return False

    # ----------------------------------------------------------------------------------- epochs

    def epochs(self, until: int | None = None) -> Iterator[int]:
        """Yield the remaining epochs; save a checkpoint after each.

        Args:
            until: stop before this epoch; None: run all.
        """
        until = self.config.epochs if until is None else until
        per_epoch = len(self.train_batches) * self.config.batch_size
        self.bar = tqdm(
            total=self.config.epochs * per_epoch, initial=self.epoch * per_epoch + self.seen,
            unit=self.unit, unit_scale=True, dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10, smoothing=0.1,
        )
        try:
            while self.epoch < until and not self.ends_early():
                if self.schedule is not None:
                    self.schedule.step(self.epoch)
                self.bar.set_description(f"epoch {self.epoch + 1}/{self.config.epochs}")
                self.started, self.validated = time.perf_counter() - self.seconds, False
                yield self.epoch
                if not self.validated:
                    raise RuntimeError("an epoch ends with validate()")
                self.epoch, self.step, self.seen, self.seconds = self.epoch + 1, 0, 0, 0.0
                self._save()
        finally:
            self.bar.close()

    def steps(self) -> Iterator[int]:
        """Yield the remaining steps of the epoch, numbered from the start of the run.

        Raises:
            Preempted: a signal has asked to end; the step is done and in a checkpoint.
        """
        self.network.train()
        shown = time.perf_counter()
        first, seen = shown, self.seen  # of the steps that `_estimate` times
        with waiting():
            while (items := self.next_items()) > 0:
                torch.manual_seed(
                    seed_of(self.config.seed, self.accelerator.process_index, self.global_step)
                )
                yield self.global_step
                self.step, self.global_step = self.step + 1, self.global_step + 1
                self.seen += items
                if time.perf_counter() - shown > 0.5:
                    shown = time.perf_counter()
                    self._show()
                self.bar.update(items)
                if not self.estimated and time.perf_counter() - first > ESTIMATE_AFTER:
                    self._estimate((time.perf_counter() - first) / (self.seen - seen))
                self._save_within()

    def _save_within(self) -> None:
        """After a step, save a checkpoint when it is time, before a validation, and on a signal."""
        over, why = self.next_items() == 0, asked()
        stops = self.vote.any(why is not None, at_once=over)
        if stops or over or self.step % self.config.checkpoint_steps == 0:
            self.seconds = time.perf_counter() - self.started
            self._save()
        if stops:
            self.accelerator.wait_for_everyone()  # until it is written
            where = f"epoch {self.epoch + 1}, step {self.step}"
            raise Preempted(f"{why or 'a signal to another process'} after {where}, all saved")

    def validate(self, **given: Any) -> None:
        """End an epoch: measure on held-out data, write and print the metrics.

        Args:
            **given: for `held_out_metrics`.
        """
        self._check_finite()  # waits for the device
        self._average()
        trained = time.perf_counter() - self.started
        means = {name: float(meter.avg) for name, meter in self.meters.items()}
        metrics = {
            "epoch": self.epoch + 1,
            **self.train_metrics(means),
            **self.held_out_metrics(**given),
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": round(time.perf_counter() - self.started, 3),
            f"{self.items}_per_second": round(self.seen / trained, 1),
            "peak_memory_mib": round(self.peak_memory_mib(), 1),
        }
        self.run.append("metrics.jsonl", metrics)
        log_metrics(self.accelerator, metrics, self.epoch + 1)
        self._say(metrics)
        for meter in self.meters.values():
            meter.reset()
        self.validated = True

    def peak_memory_mib(self) -> float:
        """The most memory used so far."""
        return max(self.peak_before, peak_memory_mib(self.accelerator.device))

    def watch(self, loss: Tensor) -> None:
        """Record the first step whose loss is not finite, without waiting for the device."""
        bad = ~loss.detach().isfinite() & (self.first_bad_step < 0)
        self.first_bad_step = torch.where(bad, self.global_step, self.first_bad_step)

    def _estimate(self, seconds: float) -> None:
        """Print the time that a long run will take, given that of an item, once per process."""
        self.estimated = True
        items = len(self.train_batches) * self.config.batch_size
        left = seconds * (items * (self.config.epochs - self.epoch) - self.seen)
        if left > LONG and self.accelerator.is_main_process:
            self.bar.write(
                f"about {in_words(left)} to go at this speed ({in_words(seconds * items)} per "
                "epoch); Ctrl-C and --resume lose nothing but the steps since a checkpoint"
            )

    def _say(self, metrics: dict[str, Any]) -> None:
        parts = [f"epoch {self.epoch + 1:>3}/{self.config.epochs}"]
        for split in ("train", "valid", "test"):
            if metrics.get(f"{split}_loss") is not None:
                parts.append(f"{split} {self.in_words(split, metrics)}")
        rate = metrics[f"{self.items}_per_second"]
        parts.append(
            f"{metrics['seconds']:.1f} s   {rate:,.0f} {self.unit}/s   "
            f"{metrics['peak_memory_mib']:,.0f} MiB"
        )
        if self.accelerator.is_main_process:
            self.bar.write("   ".join(parts))

    def _show(self) -> None:
        """Show the metrics copied at the last call; today's copy would have to be waited for."""
        if self.arriving is not None:
            means, copied = self.arriving
            if copied is None or copied.query():
                metrics = self.train_metrics(dict(zip(self.meters, means.tolist(), strict=True)))
                self.bar.set_postfix_str(self.in_words("train", metrics), refresh=False)
        if not all(meter.count for meter in self.meters.values()):
            return  # nothing recorded yet
        means = torch.stack([meter.avg for meter in self.meters.values()])
        copied = torch.cuda.Event() if means.is_cuda else None
        self.arriving = means.to("cpu", non_blocking=means.is_cuda), copied
        if copied is not None:
            copied.record()

    # -------------------------------------------------------------------------------- the state

    def state(self) -> dict[str, Any]:
        """All state of the run, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "global_step": self.global_step,
            "seen": self.seen,
            "seconds": self.seconds,  # of the epoch so far
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "meters": [
                {"sum": meter.sum, "count": meter.count, "avg": meter.avg}
                for meter in self.meters.values()
            ],
            "of_each_process": self._of_each_process(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`.

        Raises:
            InputError: the state is of an older version.
        """
        if "global_step" not in state:
            raise InputError(
                f"--resume {self.run.folder}: an older version wrote its checkpoints, without the "
                "position in the data; start a new run"
            )
        for name in ("epoch", "step", "global_step", "seen", "seconds"):
            setattr(self, name, state[name])
        self.network.load_state_dict(state["network"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        for meter, values in zip(self.meters.values(), state["meters"], strict=True):
            for key, value in values.items():
                on_device = isinstance(value, Tensor)
                setattr(meter, key, value.to(self.accelerator.device) if on_device else value)
        if state.get("of_each_process") is not None:
            self._take(state["of_each_process"][self.accelerator.process_index])

    def _own(self) -> list[Tensor]:
        """What differs between the processes within an epoch: running statistics and meters."""
        buffers = [b for network in self.averaged for b in network.buffers()]
        sums = [meter.sum for meter in self.meters.values()]
        return [x for x in (*buffers, *sums) if isinstance(x, Tensor) and x.is_floating_point()]

    @torch.no_grad()
    def _of_each_process(self) -> Tensor | None:
        """`_own` of all processes, [processes, numbers]; None if there is only one."""
        own = self._own()
        if self.accelerator.num_processes == 1 or not own:
            return None
        return self.accelerator.gather(torch.cat([x.flatten() for x in own])[None])

    @torch.no_grad()
    def _take(self, values: Tensor) -> None:
        """The inverse of `_of_each_process`, of this process' row."""
        own = self._own()
        parts = values.split([x.numel() for x in own])
        for x, part in zip(own, parts, strict=True):
            x.copy_(part.view_as(x))
        for meter in self.meters.values():
            meter.avg = meter.sum / max(meter.count, 1)

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
        if self.config.extend_epochs is not None:
            self._extend(self.config.extend_epochs)
        self.run.rewind(self.epoch)

    def _extend(self, more: int) -> None:
        """Give a finished run more epochs.

        Raises:
            InputError: it stopped early, or its last checkpoint is damaged.
        """
        total = self.config.epochs
        if self.epoch != total - more:
            raise InputError(
                f"--extend-epochs {more}: the last checkpoint is of epoch {self.epoch}, not of "
                f"the last one, {total - more}"
            )
        self.run.extend(total, self.results)
        first, last = (self.schedule.at(epoch) for epoch in (self.epoch, total - 1))
        self.run.say(
            f"--extend-epochs {more}: epochs {self.epoch + 1} to {total}, learning rate from "
            f"{first:.3g} to {last:.3g} ({self.schedule.name}; all schedules now have {total} "
            "epochs)"
        )

    def _save(self) -> None:
        self._check_finite()
        self.run.save_checkpoint(self.epoch, self.step, self.state())

    def _check_finite(self) -> None:
        """Check that losses and parameters are finite, on all processes.

        Raises:
            NotFinite: naming the step.
        """
        bad = self.accelerator.gather(self.first_bad_step.reshape(1))
        bad = bad[bad >= 0]
        if len(bad) > 0:
            step = int(bad.min()) - (self.global_step - self.step)
            raise NotFinite(
                f"the loss was not finite at step {int(bad.min())} (epoch {self.epoch + 1}, step "
                f"{step + 1} of it); {FIX}"
            )
        # A finite loss can lead to weights that are not finite.
        if not torch.stack([p.isfinite().all() for p in self.network.parameters()]).all():
            raise NotFinite(
                f"a parameter was not finite after epoch {self.epoch + 1}, step {self.step}; {FIX}"
            )

    def _average(self) -> None:
        """Average running statistics and meters over the processes."""
        for network in self.averaged:
            average_statistics(self.accelerator, network)
        meters = list(self.meters.values())
        if self.accelerator.num_processes > 1 and meters[0].count > 0:
            means = average(self.accelerator, [meter.sum for meter in meters])
            for meter, mean in zip(meters, means, strict=True):
                meter.sum, meter.avg = mean.clone(), mean / meter.count


def prepare(accelerator: Accelerator, network: nn.Module) -> nn.Module:
    """Move to the device and add mixed precision, without DDP (see `distributed`)."""
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
