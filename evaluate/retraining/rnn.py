"""Trains a language model with a recurrent cell from scratch; see `evaluate/train_rnn.py`.

The defaults are GDAS' recipe on PTB (4.3). Chunks, dropouts and the switch to averaging are those
of DARTS' and AWD-LSTM's code, which it follows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from torch.optim.swa_utils import AveragedModel

from common.distributed import average, seed_of
from common.errors import InputError
from common.language.cell import RecurrentCell, recurrent_cell
from common.language.loop import LanguageLoop, TextConfig, corpus, with_perplexity
from common.language.lstm import LSTM
from common.language.lstm import NAME as LSTM_NAME
from common.language.model import LanguageModel
from common.language.text import Chunk, Columns, Corpus, TextSource
from common.networks.genotype import Genotype, load, published
from common.run.cli import given
from common.run.config import described
from common.run.flags import Between
from common.run.folder import Run
from common.run.start import start
from common.training.loop import prepare
from retraining.pinned import genotype_of, pin_genotype

METHOD = "retrain_rnn"


@dataclass(frozen=True)
class RNNTrainConfig(TextConfig):
    """GDAS 4.3 on PTB: 850 units, batch 64, 2000 epochs of averaged SGD."""

    preset: Literal["ptb", "wikitext2", "text"] = "ptb"
    """ptb, wikitext2: the paper's recipes (4.3); text: minutes on two CPU cores, no download."""
    genotype: str | None = None
    """The cell: `lstm`, a published name, a run folder, a genotype file, FILE.py:NAME, or a
    genotype's text (common/README.md, Cells)."""
    trigger: Annotated[int, Between(0, 10**6)] = 5
    """NT-ASGD patience, in epochs: averaging starts when the validation loss is above the lowest
    one before the last so many epochs."""
    epochs: int = 2000
    """Passes over the training text."""
    batch_size: int = 64
    """Parallel columns of the training text, over all processes."""
    units: int = 850
    """Size of word vectors and hidden states."""
    bptt_deviation: float = 5.0
    """Standard deviation of the chunk length."""
    weight_decay: float = 8e-7
    """Weight decay."""
    dropout_word: float = 0.1
    """Dropout of words of the vocabulary (dropoute)."""
    compile: bool = False
    """Compile the cell's time step with torch.compile; the first step takes a minute or two."""

    def check(self) -> None:
        super().check()
        if self.genotype is None:
            recurrent = [name for name in published() if "recurrent" in load(name).cells]
            raise InputError(
                "--genotype: say what to train: a run folder, a genotype file, or one of "
                f"{', '.join([*recurrent, LSTM_NAME])}"
            )
        if self.compile and self.genotype == LSTM_NAME:
            raise InputError("--compile: the LSTM's time loop is PyTorch's own; leave it out")
        if self.resume is None and self.genotype != LSTM_NAME:  # a run has its own genotype
            recurrent_cell(load(self.genotype))


PRESETS = {
    "ptb": RNNTrainConfig(),
    "wikitext2": RNNTrainConfig(
        preset="wikitext2", data_root="data/wikitext-2", units=700, epochs=3000, weight_decay=5e-7,
    ),
    "text": RNNTrainConfig(
        preset="text", dataset="small", units=64, batch_size=16, epochs=40, learning_rate=10,
        dropout_output=0.2, dropout_hidden=0.1, dropout_input=0.2, dropout_embedding=0.1,
        dropout_word=0,
    ),
}


def chosen_preset(argv: list[str]) -> dict[str, RNNTrainConfig]:
    """The presets for `parse`; if --genotype is a search's folder, only the one for its text."""
    what = given(argv, "--genotype")
    named = given(argv, "--preset") or given(argv, "--dataset") or given(argv, "--resume")
    if named or what is None or not os.path.isfile(Path(what) / "config.json"):
        return PRESETS
    run = described(Path(what))
    if run["method"] == METHOD or run.get("dataset") not in get_args(TextSource):
        return PRESETS
    if run["dataset"] == "small":
        return {"text": PRESETS["text"]}
    return {"ptb": replace(PRESETS["ptb"], data_root=run["data_root"])}


def retrain_rnn(config: RNNTrainConfig) -> None:
    """Train a language model; report validation and test perplexity."""
    config, accelerator = start(config)
    texts = corpus(config, accelerator)
    Columns(texts.train, config.batch_size, "training")  # checks the batch size
    config.check_memory(len(texts.words), 1)
    with Run.open(config, METHOD, accelerator) as run:
        run.pin_text(texts.digests())
        genotype = None
        if config.genotype != LSTM_NAME:
            genotype = genotype_of(run, config.genotype)
            pin_genotype(run, genotype)
        torch.manual_seed(seed_of(config.seed, "weights"))  # the same on every process
        trainer = LanguageTrainer(config, genotype, run, texts)
        for _ in trainer.epochs():
            for chunk in trainer.batches():
                trainer.weight_step(chunk)
            trainer.validate()
        trainer.finish()


