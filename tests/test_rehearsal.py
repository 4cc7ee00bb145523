"""Commands on a pretended GPU: no tensor on the wrong device, no step that waits for it."""

import itertools
from types import SimpleNamespace

import pytest
import torch

import common.run.start
from builders import TINY_DETECTION, interrupt_after, make_imagenet_folder, make_text_folder
from common.data import loader
from common.data.batches import Augmentation
from common.data.datasets import load_train
from common.distributed import average
from common.training.loop import Loop
from far_device import GPU, Far, Rehearsal
from shapes import make_coco

GIB = 2**30
CUDA = {
    "_lazy_init": None, "synchronize": None, "empty_cache": None, "reset_peak_memory_stats": None,
    "set_sync_debug_mode": None, "get_sync_debug_mode": 0, "max_memory_allocated": GIB,
    "memory_reserved": GIB, "mem_get_info": (4 * GIB, 8 * GIB), "get_device_name": "pretended",
    "get_rng_state": None, "set_rng_state": None,
}  # fmt: skip


class Event:
    """Of a GPU that is always done."""

    def record(self):
        pass

    def query(self):
        return True


@pytest.fixture
def rehearsal(monkeypatch):
    """A pretended GPU in this test: what waits for it."""
    for name, value in CUDA.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    torch._C._set_only_lift_cpu_tensors(True)  # else `torch.tensor` asks for a real GPU
    with torch.backends.cudnn.flags(enabled=False), Rehearsal() as mode:
        yield mode.waits
    torch._C._set_only_lift_cpu_tensors(False)


@pytest.fixture
def waits(rehearsal, monkeypatch):
    """Runs start on the pretended GPU; for each step of theirs, what waits for it."""
    accelerator, steps, by_step = common.run.start.Accelerator, Loop.steps, []

    def on_the_gpu(**given):
        made = accelerator(**{**given, "cpu": True})
        made.state.device = GPU
        return made

    def watched(loop):
        for step in steps(loop):
            start = len(rehearsal)
            yield step
            by_step.append(rehearsal[start:])

    monkeypatch.setattr(common.run.start, "Accelerator", on_the_gpu)
    monkeypatch.setattr(Loop, "steps", watched)
    monkeypatch.setattr("common.training.hessian.ITERATIONS", 2)
    seconds = itertools.count()  # each step shows its progress
    clock = SimpleNamespace(perf_counter=lambda: next(seconds))
    monkeypatch.setattr("common.training.loop.time", clock)
    # Values are computed on the CPU, whose convolution must not be asked for what breaks it.
    monkeypatch.setattr("common.networks.ops.breaks_a_strided_1x1", lambda *_: True)
    for figures in ("edas.figures.of_run", "itnas.figures.run", "pr_darts.figures.run"):
        monkeypatch.setattr(figures, lambda folder: None)
    return by_step


IMAGES = "--channels 4 --cells 3 --epochs 1 --threads 1 --limit-images 64 --batch-size 16"
SEARCH = f"--preset digits {IMAGES} --nodes 4 --cut-accuracy off"
READ = "aten._to_copy.default"  # of the logits that a pass samples from: `to_cpu.read`
SEARCHES = {  # the command, its flags, and the reads of a pass
    "second order": (f"common/baselines/darts.py {SEARCH} --order 2 --hessian", 0),
    "pc_darts": (f"pc_darts/search.py {SEARCH} --warmup-epochs 0 --cut-accuracy running", 0),
    "random masks": (f"pc_darts/search.py {SEARCH} --warmup-epochs 0 --mask random", 0),
    "gdas": (f"gdas/search.py {SEARCH} --cut-accuracy batch", 1),
    "gdas_frc": (f"gdas/search.py {SEARCH} --reduction fixed --draw kind", 1),
    "alpha-max": (f"edas/search.py {SEARCH} --variant alpha-max", 1),
    "edas-inv": (f"edas/search.py {SEARCH} --variant edas-inv", 1),
    "itnas": (f"itnas/search.py {SEARCH}", 0),
}  # fmt: skip


@pytest.mark.parametrize("method", SEARCHES)
def test_a_search(method, waits, command, tmp_path):
    line, reads = SEARCHES[method]
    status, _, err = command(*line.split(), "--output", tmp_path / "run")
    assert status == 0, err
    assert waits == [[READ] * 2 * reads] * 2


def with_a_break(command, line, folder, saves=2):
    """Run a command, press Ctrl-C after a checkpoint (the second: of a whole epoch), resume it."""
    script, *flags = line.split()
    interrupt_after(saves, lambda: command(script, *flags, "--output", folder))
    status, _, err = command(script, "--resume", folder)
    assert status == 0, err


CYCLES = """pr_darts/search.py --preset digits --channels 4 --cells 3 --threads 1 --nodes 4
    --limit-images 16 --cycle-epochs 1 1 --grace-epochs 0 0 --morphisms 2 0 --kept 4 1
    --batch-size 4 --batch-step 4 --batch-max 8 --cut-accuracy batch"""


def test_a_search_in_cycles(waits, command, tmp_path, monkeypatch):
    """Every so many steps it asks how full the GPUs are."""
    monkeypatch.setattr("pr_darts.trainer.RESIZE_EVERY", 2)
    with_a_break(command, CYCLES, tmp_path / "run")
    asked = [step for step, found in enumerate(waits) if found]
    assert len(waits) == 4 and asked == [1, 3]


