"""`--candidates` of every search: the operations that a user chooses."""

import importlib
import json

import pytest

from common.errors import InputError
from common.networks.genotype import load
from common.run.cli import parse

SEARCHES = {
    "darts": "common.baselines.darts", "pc_darts": "pc_darts.search", "gdas": "gdas.search",
    "edas": "edas.search", "itnas": "itnas.search", "pr_darts": "pr_darts.search",
}  # fmt: skip
TINY = "--preset digits --limit-images 40 --batch-size 10 --channels 4 --cells 3 --nodes 4".split()
ONE_EPOCH = {"pc_darts": "--warmup-epochs 0", "pr_darts": (
    "--batch-max 10 --batch-step 1 --cycle-epochs 1 --grace-epochs 0 --morphisms 0 --kept 1"
)}  # fmt: skip


def config_of(method, *flags):
    module = importlib.import_module(SEARCHES[method])
    return module, parse(module.PRESETS, module.METHOD, [*TINY, *flags], "")


def searched(method, folder, *flags):
    """The folder of a search of one epoch."""
    epoch = ONE_EPOCH.get(method, "").split() + ([] if method == "pr_darts" else ["--epochs", "1"])
    module, config = config_of(method, *epoch, *flags, "--output", str(folder))
    module.search(config)
    return folder


def operations(folder):
    return {edge.op.name for cell in load(folder).cells.values() for edge in cell.edges}


@pytest.mark.parametrize("method", [name for name in SEARCHES if name != "pr_darts"])
def test_a_search_has_the_candidates_asked_for(method, tmp_path, monkeypatch):
    monkeypatch.setattr("common.draw.pictures.save_figure", lambda figure, path: None)  # slow
    names = ["sep_conv_7x7", "avg_pool_3x3"]
    folder = searched(method, tmp_path / "run", "--candidates", *names)
    (line,) = map(json.loads, (folder / "architecture.jsonl").open())
    assert line["candidates"] == names and operations(folder) <= set(names)
    assert load(folder).provenance["candidates"] == names
    assert json.loads((folder / "config.json").read_text())["candidates"] == names


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("names", ["sep_conv_9x9", "skip_connect skip_connect", "none"])
def test_candidates_that_cannot_be_searched_are_refused(method, names):
    with pytest.raises(InputError, match=f"--candidates {names}: "):
        config_of(method, "--candidates", *names.split())


def test_itnas_has_no_none():
    with pytest.raises(InputError, match="--candidates none skip_connect: .*leave it out"):
        config_of("itnas", "--candidates", "none", "skip_connect")


def test_few_candidates_need_less_memory():
    few = config_of("darts", "--candidates", "skip_connect")[1].least_size()
    assert all(a < b for a, b in zip(few, config_of("darts")[1].least_size(), strict=True))
