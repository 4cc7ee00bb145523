"""How many images a share of each class is."""

import torch

from common.data.images import Images
from common.data.split import Split


def test_hundredths_of_a_hundred_images_are_whole_images():
    """0.29 of 100 images is 29, though as floating-point numbers it is a little less."""
    labels = torch.arange(2).repeat(100)
    images = Images(torch.zeros(200, 1, 1, 1), labels, ("cat", "dog"), (0.0,), (1.0,))
    for percent in range(1, 100):
        split = Split.per_class(images, (percent / 100, 1 - percent / 100), seed=0)
        assert labels[split.train].bincount().tolist() == [percent] * 2
        assert labels[split.valid].bincount().tolist() == [100 - percent] * 2
