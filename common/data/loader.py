"""Batches of images, wherever they are: small ones in memory, large ones in their files."""

from __future__ import annotations

import torch
from torch import Tensor

from common.data.batches import Augmentation, Batches, Stream
from common.data.images import ImageFiles, Images
from common.data.streamed import StreamedBatches


def batches(
    images: Images | ImageFiles,
    device: torch.device,
    indices: Tensor | None,
    batch_size: int,
    augmentation: Augmentation,
    **draws,
) -> Stream:
    """Made on the device, or read by worker processes; see `Stream` for the arguments."""
    kind = StreamedBatches if isinstance(images, ImageFiles) else Batches
    return kind(images, device, indices, batch_size, augmentation, **draws)
