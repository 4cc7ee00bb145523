"""Halves, shares of each class and held-out images."""

import pytest
import torch

from common.data.images import Images
from common.data.split import Split
from common.errors import InputError


def test_hundredths_of_a_hundred_images_are_whole_images():
    """0.29 of 100 images is 29, though as floating-point numbers it is a little less."""
    labels = torch.arange(2).repeat(100)
    images = Images(torch.zeros(200, 1, 1, 1), labels, ("cat", "dog"), (0.0,), (1.0,))
    for percent in range(1, 100):
        split = Split.per_class(images, (percent / 100, 1 - percent / 100), seed=0)
        assert labels[split.train].bincount().tolist() == [percent] * 2
        assert labels[split.valid].bincount().tolist() == [100 - percent] * 2


def test_a_share_is_held_out_seeded_and_disjoint():
    split = Split.holding_out(101, 0.1, seed=0)
    assert (len(split.train), len(split.valid)) == (91, 10)
    assert sorted([*split.train.tolist(), *split.valid.tolist()]) == list(range(101))
    assert split.valid.min() < 60  # from all over the images, not their end
    again, other = (Split.holding_out(101, 0.1, seed).to_json() for seed in (0, 1))
    assert again == split.to_json() != other


@pytest.mark.parametrize("count", [100, 101])
def test_a_half_held_out_is_a_searchs(count):
    """So what retrains on it trains on the images that trained the search's weights."""
    assert Split.holding_out(count, 0.5, 3).to_json() == Split.halves(count, 3).to_json()


def test_a_digest_tells_both_parts_of_a_split_apart():
    train, valid = torch.arange(3), torch.arange(3, 6)
    parts = [(train, valid), (train, valid.flip(0)), (train.flip(0), valid), (valid, train)]
    assert len({Split(*both).to_json()["sha256"] for both in parts}) == 4


@pytest.mark.parametrize(("shares", "flag"), [((0.1, 0.5), "train"), ((0.5, 0.1), "valid")])
def test_a_share_of_no_image_is_named(shares, flag):
    images = Images(torch.zeros(8, 1, 1, 1), torch.arange(8) % 2, ("cat", "dog"), (0.0,), (1.0,))
    with pytest.raises(InputError, match=f"--{flag}-share 0.1"):
        Split.per_class(images, shares, seed=0)


def test_halves_are_disjoint_seeded_and_equal():
    split = Split.halves(101, seed=0)
    assert len(split.train) == len(split.valid) == 50
    assert not set(split.train.tolist()) & set(split.valid.tolist())
    assert Split.halves(101, seed=0).to_json() == split.to_json()
    assert Split.halves(101, seed=1).to_json()["sha256"] != split.to_json()["sha256"]


def test_shares_of_each_class_are_disjoint_seeded_and_whole():
    labels = torch.tensor([0] * 40 + [1] * 79)[torch.randperm(119)]
    images = Images(torch.zeros(119, 1, 4, 4), labels, ("cat", "dog"), (0.0,), (1.0,))
    split = Split.per_class(images, (0.1, 0.025), seed=0)
    assert labels[split.train].bincount().tolist() == [4, 7]
    assert labels[split.valid].bincount().tolist() == [1, 1]
    assert len({*split.train.tolist(), *split.valid.tolist()}) == 13
    again, other = (Split.per_class(images, (0.1, 0.025), seed).to_json() for seed in (0, 1))
    assert again == split.to_json() and other["sha256"] != again["sha256"]
    everything = Split.per_class(images, (0.5, 0.5), seed=0)
    assert len({*everything.train.tolist(), *everything.valid.tolist()}) == 118
    with pytest.raises(InputError, match="--valid-share 0.02: of the 40 .* class cat .* not one"):
        Split.per_class(images, (0.1, 0.02), seed=0)