TRAINING = f"""evaluate/train.py --preset digits {IMAGES} --epochs 2 --held-out valid
    --genotype gdas_frc --auxiliary-weight 0.4 --cutout 3 --flip --drop-path 0.5 --ema-decay 0.9
    --accumulate 2 --label-smoothing 0.1 --checkpoint-steps 1"""


def test_a_retraining(waits, command, tmp_path):
    with_a_break(command, TRAINING, tmp_path / "run", saves=1)  # within an epoch
    assert waits == [[]] * 4


def test_a_detector(waits, command, tmp_path):
    """The loss of torchvision's SSD waits by itself."""
    pytest.importorskip("pycocotools")
    make_coco(tmp_path / "coco", train=8, valid=2)
    flags = [*TINY_DETECTION, "--epochs", 1, "--data-root", tmp_path / "coco"]
    status, _, err = command("evaluate/detect.py", *flags, "--output", tmp_path / "run")
    assert status == 0, err


TEXT = "--preset text --threads 1 --epochs 3 --units 4 --batch-size 2 --bptt 4"
WORDS = {"train": "a b c d e f g h i j a\n", "valid": "a c e b d a c\n", "test": "b d\n"}
# The count of PyTorch's average is sent to the GPU, once the average has two terms.
AVERAGED = [[], [], [READ]]
SAMPLES = f"gdas/rnn_search.py {TEXT} --nodes 4 --sample"
CELL = f"evaluate/train_rnn.py {TEXT} --dropout-word 0.1 --genotype"
LANGUAGE = {  # the command, its flags, and what its steps wait for
    "soft samples": (f"{SAMPLES} soft", [[]] * 6),
    "hard samples": (f"{SAMPLES} hard", [[READ] * 2] * 6),
    "cell": (f"{CELL} gdas_rnn", AVERAGED), "lstm": (f"{CELL} lstm", AVERAGED),
}  # fmt: skip


@pytest.mark.parametrize("what", LANGUAGE)
def test_a_language_model(what, waits, command, tmp_path, monkeypatch):
    monkeypatch.setattr("retraining.rnn.triggered", lambda *_: True)
    folder, (line, awaited) = make_text_folder(tmp_path / "text", **WORDS), LANGUAGE[what]
    with_a_break(command, f"{line} --dataset folder --data-root {folder}", tmp_path / "run")
    assert waits == awaited


# ----------------------------------------------------------------------------------- further parts


def test_batches_read_from_files(waits, rehearsal, tmp_path):
    images = load_train("folder", make_imagenet_folder(tmp_path), 128, workers=0)
    batches = loader.batches(
        images, GPU, None, 2, Augmentation(flip=True, cutout=9), seed=0, stream="s"
    )
    rehearsal.clear()
    for x, labels in (batches.train(0), next(batches.evaluate())):
        assert isinstance(x, Far) and isinstance(labels, Far)
    assert rehearsal == []


def test_averages_over_processes(rehearsal):
    """As if every other process had the same."""
    processes = SimpleNamespace(num_processes=2, reduce=lambda values, reduction: values)
    parts = [torch.ones(2, 3).to(GPU), None, torch.zeros(4).to(GPU)]
    rehearsal.clear()
    for found, part in zip(average(processes, parts), parts, strict=True):
        assert found is part or found.near.equal(part.near)
    assert rehearsal == []


# ------------------------------------------------------------------------------ the pretended GPU

MIXED = {
    "sum": lambda near, far: near + far,
    "product": lambda near, far: far * near,
    "mask": lambda near, far: far.masked_fill(near > 1, 0),
    "concatenated": lambda near, far: torch.cat([far, near]),
    "stacked scalars": lambda near, far: torch.stack([far[0], near[0]]),
    "into": lambda near, far: near[0].add_(far[0]),
    "gathered": lambda near, far: far.gather(0, near),
    "indexed by far": lambda near, far: near[far],
}
WAITS = {
    "item": lambda near, far: far[0].item(),
    "branch": lambda near, far: bool(far[0] > 1),
    "list": lambda near, far: far.tolist(),
    "sent": lambda near, far: near.to(GPU),
    "made": lambda near, far: torch.tensor([1, 2], device=GPU),
    "copied": lambda near, far: far.copy_(near),
    "near index": lambda near, far: far[near],
    "list as index": lambda near, far: far[[0, 1]],
    "mask as index": lambda near, far: far[far > 1],
    "nonzero": lambda near, far: far.nonzero(),
}
FREE = {
    "near scalar": lambda near, far: far * near[0] + torch.where(far > 1, 5, far),
    "sent": lambda near, far: near.to(GPU, non_blocking=True),
    "made": lambda near, far: torch.zeros(3, device=GPU) + far.new_ones(3),
    "far index": lambda near, far: far[far],
    "slice": lambda near, far: far[1:].flip(0),
}


@pytest.mark.parametrize("what", MIXED)
def test_both_devices_in_one_operation_raise(what, rehearsal):
    with pytest.raises(RuntimeError, match="same device"):
        MIXED[what](torch.arange(3), torch.arange(3).to(GPU))


@pytest.mark.parametrize("waits", [True, False])
def test_what_waits(waits, rehearsal):
    for what, act in (WAITS if waits else FREE).items():
        near, far = torch.arange(3), torch.arange(3).to(GPU)
        rehearsal.clear()
        act(near, far)
        assert bool(rehearsal) == waits, what
