"""The steps of a bilevel search; each search.py orders them.

    trainer = BilevelTrainer(config, supernet, run, images, split)
    for epoch in trainer.epochs():                  # resumes, sets the learning rate, saves
        for train, valid in trainer.batches():
            trainer.arch_step(valid)
            trainer.weight_step(train)              # or both in one: trainer.joint_step(train)
        trainer.validate()                          # measures, derives, logs
    trainer.finish()

Keyword arguments of a step (a temperature, a sampled edge) go to `SuperNet.mixes`.
"""

from __future__ import annotations

import functools
import itertools
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data import loader
from common.data.batches import Augmentation, Batch, Stream
from common.data.images import Images
from common.data.split import Split
from common.distributed import average, seed_of, seeded
from common.networks.genotype import Genotype, parse, save, words
from common.run.config import SearchConfig
from common.run.folder import Run
from common.run.operations import flag_words, recorded
from common.supernet.measures import Measures, cuts
from common.supernet.supernet import SuperNet
from common.training.collapse import dominated_by_skips, epoch_before, verdict
from common.training.duration import in_words, seconds_per_image
from common.training.hessian import dominant_eigenvalue
from common.training.images import ImageLoop
from common.training.loop import prepare
from common.training.opening import table_of
from common.training.running_statistics import kept_statistics
from common.training.schedules import LearningRate
from common.training.steps import descend, frozen
from common.training.unrolled import second_order

CUTS = ("uncut_top1", "cut_top1", "derived_top1")
Loss = Callable[..., tuple[Tensor, Tensor]]  # `loss` or `arch_loss` of a supernet
SHORT = 10  # epochs of the retraining that a search proposes


