"""COCO's layout: reading it, refusing what is damaged, batches that follow from seed and step."""

import json
import os

import pytest
import torch
from torchvision.transforms import v2

from common.errors import InputError
from detection.coco import read_image, read_split
from detection.coco_batches import TrainBatches, plain_batches
from shapes import make


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    make(folder, train=12, valid=6)
    return folder


@pytest.fixture
def written(tmp_path):
    """A split of two images in a folder of its own, after a change of its annotations."""

    def write(change=lambda content: None):
        make(tmp_path, train=2, valid=2)
        file = tmp_path / "annotations" / "instances_train2017.json"
        content = json.loads(file.read_text())
        content["annotations"] = [
            {"image_id": 1001, "category_id": 90, "bbox": [1, 2, 30, 40]},
            {"image_id": 1000, "category_id": 3, "bbox": [5.5, 6, 20, 10], "area": 7, "iscrowd": 1},
            {"image_id": 1000, "category_id": 7, "bbox": [0, 0, 0, 9]},
            {"image_id": 1000, "category_id": 7, "bbox": [-9, 10, 30, 20]},
        ]
        change(content)
        file.write_text(json.dumps(content))
        return read_split(tmp_path, "train2017")

    return write


def test_boxes_go_to_their_images_and_categories_to_labels_without_gaps(written):
    split = written()
    assert split.categories == {3: "rectangle", 7: "ellipse", 90: "triangle"}
    first, second = split.boxes_of(0), split.boxes_of(1)
    assert first.corners.tolist() == [[5.5, 6, 25.5, 16], [-9, 10, 21, 30]]  # one has no extent
    assert first.labels.tolist() == [1, 2] and first.crowd.tolist() == [True, False]
    assert first.areas.tolist() == [7, 600]
    assert second.corners.tolist() == [[1, 2, 31, 42]] and second.labels.tolist() == [3]
    assert split.trainable().tolist() == [0, 1]


def test_images_with_crowds_only_or_nothing_are_not_trained_on(written):
    assert written(lambda c: c["annotations"].pop()).trainable().tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"].clear(), "has no box"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 0 needs a bbox"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "annotation 1 needs a bbox"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3, 1e999]), "annotation 1 has a box"),
        (lambda c: c["annotations"][1].update(image_id=5), "image 5, which is not listed"),
        (lambda c: c["annotations"][1].update(category_id=1), "category 1, which is not listed"),
        (lambda c: c["images"][1].update(file_name="no.png"), "names the image .*no.png, which"),
        (lambda c: c["images"][1].update(id=1000), "two images one id"),
        (lambda c: c.pop("categories"), "damaged .*categories"),
    ],
)
def test_damaged_annotations_are_refused_by_file_and_entry(written, change, message):
    with pytest.raises(InputError, match=f"instances_train2017.json.*{message}"):
        written(change)


def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "annotations").mkdir()
    os.mkfifo(tmp_path / "annotations" / "instances_val2017.json")
    with pytest.raises(InputError, match="instances_val2017.json cannot be read .it is no file"):
        read_split(tmp_path, "val2017")


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(InputError, match="instances_val2017.json is missing; .*--valid-split"):
        read_split(tmp_path, "val2017")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text('{"images": [')
    with pytest.raises(InputError, match="is damaged"):
        read_split(tmp_path, "val2017")
    (tmp_path / "photo.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="photo.jpg is no readable image"):
        read_image(tmp_path / "photo.jpg")


def batches(folder, **how):
    how = {"batch_size": 4, "flip": True, "seed": 0, **how}
    return TrainBatches(read_split(folder, "train2017"), 64, **how)


def test_crowds_are_not_trained_on(written):
    for _, targets in TrainBatches(written(), 64, 2, flip=True, seed=0).from_step(0, 6):
        assert {label for one in targets for label in one["labels"].tolist()} <= {2, 3}


def equal(one, other):
    return torch.equal(one[0], other[0]) and all(
        torch.equal(a[key], b[key])
        for a, b in zip(one[1], other[1], strict=True) for key in ("boxes", "labels")
    )  # fmt: skip


def test_a_batch_follows_from_seed_and_step_alone(folder):
    whole = list(batches(folder).from_step(0, 7))
    assert len(whole) == 7 and whole[0][0].shape == (4, 3, 64, 64)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert equal(whole[5], next(batches(folder).from_step(5, 7)))
    assert torch.equal(state, torch.get_rng_state())
    assert equal(whole[1], list(batches(folder, workers=1).from_step(0, 2))[1])
    assert not equal(whole[1], list(batches(folder, seed=1).from_step(0, 2))[1])
    assert not equal(whole[0], whole[3])  # the next pass: another order, other augmentations


def test_processes_share_each_batch_and_each_pass_serves_every_image_once(folder):
    plans = [list(batches(folder, rank=r, processes=2)._plan(0, 6)) for r in range(2)]
    whole = list(batches(folder)._plan(0, 6))
    for batch, *shares in zip(whole, *plans, strict=True):
        assert [len(share) for share in shares] == [2, 2]
        assert sorted(shares[0] + shares[1]) == sorted(batch)
    assert len({seed for batch in whole for _, seed in batch}) == 24  # each draws for itself
    for turn in (whole[:3], whole[3:]):
        assert sorted(image for batch in turn for image, _ in batch) == list(range(12))


def test_boxes_follow_their_shapes_through_the_augmentation(folder):
    """Inside a box it is brighter than the noise, wherever crops and mirrors took it."""
    for images, targets in batches(folder, batch_size=12).from_step(0, 3):
        assert images.dtype == torch.uint8
        for image, target in zip(images, targets, strict=True):
            assert len(target["boxes"]) == len(target["labels"])
            for left, top, right, bottom in target["boxes"].tolist():
                assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
                if min(right - left, bottom - top) > 8:
                    x, y = int(left + right) // 2, int(top + 0.8 * (bottom - top))
                    centre = image[:, y - 1 : y + 2, x - 1 : x + 2].float().mean()
                    assert centre > image.float().quantile(0.5)


def test_flip_is_a_flag(folder):
    for flip, chance in ((True, 0.5), (False, 0.0)):
        chances = [t.p for t in batches(folder, flip=flip).images.augment.transforms
                   if isinstance(t, v2.RandomHorizontalFlip)]  # fmt: skip
        assert chances == [chance]


def test_plain_batches_keep_the_file_sizes(folder):
    split = read_split(folder, "val2017")
    served = list(plain_batches(split, range(1, 6, 2), 64, 2))
    assert [len(images) for images, _ in served] == [2, 1]
    files = [one for _, files in served for one in files]
    assert [int(one["number"]) for one in files] == [1, 3, 5]
    for one in files:
        assert one["size"].tolist() == list(read_image(split.files[one["number"]]).shape[1:])


@pytest.mark.parametrize(("flags", "message"), [
    ({"batch_size": 13}, "--batch-size 13: only 12"), ({"limit": 13}, "--limit-images 13: 12"),
])  # fmt: skip
def test_too_few_images(folder, flags, message):
    with pytest.raises(InputError, match=message):
        batches(folder, **flags)


def test_a_limit_is_a_seeded_choice(folder):
    chosen = [batches(folder, limit=5, seed=seed).indices.tolist() for seed in (0, 0, 1)]
    assert len(set(chosen[0])) == 5 and chosen[0] == chosen[1] != chosen[2]
