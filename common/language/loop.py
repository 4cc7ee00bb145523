"""The loop of a language model: columns whose hidden states are carried, perplexities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from common.errors import InputError, NotFinite
from common.language.model import Dropouts, LanguageModel, chunk_loss, exact_loss, slowness
from common.language.text import Chunk, Columns, Corpus, TextSource, chunk_starts, load_corpus
from common.run.config import LoopConfig
from common.run.flags import Between
from common.run.folder import Run
from common.run.memory import check_memory, of_language_model
from common.run.start import main_first
from common.training.loop import FIX, Loop
from common.training.steps import descend

DROPOUTS = ("output", "hidden", "input", "embedding", "word")


@dataclass(frozen=True)
class TextConfig(LoopConfig):
    """What a search and a retraining of a recurrent cell ask for."""

    dataset: TextSource = "folder"
    """A folder with train.txt, valid.txt and test.txt, or a small language that needs no file."""
    data_root: str = "data/ptb"
    """The folder; PTB's and WikiText's own file names are known, too."""
    units: Annotated[int, Between(1, 65_536)] = 300
    """Of word vectors and hidden states."""
    bptt: Annotated[int, Between(1, 10_000)] = 35
    """Words of a chunk, through which gradients flow; sometimes half as many."""
    bptt_deviation: Annotated[float, Between(0, 1000)] = 0.0
    """Standard deviation of a chunk's length."""
    learning_rate: float = 20.0
    """Of the weights' SGD for a chunk of --bptt words; of a shorter one in proportion."""
    grad_clip: float = 0.25
    """Largest norm of the weights' gradient; 0: no limit."""
    slowness: Annotated[float, Between(0, 1e6)] = 1e-3
    """Weight of the mean squared change of the hidden state from word to word."""
    dropout_output: Annotated[float, Between(0, 1, below=True)] = 0.75
    """Of the states that the decoder reads (AWD-LSTM's and DARTS' dropout)."""
    dropout_hidden: Annotated[float, Between(0, 1, below=True)] = 0.25
    """Of the states within the cell (dropouth)."""
    dropout_input: Annotated[float, Between(0, 1, below=True)] = 0.75
    """Of the word vectors where the cell reads them (dropoutx)."""
    dropout_embedding: Annotated[float, Between(0, 1, below=True)] = 0.2
    """Of the word vectors before that (dropouti)."""
    dropout_word: Annotated[float, Between(0, 1, below=True)] = 0.0
    """Of whole words of the vocabulary (dropoute)."""

    @property
    def dropouts(self) -> Dropouts:
        """All five."""
        return Dropouts(**{name: getattr(self, f"dropout_{name}") for name in DROPOUTS})

    def check(self) -> None:
        super().check()
        if self.dataset == "small" and self.data_root != TextConfig.data_root:
            raise InputError(
                f"--data-root {self.data_root}: --dataset small (of --preset text) reads no files; "
                "add --dataset folder"
            )

    def check_memory(self, words: int, nodes: int) -> None:
        """Refuse a model that no training could hold.

        Args:
            words: of the vocabulary.
            nodes: of the recurrent cell.

        Raises:
            InputError: naming the flags that make it smaller.
        """
        needed = of_language_model(words, self.units, nodes, self.bptt, self.batch_size)
        flags = f"--units {self.units}, --bptt {self.bptt}, --batch-size {self.batch_size}"
        check_memory(f"{flags}: a model of {words} words", needed)

    def check_precision(self, precision: str) -> None:
        """See `LoopConfig.check_precision`; the time loop is written for one precision.

        Raises:
            InputError: it is not full precision.
        """
        if precision != "no":
            raise InputError(
                f"--mixed_precision {precision} (accelerate's flag): language models are trained "
                "in full precision; use no"
            )

    @property
    def source(self) -> str:
        """What a genotype's provenance calls the text."""
        return "small" if self.dataset == "small" else self.data_root.rstrip("/").split("/")[-1]


def corpus(config: TextConfig, accelerator: Accelerator) -> Corpus:
    """The texts that the flags name.

    Raises:
        InputError: see `text.load_corpus`; on every process.
    """
    return main_first(accelerator, lambda: load_corpus(config.dataset, config.data_root))


