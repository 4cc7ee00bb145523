"""Halves, shares of each class, and held-out images."""

import pytest
import torch

from common.data.images import Images
from common.data.split import Split
from common.errors import InputError


def images_of(labels):
    pixels = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    return Images(pixels, labels, ("cat", "dog"), (0.0,), (1.0,))


UNEVEN = torch.arange(119) % 3 // 2  # 80 and 39 images
SPLITS = {  # how to split with a seed, and the sizes of both parts
    "even halves": (lambda seed: Split.halves(100, seed), (50, 50)),
    "odd halves": (lambda seed: Split.halves(101, seed), (50, 50)),
    "held out": (lambda seed: Split.holding_out(101, 0.1, seed), (91, 10)),
    "shares": (lambda seed: Split.per_class(images_of(UNEVEN), (0.1, 0.03), seed), (11, 3)),
    "all shares": (lambda seed: Split.per_class(images_of(UNEVEN), (0.5, 0.5), seed), (59, 59)),
}


@pytest.mark.parametrize(("make", "sizes"), SPLITS.values(), ids=SPLITS)
def test_parts_are_disjoint_and_a_random_choice_by_seed(make, sizes):
    split = make(0)
    assert (len(split.train), len(split.valid)) == sizes
    assert len({*split.train.tolist(), *split.valid.tolist()}) == sum(sizes)
    assert split.valid.min() < 60  # not the end of the file
    assert make(0).to_json() == split.to_json() != make(1).to_json()


def test_shared_images_are_in_both_parts():
    split = Split.shared(5)
    assert split.train.tolist() == split.valid.tolist() == [0, 1, 2, 3, 4]
    assert split.images == 5 and Split.halves(5, 0).images == 4


@pytest.mark.parametrize("count", [100, 101])
def test_a_held_out_half_is_the_half_of_a_search(count):
    """So a retraining can train on the images that trained the search's weights."""
    assert Split.holding_out(count, 0.5, 3).to_json() == Split.halves(count, 3).to_json()


def test_shares_of_each_class_are_rounded_down_to_whole_images():
    """0.29 of 100 is 29, although the floating-point product is a little less."""
    labels = torch.arange(2).repeat(100)
    for percent in range(1, 100):
        shares = (percent / 100, 1 - percent / 100)
        split = Split.per_class(images_of(labels), shares, seed=0)
        assert labels[split.train].bincount().tolist() == [percent] * 2
        assert labels[split.valid].bincount().tolist() == [100 - percent] * 2
    split = Split.per_class(images_of(UNEVEN), (0.1, 0.03), seed=0)
    assert UNEVEN[split.train].bincount().tolist() == [8, 3]


@pytest.mark.parametrize(("shares", "flag"), [((0.1, 0.5), "train"), ((0.5, 0.1), "valid")])
def test_share_without_an_image_is_refused(shares, flag):
    with pytest.raises(InputError, match=f"--{flag}-share 0.1: .* class cat"):
        Split.per_class(images_of(torch.arange(8) % 2), shares, seed=0)


def test_digest_depends_on_both_parts_and_their_order():
    train, valid = torch.arange(3), torch.arange(3, 6)
    parts = [(train, valid), (train, valid.flip(0)), (train.flip(0), valid), (valid, train)]
    assert len({Split(*both).to_json()["sha256"] for both in parts}) == 4
