"""A training loop over images, with loss and accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.batches import Stream
from common.errors import NotFinite
from common.training.loop import FIX, Loop


class ImageLoop(Loop):
    """A `Loop` over images.

    An epoch has all full batches of the training stream, whose `batch_size` may change.
    """

    quantities = ("loss", "top1")

    def next_items(self) -> int:
        size = self.train_batches.batch_size
        return size if self.seen + size <= len(self.train_batches.indices) else 0

    def in_words(self, split: str, metrics: dict[str, Any]) -> str:
        return f"{super().in_words(split, metrics)} top-1 {metrics[f'{split}_top1']:5.2f} %"

    def record(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a training step's loss and accuracy to the epoch's, on the device."""
        from timm.utils import accuracy

        loss = loss.detach()
        self.meters["loss"].update(loss, len(labels))
        self.meters["top1"].update(accuracy(logits.detach(), labels)[0], len(labels))
        self.watch(loss)

    @torch.no_grad()
    def evaluate(
        self, network: Callable[[Tensor], Tensor], batches: Stream
    ) -> tuple[float, float, float]:
        """Mean loss, top-1 and top-5 accuracy (percent) over all images.

        Args:
            network: images to logits; the caller sets its mode (train or eval).
            batches: of the images.
        """
        sums = torch.zeros(4, device=self.accelerator.device)
        for images, labels in batches.evaluate():
            logits = network(images)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            first = (logits.argmax(1) == labels).sum()
            five = logits.topk(min(5, logits.shape[1])).indices  # [B, 5]
            among_five = (five == labels[:, None]).sum()
            sums += torch.stack([loss, first, among_five, torch.full_like(loss, len(labels))])
        loss, top1, top5, count = self.accelerator.reduce(sums).tolist()
        return loss / count, 100 * top1 / count, 100 * top5 / count

    def held_out(
        self, network: Callable[[Tensor], Tensor], batches: Stream
    ) -> tuple[float, float, float]:
        """`evaluate`, and check the loss.

        Raises:
            NotFinite: the loss is not finite.
        """
        loss, top1, top5 = self.evaluate(network, batches)
        if not math.isfinite(loss):
            raise NotFinite(
                f"the loss on held-out images was not finite after epoch {self.epoch + 1}; {FIX}"
            )
        return loss, top1, top5
