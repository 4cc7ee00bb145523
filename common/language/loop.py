"""The loop of a language model: columns whose hidden states are carried, perplexities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.distributed import set_gradients
from common.errors import InputError, NotFinite
from common.language.model import Dropouts, LanguageModel, chunk_loss, exact_loss, slowness
from common.language.text import Chunk, Columns, Corpus, TextSource, chunk_starts
from common.memory import check_memory, of_language_model
from common.run.config import LoopConfig
from common.run.flags import at_least, flag
from common.run.folder import Run
from common.training.loop import MEND, Loop, prepare

DROPOUTS = ("output", "hidden", "input", "embedding", "word")


@dataclass(frozen=True)
class TextConfig(LoopConfig):
    """What a search and a retraining of a recurrent cell ask for."""

    dataset: TextSource = "folder"
    """A folder with train.txt, valid.txt and test.txt, or a small language that needs no file."""
    data_root: str = "data/ptb"
    """The folder; PTB's and WikiText's own file names are known, too."""
    units: int = 300
    """Of word vectors and hidden states."""
    bptt: int = 35
    """Words of a chunk, through which gradients flow; sometimes half as many."""
    bptt_deviation: float = 0.0
    """Standard deviation of a chunk's length."""
    learning_rate: float = 20.0
    """Of the weights' SGD for a chunk of --bptt words; of a shorter one in proportion."""
    grad_clip: float = 0.25
    """Largest norm of the weights' gradient; 0: no limit."""
    slowness: float = 1e-3
    """Weight of the mean squared change of the hidden state from word to word."""
    dropout_output: float = 0.75
    """Of the states that the decoder reads (AWD-LSTM's and DARTS' dropout)."""
    dropout_hidden: float = 0.25
    """Of the states within the cell (dropouth)."""
    dropout_input: float = 0.75
    """Of the word vectors where the cell reads them (dropoutx)."""
    dropout_embedding: float = 0.2
    """Of the word vectors before that (dropouti)."""
    dropout_word: float = 0.0
    """Of whole words of the vocabulary (dropoute)."""

    @property
    def learning_rate_min(self) -> float:
        """Where the cosine ends: the learning rate is fixed (4.3)."""
        return self.learning_rate

    @property
    def dropouts(self) -> Dropouts:
        """All five."""
        return Dropouts(**{name: getattr(self, f"dropout_{name}") for name in DROPOUTS})

    def check(self) -> None:
        """See `LoopConfig.check`."""
        super().check()
        at_least(self, 1, "units", "bptt")
        if self.dataset == "small" and self.data_root != TextConfig.data_root:
            raise InputError(
                f"--data-root {self.data_root}: --dataset small (of --preset text) reads no files; "
                "add --dataset folder"
            )
        at_least(self, 0, "bptt_deviation", "slowness", *(f"dropout_{name}" for name in DROPOUTS))
        for name in DROPOUTS:
            if (value := getattr(self, f"dropout_{name}")) >= 1:
                raise InputError(f"{flag(f'dropout_{name}')} {value}: must be below 1")

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


class LanguageLoop(Loop):
    """Trains a language model, chunk by chunk; what an epoch leaves, subclasses say.

    Args:
        config: the run's flags.
        run: its folder.
        model: on the CPU.
        corpus: on the CPU.

    Attributes:
        hidden: of this process' columns of the training text, [S, B, d].
    """

    unit, items = "word", "words"
    quantities = ("loss",)

    def __init__(self, config: TextConfig, run: Run, model: LanguageModel, corpus: Corpus):
        accelerator = run.accelerator
        self.model, self.corpus = model, corpus
        self.network = prepare(accelerator, model)
        self.valid_text = corpus.valid.to(accelerator.device)
        self.test_text = corpus.test.to(accelerator.device)
        self.hidden = model.initial(config.batch_size // accelerator.num_processes)
        optimizer, *others = self.new_optimizers(config)
        train = self.columns(config, run, corpus.train, "training")
        super().__init__(config, run, self.network, optimizer, train, *others)

    @staticmethod
    def columns(config: TextConfig, run: Run, text: Tensor, named: str) -> Columns:
        """This process' columns of a text."""
        accelerator = run.accelerator
        return Columns(
            text.to(accelerator.device), config.batch_size, named,
            accelerator.process_index, accelerator.num_processes,
        )

    def new_optimizers(self, config: TextConfig) -> tuple[torch.optim.Optimizer, ...]:
        """SGD of the weights, without momentum, and whatever else belongs to the state."""
        self.weights = list(self.model.parameters())
        return (
            torch.optim.SGD(
                self.weights, config.learning_rate, weight_decay=config.weight_decay
            ),
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

    @property
    def items_seen(self) -> int:
        """See `Loop.items_seen`: words."""
        return self.starts[self.step] * self.config.batch_size

    def more_steps(self) -> bool:
        """See `Loop.more_steps`: an epoch has as many as its chunks."""
        return self.step < len(self.starts) - 1

    def chunks(self) -> Iterator[Chunk]:
        """The epoch's chunks of the training text still to come."""
        for _ in self.steps():
            start, end = self.starts[self.step : self.step + 2]
            yield self.train_batches.chunk(start, end - start)

    # --------------------------------------------------------------------------------- its steps

    def training_loss(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """What a weight step descends, and of it the mean NLL; the hidden state moves on.

        The state is carried from chunk to chunk, its gradient is not.
        """
        before = torch.zeros_like(self.hidden) if chunk.first else self.hidden
        reading = self.network(chunk.words, before)
        self.hidden = reading.hidden.detach()
        loss = chunk_loss(reading, chunk.targets)
        return loss + self.config.slowness * slowness(reading.states), loss.detach()

    def descend(self, gradients: list[Tensor | None], length: int) -> None:
        """One clipped step of SGD, in proportion to the chunk's length."""
        set_gradients(self.weights, gradients)
        if self.config.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.weights, self.config.grad_clip)
        (group,) = self.optimizer.param_groups
        rate = group["lr"]
        group["lr"] = rate * length / self.config.bptt
        self.optimizer.step()
        group["lr"] = rate

    def record(self, loss: Tensor, chunk: Chunk) -> None:
        """Count a training step's loss, on the device."""
        self.meters["loss"].update(loss, chunk.targets.numel())
        self.watch(loss)

    # ------------------------------------------------------------------------------- its figures

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
                f"the loss on a text held out was not finite after epoch {self.epoch + 1}; {MEND}"
            )
        return loss

    def train_figures(self, means: dict[str, float]) -> dict[str, float]:
        """See `Loop.train_figures`; with the perplexity."""
        return with_perplexity({"train_loss": means["loss"]})

    def summary(self, split: str, figures: dict[str, Any]) -> str:
        """See `Loop.summary`."""
        return f"perplexity {figures[f'{split}_perplexity']:.2f}"

    # -------------------------------------------------------------------------------- its state

    def state(self) -> dict[str, Any]:
        """See `Loop.state`; with the hidden states of all columns, whichever process has them."""
        return {**super().state(), "hidden": self.everyones(self.hidden)}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Loop.load_state`."""
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
    figures: dict[str, float | None] = {}
    for name, loss in losses.items():
        figures[name] = loss
        what = name.replace("_loss", "_perplexity")
        figures[what] = None if loss is None else math.exp(min(loss, 700.0))
    return figures
