"""The steps of a search for a recurrent cell; rnn_search.py orders them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from common.distributed import average, seed_of
from common.language.loop import LanguageLoop, with_perplexity
from common.language.model import chunk_loss
from common.language.text import Chunk, Corpus
from common.networks.genotype import Genotype, save
from common.run.folder import Run
from common.supernet.measures import best_operations
from common.training.collapse import verdict
from common.training.loop import prepare
from common.training.steps import descend, frozen
from gdas.rnn_config import GDASRNNConfig
from gdas.rnn_supernet import KIND, Draw, RecurrentSuperNet


class RecurrentSearchTrainer(LanguageLoop):
    """Trains the weights on the training text and alpha on the validation text.

    Each step computes gradients only for the parameters that it trains.

    Args:
        config: the search's flags.
        supernet: on the CPU.
        run: its folder.
        texts: the test text is not used.

    Attributes:
        valid_hidden: of this process' columns of the validation text, [S, B, d].
    """

    def __init__(
        self, config: GDASRNNConfig, supernet: RecurrentSuperNet, run: Run, texts: Corpus
    ):
        self.supernet = supernet
        self.best = self._best()
        prepare(run.accelerator, supernet)
        self.valid_columns = self.columns(config, run, texts.valid, "validation")
        columns = self.valid_columns.rows.shape[1]
        self.valid_hidden = supernet.initial(columns).to(run.accelerator.device)
        self.generator = torch.Generator()  # of the samples; the same on every process
        self.weights, self.arch = supernet.weight_parameters(), supernet.arch_parameters()
        self.arch_optimizer = torch.optim.Adam(
            self.arch, config.arch_learning_rate, (config.arch_beta1, config.arch_beta2),
            weight_decay=config.arch_weight_decay,
        )
        sgd = torch.optim.SGD(
            self.weights, config.learning_rate, weight_decay=config.weight_decay
        )
        super().__init__(config, run, supernet, texts, sgd, self.arch_optimizer)

    def batches(self) -> Iterator[tuple[Chunk, Chunk]]:
        """Pairs of a training chunk and a validation chunk.

        Validation chunks have `--bptt` words; they follow one another and start again at the
        text's end and in each epoch.
        """
        bptt, total = self.config.bptt, len(self.valid_columns)
        starts = range(0, total, bptt)
        for chunk in self.chunks():
            yield chunk, self.valid_columns.chunk(starts[self.step % len(starts)], bptt)

    def weight_step(self, chunk: Chunk, tau: float) -> None:
        """One clipped step of SGD on the weights; alpha is frozen."""
        with frozen(self.arch):
            total, loss = self.training_loss(chunk, self._draw("weight", tau))
            gradients = torch.autograd.grad(total, self.weights, allow_unused=True)
        self.descend(average(self.accelerator, gradients), len(chunk.words))
        self.record(loss, chunk)
        self.watch(total)

    def arch_step(self, chunk: Chunk, tau: float) -> None:
        """One step of Adam on alpha; the weights are frozen."""
        with frozen(self.weights):
            before = torch.zeros_like(self.valid_hidden) if chunk.first else self.valid_hidden
            reading = self.network(chunk.words, before, self._draw("arch", tau))
            loss = chunk_loss(reading, chunk.targets)
            gradients = [torch.zeros_like(alpha) for alpha in self.arch]
            if loss.requires_grad:  # False if every edge sampled `none`
                gradients = torch.autograd.grad(loss, self.arch, materialize_grads=True)
        self.valid_hidden = reading.hidden.detach()
        descend(self.arch_optimizer, self.arch, average(self.accelerator, gradients))
        self.watch(loss)

    def _draw(self, step: str, tau: float) -> Draw:
        self.generator.manual_seed(seed_of(self.config.seed, step, self.global_step))
        return self.supernet.draw(self.generator, tau)

    def held_out_metrics(self, tau: float) -> dict[str, Any]:
        """Validate; write the architecture and its genotype."""
        best, op = self._best(), self.supernet.probabilities().detach()
        metrics = {
            **with_perplexity({"valid_loss": self.finite(self.valid_loss(tau))}),
            f"entropy_{KIND}": torch.special.entr(op).sum(-1).mean().item(),
            f"changed_edges_{KIND}": int((best != self.best).sum()),
            "tau": tau,
        }
        self.best = best
        self.run.append("architecture.jsonl", {
            "epoch": self.epoch + 1,
            "candidates": list(self.supernet.candidates),
            "edges": self.supernet.edges,
            "parameters": {name: alpha.tolist() for name, alpha in self.supernet.arch.items()},
            "weights": {KIND: {"op": op.tolist(), "edge": None}},
        })
        self.run.append(
            "genotypes.jsonl", {"epoch": self.epoch + 1, "genotype": self.genotype().to_json()}
        )
        return metrics

    @torch.no_grad()
    def valid_loss(self, tau: float) -> float:
        """Mean NLL of the validation text; samples the cell for each chunk, as in training.

        All processes use the same samples.
        """
        self.network.eval()
        self.generator.manual_seed(seed_of(self.config.seed, "validate", self.epoch))
        sums = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        hidden = torch.zeros_like(self.valid_hidden)
        for start in range(0, len(self.valid_columns), self.config.bptt):
            chunk = self.valid_columns.chunk(start, self.config.bptt)
            reading = self.network(chunk.words, hidden, self.supernet.draw(self.generator, tau))
            hidden, count = reading.hidden, chunk.targets.numel()
            loss = chunk_loss(reading, chunk.targets)
            sums += torch.stack([count * loss, torch.full_like(loss, count)])
        total, count = self.accelerator.reduce(sums).tolist()
        return total / count

    @torch.no_grad()
    def _best(self) -> Tensor:
        """Column of each edge's best activation, [edges]."""
        return best_operations(self.supernet.probabilities(), self.supernet.candidates).cpu()

    def genotype(self) -> Genotype:
        """The derived cell with its provenance."""
        config = self.config
        return Genotype(
            f"{self.run.method}-{config.source}-seed{config.seed}",
            {KIND: self.supernet.derive()},
            {
                "method": self.run.method, "dataset": config.source, "seed": config.seed,
                "sample": config.sample, "epochs": config.epochs, "words": len(self.corpus.train),
                "commit": self.run.commit,
            },
        )

    def state(self) -> dict[str, Any]:
        return {
            **super().state(), "valid_hidden": self.everyones(self.valid_hidden),
            "best_operations": self.best,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.valid_hidden = self.my_share(state["valid_hidden"])
        self.best = state["best_operations"]

    def finish(self) -> None:
        """Write the genotype, pictures and result; print the cell and the next command."""
        from common.draw import pictures

        genotype, folder = self.genotype(), self.run.folder
        if self.accelerator.is_main_process:
            save(genotype, folder / "genotype.json")
            pictures.run(folder)
        epochs = self.run.lines("metrics.jsonl")
        self.run.write("result.json", {
            "genotype": genotype.name,
            "epochs": len(epochs),
            "valid_loss": epochs[-1]["valid_loss"],
            "valid_perplexity": epochs[-1]["valid_perplexity"],
            "search_seconds": round(sum(line["seconds"] for line in epochs), 1),
            "peak_memory_mib": max(line["peak_memory_mib"] for line in epochs),
        })
        self.run.say(f"\n{genotype}\n")
        weights = self.supernet.probabilities().detach().tolist()
        for line in verdict(KIND, genotype.cells[KIND], weights):
            self.run.say(line)
        self.run.say(f"\nrun folder: {folder} (a picture of the cell inside)")
        command = shlex.join(["python", "evaluate/train_rnn.py", "--genotype", str(folder)])
        self.run.say(f"next: {command}")
