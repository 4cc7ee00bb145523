"""How a search splits its images: one part trains the weights, the other the architecture."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from common.data.images import ImageFiles, Images
from common.distributed import generator_of
from common.errors import InputError


@dataclass(frozen=True)
class Split:
    """The two parts of a search's images: one trains the weights, the other the architecture.

    Attributes:
        train: int64 indices.
        valid: int64 indices, none of them in `train`.
    """

    train: Tensor
    valid: Tensor

    @classmethod
    def halves(cls, count: int, seed: int) -> Split:
        """A seeded random half against the rest (an odd image is left out).

        Deviation: DARTS' and PC-DARTS' code takes the first half of the file and the last.
        """
        order = torch.randperm(count, generator=generator_of(seed, "split"))
        return cls(order[: count // 2].clone(), order[count // 2 : 2 * (count // 2)].clone())

    @classmethod
    def per_class(
        cls, images: Images | ImageFiles, shares: tuple[float, float], seed: int
    ) -> Split:
        """Of each class a seeded random share, and disjoint from it another, in whole images.

        Raises:
            InputError: a class has too few images for one of them.
        """
        generator, parts = generator_of(seed, "split"), ([], [])
        for label, name in enumerate(images.classes):
            members = (images.labels == label).nonzero().flatten()
            order = members[torch.randperm(len(members), generator=generator)]
            counts = [int(share * len(members) + 1e-9) for share in shares]  # 0.29 of 100 is 29
            for flag, share, count in zip(("train", "valid"), shares, counts, strict=True):
                if count == 0:
                    raise InputError(
                        f"--{flag}-share {share}: of the {len(members)} training images of class "
                        f"{name} that is not one; take a larger share or more images"
                    )
            parts[0].append(order[: counts[0]])
            parts[1].append(order[counts[0] : sum(counts)])
        return cls(torch.cat(parts[0]), torch.cat(parts[1]))

    @classmethod
    def holding_out(cls, count: int, share: float, seed: int) -> Split:
        """A seeded random share is held out for validation; of one half, a search's halves."""
        if share == 0.5:
            return cls.halves(count, seed)
        order = torch.randperm(count, generator=generator_of(seed, "split"))
        kept = count - round(share * count)
        return cls(order[:kept].clone(), order[kept:].clone())

    def to_json(self) -> dict:
        """Both lists and their SHA-256."""
        halves = {"train": self.train.tolist(), "valid": self.valid.tolist()}
        digest = hashlib.sha256(json.dumps(halves, separators=(",", ":")).encode())
        return {"sha256": digest.hexdigest(), **halves}
