"""What several test files use: commands, runs and their comparison, data, nets and trainers."""

import dataclasses
import functools
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from common.baselines import darts
from common.data.images import Images
from common.data.split import Split
from common.language.text import load_corpus
from common.networks.genotype import Op, load
from common.networks.network import Network
from common.run import checkpoint
from common.run.config import SearchConfig
from common.run.folder import Run
from common.training.bilevel import BilevelTrainer
from comparison.settings import CompareConfig
from detection.batches import TrainBatches
from detection.coco import read_split
from detection.config import DetectConfig
from detection.loop import DetectorTrainer
from detection.ssd import detector
from detection.train_detector import backbone
from edas import config as edas
from edas.supernet import EDASSuperNet
from gdas import config as gdas
from gdas import rnn_config as gdas_rnn
from gdas.rnn_supernet import RecurrentSuperNet
from gdas.rnn_trainer import RecurrentSearchTrainer
from itnas import config as itnas
from pc_darts import config as pc_darts
from pr_darts import config as pr_darts
from pr_darts.supernet import PRDARTSSuperNet
from pr_darts.trainer import CycleTrainer
from reproduction.settings import ReproduceConfig
from retraining import config as retrain
from retraining import random_cells, rnn
from retraining.loop import Retrainer
from retraining.rnn import LanguageTrainer

ROOT = Path(__file__).parent.parent
SLOW = {"torchvision", "timm", "matplotlib", "scipy", "sklearn"}  # common/README.md: imports

# ---------------------------------------------------------------------------------------- commands

SEARCH, TRAIN = "pc_darts/search.py", "evaluate/train.py"
# Ten seconds of a search with everything in it: warm-up, arch steps, checkpoints within epochs.
TINY_SEARCH = "--preset digits --channels 8 --limit-images 256 --epochs 4 --warmup-epochs 2".split()
TINY_SEARCH += ["--checkpoint-steps", "1"]
TINY_TRAINING = "--preset digits --genotype pc_darts_cifar10 --channels 4 --cells 3".split()
TINY_TRAINING += "--epochs 3 --limit-images 256 --checkpoint-steps 2 --drop-path 0.5".split()
TINY_DETECTION = "--image-size 64 --channels 4 --cells 3 --batch-size 8 --epochs 2".split()
TINY_DETECTION += "--score-epochs 2 --workers 0 --threads 1".split()


