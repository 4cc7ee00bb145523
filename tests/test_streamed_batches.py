"""Batches of large images: equal for any number of workers and any first step."""

import gc

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as T

from builders import make_imagenet_folder
from common.data import datasets, loader
from common.data.batches import Augmentation, shuffled
from common.data.streamed import training_transform
from common.errors import InputError, UnreadableFile

ALL = Augmentation(flip=True, color_jitter=0.4, cutout=20)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_imagenet_folder(tmp_path_factory.mktemp("images"))


def batches(root, size=4, augmentation=ALL, workers=0, indices=None, **draws):
    images = datasets.load_train("imagenet", root, 32, workers)
    draws = {"seed": 3, "stream": "train", **draws}
    return loader.batches(images, torch.device("cpu"), indices, size, augmentation, **draws)


def equal(batch, other):
    return all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def test_a_batch_depends_on_the_step_alone(root):
    served = batches(root)
    assert len(served) == 3
    whole = [served.train(step) for step in range(8)]
    assert not torch.equal(whole[0][0], whole[3][0]) and whole[0][0].shape == (4, 3, 32, 32)
    again = batches(root, workers=2)
    for step in (2, 3, 4, 7):  # the next epoch; a jump
        assert equal(again.train(step), whole[step])
    assert equal(batches(root).train(5), whole[5])


def test_each_epoch_has_every_image_once_in_a_new_order(root):
    served = batches(root, size=3, augmentation=Augmentation())
    passes = [[served.train(4 * turn + k) for k in range(4)] for turn in range(2)]
    labels = [torch.cat([y for _, y in part]) for part in passes]
    assert all(of.bincount().tolist() == [6, 6] for of in labels)
    # The mean colour tells images apart, whatever the crop.
    seen = [torch.cat([x.mean((2, 3)) for x, _ in part]) for part in passes]
    nearest = [torch.cdist(of, seen[0]).argmin(1) for of in seen]
    assert sorted(nearest[1].tolist()) == list(range(12)) != nearest[1].tolist()


def test_processes_share_a_batch(root):
    one = batches(root)
    two = [batches(root, rank=rank, processes=2) for rank in range(2)]
    for step in (0, 1, 2, 3):
        x, labels = one.train(step)
        parts = [served.train(step) for served in two]
        assert torch.equal(torch.stack([p[0] for p in parts], 1).flatten(0, 1), x)
        assert torch.equal(torch.stack([p[1] for p in parts], 1).flatten(), labels)
    seen = [y for served in two for _, y in served.evaluate()]
    assert torch.cat(seen).bincount().tolist() == [6, 6]


def test_seed_and_stream_change_the_batches(root):
    images = [batches(root, **how).train(0)[0] for how in ({}, {"seed": 4}, {"stream": "valid"})]
    assert not torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_reading_does_not_use_torchs_generator(root):
    """Drop-path must not depend on where a run was resumed."""
    for workers in (0, 1):
        torch.manual_seed(0)
        expected = torch.rand(3)
        served = batches(root, workers=workers)
        torch.manual_seed(0)
        served.train(0)
        assert torch.equal(torch.rand(3), expected)


def test_the_batch_size_may_change(root):
    """As in PR-DARTS, and as for images in memory."""
    served = batches(root, augmentation=Augmentation())
    order = shuffled((3, "train"), 0, 12)
    served.cut(0, 0, 0)
    served.batch_size = 2
    _, labels = served.cut(0, 4, 1)
    assert labels.tolist() == served.images.labels[order[4:6]].tolist()


def test_training_crops_flips_and_cuts(root):
    plain, cut = Augmentation(), Augmentation(cutout=20)
    x, z = (batches(root, augmentation=how).train(1)[0] for how in (plain, cut))
    hole = (z != x).any(1)
    assert ((z == x).all(1) | (z == 0).all(1)).all() and hole.sum() > 4 * 10 * 10
    (step,) = training_transform(32, plain).transforms
    assert (tuple(step.size), step.scale, step.ratio) == ((32, 32), (0.08, 1.0), (3 / 4, 4 / 3))
    names = [type(step).__name__ for step in training_transform(32, ALL).transforms]
    assert names == ["RandomResizedCrop", "RandomHorizontalFlip", "ColorJitter"]
    jitter = training_transform(32, ALL).transforms[-1]
    assert jitter.brightness == jitter.contrast == jitter.saturation == (0.6, 1.4)
    assert jitter.hue == (-0.2, 0.2)


def test_evaluation_is_the_scaled_centre_normalised(root):
    served = batches(root, size=5, indices=torch.tensor([1, 8, 3]))
    (x, labels), = served.evaluate()
    assert labels.tolist() == [0, 1, 0]
    mean, std = (torch.tensor(v)[:, None, None] for v in datasets.STATISTICS["imagenet"])
    for image, name in zip(x, ("n01/1", "n02/2", "n01/3"), strict=True):
        whole = Image.open(root / "train" / f"{name}.JPEG")
        centre = T.center_crop(T.resize(whole, 37), [32, 32])  # 32 * 256 / 224 = 36.6
        expected = (T.pil_to_tensor(centre).float() / 255 - mean) / std
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(tmp_path, workers):
    make_imagenet_folder(tmp_path)
    whole = (tmp_path / "train/n02/3.JPEG").read_bytes()
    (tmp_path / "train/n02/3.JPEG").write_bytes(whole[: len(whole) // 2])
    served = batches(tmp_path, size=12, workers=workers)
    with pytest.raises(UnreadableFile, match=r"^--data-root: \S*n02/3.JPEG is no readable image"):
        served.train(0)
    with pytest.raises(InputError, match="n02/3.JPEG"):
        list(served.evaluate())
    gc.collect()  # the error holds the reader
