"""The verbs of a differentiable search; a method's `search.py` says their order.

    trainer = BilevelTrainer(config, supernet, run, images, split)
    for epoch in trainer.epochs():                  # resumes, logs, derives, saves
        for train, valid in trainer.batches():
            trainer.arch_step(valid)
            trainer.weight_step(train)
    trainer.finish()
    run.close()
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import draw
from common.batches import Augmentation, Batch, Passes
from common.collapse import epoch_before, filled
from common.command import retrain_command, start, training_images
from common.config import ConfigT, SearchConfig
from common.curvature import dominant_eigenvalue
from common.data import Images, Split
from common.distributed import average, seed_of, set_gradients
from common.errors import InputError
from common.genotype import Genotype, parse, save
from common.loop import Loop, prepare
from common.measures import Measures, cut_to_best, cut_to_cell
from common.run import Run
from common.running_statistics import kept_statistics
from common.small_images import fit_to_images
from common.supernet import SuperNet
from common.unrolled import second_order


def open_search(config: ConfigT, method: str) -> tuple[ConfigT, Run, Images, Split]:
    """Processes, training images, their two parts and the run folder of a search.

    Raises:
        InputError: whatever is wrong with flags, data or folder, before anything is written.
    """
    config, accelerator = start(config)
    images = training_images(config, accelerator)
    config = fit_to_images(config, images, accelerator)
    split = config.split(images)
    least = min(len(split.train), len(split.valid))
    if config.batch_size > least:
        raise InputError(
            f"--batch-size {config.batch_size}: a part of the {len(images)} training images, "
            f"{least}, is less than one batch"
        )
    config.check_images(images)
    run = Run.open(config, method, accelerator)
    pin_split(run, images, split)
    return config, run, images, split


def pin_split(run: Run, images: Images, split: Split) -> None:
    """Write down the two parts and the images they are of, or see that they are the same.

    Raises:
        InputError: they are not.
    """
    run.pin_images("split.json", {
        "classes": list(images.classes), "images_sha256": images.sha256(), **split.to_json(),
    })


class BilevelTrainer(Loop):
    """Trains a supernet's weights on some of the images, its architecture on others.

    Each step computes the gradient of what it trains and of nothing else (first order). Gradients
    are averaged over the processes; `batch_size` is global.

    Args:
        config: the search's flags.
        supernet: on the CPU.
        run: its folder.
        images: all training images.
        split: the two parts.
    """

    def __init__(
        self, config: SearchConfig, supernet: SuperNet, run: Run, images: Images, split: Split
    ):
        accelerator = run.accelerator
        self.supernet, self.split, self.measures = supernet, split, Measures(supernet)
        network = prepare(accelerator, supernet)
        if config.compile:
            supernet.compile()
        weight_optimizer, arch_optimizer = self.new_optimizers(config, accelerator.device)

        def batches(indices: Tensor, stream: str) -> Passes:
            return images.batches(
                accelerator.device, indices, config.batch_size,
                Augmentation(config.crop_padding, config.flip, config.cutout),
                seed=config.seed, stream=stream,
                rank=accelerator.process_index, processes=accelerator.num_processes,
            )

        self.valid_batches = batches(split.valid, "valid")
        super().__init__(
            config, run, network, weight_optimizer, batches(split.train, "train"),
            arch_optimizer,
        )

    def new_optimizers(
        self, config: SearchConfig, device: torch.device
    ) -> tuple[torch.optim.SGD, torch.optim.Adam]:
        """Of the supernet's weights and architecture as they are now; they have no past."""
        fused = device.type in ("cpu", "cuda")
        self.weights = self.supernet.weight_parameters()
        self.arch = self.supernet.arch_parameters()
        weight_optimizer = torch.optim.SGD(
            self.weights, config.learning_rate, config.momentum,
            weight_decay=config.weight_decay, fused=fused,
        )
        self.arch_optimizer = torch.optim.Adam(
            self.arch, config.arch_learning_rate, (config.arch_beta1, config.arch_beta2),
            weight_decay=config.arch_weight_decay, fused=fused,
        )
        # Zeros change nothing, but a fused step fails where some weights have a buffer already and
        # others, of operations that never ran before, do not.
        for weight in self.weights:
            weight_optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return weight_optimizer, self.arch_optimizer

    def batches(self, valid: bool = True) -> Iterator[tuple[Batch, Batch | None]]:
        """Pairs of a batch that trains the weights and one that trains the architecture.

        An epoch is a pass over the images of the first kind. Deviation: the second ones follow from
        endless shuffled passes over theirs; DARTS' code shuffles anew for each.

        Args:
            valid: whether the second is wanted; None stands for it otherwise.
        """
        for step in self.steps():
            yield self.train_batches.train(step), self.valid_batches.train(step) if valid else None

    def arch_step(self, batch: Batch, move_idle: bool = True) -> None:
        """One step on alpha (and all that `arch_parameters` names); the weights stay.

        Args:
            batch: of validation images.
            move_idle: let momentum and decay move parameters on which the loss did not depend, too.
        """
        loss, _, gradients = self._gradients(batch, self.arch, draw="arch")
        self.watch(loss)
        if move_idle:
            gradients = _zero_where_none(self.arch, gradients)
        self._move_arch(gradients)

    def unrolled_arch_step(self, train: Batch, valid: Batch) -> None:
        """The same by DARTS' second-order gradient; weights and running statistics stay."""

        def gradients(batch: Batch, of: Sequence[nn.Parameter]) -> list[Tensor]:
            loss, _, values = self._gradients(batch, of, draw="arch")
            self.watch(loss)
            return values

        with kept_statistics(self.supernet):
            values = second_order(
                gradients, self.weights, self.arch, self.optimizer, train, valid
            )
        self._move_arch(values)

    def _move_arch(self, gradients: Sequence[Tensor | None]) -> None:
        set_gradients(self.arch, gradients)
        if self.config.arch_grad_clip > 0:
            nn.utils.clip_grad_norm_(self.arch, self.config.arch_grad_clip)
        self.arch_optimizer.step()

    def weight_step(self, batch: Batch, move_idle: bool = False) -> None:
        """One clipped step on the weights; the architecture stays.

        Args:
            batch: of training images.
            move_idle: let momentum and decay move weights of operations that did not run, too.
        """
        loss, logits, gradients = self._gradients(batch, self.weights, draw="weight")
        if move_idle:
            gradients = _zero_where_none(self.weights, gradients)
        set_gradients(self.weights, gradients)
        if self.config.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.weights, self.config.grad_clip)
        self.optimizer.step()
        self.record(loss, logits, batch[1])

    @torch.enable_grad()
    def _gradients(
        self, batch: Batch, of: Sequence[nn.Parameter], draw: str
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Loss, logits, and the gradients of some parameters, averaged over the processes.

        The gradient of what the loss does not depend on, as weights of operations that did not run,
        is None.
        """
        wanted = {id(parameter) for parameter in of}
        frozen = [p for p in (*self.weights, *self.arch) if id(p) not in wanted]
        for parameter in frozen:  # so that nothing is computed, or kept, for their gradients
            parameter.requires_grad_(False)
        self.supernet.generator.manual_seed(seed_of(self.config.seed, draw, self.global_step))
        loss, logits = self.supernet.loss(*batch)
        gradients = [None] * len(of)
        if loss.requires_grad:  # not where a draw cut all of them off
            gradients = torch.autograd.grad(loss, of, allow_unused=True)
        gradients = average(self.accelerator, gradients)
        for parameter in frozen:
            parameter.requires_grad_(True)
        return loss.detach(), logits.detach(), gradients

    def report(self) -> dict[str, Any]:
        """Validate and measure; write the architecture and the genotype it stands for."""
        self._draw_anew()
        loss, top1, _ = self.held_out(self.network, self.valid_batches)
        figures = {
            "valid_loss": loss, "valid_top1": top1,
            **self._cut_accuracies(), **self.measures.epoch(self.supernet),
            "hessian_eigenvalue": self._eigenvalue() if self.config.hessian else None,
            **self.supernet.figures(),
        }
        for kind, cell in self.supernet.derive().items():
            if filled(cell):
                skips = figures[f"skips_{kind}"]
                self.run.say(f"warning: the {kind} cell fills with skip connections ({skips})")
        self.run.append("architecture.jsonl", self.architecture())
        self.run.append(
            "genotypes.jsonl", {"epoch": self.epoch, "genotype": self.genotype().to_json()}
        )
        return figures

    @torch.no_grad()
    def _cut_accuracies(self) -> dict[str, Any]:
        """Top-1 on the validation half of these weights, whole and cut, all normalised alike.

        The running statistics stay.
        """
        state, supernet = self.config.cut_accuracy, self.supernet
        figures = dict.fromkeys(("uncut_top1", "cut_top1", "derived_top1", "cut_statistics"))
        if state == "off":
            return figures
        self.network.train(state == "batch")
        mixes = {kind: supernet.mix(kind) for kind in supernet.kinds}
        cells, candidates = supernet.derive(), supernet.candidates
        best = {k: cut_to_best(mix, candidates, supernet.derive_none) for k, mix in mixes.items()}
        derived = {
            k: cut_to_cell(mix, cells[k], supernet.edges, candidates) for k, mix in mixes.items()
        }
        with kept_statistics(supernet):
            for name, cut in (
                ("uncut_top1", None), ("cut_top1", best), ("derived_top1", derived)
            ):
                self._draw_anew()
                mixes = None if cut is None else supernet.per_cell(cut)
                forward = functools.partial(self.network, mixes=mixes)
                _, figures[name], _ = self.evaluate(forward, self.valid_batches)
        return {**figures, "cut_statistics": state}

    def _eigenvalue(self) -> float:
        """See `dominant_eigenvalue`; of the first validation batch, normalised by itself."""
        images, labels = next(self.valid_batches.evaluate())
        self.network.train()
        for weight in self.weights:
            weight.requires_grad_(False)
        with kept_statistics(self.supernet), torch.enable_grad():
            logits = self.network(images, mixes=self.supernet.relaxed())
            value = dominant_eigenvalue(
                F.cross_entropy(logits.float(), labels), self.arch, self.config.seed,
                functools.partial(average, self.accelerator),
            )
        for weight in self.weights:
            weight.requires_grad_(True)
        return value

    def ends_early(self) -> bool:
        """See `Loop.ends_early`: the search has collapsed, and is to stop there."""
        return self._epoch_before_collapse() is not None

    def _epoch_before_collapse(self) -> int | None:
        rule = self.config.stop_on_collapse
        if rule == "off":
            return None
        return epoch_before(rule, self.run.lines("metrics.jsonl"), self.supernet.nodes)

    def _draw_anew(self) -> None:
        """Each of an epoch's validations sees the same draws, and so does every process."""
        self.supernet.generator.manual_seed(seed_of(self.config.seed, "validate", self.epoch))

    def state(self) -> dict[str, Any]:
        """See `Loop.state`."""
        return {**super().state(), "best_operations": self.measures.best}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Loop.load_state`."""
        super().load_state(state)
        self.measures.best = state["best_operations"]

    def genotype(self) -> Genotype:
        """What the architecture parameters stand for now, and where it comes from."""
        config = self.config
        name = f"{self.run.method}-{config.dataset}-seed{config.seed}"
        provenance = {
            "method": self.run.method, "dataset": config.dataset, "seed": config.seed,
            **config.provenance(), "epochs": config.epochs,
            "images": len(self.split.train) + len(self.split.valid), "commit": self.run.commit,
        }
        return Genotype(name, self.supernet.derive(), provenance)

    def finish(self, **found: Any) -> None:
        """Write the genotype, pictures and result; say what was found and what to do with it.

        Args:
            found: what else the result holds.
        """
        genotype, folder = self.genotype(), self.run.folder
        collapsed = self._epoch_before_collapse()
        if collapsed is not None:
            before = self.run.lines("genotypes.jsonl")[collapsed]["genotype"]
            genotype = parse(json.dumps(before))
            found = {**found, "collapsed": True, "cells_of_epoch": collapsed}
            self.run.say(f"stopped on collapse; the cells are those after epoch {collapsed + 1}")
        if self.accelerator.is_main_process:
            save(genotype, folder / "genotype.json")
            draw.run(folder)
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
        self.run.say(f"\n{genotype}\n\nrun folder: {folder} (pictures of both cells inside)")
        images = len(self.split.train) + len(self.split.valid)
        self.run.say(f"next: {retrain_command(self.config, self.run.method, folder, images)}")

    @torch.no_grad()
    def architecture(self) -> dict[str, Any]:
        """An epoch's line of architecture.jsonl."""
        weights = {}
        for kind in self.supernet.kinds:
            mix = self.supernet.mix(kind)
            edge = None if mix.edge is None else mix.edge.tolist()
            weights[kind] = {
                "op": mix.op.tolist(), "edge": edge, **self.supernet.recorded(kind)
            }
        return {
            "epoch": self.epoch,
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
