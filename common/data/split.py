"""Two parts of the images: one trains the weights, the other the architecture (or validates)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.data.images import ImageFiles, Images
from common.distributed import generator_of
from common.errors import InputError


@dataclass(frozen=True)
class Split:
    """Two parts of a data set, disjoint unless they are shared.

    Attributes:
        train: int64 indices; they train the weights.
        valid: int64 indices; they train the architecture of a search, or validate.
    """

    train: Tensor
    valid: Tensor

    @classmethod
    def halves(cls, count: int, seed: int) -> Split:
        """Two random halves; an odd image is left out.

        Deviation: DARTS' and PC-DARTS' code takes the first and the second half of the file.
        """
        order = torch.randperm(count, generator=generator_of(seed, "split"))
        return cls(order[: count // 2].clone(), order[count // 2 : 2 * (count // 2)].clone())

    @classmethod
    def shared(cls, count: int) -> Split:
        """All images in both parts, as one-level searches train weights and architecture."""
        return cls(torch.arange(count), torch.arange(count))

    @property
    def images(self) -> int:
        """The number of different images in the parts."""
        return len(torch.cat((self.train, self.valid)).unique())

    @classmethod
    def per_class(
        cls, images: Images | ImageFiles, shares: tuple[float, float], seed: int
    ) -> Split:
        """Two disjoint random shares of each class, rounded down to whole images.

        Raises:
            InputError: a share of a class has no image.
        """
        generator, parts = generator_of(seed, "split"), ([], [])
        for label, name in enumerate(images.classes):
            members = (images.labels == label).nonzero().flatten()
            order = members[torch.randperm(len(members), generator=generator)]
            counts = [int(share * len(members) + 1e-9) for share in shares]  # 0.29 of 100 is 29
            for flag, share, count in zip(("train", "valid"), shares, counts, strict=True):
                if count == 0:
                    raise InputError(
                        f"--{flag}-share {share}: gives no image of class {name}, which has "
                        f"{len(members)} training images; take a larger share or more images"
                    )
            parts[0].append(order[: counts[0]])
            parts[1].append(order[counts[0] : sum(counts)])
        return cls(torch.cat(parts[0]), torch.cat(parts[1]))

    @classmethod
    def holding_out(cls, count: int, share: float, seed: int) -> Split:
        """Hold out a random share for validation; 0.5 gives the halves of a search."""
        if share == 0.5:
            return cls.halves(count, seed)
        order = torch.randperm(count, generator=generator_of(seed, "split"))
        kept = count - round(share * count)
        return cls(order[:kept].clone(), order[kept:].clone())

    def to_json(self) -> dict[str, Any]:
        """Indices of both parts, and their SHA-256."""
        halves = {"train": self.train.tolist(), "valid": self.valid.tolist()}
        digest = hashlib.sha256(json.dumps(halves, separators=(",", ":")).encode())
        return {"sha256": digest.hexdigest(), **halves}