class LanguageLoop(Loop):
    """Trains a language model, chunk by chunk; what an epoch leaves, subclasses say.

    Args:
        config: the run's flags.
        run: its folder.
        model: on its device.
        corpus: on the CPU.
        optimizers: the weights' SGD, whose rate is constant (4.3), and others of the state.

    Attributes:
        hidden: of this process' columns of the training text, [S, B, d].
    """

    unit, items = "word", "words"

    def __init__(
        self, config: TextConfig, run: Run, model: LanguageModel, corpus: Corpus,
        *optimizers: torch.optim.Optimizer,
    ):
        accelerator = run.accelerator
        self.model, self.corpus = model, corpus
        self.network = model
        self.valid_text = corpus.valid.to(accelerator.device)
        self.test_text = corpus.test.to(accelerator.device)
        self.hidden = model.initial(config.batch_size // accelerator.num_processes)
        train = self.columns(config, run, corpus.train, "training")
        super().__init__(config, run, self.network, optimizers[0], None, train, *optimizers[1:])

    @staticmethod
    def columns(config: TextConfig, run: Run, text: Tensor, named: str) -> Columns:
        """This process' columns of a text."""
        accelerator = run.accelerator
        return Columns(
            text.to(accelerator.device), config.batch_size, named,
            accelerator.process_index, accelerator.num_processes,
        )

    # ------------------------------------------------------------------- the epoch in its chunks

    @property
    def starts(self) -> tuple[int, ...]:
        """Where this epoch's chunks begin, and its end."""
        config = self.config
        return chunk_starts(
            len(self.train_batches), config.bptt, config.bptt_deviation,
            config.seed, "chunks", self.epoch,
        )

    def next_items(self) -> int:
        """See `Loop.next_items`: words of the next chunk."""
        if self.step == len(self.starts) - 1:
            return 0
        start, end = self.starts[self.step : self.step + 2]
        return (end - start) * self.config.batch_size

    def chunks(self) -> Iterator[Chunk]:
        """The epoch's chunks of the training text still to come."""
        # Epochs differ in their number of chunks; steps are numbered as if each chunk were a word.
        self.global_step = self.epoch * len(self.train_batches) + self.step
        for _ in self.steps():
            start, end = self.starts[self.step : self.step + 2]
            yield self.train_batches.chunk(start, end - start)

    # --------------------------------------------------------------------------------- its steps

    def training_loss(self, chunk: Chunk, *drawn: Any) -> tuple[Tensor, Tensor]:
        """What a weight step descends, and of it the mean NLL; the hidden state moves on.

        The state is carried from chunk to chunk, its gradient is not.

        Args:
            chunk: of the training text.
            *drawn: see `LanguageModel.forward`.
        """
        before = torch.zeros_like(self.hidden) if chunk.first else self.hidden
        reading = self.network(chunk.words, before, *drawn)
        self.hidden = reading.hidden.detach()
        loss = chunk_loss(reading, chunk.targets)
        return loss + self.config.slowness * slowness(reading.states), loss.detach()

    def descend(self, gradients: list[Tensor | None], length: int) -> None:
        """One clipped step of SGD, in proportion to the chunk's length."""
        (group,) = self.optimizer.param_groups
        rate = group["lr"]
        group["lr"] = rate * length / self.config.bptt
        descend(self.optimizer, group["params"], gradients, self.config.grad_clip)
        group["lr"] = rate

    def record(self, loss: Tensor, chunk: Chunk) -> None:
        """Count a training step's loss, on the device."""
        self.meters["loss"].update(loss, chunk.targets.numel())
        self.watch(loss)

    # ------------------------------------------------------------------------------- its metrics

    def exact(self, model: LanguageModel, text: Tensor) -> float:
        """See `exact_loss`.

        Raises:
            NotFinite: it is not.
        """
        loss = exact_loss(
            self.accelerator, model.eval(), text, self.config.batch_size, self.config.bptt
        )
        return self.finite(loss)

    def finite(self, loss: float) -> float:
        """This loss on a text held out.

        Raises:
            NotFinite: it is not finite.
        """
        if not math.isfinite(loss):
            raise NotFinite(
                f"the loss on a text held out was not finite after epoch {self.epoch + 1}; {FIX}"
            )
        return loss

    def train_metrics(self, means: dict[str, float]) -> dict[str, float]:
        """See `Loop.train_metrics`; with the perplexity."""
        return with_perplexity({"train_loss": means["loss"]})

    def in_words(self, split: str, metrics: dict[str, Any]) -> str:
        return f"perplexity {metrics[f'{split}_perplexity']:.2f}"

    # -------------------------------------------------------------------------------- its state

    def state(self) -> dict[str, Any]:
        """See `Loop.state`; with the hidden states of all columns, whichever process has them."""
        return {**super().state(), "hidden": self.everyones(self.hidden)}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.hidden = self.my_share(state["hidden"])

    def everyones(self, hidden: Tensor) -> Tensor:
        """[S, B, d] of every process -> of all columns."""
        return self.accelerator.gather(hidden.transpose(0, 1).contiguous()).transpose(0, 1)

    def my_share(self, hidden: Tensor) -> Tensor:
        """The inverse."""
        parts = hidden.to(self.accelerator.device).chunk(self.accelerator.num_processes, 1)
        return parts[self.accelerator.process_index].contiguous()


def with_perplexity(losses: dict[str, float | None]) -> dict[str, float | None]:
    """Losses in nats a word, each with its perplexity beside it."""
    metrics: dict[str, float | None] = {}
    for name, loss in losses.items():
        metrics[name] = loss
        what = name.replace("_loss", "_perplexity")
        metrics[what] = None if loss is None else math.exp(min(loss, 700.0))
    return metrics