class BilevelTrainer(ImageLoop):
    """Trains a supernet's weights on one part of the images, its architecture on the other.

    Each step computes only the gradients of the parameters that it trains (first order). Gradients
    are averaged over the processes; `batch_size` is the sum over all processes.

    Args:
        config: flags of the search.
        supernet: on the CPU.
        run: its folder.
        images: all training images.
        split: the two parts.
        rate_warmup: warm-up epochs of the weights' learning rate.

    Attributes:
        generator: for sampling architectures; equal on all processes.
        valid_at: position in the second part: its epoch, and the images seen in it.
    """

    results = ("result.json", "genotype.json")

    def __init__(
        self, config: SearchConfig, supernet: SuperNet, run: Run, images: Images, split: Split,
        rate_warmup: int = 0,
    ):
        accelerator = run.accelerator
        self.supernet, self.split, self.measures = supernet, split, Measures(supernet)
        self.known = table_of(config)
        self.generator, self.valid_at = torch.Generator(), (0, 0)
        network = prepare(accelerator, supernet)
        if config.compile:
            supernet.compile()
        self.weights, self.arch = supernet.weight_parameters(), supernet.arch_parameters()
        optimizer, self.arch_optimizer = optimizers(
            config, self.weights, self.arch, accelerator.device.type in ("cpu", "cuda")
        )

        def batches(indices: Tensor, stream: str) -> Stream:
            return loader.batches(
                images, accelerator.device, indices, config.batch_size,
                Augmentation(config.crop_padding, config.flip, config.cutout),
                seed=config.seed, stream=stream,
                rank=accelerator.process_index, processes=accelerator.num_processes,
            )

        self.valid_batches = batches(split.valid, "valid")
        super().__init__(
            config, run, network, optimizer, self.schedule_of(config, optimizer, rate_warmup),
            batches(split.train, "train"), self.arch_optimizer,
        )

    def schedule_of(
        self, config: SearchConfig, sgd: torch.optim.SGD, warmup: int = 0
    ) -> LearningRate:
        """A cosine from the learning rate to its minimum."""
        return LearningRate("cosine", sgd, config.epochs, config.learning_rate_min, warmup)

    # ---------------------------------------------------------------------------------- the steps

    def batches(self, valid: bool = True) -> Iterator[tuple[Batch, Batch | None]]:
        """Yield (training batch, validation batch) until the training part ends.

        Deviation: validation batches come from shuffled epochs of their part; DARTS' code
        reshuffles for each batch.

        Args:
            valid: whether to read validation batches; None instead if not.
        """
        for step in self.steps():
            epoch, start = self.valid_at
            size = self.valid_batches.batch_size
            if start + size > len(self.valid_batches.indices):
                epoch, start = epoch + 1, 0
            self.valid_at = epoch, start + size
            yield (
                self.train_batches.cut(self.epoch, self.seen, step),
                self.valid_batches.cut(epoch, start, step) if valid else None,
            )
            if self.config.cut_steps and (step + 1) % self.config.cut_steps == 0:
                cut = self._cut_accuracies(("cut_top1", "derived_top1"))
                self.run.append("iterations.jsonl", {"epoch": self.epoch + 1, "step": step, **cut})
                self.network.train()

    def arch_step(self, batch: Batch, move_idle: bool = True, **given: Any) -> None:
        """One Adam step on the architecture parameters.

        Args:
            batch: of validation images.
            move_idle: let momentum and decay also move parameters without a gradient.
            **given: see `SuperNet.mixes`.
        """
        of = self.supernet.arch_loss
        loss, _, gradients = self._gradients(of, batch, self.arch, "arch", given)
        self.watch(loss)
        self._move_arch(_zero_where_none(self.arch, gradients) if move_idle else gradients)

    def unrolled_arch_step(self, train: Batch, valid: Batch, **given: Any) -> None:
        """One Adam step by DARTS' second-order gradient; restores weights and statistics."""

        def gradients(
            of: Loss, batch: Batch, parameters: Sequence[nn.Parameter]
        ) -> list[Tensor]:
            loss, _, values = self._gradients(of, batch, parameters, "arch", given)
            self.watch(loss)
            return _zero_where_none(parameters, values)

        supernet = self.supernet
        with kept_statistics(supernet):
            values = second_order(
                functools.partial(gradients, supernet.loss, train),
                functools.partial(gradients, supernet.arch_loss, valid),
                self.weights, self.arch, self.optimizer,
            )
        self._move_arch(values)

    def joint_step(self, batch: Batch, **given: Any) -> None:
        """A step of both optimizers from one pass: single-level search, by `arch_loss`.

        Args:
            batch: of training images; with `--split shared` of all.
            **given: see `SuperNet.mixes`.
        """
        of, count = self.supernet.arch_loss, len(self.weights)
        loss, logits, gradients = self._gradients(
            of, batch, [*self.weights, *self.arch], "joint", given
        )
        descend(self.optimizer, self.weights, gradients[:count], self.config.grad_clip)
        self._move_arch(_zero_where_none(self.arch, gradients[count:]))
        self.record(loss, logits, batch[1])

    def _move_arch(self, gradients: Sequence[Tensor | None]) -> None:
        descend(self.arch_optimizer, self.arch, gradients, self.config.arch_grad_clip)

    def weight_step(self, batch: Batch, move_idle: bool = False, **given: Any) -> None:
        """One clipped SGD step on the weights.

        Args:
            batch: of training images.
            move_idle: let momentum and decay also move weights of operations that did not run.
            **given: see `SuperNet.mixes`.
        """
        of = self.supernet.loss
        loss, logits, gradients = self._gradients(of, batch, self.weights, "weight", given)
        if move_idle:
            gradients = _zero_where_none(self.weights, gradients)
        descend(self.optimizer, self.weights, gradients, self.config.grad_clip)
        self.record(loss, logits, batch[1])

    @torch.enable_grad()
    def _gradients(
        self, of: Loss, batch: Batch, parameters: Sequence[nn.Parameter], draw: str,
        given: dict[str, Any],
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Loss, logits, and gradients of some parameters, averaged over the processes.

        The gradient of a parameter that the loss does not depend on is None.
        """
        wanted = {id(parameter) for parameter in parameters}
        rest = [p for p in (*self.weights, *self.arch) if id(p) not in wanted]
        with frozen(rest):
            loss, logits = of(*batch, self._drawn_for(draw, given))
            gradients = [None] * len(parameters)
            if loss.requires_grad:  # false if the sampled operations have no parameters
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return loss.detach(), logits.detach(), average(self.accelerator, gradients)

    def _drawn_for(self, draw: str, given: dict[str, Any]) -> list:
        """The mixes of a step's pass."""
        key = draw, self.global_step
        self.generator.manual_seed(seed_of(self.config.seed, *key))
        return self._drawn(key, given)

    def _drawn(self, key: Sequence[str | int], given: dict[str, Any]) -> list:
        """The mixes of a pass; torch's own generators draw by the key."""
        with seeded(self.accelerator.device, self.config.seed, "own", *key):
            return self.supernet.mixes(self.generator, **given)

    # --------------------------------------------------------------------------- metrics

    def held_out_metrics(self, **given: Any) -> dict[str, Any]:
        """Validate and measure; record the architecture and its genotype.

        Args:
            **given: see `SuperNet.mixes`.
        """
        network, mixes = self.network.eval(), self._mixes(**given)
        loss, top1, _ = self.held_out(lambda x: network(x, mixes()), self.valid_batches)
        metrics = {
            "valid_loss": loss, "valid_top1": top1,
            **self._cut_accuracies(CUTS, **given), **self.measures.epoch(self.supernet),
            "hessian_eigenvalue": self._eigenvalue() if self.config.hessian else None,
            **self.supernet.metrics(**given),
            **(self.known.of(self.genotype()) if self.known else {}),
        }
        for kind, cell in self.supernet.derive().items():
            if dominated_by_skips(cell):
                skips = metrics[f"skips_{kind}"]
                self.run.say(f"warning: skip connections dominate the {words(kind)} ({skips})")
        self.run.append("architecture.jsonl", self.architecture())
        self.run.append(
            "genotypes.jsonl", {"epoch": self.epoch + 1, "genotype": self.genotype().to_json()}
        )
        return metrics

    def _mixes(self, **given: Any) -> Callable[[], list]:
        """A source of mixes for one validation; equal for all validations of an epoch."""
        key = "validate", self.epoch
        self.generator.manual_seed(seed_of(self.config.seed, *key))
        passes = itertools.count()
        return lambda: self._drawn((*key, next(passes)), given)

    @torch.no_grad()
    def _cut_accuracies(self, names: Sequence[str], **given: Any) -> dict[str, Any]:
        """Validation top-1 of the supernet, with and without a cut to discrete operations.

        All use the same kind of normalisation statistics; running statistics are restored.

        Args:
            names: some of `CUTS`.
            **given: see `SuperNet.mixes`.
        """
        state, supernet = self.config.cut_accuracy, self.supernet
        metrics = dict.fromkeys((*names, "cut_statistics"))
        if state == "off":
            return metrics
        network, by_name = self.network.train(state == "batch"), cuts(supernet)
        with kept_statistics(supernet):
            for name in names:
                mixes = self._mixes(**given)
                if name in by_name:
                    mixes = functools.partial(supernet.per_cell, by_name[name], self.generator)
                _, metrics[name], _ = self.evaluate(
                    lambda x, mixes=mixes: network(x, mixes()), self.valid_batches
                )
        return {**metrics, "cut_statistics": state}

    def _eigenvalue(self) -> float:
        """Dominant eigenvalue on the first validation batch, with that batch's statistics."""
        images, labels = next(self.valid_batches.evaluate())
        network, supernet = self.network.train(), self.supernet
        with frozen(self.weights), kept_statistics(supernet), torch.enable_grad():
            logits = network(images, supernet.relaxed(self.generator))
            return dominant_eigenvalue(
                F.cross_entropy(logits.float(), labels), self.arch, self.config.seed,
                functools.partial(average, self.accelerator),
            )

    def ends_early(self) -> bool:
        """Whether the search has collapsed and `--stop-on-collapse` ends it."""
        return self._epoch_before_collapse() is not None

    def _epoch_before_collapse(self) -> int | None:
        rule = self.config.stop_on_collapse
        if rule == "off":
            return None
        lines = self.run.lines("metrics.jsonl")
        cell = self._recorded(-1).cells[self.supernet.kinds[0]] if lines else None
        return epoch_before(rule, lines, cell)

    def _recorded(self, epoch: int) -> Genotype:
        """The genotype of an earlier epoch; of the last for -1."""
        return parse(json.dumps(self.run.lines("genotypes.jsonl")[epoch]["genotype"]))

    # ---------------------------------------------------------------------------- results

    def state(self) -> dict[str, Any]:
        return {
            **super().state(), "valid_at": list(self.valid_at),
            "best_operations": self.measures.best,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.valid_at = tuple(state["valid_at"])
        self.measures.best = state["best_operations"]

    def genotype(self) -> Genotype:
        """The cells derived from the architecture parameters, with provenance."""
        config = self.config
        name = f"{self.run.method}-{config.dataset}-seed{config.seed}"
        provenance = {
            "method": self.run.method, "dataset": config.dataset, "seed": config.seed,
            **config.provenance(), **recorded(config.operations), "epochs": config.epochs,
            "images": self.split.images, "commit": self.run.commit,
        }
        return Genotype(name, self.supernet.derive(), provenance)

    def finish(self, own_pictures: Callable[[Path], None] | None = None, **found: Any) -> None:
        """Write genotype, pictures and result; print the cells and the next command.

        Args:
            own_pictures: draws the method's own pictures of a run folder.
            **found: further entries of result.json.
        """
        from common.draw import pictures

        genotype, folder = self.genotype(), self.run.folder
        collapsed = self._epoch_before_collapse()
        if collapsed is not None:
            genotype = self._recorded(collapsed)
            found = {**found, "collapsed": True, "cells_of_epoch": collapsed + 1}
            self.run.say(f"stopped on collapse; the cells are those after epoch {collapsed + 1}")
        self.run.say("drawing pictures ...")
        if self.accelerator.is_main_process:
            save(genotype, folder / "genotype.json")
            pictures.run(folder)
            if own_pictures is not None:
                own_pictures(folder)
        epochs = self.run.lines("metrics.jsonl")
        self.run.write("result.json", {
            "genotype": genotype.name,
            "epochs": len(epochs),
            "valid_loss": epochs[-1]["valid_loss"],
            "valid_top1": epochs[-1]["valid_top1"],
            **found,
            "search_seconds": round(sum(line["seconds"] for line in epochs), 1),
            "peak_memory_mib": max(line["peak_memory_mib"] for line in epochs),
        })
        self.run.say(f"\n{genotype}\n")
        weights = self.architecture()["weights"]
        for kind, cell in genotype.cells.items():
            for line in verdict(kind, cell, weights[kind]["op"]) if kind in weights else ():
                self.run.say(line)
        self.run.say(f"\nrun folder: {folder} (pictures inside)")
        self._say_next(genotype)

    def _say_next(self, genotype: Genotype) -> None:
        """Print the command of a short retraining at the search's scale, and its time here."""
        config = self.config
        if not self.accelerator.is_main_process:
            return
        images, labels = next(self.valid_batches.evaluate())
        each = seconds_per_image(
            genotype, config.channels, config.cells, self.supernet.classifier.out_features,
            images, labels,
        )
        command = ["python", "evaluate/train.py", "--genotype", str(self.run.folder)]
        command += flag_words(config.operations)
        scale = f"--channels {config.channels} --cells {config.cells} --epochs {SHORT}"
        paper = " --preset cifar10" if config.dataset == "digits" else ""
        self.run.say(
            f"next: {shlex.join(command)} {scale}\n"
            f"      (about {in_words(each * self.split.images * SHORT)} here, plus start-up)\n"
            f"or, by the paper's recipe: {shlex.join(command)}{paper}"
        )

    @torch.no_grad()
    def architecture(self) -> dict[str, Any]:
        """The epoch's line in architecture.jsonl."""
        weights = {}
        for kind in self.supernet.kinds:
            mix = self.supernet.mix(kind)
            edge = None if mix.edge is None else mix.edge.tolist()
            weights[kind] = {
                "op": mix.op.tolist(), "edge": edge, **self.supernet.recorded(kind)
            }
        return {
            "epoch": self.epoch + 1,
            "candidates": list(self.supernet.candidates),
            "edges": self.supernet.edges,
            "parameters": {name: p.tolist() for name, p in self.supernet.arch.items()},
            "weights": weights,
        }


def _zero_where_none(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> list[Tensor]:
    pairs = zip(parameters, gradients, strict=True)
    return [torch.zeros_like(p) if g is None else g for p, g in pairs]


def optimizers(
    config: SearchConfig, weights: Sequence[nn.Parameter], arch: Sequence[nn.Parameter],
    fused: bool,
) -> tuple[torch.optim.SGD, torch.optim.Adam]:
    """New optimizers for a supernet's weights and architecture."""
    sgd = torch.optim.SGD(
        weights, config.learning_rate, config.momentum, weight_decay=config.weight_decay,
        fused=fused,
    )
    # A fused step fails if only some weights have a momentum buffer, as before an operation's first
    # run. Zeros change nothing.
    for weight in weights:
        sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    adam = torch.optim.Adam(
        arch, config.arch_learning_rate, (config.arch_beta1, config.arch_beta2),
        weight_decay=config.arch_weight_decay, fused=fused,
    )
    return sgd, adam
