"""Text: its source, its vocabulary, and its columns and chunks.

A text is one sequence of words. Training splits it into `batch_size` parallel columns and reads a
chunk of every column per step; each column's hidden state is carried to the next chunk.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.distributed import generator_of
from common.errors import InputError
from common.language.small_language import small_text

TextSource = Literal["folder", "small"]
PARTS = ("train", "valid", "test")
NAMES = ("{}.txt", "ptb.{}.txt", "wiki.{}.tokens", "{}.tokens")  # ours, PTB's, WikiText's
END, UNKNOWN = "<eos>", "<unk>"


@dataclass(frozen=True)
class Corpus:
    """Three texts as word indices.

    Attributes:
        words: the vocabulary, in order of first use in the training text.
        train: int64 [N], indices into `words`.
        valid: likewise.
        test: likewise.
    """

    words: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor

    def digests(self) -> dict[str, Any]:
        """The vocabulary's size, and SHA-256 of vocabulary and texts; a resumed run checks them."""
        bytes_of = {"vocabulary": json.dumps(self.words).encode()}
        bytes_of |= {part: getattr(self, part).numpy() for part in PARTS}
        sums = {f"{name}_sha256": hashlib.sha256(of).hexdigest() for name, of in bytes_of.items()}
        return {"words": len(self.words), **sums}

    @classmethod
    def of(cls, lines: dict[str, list[list[str]]]) -> Corpus:
        """Number the words of each part's lines; every line, empty ones too, ends in one `<eos>`.

        The vocabulary is that of the training text; other words become `<unk>`.
        Deviation: the authors' code uses the words of all three texts; PTB and WikiText-2 contain
        `<unk>` already, so there it makes no difference.
        """
        rows = {
            part: [
                word for line in lines[part]
                for word in (line if line[-1:] == [END] else (*line, END))
            ]
            for part in PARTS
        }  # fmt: skip
        words = dict.fromkeys(rows["train"])
        if any(word not in words for part in PARTS for word in rows[part]):
            words.setdefault(UNKNOWN)
        number = {word: n for n, word in enumerate(words)}
        unknown = number.get(UNKNOWN)
        return cls(
            tuple(words),
            *(torch.tensor([number.get(word, unknown) for word in rows[part]]) for part in PARTS),
        )


def load_corpus(source: TextSource, root: str | Path) -> Corpus:
    """Read the three texts.

    Args:
        source: "small" needs no files; "folder" reads them.
        root: a folder with one file per part, see `NAMES`; words are separated by spaces.

    Raises:
        InputError: a text is missing, empty or not UTF-8.
    """
    if source == "small":
        return Corpus.of(small_text())
    return Corpus.of({part: _read(Path(root), part) for part in PARTS})


def _read(root: Path, part: str) -> list[list[str]]:
    names = [name.format(part) for name in NAMES]
    try:
        path = next((root / name for name in names if (root / name).is_file()), None)
        if path is None:
            raise InputError(
                f"--data-root {root}: no {part} text there (one of {', '.join(names)}); "
                "--preset text needs no files"
            )
        with path.open(encoding="utf-8-sig") as file:  # skips a byte-order mark
            lines = [line.split() for line in file]  # str.splitlines splits at more characters
    except UnicodeDecodeError:
        raise InputError(f"--data-root: {path} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(
            f"--data-root {root}: the {part} text cannot be read ({error.strerror})"
        ) from None
    if not any(lines):
        raise InputError(f"--data-root: {path} is empty; it must hold words split by spaces")
    return lines


# ------------------------------------------------------------------------------- columns, chunks


@dataclass(frozen=True)
class Chunk:
    """Consecutive words of each column.

    Attributes:
        words: [T, B].
        targets: the word after each, [T, B].
        first: whether it starts the columns; otherwise the hidden state is carried over.
    """

    words: Tensor
    targets: Tensor
    first: bool


class Columns:
    """A text as parallel columns of equal length, read chunk by chunk.

    The remainder of the text, fewer words than columns, is dropped.

    Args:
        text: [N], on its device.
        columns: B, over all processes.
        named: which text, for the error message.
        rank: this process; it gets an equal share of the columns.
        processes: how many; must divide the columns.

    Raises:
        InputError: the text is too short for so many columns.
    """

    def __init__(self, text: Tensor, columns: int, named: str, rank: int = 0, processes: int = 1):
        length = len(text) // columns
        if length < 2:
            raise InputError(
                f"--batch-size {columns}: the {named} text has {len(text)} words, and each column "
                f"needs two or more; at most {len(text) // 2}"
            )
        rows = text[: length * columns].view(columns, length).t()  # [length, B]
        self.rows = rows.chunk(processes, 1)[rank].contiguous()

    def __len__(self) -> int:
        """Time steps: words per column that have a next word."""
        return len(self.rows) - 1

    def chunk(self, start: int, length: int) -> Chunk:
        """`length` words of each column from `start` on, or as many as are left."""
        end = min(start + length, len(self))
        return Chunk(self.rows[start:end], self.rows[start + 1 : end + 1], start == 0)


@functools.lru_cache(maxsize=2)
def chunk_starts(
    total: int, bptt: int, deviation: float, *key: str | int
) -> tuple[int, ...]:
    """The first time step of each chunk of an epoch, and then `total` (AWD-LSTM 5.1, DARTS' code).

    Chunk lengths vary around `bptt`, or with probability 0.05 around half of it, so that epochs
    are split at different places.

    Args:
        total: time steps.
        bptt: the usual length.
        deviation: standard deviation of the length; 0: exactly `bptt` or half of it.
        *key: seeds the random lengths, see `seed_of`.
    """
    generator = generator_of(*key)
    starts, shortest = [0], 5 if deviation else 1
    while starts[-1] < total:
        half, noise = torch.rand((), generator=generator), torch.randn((), generator=generator)
        around = bptt if half < 0.95 else bptt / 2
        length = min(max(int(around + deviation * noise), shortest), bptt + 20)
        starts.append(min(starts[-1] + length, total))
    return tuple(starts)
