"""Detection (PC-DARTS 4.5): the backbone's maps, Table 5's count, training, resuming, refusals."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from builders import (
    TINY_DETECTION,
    assert_same_run,
    detection_config,
    make_detector_trainer,
    metrics_of,
)
from common.errors import InputError
from common.networks.complexity import SETTINGS, complexity
from common.networks.genotype import load, save
from common.networks.network import Network
from common.run.folder import Run
from detection import draw, train_detector
from detection.config import DetectConfig
from detection.ssd import FeatureMaps, detector
from detection.train_detector import backbone, counts
from shapes import make_coco

DETECT = "evaluate/detect.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    make_coco(folder, train=18, valid=5)
    return folder


def small(genotype="pc_darts_imagenet", channels=4, cells=6):
    torch.manual_seed(0)
    return Network(load(genotype), channels, cells, 10, large_images=True)


# ----------------------------------------------------------------------------------- the network


def test_table_5_counts_the_backbone():
    """1.2 billion at 320 pixels, by either convention; with SSD's heads it would be far more."""
    genotype, setting = load("pc_darts_imagenet"), replace(SETTINGS["imagenet"], image_size=320)
    network = complexity(genotype, setting)
    assert f"{network.multiply_adds / 1e9:.2f}" == "1.19"
    assert f"{network.multiply_adds_paper / 1e9:.1f}" == "1.2"
    found = counts(genotype, DetectConfig(), 80)
    assert found["backbone_multiply_adds"] == network.multiply_adds
    assert f"{found['multiply_adds'] / 1e9:.1f}" == "3.2"
    cells = network.multiply_adds - 768 * 1000  # without the classifier
    extra = sum(
        128 * (before * size**2 + 9 * 256 * after**2)
        for before, size, after in ((768, 10, 5), (256, 5, 3), (256, 3, 1))
    )
    heads = [(192, 40, 4), (384, 20, 6), (768, 10, 6), (256, 5, 6), (256, 3, 4), (256, 1, 4)]
    heads = sum(width * 9 * size**2 * boxes * (81 + 4) for width, size, boxes in heads)
    assert found["multiply_adds"] == cells + extra + heads


@pytest.mark.parametrize(
    ("size", "maps"),
    [(64, [8, 4, 2, 1]), (96, [12, 6, 3, 1]), (320, [40, 20, 10, 5, 3, 1]),
     (512, [64, 32, 16, 8, 4, 2, 1])],
)  # fmt: skip
@pytest.mark.parametrize("genotype", ["pc_darts_imagenet", "gdas_frc"])
def test_the_maps_end_at_one_pixel(size, maps, genotype):
    with torch.device("meta"):
        ssd = detector(small(genotype), 3, size)
        found = ssd.backbone(torch.empty(2, 3, size, size)).values()
    assert [one.shape[-1] for one in found] == maps
    assert len(ssd.anchor_generator.aspect_ratios) == len(maps)


def test_default_boxes_are_ssd300s():
    from torchvision.models.detection import ssd300_vgg16

    with torch.device("meta"):
        ours = detector(small(), 90, 320)
        theirs = ssd300_vgg16(weights=None, weights_backbone=None)
    assert ours.anchor_generator.scales == pytest.approx(theirs.anchor_generator.scales)
    assert ours.anchor_generator.aspect_ratios == theirs.anchor_generator.aspect_ratios


def test_the_first_three_maps_are_what_the_next_stages_see():
    network = small().eval()
    maps = list(FeatureMaps(network, 64).eval()(x := torch.rand(2, 3, 64, 64)).values())
    outputs = []
    hooks = [cell.register_forward_hook(lambda *a: outputs.append(a[2])) for cell in network.cells]
    network(x)
    for hook in hooks:
        hook.remove()
    for one, index in zip(maps, (1, 3, 5), strict=False):
        assert torch.equal(one, outputs[index].relu())
    assert outputs[1].min() < 0


