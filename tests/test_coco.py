"""COCO's layout: reading and refusing it; batches that depend on seed and step alone."""

import json
import os

import pytest
import torch

from common.errors import InputError, UnreadableFile
from detection.batches import TrainBatches
from detection.coco import read_split
from detection.config import DetectConfig
from shapes import make_coco


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    make_coco(folder, train=12, valid=6)
    return folder


@pytest.fixture
def written(tmp_path):
    """A split of two images, after a change of its annotations."""

    def write(change=lambda content: None):
        make_coco(tmp_path, train=2, valid=2)
        file = tmp_path / "annotations" / "instances_train2017.json"
        content = json.loads(file.read_text())
        content["categories"].reverse()
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


def test_objects_belong_to_their_images_and_labels_have_no_gaps(written):
    split = written()
    assert split.classes == ["rectangle", "ellipse", "triangle"]  # by COCO's ids 3, 7, 90
    assert split.objects[0] == [  # without the one of no width
        {"image_id": 0, "category_id": 1, "bbox": [5.5, 6, 20, 10], "area": 7, "iscrowd": 1},
        {"image_id": 0, "category_id": 2, "bbox": [-9, 10, 30, 20], "area": 600, "iscrowd": 0},
    ]
    assert split.target(0)["boxes"].tolist() == [[-9, 10, 21, 30]]  # without the crowd
    assert split.target(1)["boxes"].tolist() == [[1, 2, 31, 42]]
    assert split.target(1)["labels"].tolist() == [3]
    assert split.trainable().tolist() == [0, 1]


def test_images_without_an_object_or_with_crowds_only_are_not_trained_on(written):
    assert written(lambda c: c["annotations"].pop()).trainable().tolist() == [1]
    assert written(lambda c: c["annotations"].pop(0)).trainable().tolist() == [0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["annotations"].clear(), "no box"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 0 .*bbox"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "annotation 1 .*bbox"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3, 1e999]), "annotation 1 .*finite"),
        (lambda c: c["annotations"][1].update(image_id=5), "annotation 1 .*5"),
        (lambda c: c["annotations"][1].update(category_id=1), "annotation 1 .*1"),
        (lambda c: c["annotations"].append("text"), "annotation 4 "),
        (lambda c: c["images"][1].update(file_name="no.png"), "no.png"),
        (lambda c: c["images"][1].update(id=1000), "two images"),
        (lambda c: c.pop("categories"), "categories"),
    ],
)
def test_damaged_annotations_are_named(written, change, named):
    with pytest.raises(InputError, match=f"instances_train2017.json.*{named}"):
        written(change)


@pytest.mark.parametrize("make_file", [
    lambda path: None, os.mkfifo, os.mkdir, lambda path: path.write_text('{"images": ['),
])  # fmt: skip
def test_a_file_that_is_missing_or_no_json_is_named(tmp_path, make_file):
    (tmp_path / "annotations").mkdir()
    make_file(tmp_path / "annotations" / "instances_val2017.json")
    with pytest.raises(InputError, match="instances_val2017.json is (missing|damaged)"):
        read_split(tmp_path, "val2017")


# ---------------------------------------------------------------------------------------- batches


def batches(folder, rank=0, processes=1, **flags):
    config = DetectConfig(**{"image_size": 64, "batch_size": 4, "seed": 0, "workers": 0, **flags})
    return TrainBatches(read_split(folder, "train2017"), config, rank, processes)


def equal(one, other):
    return torch.equal(one[0], other[0]) and all(
        torch.equal(a[key], b[key])
        for a, b in zip(one[1], other[1], strict=True) for key in a
    )  # fmt: skip


def numbers(batch):
    return [int(target["number"]) for target in batch[1]]


def test_a_batch_depends_on_seed_and_step_alone(folder):
    every = list(batches(folder).from_step(0, 7))
    assert len(every) == 7 and every[0][0].shape == (4, 3, 64, 64)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert equal(every[5], next(batches(folder).from_step(5, 7)))
    assert torch.equal(state, torch.get_rng_state())  # training draws from it
    assert equal(every[1], list(batches(folder, workers=1).from_step(0, 2))[1])
    assert not equal(every[1], list(batches(folder, seed=1).from_step(0, 2))[1])
    for epoch in (every[:3], every[3:6]):
        assert sorted(n for batch in epoch for n in numbers(batch)) == list(range(12))
    assert [numbers(batch) for batch in every[:3]] != [numbers(batch) for batch in every[3:6]]


def test_processes_share_each_batch(folder):
    shares = [list(batches(folder, rank=r, processes=2).from_step(0, 4)) for r in (0, 1)]
    for batch, *parts in zip(batches(folder).from_step(0, 4), *shares, strict=True):
        for rank, part in enumerate(parts):
            assert equal(part, (batch[0][rank::2], batch[1][rank::2]))


def test_boxes_follow_their_shapes_through_the_augmentation(folder):
    """A shape is brighter than the noise, wherever crops and flips moved its box."""
    brighter = []
    for images, targets in batches(folder, batch_size=12).from_step(0, 4):
        assert images.dtype == torch.uint8
        for image, target in zip(images, targets, strict=True):
            assert len(target["boxes"]) == len(target["labels"])
            for left, top, right, bottom in target["boxes"].tolist():
                assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
                if min(right - left, bottom - top) > 8:
                    x, y = int(left + right) // 2, int(top + 0.8 * (bottom - top))
                    centre = image[:, y - 1 : y + 2, x - 1 : x + 2].float().mean()
                    brighter.append(centre > image.float().quantile(0.5))
    assert len(brighter) > 40 and sum(brighter) > 0.9 * len(brighter)  # some fill half an image


def test_each_draw_is_augmented_anew_and_half_are_flipped_unless_told_not_to(folder):
    def drawn(flip):
        stream = batches(folder, batch_size=12, flip=flip).from_step(0, 4)
        return {(step, n): image for step, batch in enumerate(stream)
                for n, image in zip(numbers(batch), batch[0], strict=True)}  # fmt: skip

    flipped, plain = drawn(True), drawn(False)
    assert not any(torch.equal(plain[0, n], plain[1, n]) for n in range(12))
    mirrored = [torch.equal(flipped[key], plain[key].flip(2)) for key in plain]
    same = [torch.equal(flipped[key], plain[key]) for key in plain]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 12 <= sum(mirrored) <= 36  # of 48


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_became_unreadable_is_named(tmp_path, workers):
    make_coco(tmp_path, train=8, valid=1)
    found = batches(tmp_path, workers=workers)
    (tmp_path / "train2017" / "000003.png").write_bytes(b"no image")
    with pytest.raises(UnreadableFile, match="--data-root: .*000003.png"):
        list(found.from_step(0, 4))


@pytest.mark.parametrize(("flags", "named"), [
    ({"batch_size": 13}, "--batch-size 13: .* 12"),
    ({"limit_images": 13}, "--limit-images 13: .* 12"),
])  # fmt: skip
def test_too_few_images(folder, flags, named):
    with pytest.raises(InputError, match=named):
        batches(folder, **flags)


def test_a_limit_is_a_seeded_choice(folder):
    chosen = [batches(folder, limit_images=5, seed=seed).indices.tolist() for seed in (0, 0, 1)]
    assert len(set(chosen[0])) == 5 and chosen[0] == chosen[1] != chosen[2]
