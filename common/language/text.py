"""Text: where it comes from, its vocabulary, and how it is cut into columns and chunks.

A text is one long row of words. Training reads it in `batch_size` columns side by side, a chunk of
each at a time, and carries every column's hidden state from chunk to chunk.
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
    """Three texts in numbers.

    Attributes:
        words: the vocabulary, in the order in which the training text brings it.
        train: int64 [N], indices into `words`.
        valid: the same.
        test: the same.
    """

    words: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor

    def digests(self) -> dict[str, Any]:
        """What tells this corpus from another."""
        words = hashlib.sha256(json.dumps(self.words).encode()).hexdigest()
        return {
            "words": len(self.words), "vocabulary_sha256": words,
            **{
                f"{part}_sha256": hashlib.sha256(getattr(self, part).numpy()).hexdigest()
                for part in PARTS
            },
        }

    @classmethod
    def of(cls, lines: dict[str, list[list[str]]]) -> Corpus:
        """From the lines of each part; every line, an empty one too, ends in one `<eos>`.

        The vocabulary is the training text's alone; what else the others hold is `<unk>`.
        Deviation: the authors' code takes the words of all three; on PTB and WikiText-2, which have
        `<unk>` in place, the two are the same.
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
        parts = {
            part: torch.tensor([number.get(word, number.get(UNKNOWN)) for word in row])
            for part, row in rows.items()
        }
        return cls(tuple(words), **parts)


def load_corpus(source: TextSource, root: str | Path) -> Corpus:
    """The three texts of a source.

    Args:
        source: "small", which needs no file, or "folder".
        root: a folder with a text for each of `PARTS`, in a file of one of the `NAMES`: a line a
            paragraph or sentence, words split by spaces.

    Raises:
        InputError: a text is missing, empty or not a text.
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
        with path.open(encoding="utf-8-sig") as file:  # a byte-order mark is no part of a word
            lines = [line.split() for line in file]  # str.splitlines knows more ends of lines
    except UnicodeDecodeError:
        raise InputError(f"--data-root: {path} is not UTF-8 text") from None
    except OSError as error:
        said = f"the {part} text cannot be read ({error.strerror})"
        raise InputError(f"--data-root {root}: {said}") from None
    if not any(lines):
        raise InputError(f"--data-root: {path} is empty; it must hold words split by spaces")
    return lines


# ------------------------------------------------------------------------------- columns, chunks


@dataclass(frozen=True)
class Chunk:
    """A piece of each column.

    Attributes:
        words: [T, B].
        targets: the word after each, [T, B].
        first: whether the columns begin here; if not, the hidden state goes on from the last chunk.
    """

    words: Tensor
    targets: Tensor
    first: bool


class Columns:
    """A text in columns of equal length, read chunk by chunk.

    What is left over at the text's end (less than a word a column) is not trained on.

    Args:
        text: [N], on its device.
        columns: B, over all processes together.
        named: the text, for an error message.
        rank: of this process, which has its equal share of the columns.
        processes: how many; divides the columns.

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
        share = columns // processes
        rows = text[: length * columns].view(columns, length).t()  # [length, B]
        self.rows = rows[:, rank * share : (rank + 1) * share].contiguous()
        self.columns = columns

    def __len__(self) -> int:
        """Time steps: words of a column that have a successor to predict."""
        return len(self.rows) - 1

    def chunk(self, start: int, length: int) -> Chunk:
        """`length` words of each column from `start` on, or as many as are left."""
        end = min(start + length, len(self))
        return Chunk(self.rows[start:end], self.rows[start + 1 : end + 1], start == 0)


@functools.lru_cache(maxsize=2)
def chunk_starts(
    total: int, bptt: int, deviation: float, *key: str | int
) -> tuple[int, ...]:
    """Where the chunks of one pass begin, and at last `total` (AWD-LSTM 5.1, DARTS' code).

    A chunk is around `bptt` long, or with probability 0.05 around half of it; so that epochs are
    not cut at the same places.

    Args:
        total: time steps.
        bptt: the usual length.
        deviation: standard deviation of a length; 0: exactly `bptt` or half of it.
        *key: of the draws, see `seed_of`.
    """
    generator = generator_of(*key)
    starts, shortest = [0], 5 if deviation else 1
    while starts[-1] < total:
        half, noise = torch.rand((), generator=generator), torch.randn((), generator=generator)
        around = bptt if half < 0.95 else bptt / 2
        length = min(max(int(around + deviation * noise), shortest), bptt + 20)
        starts.append(min(starts[-1] + length, total))
    return tuple(starts)