# ---------------------------------------------------------------------------- a trained backbone


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The folder and the network of a finished run of `evaluate/train.py`."""
    run, network = tmp_path / "trained", small()
    run.mkdir()
    save(load("pc_darts_imagenet"), run / "genotype.json")
    (run / "config.json").write_text('{"method": "train"}')
    loaded = SimpleNamespace(network=network)
    monkeypatch.setattr(train_detector, "load_trained", lambda folder: loaded)
    return run, loaded


def test_weights_give_genotype_stem_and_cells(trained):
    run, loaded = trained
    genotype, ours = backbone(detection_config(weights=str(run)))
    assert genotype == load("pc_darts_imagenet")
    for name, value in loaded.network.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(value, ours.state_dict()[name]), name
    names = detector(ours, 3, 64).backbone.state_dict().keys()
    expected = {name for name in loaded.network.state_dict() if not name.startswith("classifier")}
    assert expected == {name for name in names if not name.startswith("extra")}


@pytest.mark.parametrize(
    ("changes", "large_images", "named"),
    [({"genotype": "gdas"}, True, "other cells than gdas"), ({"channels": 8}, True, "--channels"),
     ({"cells": 5}, True, "--cells"), ({}, False, "ImageNet's stem")],
)  # fmt: skip
def test_weights_of_another_network_are_refused(trained, changes, large_images, named):
    run, loaded = trained
    loaded.network = Network(load("pc_darts_imagenet"), 4, 6, 10, large_images=large_images)
    with pytest.raises(InputError, match=f"--weights .*{named}"):
        backbone(replace(detection_config(weights=str(run)), **changes))


def test_a_cell_of_another_space_is_refused(tmp_path):
    """Its networks have no maps of the strides that a detector reads."""
    path = tmp_path / "cell.txt"
    path.write_text("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|")
    with pytest.raises(InputError, match="--genotype .* cells of DARTS' space"):
        backbone(detection_config(genotype=str(path)))


def test_the_default_is_the_papers(trained):
    assert DetectConfig().resolved().genotype == "pc_darts_imagenet"
    assert detection_config(weights=str(trained[0])).genotype == str(trained[0])
    default = DetectConfig()
    assert (default.image_size, default.channels, default.cells) == (320, 48, 14)
    assert (default.train_split, default.valid_split) == ("train2017", "val2017")


# -------------------------------------------------------------------------------------- the run


@pytest.fixture
def detect(command):
    """Run evaluate/detect.py."""
    pytest.importorskip("pycocotools")
    return lambda *words, **given: command(DETECT, *words, **given)


def test_what_a_run_writes(folder, tmp_path, detect):
    run = tmp_path / "run"
    status, out, err = detect(
        "--data-root", folder, *TINY_DETECTION, "--genotype", "gdas_frc", "--output", run,
        pictures=True,
    )
    assert status == 0, err
    result = json.loads((run / "result.json").read_text())
    lines = metrics_of(run)
    assert [line["valid_AP"] is None for line in lines] == [True, False]
    assert "train_top1" not in lines[0]
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        assert result[name] == lines[-1][f"valid_{name}"]
    assert 0 <= result["AP"] <= result["AP50"] <= 100 and f"AP {result['AP']:.2f}" in out
    assert result["classes"] == 3 and load(run) == load("gdas_frc")
    assert result["multiply_adds"] > result["backbone_multiply_adds"] > 0
    for name in ("detections.png", "curves.png", "normal.svg"):
        assert (run / "pictures" / name).stat().st_size > 0


def test_a_resumed_run_ends_in_the_same_bits(folder, tmp_path, detect, monkeypatch):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    flags = ["--data-root", folder, *TINY_DETECTION, "--checkpoint-steps", 1]
    assert detect(*flags, "--output", straight)[0] == 0
    original = Run.save_checkpoint

    def interrupt(self, epoch, step, state):
        original(self, epoch, step, state)
        if (epoch, step) == (0, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", interrupt)
        assert detect(*flags, "--output", resumed)[0] == 130
    status, out, _ = detect("--resume", resumed)
    assert status == 0 and "resuming at epoch 1, step 2" in out
    assert_same_run(straight, resumed)
    first, second = (run / "pictures" / "detections.png" for run in (straight, resumed))
    assert np.array_equal(Image.open(first), Image.open(second))


def test_a_few_steps_lower_the_loss(folder, tmp_path, accelerator):
    trainer = make_detector_trainer(folder, tmp_path, accelerator)
    trainer.network.train()
    images, targets = next(trainer.train_batches.from_step(0, 1))
    losses = []
    for _ in range(20):
        trainer.weight_step(images / 255, targets)
        losses.append(float(trainer.meters["loss"].val))
    assert losses[-1] < 0.4 * losses[0], losses


def test_detections_are_in_pixels_of_the_file(folder, tmp_path, accelerator):
    """A box around all that the network sees is a box around the image."""
    trainer = make_detector_trainer(folder, tmp_path, accelerator, epochs=1)
    everything = {"boxes": torch.tensor([[0.0, 0, 64, 64]]), "labels": torch.tensor([1]),
                  "scores": torch.ones(1)}  # fmt: skip
    trainer.network.forward = lambda images: [everything] * len(images)
    found = dict(trainer.find([4, 1, 3]))
    assert list(found) == [4, 1, 3]
    for number, one in found.items():
        size = Image.open(trainer.valid.files[number]).size
        assert one["boxes"].tolist() == [[0, 0, *size]]


@pytest.mark.parametrize("name", ["<script>", r"$\frac{1}{$", "a & b", "猫"])
def test_sure_detections_are_drawn_whatever_their_class_is_called(tmp_path, name):
    def drawn(score):
        one = {"boxes": torch.tensor([[9.0, 9, 50, 50]]), "labels": torch.tensor([2])}
        scene = torch.zeros(3, 60, 80, dtype=torch.uint8), one, {**one, "scores": score}
        draw.detections([scene], ["first", name], tmp_path)
        return np.asarray(Image.open(tmp_path / "detections.png").convert("RGB")).astype(int)

    unsure, sure = (drawn(torch.tensor([score])) for score in (0.29, 0.31))
    above, below = np.split(np.abs(sure - unsure).sum(2), 2)
    assert above.max() == 0 and below.max() > 0


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--image-size", 32], "--image-size 32"),
        (["--image-size", 100], "--image-size 100"),
        (["--genotype", "no_such_cell"], "no_such_cell"),
        (["--data-root", "nowhere"], "instances_train2017.json is missing"),
        (["--valid-split", "test"], "instances_test.json is missing"),
        (["--batch-size", 20], "--batch-size 20: only 18"),
        (["--workers", -1], "--workers -1"),
        (["--cutout", 4], "cutout"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_written(folder, tmp_path, detect, flags, named):
    run = tmp_path / "run"
    status, _, err = detect("--data-root", folder, *TINY_DETECTION, "--output", run, *flags)
    assert status == 2 and named in err and not run.exists()


def test_a_genotype_without_image_cells_is_refused(tmp_path, detect):
    cell = {"inputs": 2, "edges": [{"from": 0, "to": 2, "op": "skip_connect"}], "output": [2]}
    only = {"format": "nas-genotype", "version": 1, "name": "half", "cells": {"normal": cell}}
    (tmp_path / "half.json").write_text(json.dumps(only))
    status, _, err = detect(*TINY_DETECTION, "--genotype", tmp_path / "half.json")
    assert status == 2 and "genotype half" in err and "reduction cell" in err


def test_other_categories_in_the_validation_split_are_refused(tmp_path, detect):
    make_coco(tmp_path, train=8, valid=2)
    file = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 91, "name": "star"})
    file.write_text(json.dumps(content))
    status, _, err = detect(*TINY_DETECTION, "--data-root", tmp_path)
    assert status == 2 and "--valid-split val2017: has other categories" in err


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_damaged_images_are_named_before_a_run_begins(tmp_path, detect, split):
    make_coco(tmp_path / "coco", train=8, valid=8)
    for name in ("000003.png", "000005.png"):
        (tmp_path / "coco" / split / name).write_bytes(b"no image")
    run = tmp_path / "run"
    status, _, err = detect("--data-root", tmp_path / "coco", *TINY_DETECTION, "--output", run)
    assert status == 2 and "error: --data-root: " in err and not run.exists()
    assert f"{split}/000003.png" in err and f"{split}/000005.png" in err


def test_count_needs_no_images(command):
    status, out, _ = command(DETECT, "--count", "--channels", 8, "--cells", 3)
    assert status == 0 and " M in the backbone, " in out and "for 80 classes" in out
