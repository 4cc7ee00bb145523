"""Recipes for 32 pixels on smaller images."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
import tyro
from PIL import Image

from builders import SEARCH
from common.data import loader
from common.data.batches import Augmentation
from common.data.datasets import Images
from common.errors import InputError
from common.networks.small_images import blank_share, fit_batch, fit_to_images
from common.run.cli import parse
from common.run.config import RunConfig
from common.run.flags import PresetInt
from pc_darts.config import PRESETS
from retraining.config import chosen_preset

TRAIN = "evaluate/train.py"


def white(height, width, count=3000):
    """White images whose mean is black, so only cut out or padded pixels are 0."""
    return Images(
        torch.full((count, 1, height, width), 255, dtype=torch.uint8),
        torch.zeros(count, dtype=torch.long), ("a", "b"), mean=(0.0,), std=(1.0,),
    )  # fmt: skip


def fitted(config, images):
    said = []
    return fit_to_images(config, images, SimpleNamespace(print=said.append)), said


@pytest.mark.parametrize(("height", "width", "padding", "cutout"), [
    (4, 4, 4, 0), (8, 8, 4, 16), (8, 8, 1, 4), (12, 12, 4, 16), (12, 12, 0, 16), (6, 9, 2, 7),
    (5, 5, 6, 3), (5, 5, 0, 5), (5, 5, 0, 4),
])  # fmt: skip
def test_the_share_of_blank_images_is_that_in_batches(height, width, padding, cutout):
    images = white(height, width)
    batches = loader.batches(
        images, "cpu", None, len(images), Augmentation(padding, cutout=cutout), seed=0,
        stream="train",
    )  # fmt: skip
    blank = (batches.train(0)[0].flatten(1) == 0).all(1).float().mean().item()
    share = blank_share(images.shape, padding, cutout)
    assert share == pytest.approx(blank, abs=0.03) and (share == 0) == (blank == 0)


@pytest.mark.parametrize(("side", "expected"), [
    (32, (4, 16)), (64, (4, 16)), (28, (4, 14)), (12, (2, 6)), (8, (1, 4)), (4, (0, 2)),
])  # fmt: skip
@pytest.mark.parametrize("recipe", ["darts", "pc_darts", "itnas"])
def test_recipes_scale_to_small_images_and_blank_none(side, expected, recipe):
    words = ["--dataset", "folder", "--genotype", "darts_v1", "--recipe", recipe]
    (config,) = chosen_preset(words).values()
    config, said = fitted(config, white(side, side + 3, 2))
    assert (config.crop_padding, config.cutout) == expected
    assert blank_share((3, side, side), *expected) == 0
    assert [str(side) in line and "--cutout" in line for line in said] == [True] * (side < 32)


def test_the_padding_of_a_search_scales_but_not_that_of_flags_or_a_resumed_run():
    config, _ = fitted(RunConfig(dataset="folder"), white(8, 8, 2))
    assert (config.crop_padding, config.cutout) == (1, 0)
    config, said = fitted(RunConfig(crop_padding=2, cutout=PresetInt(16)), white(8, 8, 2))
    assert (config.crop_padding, config.cutout) == (2, 4) and "--crop-padding" not in said[0]
    config, said = fitted(RunConfig(resume="run", cutout=16), white(8, 8, 2))
    assert (config.crop_padding, config.cutout, said) == (4, 16, [])  # even a blanking one


def test_a_recipes_number_equals_the_plain_one_but_hashes_apart():
    assert PresetInt(4) == 4 and {4: "plain"}.get(PresetInt(4)) is None
    parsed = [tyro.cli(RunConfig, args=words) for words in ([], ["--crop-padding", "4"], [])]
    assert [type(config.crop_padding) for config in parsed] == [PresetInt, int, PresetInt]


@pytest.mark.parametrize(("height", "width", "padding", "cutout"), [
    (8, 8, 1, 16), (5, 5, 5, 0), (12, 9, 3, 10), (5, 5, 0, 5), (6, 4, 2, 30),
])  # fmt: skip
def test_the_value_that_a_refusal_names_is_the_largest_that_fits(height, width, padding, cutout):
    with pytest.raises(InputError) as refused:
        fitted(RunConfig(crop_padding=padding, cutout=cutout), white(height, width, 2))
    name, most = re.search(r"; --(cutout|crop-padding) (\d+) or less", str(refused.value)).groups()
    values = {"crop_padding": padding, "cutout": cutout}
    for more in (0, 1):
        values[name.replace("-", "_")] = int(most) + more
        share = blank_share((1, height, width), values["crop_padding"], values["cutout"])
        assert (share > 0) == (more == 1)


def test_images_in_files_ignore_padding():
    shown = SimpleNamespace(shape=(3, 128, 128))
    config, said = fitted(RunConfig(crop_padding=128), shown)
    assert not said and config.crop_padding == 128
    with pytest.raises(InputError, match="--cutout 128: .*--cutout 127 or less"):
        fitted(RunConfig(cutout=128), shown)


def test_the_command_printed_by_a_search_trains_on_small_images(tmp_path, command):
    for split in ("train", "test"):
        for label, shade in (("cat", 40), ("dog", 200)):
            (tmp_path / split / label).mkdir(parents=True)
            for k in range(8):
                Image.new("RGB", (8, 8), (shade, shade + k, shade)).save(
                    tmp_path / split / label / f"{k}.png"
                )
    tiny = ["--channels", 4, "--cells", 3, "--epochs", 1, "--batch-size", 8, "--threads", 1]
    images = ["--dataset", "folder", "--data-root", tmp_path]
    found = tmp_path / "search"
    status, out, err = command(
        SEARCH, *images, *tiny, "--nodes", 3, "--warmup-epochs", 0, "--output", found
    )
    assert status == 0 and "--crop-padding 1: " in out, err
    printed = re.search(r"next: python (.*)", out)[1].split()
    trained = tmp_path / "trained"
    status, out, err = command(printed[0], *printed[1:], *tiny, "--output", trained)
    assert status == 0 and "note: --crop-padding 1, --cutout 4: " in out, err
    config = json.loads((trained / "config.json").read_text())
    assert (config["crop_padding"], config["cutout"]) == (1, 4)
    status, _, err = command(
        printed[0], *printed[1:], *tiny, "--cutout", 16, "--output", tmp_path / "typed"
    )
    assert status == 2 and "--cutout 16: with --crop-padding 1" in err
    assert not (tmp_path / "typed").exists()


@pytest.mark.parametrize(("batch", "images", "processes", "expected"), [
    (PresetInt(256), 90, 1, 22), (PresetInt(256), 90, 2, 22), (PresetInt(96), 7, 2, 4),
    (PresetInt(64), 90, 1, 64), (256, 90, 1, 256),
])  # fmt: skip
def test_a_presets_batch_gives_way_to_few_images(batch, images, processes, expected):
    said = []
    accelerator = SimpleNamespace(num_processes=processes, print=said.append)
    config = fit_batch(RunConfig(batch_size=batch), images, accelerator)
    assert config.batch_size == expected
    assert [f"--batch-size {expected}" in line for line in said] == [True] * (expected != batch)


def test_a_typed_batch_size_is_no_presets():
    words = ["--preset", "digits"]
    assert type(parse(PRESETS, "pc_darts", words, "").batch_size) is PresetInt
    assert type(parse(PRESETS, "pc_darts", [*words, "--batch-size", "9"], "").batch_size) is int
