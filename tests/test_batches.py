"""Batches on the device, compared with single images."""

import pytest
import torch
from torch.nn import functional as F

from common.data.batches import Augmentation, Batches
from common.data.images import Images


def images(count=40, channels=3, height=8, width=10):
    pixels = torch.randint(256, (count, channels, height, width), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count)  # an image's label says which it is
    mean, std = (0.4, 0.5, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels]
    return Images(pixels, labels, tuple(map(str, range(count))), mean, std)


def batches(data, size=8, augmentation=None, **how):
    how = {"seed": 3, "stream": "train", **how}
    indices = how.pop("indices", None)
    return Batches(data, "cpu", indices, size, augmentation or Augmentation(), **how)


def one_image(pixels, offset, flip, centre, data, augmentation):
    """Crop, flip, normalise and cut out one image."""
    _, height, width = pixels.shape
    x = F.pad(pixels, [augmentation.crop_padding] * 4)
    x = x[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    if augmentation.flip and flip:
        x = x.flip(-1)
    x = x.float() / 255
    x = (x - torch.tensor(data.mean)[:, None, None]) / torch.tensor(data.std)[:, None, None]
    if augmentation.cutout:
        half = augmentation.cutout // 2
        y1, y2 = max(0, centre[0] - half), min(height, centre[0] + half)
        x1, x2 = max(0, centre[1] - half), min(width, centre[1] + half)
        x[:, y1:y2, x1:x2] = 0
    return x


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(), Augmentation(2, True, 4), Augmentation(4, False, 0), Augmentation(0, True, 2)],
)
def test_batches_equal_single_images(augmentation, channels):
    data = images(channels=channels)
    served = batches(data, augmentation=augmentation)
    for step in range(7):
        x, labels = served.train(step)
        offsets, flips, centres = served.draws(step)
        for k, label in enumerate(labels.tolist()):
            expected = one_image(
                data.pixels[label], offsets[k].tolist(), bool(flips[k]), centres[k].tolist(),
                data, augmentation,
            )
            torch.testing.assert_close(x[k], expected, rtol=1e-5, atol=1e-5)


def test_random_numbers_cover_their_ranges():
    served = batches(images(), size=40, augmentation=Augmentation(2, True, 4))
    draws = [served.draws(step) for step in range(50)]
    offsets, flips, centres = (torch.cat(part) for part in zip(*draws, strict=True))
    assert sorted(set(offsets.flatten().tolist())) == [0, 1, 2, 3, 4]
    assert 0.45 < flips.float().mean() < 0.55
    assert sorted(set(centres[:, 0].tolist())) == list(range(8))
    assert sorted(set(centres[:, 1].tolist())) == list(range(10))


def test_each_epoch_has_every_image_once_in_a_new_order():
    served = batches(images(), size=8)
    assert len(served) == 5
    epochs = [[served.train(5 * epoch + k)[1] for k in range(5)] for epoch in range(2)]
    orders = [torch.cat(part).tolist() for part in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] != orders[1]


def test_each_epoch_drops_other_images():
    served = batches(images(), size=9)
    assert len(served) == 4
    labels = [served.train(k)[1].tolist() for k in range(40)]
    assert len(set(sum(labels[:4], []))) == 36
    assert set(sum(labels, [])) == set(range(40))


def test_a_batch_does_not_depend_on_those_before():
    how = {"augmentation": Augmentation(2, True, 4)}
    whole = [batches(images(), **how).train(k) for k in range(12)]
    served = batches(images(), **how)
    for k in (11, 2, 7):
        for got, expected in zip(served.train(k), whole[k], strict=True):
            assert torch.equal(got, expected)


def test_processes_share_a_batch():
    how = {"augmentation": Augmentation(2, True, 4)}
    one = batches(images(), **how)
    two = [batches(images(), rank=rank, processes=2, **how) for rank in range(2)]
    x, labels = one.train(9)
    parts = [served.train(9) for served in two]
    assert torch.equal(torch.stack([p[0] for p in parts], 1).flatten(0, 1), x)
    assert torch.equal(torch.stack([p[1] for p in parts], 1).flatten(), labels)
    seen = torch.cat([y for served in two for _, y in served.evaluate()])
    assert sorted(seen.tolist()) == list(range(40))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("count", [5, 16, 31, 40, 47])
def test_no_evaluated_batch_is_small(count, processes):
    """Batch statistics need about as many images as a training batch has."""
    sizes = [
        len(labels)
        for rank in range(processes)
        for _, labels in batches(images(count), 16, rank=rank, processes=processes).evaluate()
    ]
    assert sum(sizes) == count
    assert min(sizes) >= min(16, count) // processes - 1 and max(sizes) - min(sizes) <= 1
    assert len(sizes) == processes * max(1, count // 16)


def test_seed_and_stream_change_the_batches():
    labels = [batches(images(), **how).train(0)[1].tolist()
              for how in ({}, {"seed": 4}, {"stream": "valid"})]
    assert labels[0] != labels[1] and labels[0] != labels[2]


def test_evaluation_normalises_without_augmentation():
    data = images()
    served = batches(data, augmentation=Augmentation(2, True, 4))
    x = torch.cat([x for x, _ in served.evaluate()])
    plain = Augmentation()
    expected = torch.stack([one_image(p, (0, 0), False, (0, 0), data, plain) for p in data.pixels])
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)
