"""Detection (PC-DARTS 4.5): the backbone's maps, Table 5's count, training, resuming, refusals."""

import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from common.errors import InputError
from common.networks.complexity import SETTINGS, complexity
from common.networks.genotype import load, save
from common.networks.network import Network
from common.run.folder import Run
from detection.coco import read_image, read_split
from detection.coco_batches import TrainBatches
from detection.loop import DetectorTrainer
from detection.ssd import FeatureMaps, detector, detector_multiply_adds
from detection.train_detector import DetectConfig, backbone, counts
from shapes import make
from test_resume import figures, identical, last_checkpoint

DETECT = "evaluate/detect.py"
TINY = "--image-size 64 --channels 4 --cells 3 --batch-size 8 --epochs 2 --score-epochs 2"
TINY = [*TINY.split(), "--workers", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    make(folder, train=18, valid=5)
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
    with torch.device("meta"):
        ssd = detector(small(channels=48, cells=14), 80, 320)
    cells = network.multiply_adds - 768 * 1000  # without the classifier
    extra = sum(
        128 * (before * size**2 + 9 * 256 * after**2)
        for before, size, after in ((768, 10, 5), (256, 5, 3), (256, 3, 1))
    )
    heads = [(192, 40, 4), (384, 20, 6), (768, 10, 6), (256, 5, 6), (256, 3, 4), (256, 1, 4)]
    heads = sum(width * 9 * size**2 * boxes * (81 + 4) for width, size, boxes in heads)
    assert found["multiply_adds"] == detector_multiply_adds(ssd) == cells + extra + heads


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
    """A finished run of `evaluate/train.py`, as `common.networks.trained` gives it."""
    run, network = tmp_path / "trained", small()
    run.mkdir()
    save(load("pc_darts_imagenet"), run / "genotype.json")
    module = ModuleType("common.networks.trained")
    module.load_trained = lambda folder: SimpleNamespace(network=network)
    monkeypatch.setitem(sys.modules, "common.networks.trained", module)
    return run, network


def config(**changes):
    return DetectConfig(**{"channels": 4, "cells": 6, "image_size": 64, **changes}).resolved()


def test_weights_bring_genotype_stem_and_cells(trained):
    run, network = trained
    genotype, ours = backbone(config(weights=str(run)))
    assert genotype == load("pc_darts_imagenet")
    for name, value in network.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(value, ours.state_dict()[name]), name
    names = detector(ours, 3, 64).backbone.state_dict().keys()
    expected = {name for name in network.state_dict() if not name.startswith("classifier")}
    assert expected == {name for name in names if not name.startswith("extra")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"genotype": "gdas"}, "other cells than gdas"), ({"channels": 8}, "other --channels"),
     ({"cells": 5}, "--cells")],
)  # fmt: skip
def test_weights_of_another_network_are_refused(trained, changes, message):
    with pytest.raises(InputError, match=f"--weights .*{message}"):
        backbone(replace(config(weights=str(trained[0])), **changes))


def test_weights_of_cifars_stem_are_refused(trained, monkeypatch):
    other = Network(load("pc_darts_imagenet"), 4, 6, 10)
    monkeypatch.setattr(
        sys.modules["common.networks.trained"], "load_trained",
        lambda _: SimpleNamespace(network=other),
    )
    with pytest.raises(InputError, match="ImageNet's stem"):
        backbone(config(weights=str(trained[0])))


def test_the_default_is_the_papers(trained):
    assert DetectConfig().resolved().genotype == "pc_darts_imagenet"
    assert config(weights=str(trained[0])).genotype == str(trained[0])
    default = DetectConfig()
    assert (default.image_size, default.channels, default.cells) == (320, 48, 14)
    assert (default.train_split, default.valid_split) == ("train2017", "val2017")


# -------------------------------------------------------------------------------------- the run


def test_a_run_and_what_it_leaves(folder, tmp_path, command):
    pytest.importorskip("pycocotools")
    run = tmp_path / "run"
    status, out, err = command(
        DETECT, "--data-root", folder, *TINY, "--genotype", "gdas_frc", "--output", run,
        pictures=True,
    )  # fmt: skip
    assert status == 0, err
    result = json.loads((run / "result.json").read_text())
    lines = figures(run)
    assert [line["valid_AP"] is None for line in lines] == [True, False]
    assert "train_top1" not in lines[0]
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        assert result[name] == lines[-1][f"valid_{name}"]
    assert 0 <= result["AP"] <= result["AP50"] <= 100 and f"AP {result['AP']:.2f}" in out
    assert result["classes"] == 3 and load(run) == load("gdas_frc")
    assert result["multiply_adds"] > result["backbone_multiply_adds"] > 0
    for name in ("detections.png", "curves.png", "normal.svg"):
        assert (run / "pictures" / name).stat().st_size > 0


