"""A derived network as the backbone of a detector (PC-DARTS 4.5): torchvision's SSD on its maps.

The paper names the detector (SSD, Liu et al. 2016), the images' size (320 pixels) and the backbone
(the ImageNet network), and nothing of how they are joined. Here, as SSD300 has it: six maps of
strides 8 to 320, of 40, 20, 10, 5, 3 and 1 pixels; the first three are the network's at the ends of
its stages, the others SSD's extra layers; SSD300's box scales and aspect ratios, head and loss.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from common.networks.complexity import CallCounter
from common.networks.network import Network

STRIDE = 32  # of a network with ImageNet's stem


class FeatureMaps(nn.Module):
    """The maps that SSD looks at: a network's of strides 8, 16 and 32, then smaller ones to 1x1.

    Its stem and cells bear the names that they have in the network. A map is what the next cell
    would see of it, whose operations begin with a ReLU.

    Args:
        network: with ImageNet's stem; its classifier is left out.
        image_size: a multiple of `STRIDE`.
    """

    def __init__(self, network: Network, image_size: int):
        super().__init__()
        self.stem, self.cells = network.stem, network.cells
        count = len(self.cells)
        self.ends = (count // 3 - 1, 2 * count // 3 - 1, count - 1)  # of the stages
        self.extra = extra_layers(network.classifier.in_features, image_size // STRIDE)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """[B, 3, S, S] -> maps [B, .., S/8, S/8], ..., [B, 256, 1, 1]."""
        maps = []
        s0, s1 = self.stem(images)
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1)
            if index in self.ends:
                maps.append(F.relu(s1))
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return OrderedDict((str(k), one) for k, one in enumerate(maps))


def extra_layers(channels: int, size: int) -> nn.ModuleList:
    """SSD's from conv9_2 on, whose maps are as small: each halves its map, until that is 1x1.

    The last one takes what is left, 2 or 3 pixels, at once. No normalisation, as in SSD.
    """
    layers = nn.ModuleList()
    while size > 1:
        halve = nn.Conv2d(128, 256, 3, 2, padding=1) if size > 3 else nn.Conv2d(128, 256, size)
        layers.append(nn.Sequential(nn.Conv2d(channels, 128, 1), nn.ReLU(), halve, nn.ReLU()))
        channels, size = 256, (size + 1) // 2 if size > 3 else 1
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return layers


def detector(network: Network, classes: int, image_size: int) -> SSD:
    """SSD with the network as its backbone; its images, 0 to 1, are normalised as ImageNet's.

    Box scales are SSD300's for COCO (Liu et al. 3.4): 0.07 of the image on the first map, then
    from 0.15 in equal steps; aspect ratios 1:3 and 3:1 on all but the first and the last two maps.

    Args:
        network: with ImageNet's stem.
        classes: of objects; SSD adds the background.
        image_size: a multiple of `STRIDE`, twice it or more.
    """
    maps = FeatureMaps(network, image_size)
    count = len(maps.ends) + len(maps.extra)
    default_boxes = DefaultBoxGenerator(
        [[2], *[[2, 3]] * (count - 3), [2], [2]],
        scales=[0.07, *np.linspace(0.15, 1.05, count).tolist()],  # the last one's next, too
    )
    return SSD(maps, default_boxes, (image_size, image_size), classes + 1)


def detector_multiply_adds(ssd: SSD) -> int:
    """Of a whole detector for one image: convolutions, from the stem to the heads."""
    size, like = ssd.transform.fixed_size, next(ssd.parameters())
    was_training = ssd.training
    with torch.no_grad(), CallCounter() as counter:
        ssd.head(list(ssd.eval().backbone(like.new_zeros(1, 3, *size)).values()))
    ssd.train(was_training)
    return counter.counts["product"]