class LanguageTrainer(LanguageLoop):
    """Trains by NT-ASGD: SGD, and after a trigger the average of its weights (AWD-LSTM 3).

    Args:
        config: the retraining's flags.
        genotype: None: an LSTM.
        run: its folder.
        texts: training, validation (decides when to average) and test text.

    Attributes:
        average: of the weights since the trigger; None before it.
        valid_losses: of all epochs up to the trigger.
    """

    def __init__(
        self, config: RNNTrainConfig, genotype: Genotype | None, run: Run, texts: Corpus
    ):
        self.genotype = genotype
        self.average: AveragedModel | None = None
        self.valid_losses: list[float] = []
        if genotype is None:
            cell = LSTM(config.units)
        else:
            cell = RecurrentCell(recurrent_cell(genotype), config.units)
        if config.compile:
            cell.compile_step()
        model = LanguageModel(len(texts.words), config.units, cell, config.dropouts)
        model = prepare(run.accelerator, model)
        self.weights = list(model.parameters())
        sgd = torch.optim.SGD(self.weights, config.learning_rate, weight_decay=config.weight_decay)
        super().__init__(config, run, model, texts, sgd)

    def batches(self) -> Iterator[Chunk]:
        """The epoch's chunks."""
        return self.chunks()

    def weight_step(self, chunk: Chunk) -> None:
        """One step of SGD; updates the average once it has started."""
        total, loss = self.training_loss(chunk)
        # A node whose activation is `none` has zeros.
        gradients = torch.autograd.grad(total, self.weights, materialize_grads=True)
        self.descend(average(self.accelerator, gradients), len(chunk.words))
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.record(loss, chunk)
        self.watch(total)

    def held_out_metrics(self) -> dict[str, Any]:
        """Validation and test perplexity, of the average if there is one; may start the average.

        Deviation: the authors' code uses `torch.optim.ASGD`, whose learning rate follows the chunk
        length one step late, and which leaves the first step's weights out of the average.
        """
        model = self.model if self.average is None else self.average.module
        losses = {
            "valid_loss": self.exact(model, self.valid_text),
            "test_loss": self.exact(model, self.test_text),
        }
        metrics = {**with_perplexity(losses), "averaged": self.average is not None}
        if self.average is None:
            if triggered(losses["valid_loss"], self.valid_losses, self.config.trigger):
                self.average = AveragedModel(self.model)
            self.valid_losses.append(losses["valid_loss"])
        return metrics

    def state(self) -> dict[str, Any]:
        weights = None if self.average is None else self.average.state_dict()
        return {**super().state(), "average": weights, "valid_losses": self.valid_losses}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.valid_losses = state["valid_losses"]
        if state["average"] is not None:
            self.average = AveragedModel(self.model)
            self.average.load_state_dict(state["average"])

    def finish(self) -> None:
        """Draw pictures, write and print the result.

        Reports the last epoch and the epoch of lowest validation loss, which papers report.
        """
        from common.draw import pictures

        folder, epochs = self.run.folder, self.run.lines("metrics.jsonl")
        if self.accelerator.is_main_process:
            pictures.run(folder)
        last, best = epochs[-1], min(epochs, key=lambda line: line["valid_loss"])
        name = LSTM_NAME if self.genotype is None else self.genotype.name
        parameters = sum(weight.numel() for weight in self.weights)
        self.run.write("result.json", {
            "genotype": name,
            "params": parameters,
            "words": len(self.corpus.words),
            "epochs": len(epochs),
            "valid_perplexity": last["valid_perplexity"],
            "test_perplexity": last["test_perplexity"],
            "chosen_epoch": best["epoch"],
            "chosen_valid_perplexity": best["valid_perplexity"],
            "chosen_test_perplexity": best["test_perplexity"],
            "averaged_epochs": sum(line["averaged"] for line in epochs),
            "train_seconds": round(sum(line["seconds"] for line in epochs), 1),
            "peak_memory_mib": max(line["peak_memory_mib"] for line in epochs),
        })
        self.run.say(
            f"\n{name}: test perplexity {last['test_perplexity']:.2f} after {len(epochs)} epochs, "
            f"{best['test_perplexity']:.2f} after epoch {best['epoch']}, the best by "
            f"validation; {parameters:,} parameters\nrun folder: {folder}"
        )


def triggered(loss: float, before: list[float], patience: int) -> bool:
    """Whether a validation loss is above the lowest of `before` without its last `patience`."""
    return len(before) > patience and loss > min(before[: len(before) - patience])
