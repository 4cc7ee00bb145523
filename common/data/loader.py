"""Batches of small images in memory or of large images in files."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.data.batches import Augmentation, Batches, Stream
from common.data.images import ImageFiles, Images


def batches(
    images: Images | ImageFiles,
    device: torch.device,
    indices: Tensor | None,
    batch_size: int,
    augmentation: Augmentation,
    **draws: Any,
) -> Stream:
    """The `Stream` for these images; see there for the arguments."""
    kind = Batches
    if isinstance(images, ImageFiles):
        from common.data.streamed import StreamedBatches as kind
    return kind(images, device, indices, batch_size, augmentation, **draws)
