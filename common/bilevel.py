"""The verbs of a differentiable search; a method's `search.py` says their order.

    trainer = BilevelTrainer(config, supernet, run, images, split)
    for epoch in trainer.epochs():                  # resumes, logs, derives, saves
        for train, valid in trainer.batches():
            trainer.arch_step(valid)
            trainer.weight_step(train)
    trainer.finish()
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common import draw
from common.batches import Augmentation, Batch, Batches
from common.command import start, training_images
from common.config import ConfigT, RunConfig, SearchConfig
from common.data import Images, Split
from common.distributed import average, seed_of, set_gradients
from common.errors import InputError
from common.genotype import Genotype, save
from common.loop import Loop, prepare
from common.network import auxiliary_fits
from common.run import Run
from common.supernet import KINDS, SuperNet


def open_search(config: ConfigT, method: str) -> tuple[ConfigT, Run, Images, Split]:
    """Processes, training images, their halves and the run folder of a search.

    Raises:
        InputError: whatever is wrong with flags, data or folder, before anything is written.
    """
    config, accelerator = start(config)
    images = training_images(config, accelerator)
    split = Split.halves(len(images), config.seed)
    if config.batch_size > len(split.train):
        raise InputError(
            f"--batch-size {config.batch_size}: half of the {len(images)} training images, "
            f"{len(split.train)}, is less than one batch"
        )
    run = Run.open(config, method, accelerator)
    run.pin_images("split.json", {"images_sha256": images.sha256(), **split.to_json()})
    return config, run, images, split


class BilevelTrainer(Loop):
    """Trains a supernet's weights on one half of the images, its architecture on the other.

    Each step computes the gradient of what it trains and of nothing else (first order). Gradients
    are averaged over the processes; `batch_size` is global.

    Args:
        config: the search's flags.
        supernet: on the CPU.
        run: its folder.
        images: all training images, on the CPU.
        split: the halves.
    """

    def __init__(
        self, config: SearchConfig, supernet: SuperNet, run: Run, images: Images, split: Split
    ):
        accelerator = run.accelerator
        self.supernet, self.split = supernet, split
        network = prepare(accelerator, supernet)
        fused = accelerator.device.type in ("cpu", "cuda")
        self.weights, self.arch = supernet.weight_parameters(), supernet.arch_parameters()
        weight_optimizer = torch.optim.SGD(
            self.weights, config.learning_rate, config.momentum,
            weight_decay=config.weight_decay, fused=fused,
        )
        self.arch_optimizer = torch.optim.Adam(
            self.arch, config.arch_learning_rate, (config.arch_beta1, config.arch_beta2),
            weight_decay=config.arch_weight_decay, fused=fused,
        )
        images = images.to(accelerator.device)

        def batches(indices: Tensor, stream: str) -> Batches:
            return Batches(
                images, indices, config.batch_size,
                Augmentation(config.crop_padding, config.flip, config.cutout),
                seed=config.seed, stream=stream,
                rank=accelerator.process_index, processes=accelerator.num_processes,
            )

        self.valid_batches = batches(split.valid, "valid")
        super().__init__(
            config, run, network, weight_optimizer, batches(split.train, "train"),
            self.arch_optimizer,
        )

    def batches(self) -> Iterator[tuple[Batch, Batch]]:
        """Pairs of a batch that trains the weights and one that trains the architecture.

        Deviation: the second ones follow from endless shuffled passes over their half; the
        authors' code shuffles anew for each.
        """
        for step in self.steps():
            yield self.train_batches.train(step), self.valid_batches.train(step)

    def arch_step(self, batch: Batch) -> None:
        """One step on alpha (and all that `arch_parameters` names); the weights stay."""
        loss, _ = self._gradients(batch, self.arch, frozen=self.weights, draw="arch")
        self.watch(loss)
        self.arch_optimizer.step()

    def weight_step(self, batch: Batch) -> None:
        """One clipped step on the weights; the architecture stays."""
        loss, logits = self._gradients(batch, self.weights, frozen=self.arch, draw="weight")
        if self.config.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.weights, self.config.grad_clip)
        self.optimizer.step()
        self.record(loss, logits, batch[1])

    def _gradients(
        self, batch: Batch, of: Sequence[nn.Parameter], frozen: Sequence[nn.Parameter], draw: str
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients of some parameters, averaged over the processes."""
        for parameter in frozen:  # so that nothing is computed, or kept, for their gradients
            parameter.requires_grad_(False)
        self.supernet.generator.manual_seed(seed_of(self.config.seed, draw, self.global_step))
        loss, logits = self.supernet.loss(*batch)
        set_gradients(of, average(self.accelerator, torch.autograd.grad(loss, of)))
        for parameter in frozen:
            parameter.requires_grad_(True)
        return loss.detach(), logits.detach()

    def report(self) -> dict[str, Any]:
        """Validate; write the architecture and the genotype it stands for."""
        self.supernet.generator.manual_seed(seed_of(self.config.seed, "validate", self.epoch))
        loss, top1 = self.evaluate(self.network, self.valid_batches)
        self.run.append("architecture.jsonl", self._architecture())
        self.run.append(
            "genotypes.jsonl", {"epoch": self.epoch, "genotype": self.genotype().to_json()}
        )
        return {"valid_loss": loss, "valid_top1": top1}

    def genotype(self) -> Genotype:
        """What the architecture parameters stand for now, and where it comes from."""
        config = self.config
        name = f"{self.run.method}-{config.dataset}-seed{config.seed}"
        provenance = {
            "method": self.run.method, "dataset": config.dataset, "seed": config.seed,
            "epochs": config.epochs, "images": len(self.split.train) + len(self.split.valid),
            "commit": self.run.commit,
        }
        return Genotype(name, self.supernet.derive(), provenance)

    def finish(self) -> None:
        """Write the genotype, pictures and result; say what was found and what to do with it."""
        genotype, folder = self.genotype(), self.run.folder
        if self.accelerator.is_main_process:
            save(genotype, folder / "genotype.json")
            draw.run(folder)
        epochs = self.run.lines("metrics.jsonl")
        self.run.write("result.json", {
            "genotype": genotype.name,
            "epochs": len(epochs),
            "valid_loss": epochs[-1]["valid_loss"],
            "valid_top1": epochs[-1]["valid_top1"],
            "search_seconds": round(sum(line["seconds"] for line in epochs), 1),
            "peak_memory_mib": max(line["peak_memory_mib"] for line in epochs),
        })
        self.run.say(f"\n{genotype}\n\nrun folder: {folder} (pictures of both cells inside)")
        self.run.say(f"next: {self._retrain_command()}")
        self.run.close()

    def _retrain_command(self) -> str:
        config = self.config
        words = ["python", "evaluate/train.py"]
        if config.dataset == "digits":
            words += ["--preset", "digits"]
        elif config.dataset != "cifar10":
            words += ["--dataset", config.dataset]
        if config.dataset != "digits" and config.data_root != RunConfig.data_root:
            words += ["--data-root", config.data_root]
        if config.image_size is not None:
            words += ["--image-size", str(config.image_size)]
        if config.dataset == "folder" and not auxiliary_fits(self.train_batches.shape):
            words += ["--auxiliary-weight", "0"]
        if config.dataset == "folder" and len(self.split.train) < 128:
            words += ["--batch-size", str(config.batch_size)]
        return shlex.join([*words, "--genotype", str(self.run.folder)])

    @torch.no_grad()
    def _architecture(self) -> dict[str, Any]:
        weights = {}
        for kind in KINDS:
            mix = self.supernet.mix(kind)
            edge = None if mix.edge is None else mix.edge.tolist()
            weights[kind] = {"op": mix.op.tolist(), "edge": edge}
        return {
            "epoch": self.epoch,
            "candidates": list(self.supernet.candidates),
            "edges": self.supernet.edges,
            "parameters": {name: p.tolist() for name, p in self.supernet.arch.items()},
            "weights": weights,
        }
