"""The training loop of a language model: carries hidden states, reports perplexities."""

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
    """Flags of both search and retraining of a recurrent cell."""

    dataset: TextSource = "folder"
    """A folder with train.txt, valid.txt and test.txt, or a small language that needs no file."""
    data_root: str = "data/ptb"
    """Folder of the text; PTB's and WikiText's own file names work, too."""
    units: Annotated[int, Between(1, 65_536)] = 300
    """Size of word vectors and hidden states."""
    bptt: Annotated[int, Between(1, 10_000)] = 35
    """Backpropagation through time: words per chunk; 5 % of chunks have half as many."""
    bptt_deviation: Annotated[float, Between(0, 1000)] = 0.0
    """Standard deviation of the chunk length."""
    learning_rate: float = 20.0
    """Of SGD for a chunk of --bptt words; proportional to the chunk length."""
    grad_clip: float = 0.25
    """Clip the weights' gradient to this norm; 0: no clipping."""
    slowness: Annotated[float, Between(0, 1e6)] = 1e-3
    """Temporal activation regularisation: weight of the hidden state's squared change per word."""
    dropout_output: Annotated[float, Between(0, 1, below=True)] = 0.75
    """Dropout of the states that the decoder reads (AWD-LSTM's and DARTS' dropout)."""
    dropout_hidden: Annotated[float, Between(0, 1, below=True)] = 0.25
    """Dropout of the states within the cell (dropouth)."""
    dropout_input: Annotated[float, Between(0, 1, below=True)] = 0.75
    """Dropout of the word vectors that the cell reads (dropoutx)."""
    dropout_embedding: Annotated[float, Between(0, 1, below=True)] = 0.2
    """Dropout of the word vectors before that (dropouti)."""
    dropout_word: Annotated[float, Between(0, 1, below=True)] = 0.0
    """Dropout of words of the vocabulary (dropoute)."""

    @property
    def dropouts(self) -> Dropouts:
        """The five dropout flags."""
        return Dropouts(**{name: getattr(self, f"dropout_{name}") for name in DROPOUTS})

    def check(self) -> None:
        super().check()
        if self.dataset == "small" and self.data_root != TextConfig.data_root:
            raise InputError(
                f"--data-root {self.data_root}: --dataset small (of --preset text) reads no files; "
                "add --dataset folder"
            )

    def check_memory(self, words: int, nodes: int) -> None:
        """Check that training fits in memory.

        Args:
            words: vocabulary size.
            nodes: of the recurrent cell.

        Raises:
            InputError: it cannot; names the flags to reduce.
        """
        needed = of_language_model(words, self.units, nodes, self.bptt, self.batch_size)
        flags = f"--units {self.units}, --bptt {self.bptt}, --batch-size {self.batch_size}"
        check_memory(f"{flags}: a model of {words} words", needed)

    def check_precision(self, precision: str) -> None:
        """Language models are trained in float32.

        Raises:
            InputError: `precision` is another.
        """
        if precision != "no":
            raise InputError(
                f"--mixed_precision {precision} (accelerate's flag): language models are trained "
                "in full precision; use no"
            )

    @property
    def source(self) -> str:
        """The text's name in a genotype's provenance."""
        return "small" if self.dataset == "small" else self.data_root.rstrip("/").split("/")[-1]


def corpus(config: TextConfig, accelerator: Accelerator) -> Corpus:
    """Load the texts that the flags name.

    Raises:
        InputError: see `load_corpus`; raised on every process.
    """
    return main_first(accelerator, lambda: load_corpus(config.dataset, config.data_root))


