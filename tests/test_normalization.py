"""The statistics by which images are normalised: published ones, and those that are measured."""

import pickle

import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from common.data import datasets, loader
from common.data.batches import Augmentation
from common.data.normalization import STATISTICS, measure


def write_white_cifar(kind, root, monkeypatch):
    """CIFAR's files with ten white images each, and torchvision told not to check their sums."""
    names = [name for name, _ in kind.train_list + kind.test_list]
    folder = root / kind.base_folder
    folder.mkdir()
    content = {"data": torch.full((10, 3072), 255, dtype=torch.uint8).numpy(), "labels": [0] * 10}
    for name in names:
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: ["a", "b"]}))
    monkeypatch.setattr(kind, "train_list", [[name, None] for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[name, None] for name, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": None})


@pytest.mark.parametrize(
    ("dataset", "kind", "mean", "std"),
    [
        ("cifar10", CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100", CIFAR100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ],
)
def test_each_cifar_is_normalised_by_its_own_statistics(
    tmp_path, monkeypatch, dataset, kind, mean, std
):
    """Both splits by those of the training images, to the figures that are commonly published."""
    write_white_cifar(kind, tmp_path, monkeypatch)
    train = datasets.load_train(dataset, tmp_path)
    white = (1 - torch.tensor(mean)) / torch.tensor(std)
    for images in (train, datasets.load_test(dataset, tmp_path, train)):
        served = loader.batches(images, "cpu", None, 10, Augmentation(), seed=0, stream="test")
        for x, _ in served.evaluate():
            torch.testing.assert_close(x, white[:, None, None].expand_as(x), atol=0.01, rtol=0)


def test_large_images_are_measured_across_the_whole_folder(tmp_path):
    """No class goes unmeasured because its name is late, or early, in the alphabet."""
    colours = {"black": 0, "white": 255}
    for name, level in colours.items():
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / "0.png")
        for k in range(1, datasets.MEASURED):  # as many as stand for all
            (folder / f"{k}.png").symlink_to("0.png")
    images = datasets.load_train("folder", tmp_path, image_size=128)
    assert images.mean == pytest.approx([0.5] * 3, abs=0.1)
    assert images.std == pytest.approx([0.5] * 3, abs=0.1)


def test_imagenets_statistics_are_the_published_ones():
    """Of red, green and blue, as all networks of torchvision have them."""
    assert STATISTICS["imagenet"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_channel_of_one_level_can_be_normalised():
    pixels = torch.arange(256, dtype=torch.uint8).expand(2, 256)[:, :, None, None]  # a channel each
    mean, std = measure(pixels)
    assert mean == pytest.approx([level / 255 for level in range(256)])
    assert all(0 < one < 0.01 for one in std)


def test_many_images_are_measured_to_the_last():
    pixels = torch.zeros(10_000, 1, 1, 1, dtype=torch.uint8)
    pixels[-2500:] = 255
    assert measure(pixels) == ((pytest.approx(0.25),), (pytest.approx(0.1875**0.5),))
