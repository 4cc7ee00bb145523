"""A derived network as the backbone of a detector (PC-DARTS 4.5): torchvision's SSD on its maps.

The paper names the detector (SSD, Liu et al. 2016), the image size (320 pixels) and the backbone
(the ImageNet network), but not how they are joined. Here, as in SSD300: six maps of 40, 20, 10, 5,
3 and 1 pixels; the first three are the outputs of the network's stages, the others are SSD's extra
layers. Box scales, aspect ratios, head and loss are SSD300's.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from common.networks.network import Network
from detection.config import STRIDE


class FeatureMaps(nn.Module):
    """SSD's input maps: the network's of strides 8, 16 and 32, then smaller ones down to 1x1.

    Stem and cells keep their parameter names. Each map passes the ReLU with which the operations
    of the next cell begin.

    Args:
        network: with ImageNet's stem; its classifier is not used.
        image_size: a multiple of `STRIDE`.
    """

    def __init__(self, network: Network, image_size: int):
        super().__init__()
        self.stem, self.cells, self.handed_on = network.stem, network.cells, network.handed_on
        count = len(self.cells)
        self.ends = (count // 3 - 1, 2 * count // 3 - 1, count - 1)  # each stage's last cell
        self.extra = extra_layers(network.classifier.in_features, image_size // STRIDE)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """[B, 3, S, S] -> maps [B, .., S/8, S/8], ..., [B, 256, 1, 1]."""
        maps = []
        states = [self.handed_on(s) for s in self.stem(images)]
        for index, cell in enumerate(self.cells):
            states = [*states[1:], self.handed_on(cell(*states))]
            if index in self.ends:
                maps.append(states[-1])
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return OrderedDict((str(k), one) for k, one in enumerate(maps))


def extra_layers(channels: int, size: int) -> nn.ModuleList:
    """SSD's layers from conv9_2 on: each halves its map, the last reduces 2 or 3 pixels to 1x1.

    No normalisation, as in SSD.

    Args:
        channels: of the network's last map.
        size: pixels a side of that map.
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
    """SSD with the network as its backbone; it takes images in 0 to 1 and normalises them.

    Box scales are SSD300's for COCO (Liu et al. 3.4): 0.07 of the image on the first map, then
    from 0.15 in equal steps; aspect ratios 1:3 and 3:1 on all but the first and the last two maps.

    Args:
        network: with ImageNet's stem.
        classes: of objects, without the background.
        image_size: a multiple of `STRIDE`, twice it or more.
    """
    maps = FeatureMaps(network, image_size)
    count = len(maps.ends) + len(maps.extra)
    default_boxes = DefaultBoxGenerator(
        [[2], *[[2, 3]] * (count - 3), [2], [2]],
        scales=[0.07, *np.linspace(0.15, 1.05, count).tolist()],  # the last one's next, too
    )
    return SSD(maps, default_boxes, (image_size, image_size), classes + 1)
