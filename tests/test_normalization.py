"""Means and standard deviations that normalise images, published and measured."""

import pytest
import torch
from PIL import Image

from common.data import datasets
from common.data.normalization import STATISTICS, measure


def test_sample_of_large_images_covers_all_classes(tmp_path):
    colours = {"black": 0, "white": 255}
    for name, level in colours.items():
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / "0.png")
        for k in range(1, datasets.MEASURED):  # as many as the sample has
            (folder / f"{k}.png").symlink_to("0.png")
    images = datasets.load_train("folder", tmp_path, image_size=128)
    assert images.mean == pytest.approx([0.5] * 3, abs=0.1)
    assert images.std == pytest.approx([0.5] * 3, abs=0.1)


def test_imagenet_has_torchvisions_statistics():
    assert STATISTICS["imagenet"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_constant_channels_have_a_positive_deviation():
    pixels = torch.arange(256, dtype=torch.uint8).expand(2, 256)[:, :, None, None]  # a channel each
    mean, std = measure(pixels)
    assert mean == pytest.approx([level / 255 for level in range(256)])
    assert all(0 < one < 0.01 for one in std)


def test_all_of_many_images_are_measured():
    pixels = torch.zeros(10_000, 1, 1, 1, dtype=torch.uint8)
    pixels[-2500:] = 255
    assert measure(pixels) == ((pytest.approx(0.25),), (pytest.approx(0.1875**0.5),))