class LanguageLoop(Loop):
    """Trains a language model chunk by chunk; subclasses order the steps and report an epoch.

    Args:
        config: the run's flags.
        run: its folder.
        model: on its device.
        corpus: on the CPU.
        optimizers: SGD of the weights, whose learning rate is constant (4.3), then any others.

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
        self.valid_text = corpus.valid.to(accelerator.device)
        self.test_text = corpus.test.to(accelerator.device)
        self.hidden = model.initial(config.batch_size // accelerator.num_processes)
        train = self.columns(config, run, corpus.train, "training")
        super().__init__(config, run, model, optimizers[0], None, train, *optimizers[1:])

    @staticmethod
    def columns(config: TextConfig, run: Run, text: Tensor, named: str) -> Columns:
        """This process' columns of a text."""
        accelerator = run.accelerator
        return Columns(
            text.to(accelerator.device), config.batch_size, named,
            accelerator.process_index, accelerator.num_processes,
        )

    # -------------------------------------------------------------------------------- chunks

    @property
    def starts(self) -> tuple[int, ...]:
        """The first time step of each chunk of this epoch, and the epoch's length."""
        config = self.config
        return chunk_starts(
            len(self.train_batches), config.bptt, config.bptt_deviation,
            config.seed, "chunks", self.epoch,
        )

    def next_items(self) -> int:
        """Words of the next chunk; 0: the epoch is over."""
        if self.step == len(self.starts) - 1:
            return 0
        start, end = self.starts[self.step : self.step + 2]
        return (end - start) * self.config.batch_size

    def chunks(self) -> Iterator[Chunk]:
        """The remaining chunks of this epoch."""
        # Epochs differ in their number of chunks; leave a step number for each word.
        self.global_step = self.epoch * len(self.train_batches) + self.step
        for _ in self.steps():
            start, end = self.starts[self.step : self.step + 2]
            yield self.train_batches.chunk(start, end - start)

    # ---------------------------------------------------------------------------------- steps

    def training_loss(self, chunk: Chunk, *draw: Any) -> tuple[Tensor, Tensor]:
        """The loss of a weight step with its regulariser, and the mean NLL alone.

        The hidden state is carried to the next chunk, its gradient is not.

        Args:
            chunk: of the training text.
            *draw: see `LanguageModel.forward`.
        """
        before = torch.zeros_like(self.hidden) if chunk.first else self.hidden
        reading = self.network(chunk.words, before, *draw)
        self.hidden = reading.hidden.detach()
        loss = chunk_loss(reading, chunk.targets)
        return loss + self.config.slowness * slowness(reading.states), loss.detach()

    def descend(self, gradients: list[Tensor | None], length: int) -> None:
        """One clipped step of SGD; its learning rate is proportional to the chunk's length."""
        (group,) = self.optimizer.param_groups
        rate = group["lr"]
        group["lr"] = rate * length / self.config.bptt
        descend(self.optimizer, group["params"], gradients, self.config.grad_clip)
        group["lr"] = rate

    def record(self, loss: Tensor, chunk: Chunk) -> None:
        """Add a training step's loss to the epoch's mean, without waiting for the device."""
        self.meters["loss"].update(loss, chunk.targets.numel())
        self.watch(loss)

    # -------------------------------------------------------------------------------- metrics

    def exact(self, model: LanguageModel, text: Tensor) -> float:
        """See `exact_loss`.

        Raises:
            NotFinite: the loss is not finite.
        """
        loss = exact_loss(
            self.accelerator, model.eval(), text, self.config.batch_size, self.config.bptt
        )
        return self.finite(loss)

    def finite(self, loss: float) -> float:
        """The loss itself.

        Raises:
            NotFinite: it is not finite.
        """
        if not math.isfinite(loss):
            raise NotFinite(
                f"the validation or test loss was not finite after epoch {self.epoch + 1}; {FIX}"
            )
        return loss

    def train_metrics(self, means: dict[str, float]) -> dict[str, float]:
        return with_perplexity({"train_loss": means["loss"]})

    def in_words(self, split: str, metrics: dict[str, Any]) -> str:
        return f"perplexity {metrics[f'{split}_perplexity']:.2f}"

    # ---------------------------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """See `Loop.state`; adds the hidden states of all processes' columns."""
        return {**super().state(), "hidden": self.everyones(self.hidden)}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.hidden = self.my_share(state["hidden"])

    def everyones(self, hidden: Tensor) -> Tensor:
        """Gather this process' [S, B, d] to the hidden states of all columns."""
        return self.accelerator.gather(hidden.transpose(0, 1).contiguous()).transpose(0, 1)

    def my_share(self, hidden: Tensor) -> Tensor:
        """This process' columns; the inverse of `everyones`."""
        parts = hidden.to(self.accelerator.device).chunk(self.accelerator.num_processes, 1)
        return parts[self.accelerator.process_index].contiguous()


def with_perplexity(losses: dict[str, float | None]) -> dict[str, float | None]:
    """Losses in nats per word, each followed by its perplexity."""
    metrics: dict[str, float | None] = {}
    for name, loss in losses.items():
        metrics[name] = loss
        what = name.replace("_loss", "_perplexity")
        metrics[what] = None if loss is None else math.exp(min(loss, 700.0))
    return metrics