def launch(*words, processes=None, launcher=None, **kwargs):
    """Start a script as a user does, in processes of its own."""
    start = [sys.executable]
    if launcher == "accelerate":
        start += ["-m", "accelerate.commands.launch"]
    elif processes is not None:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'evaluate'}"}
    environment.pop("OMP_NUM_THREADS", None)
    return subprocess.Popen(
        [*start, *map(str, words)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs,
    )  # fmt: skip


def evaluate_module(name):
    """A command of evaluate/ as a module, by a name that no other module has."""
    spec = importlib.util.spec_from_file_location(
        f"evaluate_{name}", ROOT / "evaluate" / f"{name}.py"
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look
    spec.loader.exec_module(module)
    return module


@functools.cache
def drnas():
    """DrNAS as `common/supernet/README.md` has it, word for word: its code, and its module."""
    page = (ROOT / "common/supernet/README.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    module = sys.modules["drnas"] = types.ModuleType("drnas")  # dataclasses look there
    exec(compile(code, "drnas.py", "exec"), vars(module))
    return code, module


@functools.cache
def command_configs():
    """A config of each command, by its script."""
    return {
        "pc_darts/search.py": pc_darts.PRESETS["cifar10"],
        "gdas/search.py": gdas.PRESETS["cifar10"],
        "edas/search.py": edas.PRESETS["cifar10"],
        "itnas/search.py": itnas.PRESETS["cifar10"],
        "pr_darts/search.py": pr_darts.PRESETS["cifar10"],
        "gdas/rnn_search.py": gdas_rnn.PRESETS["ptb"],
        "common.baselines.darts": darts.PRESETS["cifar10"],
        "evaluate/random_search.py": random_cells.PRESETS["cifar10"],
        "evaluate/train.py": retrain.PRESETS["digits"],
        "evaluate/train_rnn.py": rnn.PRESETS["text"],
        "evaluate/detect.py": DetectConfig(),
        "evaluate/compare.py": CompareConfig(),
        "evaluate/test.py": evaluate_module("test").Options(Path()),
        "evaluate/export.py": evaluate_module("export").Options(Path()),
        "evaluate/watch.py": evaluate_module("watch").Options(Path()),
        "evaluate/complexity.py": evaluate_module("complexity").Options(),
        "evaluate/benchmark.py": evaluate_module("benchmark").Options(),
        "evaluate/reproduce.py": ReproduceConfig(),
    }


def assert_refused(result, message, output=None):
    """The command ended with a short message that matches, and wrote no output."""
    status, out, err = result
    assert status == 2, out + err
    assert "Traceback" not in err and len(err.strip().splitlines()) <= 12
    assert re.search(message, err), err
    assert output is None or not output.exists()


def signal_in(monkeypatch, owner, name, number=signal.SIGTERM, call=1):
    """Send this process a signal at the start of a function's n-th call."""
    original, calls = getattr(owner, name), []

    def signalled(*arguments, **given):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return original(*arguments, **given)

    monkeypatch.setattr(owner, name, signalled)


def interrupt_after(saves, start):
    """Press Ctrl-C right after that many checkpoints."""
    original, count = Run.save_checkpoint, []

    def interrupt(self, *state):
        original(self, *state)
        count.append(state)
        if len(count) == saves:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", interrupt)
        assert start()[0] == 130


def calls_of(search, config, monkeypatch, epochs=(0,)):
    """The steps that a search asks of its trainer, in order, with one pair of batches an epoch."""
    calls = []

    class Recorder:
        def __init__(self, *_):
            pass

        def epochs(self):
            return iter(epochs)

        def batches(self):
            return iter([("train", "valid")])

        def __getattr__(self, name):
            return lambda *batches, **given: calls.append((name, *batches, *given.values()))

    monkeypatch.setitem(search.__globals__, "BilevelTrainer", Recorder)
    search(config)
    return calls


# ------------------------------------------------------------------------------------- run folders

UNEQUAL_METRICS = ("second", "images_per", "memory")  # of equal runs


def metrics_of(folder):
    """The lines of metrics.jsonl without times and memory."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not any(part in k for part in UNEQUAL_METRICS)}
        for line in lines
    ]


def last_checkpoint(folder):
    """The name of a run's last checkpoint, and its state without times and digests."""
    path = max((folder / "checkpoints").glob("*.pt"))
    state = torch.load(path, weights_only=True)
    del state["seconds"], state["stands_on"]
    return path.name, state


def identical(a, b):
    """Whether nested values are equal, tensors to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(identical, a, b))
    return a == b


def assert_same_run(folder, other):
    """Two finished runs have the same metrics, genotype and last state, to the bit."""
    assert metrics_of(folder) == metrics_of(other)
    genotypes = [run / "genotype.json" for run in (folder, other)]
    first, second = (path.read_bytes() if path.exists() else None for path in genotypes)
    assert first == second
    (name, state), (other_name, other_state) = last_checkpoint(folder), last_checkpoint(other)
    assert name == other_name and identical(state, other_state)


def of_an_older_version(folder, *lacking):
    """The folder as written by a version without these flags and without digests."""
    description = json.loads((folder / "config.json").read_text())
    for name in lacking:
        del description[name]
    (folder / "config.json").write_text(json.dumps(description))
    for path in (folder / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        del state["stands_on"]
        checkpoint.save(path.parent, path.stem, state)
    return folder


# -------------------------------------------------------------------------------------------- data


def random_images(count, size=8, classes=3):
    """Square images of noise, with labels in turn."""
    pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8)
    names = ("a", "b", "c")[:classes]
    return Images(pixels, torch.arange(count) % classes, names, (0.5,) * 3, (0.3,) * 3)


def make_image_folder(
    root, splits=("train", "test"), classes=("cat", "dog"), size=(9, 7), mode="RGB"
):
    """Three images per class: noise, whose first pixel is 10 * class + number."""
    generator = np.random.default_rng(0)
    for split in splits:
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(3):
                shape = (*size, 3) if mode == "RGB" else size
                pixels = generator.integers(0, 256, shape, dtype=np.uint8)
                pixels[0, 0] = 10 * label + k
                Image.fromarray(pixels).save(folder / f"{k}.png")
    return root


def make_imagenet_folder(
    root, splits=("train", "val"), classes=("n01", "n02"), count=6, size=(40, 50)
):
    """An image folder of ImageNet's layout; each image is noise on a colour of its own."""
    generator = np.random.default_rng(0)
    for split in splits:
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                colour = np.array([90 * label + 20, 30 * k, 40])
                noise = generator.integers(0, 30, (*size, 3))
                Image.fromarray((colour + noise).astype(np.uint8)).save(folder / f"{k}.JPEG")
    return root


SENTENCES = {"train": "the cat sat\n\non the mat\n", "valid": "the dog sat\n", "test": "a cat\n"}
LETTERS = random.Random(0)
RANDOM_TEXT = {
    part: "".join(" ".join(LETTERS.choices("abcdefg", k=7)) + "\n" for _ in range(lines))
    for part, lines in (("train", 40), ("valid", 35), ("test", 20))
}


def make_text_folder(root, names="{}.txt", **changed):
    """Files of text: a few sentences, or what is given for a part; None leaves the file out."""
    root.mkdir(exist_ok=True)
    for part, text in {**SENTENCES, **changed}.items():
        if text is not None:
            path = root / names.format(part)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def make_corpus(root, names="{}.txt", **changed):
    """The corpus of such a folder."""
    return load_corpus("folder", make_text_folder(root, names, **changed))


# ------------------------------------------------------------------------------- nets and trainers

SMALL = {"channels": 4, "cells": 3, "nodes": 2, "classes": 3}
EDGES = 5  # of a cell with two nodes
EDAS_VARIANTS = ("alpha-max", "edas", "edas-inv")
FIRST = pr_darts.PRDARTSConfig().first()
SEARCH_CONFIG = SearchConfig(
    epochs=2, batch_size=8, channels=4, cells=3, nodes=4, crop_padding=1, learning_rate=0.1,
    weight_decay=0.01, arch_learning_rate=0.01, grad_clip=0.5, dataset="digits",
)  # fmt: skip
CYCLE_CONFIG = pr_darts.PRDARTSConfig(
    dataset="digits", cycle_epochs=(2, 1, 1), grace_epochs=(1, 0, 0), morphisms=(2, 0, 0),
    kept=(4, 2, 1), batch_size=4, batch_step=2, batch_max=10, channels=4, cells=3, nodes=4,
    crop_padding=1, learning_rate=0.1, arch_learning_rate=0.01,
).resolved()  # fmt: skip
RECURRENT_CONFIG = dataclasses.replace(
    gdas_rnn.PRESETS["text"], units=6, nodes=4, batch_size=4, bptt=9, epochs=2, threads=1,
    dropout_output=0, dropout_hidden=0, dropout_input=0, dropout_embedding=0,
)  # fmt: skip


def conv(kernel=3, dilation=1, *expansions):
    """A separable convolution of PR-DARTS' spaces."""
    return Op("sep_conv", kernel, dilation, expansions)


def spread(net, factor=1000):
    """Scale the architecture parameters, so that an error in mixing would show."""
    for parameter in net.arch_parameters():
        parameter.data.mul_(factor)
    return net


def net_and_batch(kind, **how):
    """A small supernet in float64 with its alphas well apart; images and labels for it."""
    torch.manual_seed(0)
    net = spread(kind(**{**SMALL, **how}).double())
    return net, torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 1])


def make_search_trainer(folder, accelerator, kind, trainer=BilevelTrainer, **how):
    """A trainer on random images; `kind` is a class of supernets, or a supernet."""
    torch.manual_seed(0)
    images = random_images(40)
    config, split = how.pop("config", SEARCH_CONFIG), how.pop("split", Split.halves(40, 0))
    supernet = kind if isinstance(kind, torch.nn.Module) else kind(**{**SMALL, **how})
    return trainer(config, supernet, Run(folder, "test", accelerator), images, split)


def edas_config(variant="edas", **changes):
    """A small config of EDAS, resolved as from a command line."""
    fields = {field.name for field in dataclasses.fields(SEARCH_CONFIG)} - {"arch_weight_decay"}
    small = {name: getattr(SEARCH_CONFIG, name) for name in fields}
    return edas.EDASConfig(**{**small, "variant": variant, **changes}).resolved()


def make_edas_trainer(folder, accelerator, variant, **changes):
    """A config of EDAS, and its trainer with alphas well apart."""
    config = edas_config(variant, **changes)
    trainer = make_search_trainer(folder, accelerator, EDASSuperNet, config=config)
    spread(trainer.supernet, 100)
    return config, trainer


def make_cycle_trainer(folder, accelerator, config=CYCLE_CONFIG):
    """A trainer of PR-DARTS on random images."""
    torch.manual_seed(0)
    images, run = random_images(50), Run(folder, "test", accelerator)
    supernet = PRDARTSSuperNet(config.first(), **SMALL)
    return CycleTrainer(config, supernet, run, images, Split.halves(50, 0))


def make_recurrent_trainer(folder, accelerator, texts, **changes):
    """A trainer of a recurrent search, in float64."""
    config = dataclasses.replace(RECURRENT_CONFIG, **changes)
    torch.manual_seed(0)
    supernet = RecurrentSuperNet(
        len(texts.words), config.units, config.nodes - 1, config.dropouts, config.sample
    ).double()
    return RecurrentSearchTrainer(config, supernet, Run(folder, "test", accelerator), texts)


def make_retrainer(folder, accelerator, **changes):
    """A retraining of a small network on eight random images."""
    torch.manual_seed(0)
    images = random_images(8, 32, classes=2)
    tiny = dict(batch_size=4, channels=4, cells=3, epochs=1, genotype="darts_v1",
                learning_rate=0.1, grad_clip=0, momentum=0, weight_decay=0)  # fmt: skip
    config = dataclasses.replace(retrain.PRESETS["cifar10"], **{**tiny, **changes})
    genotype = load("darts_v1")
    network = Network(genotype, 4, 3, 2, auxiliary=True)
    return Retrainer(config, genotype, network, Run(folder, "test", accelerator), images, images)


def make_language_trainer(folder, accelerator, genotype="gdas_rnn", **changes):
    """A retraining of a small recurrent cell on random text."""
    texts = make_corpus(folder / "text", **RANDOM_TEXT)
    sizes = {"units": 6, "batch_size": 4, "bptt": 9, "epochs": 4}
    config = dataclasses.replace(rnn.PRESETS["text"], genotype=genotype, **{**sizes, **changes})
    torch.manual_seed(0)
    genotype = None if genotype is None else load(genotype)
    return LanguageTrainer(config, genotype, Run(folder, "test", accelerator), texts)


def detection_config(**changes):
    """A small config of a detector, resolved."""
    return DetectConfig(**{"channels": 4, "cells": 6, "image_size": 64, **changes}).resolved()


def make_detector_trainer(data, folder, accelerator, **changes):
    """A training of a small detector on a folder of COCO's layout."""
    config = detection_config(cells=3, batch_size=8, learning_rate=0.03, workers=0, **changes)
    train, valid = (read_split(data, split) for split in ("train2017", "val2017"))
    batches = TrainBatches(train, config, accelerator.process_index, accelerator.num_processes)
    ssd = detector(backbone(config)[1], 3, 64)
    return DetectorTrainer(config, ssd, Run(folder, "test", accelerator), batches, valid)


# -------------------------------------------------------------------- comparison of nets, trainers


def train_batch(trainer, step=0):
    """A batch of the images that the weights are trained on."""
    return trainer.train_batches.train(step)


def snapshot(parameters):
    """Copies of the parameters."""
    return [p.detach().clone() for p in parameters]


def unchanged(parameters, before):
    """Whether the parameters are those of a snapshot, to the bit."""
    return all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


def adam_state(trainer, alpha):
    """A copy of what Adam holds for an architecture parameter."""
    return {k: v.clone() for k, v in trainer.arch_optimizer.state.get(alpha, {}).items()}


def assert_same_state(state, expected):
    """Two states of a float64 network agree, up to rounding."""
    assert state.keys() == expected.keys()
    for name, value in state.items():
        if "num_batches_tracked" not in name:  # unused, as the momentum is fixed
            torch.testing.assert_close(
                value, expected[name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


class Calls(TorchDispatchMode):
    """Counts all operations, and those that wait for a value (`item`)."""

    def __init__(self):
        super().__init__()
        self.all = self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.all += 1
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))