def test_interrupted_and_resumed_it_ends_in_the_same_bits(folder, tmp_path, command, monkeypatch):
    scored = []
    monkeypatch.setattr("detection.train_detector.check_installed", lambda: None)
    monkeypatch.setattr(  # without pycocotools too: what was found stands for its score
        "detection.loop.average_precision",
        lambda split, found: {"AP": sum(float(one.corners.sum()) for one in found)}
        | dict.fromkeys(("AP50", "AP75", "APs", "APm", "APl"), 0.0),
    )
    monkeypatch.setattr("detection.loop.detections", lambda *a: scored.append(a))
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    flags = ["--data-root", folder, *TINY, "--checkpoint-steps", 1]
    assert command(DETECT, *flags, "--output", whole)[0] == 0
    original = Run.save_checkpoint

    def interrupt(self, epoch, step, state):
        original(self, epoch, step, state)
        if (epoch, step) == (0, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", interrupt)
        assert command(DETECT, *flags, "--output", resumed)[0] == 130
    status, out, _ = command(DETECT, "--resume", resumed)
    assert status == 0 and "resuming at epoch 1, step 2" in out
    assert figures(whole) == figures(resumed) and len(scored) == 2
    assert scored[0][0][0].found.corners.equal(scored[1][0][0].found.corners)
    (name, state), (other_name, other) = last_checkpoint(whole), last_checkpoint(resumed)
    assert name == other_name and identical(state, other)


def make_trainer(folder, run, accelerator, **changes):
    options = config(cells=3, batch_size=8, learning_rate=0.03, workers=0, **changes)
    processes = {"rank": accelerator.process_index, "processes": accelerator.num_processes}
    batches = TrainBatches(read_split(folder, "train2017"), 64, 8, flip=True, seed=2, **processes)
    ssd, valid = detector(backbone(options)[1], 3, 64), read_split(folder, "val2017")
    return DetectorTrainer(options, ssd, Run(run, "test", accelerator), batches, valid)


def test_a_few_steps_lower_the_loss(folder, tmp_path, accelerator):
    trainer = make_trainer(folder, tmp_path, accelerator)
    trainer.network.train()
    images, targets = next(trainer.train_batches.from_step(0, 1))
    losses = []
    for _ in range(20):
        trainer.weight_step(images / 255, targets)
        losses.append(float(trainer.meters["loss"].val))
    assert losses[-1] < 0.4 * losses[0], losses


def test_boxes_are_found_in_the_pixels_of_the_file(folder, tmp_path, accelerator):
    """What fills the square that the network saw fills the image that it was made of."""
    trainer = make_trainer(folder, tmp_path, accelerator)
    whole = {"boxes": torch.tensor([[0.0, 0, 64, 64]]), "labels": torch.ones(1, dtype=torch.int64),
             "scores": torch.ones(1)}  # fmt: skip
    trainer.network.forward = lambda images: [whole] * len(images)
    for one in trainer.find(range(len(trainer.valid))):
        height, width = read_image(trainer.valid.files[one.image]).shape[1:]
        assert one.corners.tolist() == [[0, 0, width, height]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image-size", 32], "--image-size 32: must be a multiple of 32, 64 or more"),
        (["--image-size", 100], "--image-size 100: must be a multiple of 32"),
        (["--genotype", "no_such_cell"], "no_such_cell"),
        (["--data-root", "nowhere"], "instances_train2017.json is missing"),
        (["--valid-split", "test"], "instances_test.json is missing"),
        (["--batch-size", 20], "--batch-size 20: only 18"),
        (["--workers", -1], "--workers -1"),
        (["--cutout", 4], "cutout"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_written(
    folder, tmp_path, command, monkeypatch, flags, message
):
    monkeypatch.setattr("detection.train_detector.check_installed", lambda: None)
    run = tmp_path / "run"
    status, _, err = command(DETECT, "--data-root", folder, *TINY, "--output", run, *flags)
    assert status == 2 and message in err and not run.exists()


def test_a_genotype_without_image_cells_is_refused(tmp_path, command, monkeypatch):
    monkeypatch.setattr("detection.train_detector.check_installed", lambda: None)
    cell = {"inputs": 2, "edges": [{"from": 0, "to": 2, "op": "skip_connect"}], "output": [2]}
    only = {"format": "nas-genotype", "version": 1, "name": "half", "cells": {"normal": cell}}
    (tmp_path / "half.json").write_text(json.dumps(only))
    status, _, err = command(DETECT, *TINY, "--genotype", tmp_path / "half.json")
    assert status == 2 and "half: an image network needs a reduction cell" in err


def test_other_categories_in_the_validation_split_are_refused(tmp_path, command, monkeypatch):
    monkeypatch.setattr("detection.train_detector.check_installed", lambda: None)
    make(tmp_path / "coco", train=8, valid=2)
    file = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 91, "name": "star"})
    file.write_text(json.dumps(content))
    status, _, err = command(DETECT, *TINY, "--data-root", tmp_path / "coco")
    assert status == 2 and "--valid-split val2017: has other categories" in err


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_message(tmp_path, command, monkeypatch, workers):
    monkeypatch.setattr("detection.train_detector.check_installed", lambda: None)
    make(tmp_path / "coco", train=8, valid=2)
    (tmp_path / "coco" / "train2017" / "000003.png").write_bytes(b"no image")
    flags = ["--data-root", tmp_path / "coco", *TINY, "--workers", workers]
    status, _, err = command(DETECT, *flags, "--output", tmp_path / "run")
    assert status == 2 and "error: --data-root: " in err and "Traceback" not in err
    assert "000003.png is no readable image" in err


def test_count_needs_no_images(command):
    status, out, _ = command(DETECT, "--count", "--channels", 8, "--cells", 3)
    assert status == 0 and " M of the backbone, " in out and "of the detector of 80 classes" in out
