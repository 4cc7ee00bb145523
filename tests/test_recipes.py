"""The papers' settings: what a command line comes to, and that the README's table says the same."""

import dataclasses
import json
import re

import pytest

from builders import ROOT, TRAIN
from common.networks.genotype import load, save
from retraining import recipes
from retraining.config import PRESETS, RetrainConfig, chosen_preset
from retraining.recipes import RECIPES

COLUMNS = {
    "C": "channels", "cells": "cells", "epochs": "epochs", "batch": "batch_size",
    "rate": "learning_rate", "to": "learning_rate_min", "schedule": "schedule",
    "warm-up": "learning_rate_warmup", "decay": "weight_decay", "drop-path": "drop_path",
    "cutout": "cutout", "auxiliary": "auxiliary_weight", "smoothing": "label_smoothing",
    "clip": "grad_clip",
}  # fmt: skip


def table():
    """The README's rows, as dicts by column."""
    lines = (ROOT / "evaluate/README.md").read_text().splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("| recipe | data set |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    head, _, *body = rows
    return [dict(zip(head, row, strict=True)) for row in body]


def chosen(*words):
    (config,) = chosen_preset(list(words)).values()
    return config


def test_the_readmes_table_is_the_code():
    written = {(row["recipe"], row["data set"].rstrip("*")): row for row in table()}
    pairs = {(recipe, images) for recipe, sets in RECIPES.items() for images in sets}
    assert written.keys() == pairs
    for pair, row in written.items():
        config = chosen("--recipe", pair[0], "--dataset", pair[1])
        for column, field in COLUMNS.items():
            value, text = getattr(config, field), row[column].rstrip("*")
            assert (text if field == "schedule" else float(text)) == value, (pair, column)
        assert config.optimizer == ("nesterov" if pair[0] == "nasbench201" else "sgd")
        assert config.momentum == 0.9 and config.crop_padding == 4
        assert config.flip == (pair[1] != "svhn")  # mirrored digits are none
        assert config.color_jitter == (0.4 if pair[1] == "imagenet" else 0)
        assert (config.recipe, config.dataset) == pair
        config = dataclasses.replace(config, genotype="darts_v1")
        config.check()  # every recipe can be run
        assert row["source"]


def test_every_setting_of_a_recipe_is_a_flag_and_in_the_table_or_below_it():
    below = {"momentum", "optimizer", "crop_padding", "flip", "color_jitter"}
    for sets in RECIPES.values():
        for settings in sets.values():
            assert settings.keys() == {*COLUMNS.values(), *below}
    assert settings.keys() <= {field.name for field in dataclasses.fields(RetrainConfig)}


@pytest.mark.parametrize(("genotype", "recipe"), [
    ("gdas_frc", "gdas"), ("frc_normal_gdas_reduction", "gdas"), ("darts_v2", "darts"),
    ("pc_darts_imagenet", "pc_darts"), ("pr_darts_dl2", "pr_darts"),
])  # fmt: skip
def test_a_published_cell_has_its_own_papers_recipe(genotype, recipe):
    config = chosen("--genotype", genotype)
    assert (config.recipe, config.dataset) == (recipe, "cifar10")


@pytest.mark.parametrize(("method", "recipe"), [
    ("edas", "edas"), ("gdas_best_of", "gdas"), ("random_search", "pc_darts"), (7, "darts"),
    (None, "darts"),
])  # fmt: skip
def test_a_found_cell_has_its_methods_recipe(tmp_path, method, recipe):
    data = json.loads((ROOT / "common/networks/genotypes/darts_v1.json").read_text())
    data["provenance"] = {} if method is None else {"method": method}
    (tmp_path / "genotype.json").write_text(json.dumps(data))
    assert chosen("--genotype", str(tmp_path)).recipe == recipe
    assert chosen("--genotype", str(tmp_path), "--recipe=itnas").recipe == "itnas"


def test_a_cell_of_none_of_the_papers_has_pc_darts_recipe():
    other = dataclasses.replace(load("darts_v1"), name="p_darts", provenance={})
    assert recipes.of_genotype(other) == "pc_darts"
    assert chosen() == PRESETS["cifar10"]


@pytest.mark.parametrize(("words", "preset"), [
    ([], "cifar10"),
    (["--image-size", "64"], "cifar10"),
    (["--image-size=224"], "imagenet"),
    (["--image_size", "224"], "imagenet"),
    (["--image-size", "224", "--preset", "cifar10"], "cifar10"),
    (["--preset", "imagenet"], "imagenet"),
    (["--image-size", "224", "--recipe", "edas"], "cifar10"),  # which has no other
    (["--preset", "digits"], "digits"),
])  # fmt: skip
def test_a_folders_images_are_trained_by_their_size(words, preset):
    config = chosen("--dataset", "folder", "--genotype", "gdas", *words)
    assert config.preset == preset
    assert config.epochs == {"cifar10": 600, "imagenet": 250, "digits": 20}[preset]
    recipe = "edas" if "edas" in words else "gdas"
    assert config.recipe == (None if preset == "digits" else recipe)


def test_gdas_frc_is_wider_on_imagenet():
    words = ("--dataset", "imagenet", "--genotype")
    assert chosen(*words, "gdas").channels == 50
    assert chosen(*words, "gdas_frc").channels == 52
    assert chosen(*words, "gdas_frc", "--recipe", "darts").channels == 48


@pytest.mark.parametrize(("words", "message"), [
    (("--recipe", "gdas", "--dataset", "svhn"), "gdas: .*cifar10, cifar100, imagenet.*itnas"),
    (("--genotype", "gdas_frc", "--dataset", "svhn"), "--recipe gdas: has no settings for svhn"),
    (("--recipe", "edas", "--dataset", "imagenet"), "in --recipe pc_darts, gdas, itnas, darts"),
    (("--recipe", "darts", "--dataset", "cifar100"), "cifar10, imagenet and for folder"),
    (("--recipe", "darts", "--preset", "digits"), "--preset digits, without --recipe"),
    (("--recipe", "nasnet",), "--recipe"),
    (("--genotype", "darts_v1", "--label-smoothing", 1), "--label-smoothing 1.0: must be below 1"),
    (("--genotype", "darts_v1", "--accumulate", 0), "--accumulate 0: must be 1"),
    (("--genotype", "darts_v1", "--accumulate", 5), "(?s)--accumulate 5: .*multiple of 5"),
    (("--genotype", "darts_v1", "--held-out-share", 0.1), "only for --held-out valid"),
    (("--genotype", "darts_v1", "--held-out-share", 1), "--held-out-share 1.0: must be below 1"),
    (("--genotype", "darts_v1", "--preset", "digits", "--held-out", "valid", "--held-out-share",
      1e-4), "--held-out-share 0.0001: no image of 1438"),
    (("--genotype", "darts_v1", "--preset", "digits", "--color-jitter", 0.4),
     "--color-jitter 0.4: only for images read from disk .*--color-jitter 0"),
    (("--genotype", "darts_v1", "--schedule", "linear", "--learning-rate-min", 0.1),
     "--learning-rate-min 0.1.*linear"),
])  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(tmp_path, command, words, message):
    status, _, err = command(TRAIN, *words, "--output", tmp_path / "run")
    assert status == 2 and "Traceback" not in err
    assert re.search(message, " ".join(err.replace("│", " ").split())), err
    assert not (tmp_path / "run").exists()


def test_help_shows_the_recipes_own_defaults(command):
    status, out, _ = command(TRAIN, "--recipe", "edas", "--dataset", "cifar100", "--help")
    assert status == 0 and "(default: 0.001)" in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize(("dataset", "method", "expected"), [
    ("cifar10", "itnas", {"recipe": "itnas", "batch_size": 96}),
    ("cifar100", "gdas_best_of", {"recipe": "gdas", "data_root": "D"}),
    ("cifar100", "darts", {"recipe": "pc_darts", "data_root": "D"}),
    ("cifar10", "random_search", {"recipe": "pc_darts"}),
    ("digits", "edas", {"recipe": None, "channels": 16}),
    ("folder", "edas", {"recipe": "edas", "data_root": "D", "image_size": 32, "batch_size": 50}),
])  # fmt: skip
def test_what_a_search_found_is_trained_on_its_images_by_its_papers_recipe(
    tmp_path, dataset, method, expected
):
    """`--genotype RUN` alone, as a search prints it; a folder of few images keeps its batch."""
    genotype = dataclasses.replace(
        load("darts_v1"), provenance={"method": method, "images": 100}
    )
    save(genotype, tmp_path / "genotype.json")
    run = {"method": method, "dataset": dataset, "data_root": "D", "batch_size": 50,
           "image_size": 32 if dataset == "folder" else None}
    (tmp_path / "config.json").write_text(json.dumps(run))
    (config,) = chosen_preset(["--genotype", str(tmp_path)]).values()
    expected = {"dataset": dataset, **expected}
    assert {name: getattr(config, name) for name in expected} == expected


def test_a_flag_for_other_images_says_which(tmp_path):
    save(load("darts_v1"), tmp_path / "genotype.json")
    run = {"method": "edas", "dataset": "digits", "data_root": "D", "batch_size": 5}
    (tmp_path / "config.json").write_text(json.dumps(run))
    (config,) = chosen_preset(["--genotype", str(tmp_path), "--dataset", "cifar10"]).values()
    assert (config.dataset, config.data_root) == ("cifar10", "data")
