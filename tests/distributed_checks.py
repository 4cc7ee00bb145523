"""Run by test_distributed.py in two processes; what fails here fails there."""

import dataclasses
import functools
import os
import runpy
import signal
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, tqdm
from torch.nn import functional as F

from builders import ROOT, drnas, make_detector_trainer, make_imagenet_folder, random_images
from common.data import loader
from common.data.batches import Augmentation
from common.data.datasets import load_train
from common.data.split import Split
from common.distributed import seed_of
from common.language.loop import DROPOUTS
from common.language.model import chunk_loss, exact_loss, slowness
from common.language.small_language import small_text
from common.language.text import Columns, Corpus
from common.networks.genotype import load
from common.networks.nasbench201 import NASBENCH201
from common.networks.network import Network
from common.preemption import Preempted, preemptible
from common.run.config import SearchConfig
from common.run.folder import Run
from common.supernet.cell import Mix
from common.supernet.supernet import SuperNet
from common.training.bilevel import BilevelTrainer
from common.training.running_statistics import average_statistics
from common.training.unrolled import second_order
from detection import loop
from edas.config import EDASConfig
from edas.search import iteration
from edas.supernet import EDASSuperNet
from fair_darts import FairSuperNet
from gdas.rnn_config import GDASRNNConfig
from gdas.rnn_supernet import RecurrentSuperNet
from gdas.rnn_trainer import RecurrentSearchTrainer
from gdas.supernet import GDASSuperNet
from itnas.supernet import ITNASSuperNet
from pc_darts.supernet import PCDARTSSuperNet
from pr_darts import batch_size
from pr_darts.config import PRDARTSConfig
from pr_darts.search import next_cycle
from pr_darts.supernet import PRDARTSSuperNet
from pr_darts.trainer import CycleTrainer
from retraining.config import RetrainConfig, TrainConfig
from retraining.loop import Retrainer
from retraining.random_cells import random_genotype
from retraining.ranking import train_briefly
from retraining.rnn import LanguageTrainer, RNNTrainConfig
from shapes import make_coco

CYCLES = PRDARTSConfig(
    space="ur", cycle_epochs=(1, 1, 1), grace_epochs=(0, 0, 0), morphisms=(3, 3, 0),
    kept=(6, 6, 1), batch_size=8, batch_max=32, crop_padding=1, learning_rate=0.1,
).resolved()  # fmt: skip
CONFIG = SearchConfig(epochs=1, batch_size=16, crop_padding=1, learning_rate=0.1, grad_clip=0)


def trainer_images():
    torch.manual_seed(0)
    return random_images(80)


def make(accelerator, folder, kind=PCDARTSSuperNet, how=(), dtype=torch.float64, **changes):
    images = trainer_images()
    supernet = kind(**dict(how), channels=4, cells=3, nodes=2, classes=3).to(dtype)
    if accelerator.is_main_process:
        folder.mkdir(exist_ok=True)
    accelerator.wait_for_everyone()
    run, config = Run(folder, "test", accelerator), dataclasses.replace(CONFIG, **changes)
    return BilevelTrainer(config, supernet, run, images, Split.halves(80, 0))


def signalled(accelerator, folder, after=None):
    """A short search, whose second process gets a signal in a step; it stopped, and its state."""
    how = {"dtype": torch.float32, "resume": str(folder), "checkpoint_steps": 50}
    trainer = make(accelerator, folder, **how)
    stopped = None
    with preemptible():
        try:
            for _ in trainer.epochs():
                for train, valid in trainer.batches():
                    trainer.arch_step(valid)
                    trainer.weight_step(train)
                    if trainer.global_step == after and accelerator.process_index == 1:
                        os.kill(os.getpid(), signal.SIGUSR1)
                trainer.validate()
        except Preempted:
            stopped = trainer.global_step
    return stopped, trainer


def preemption(accelerator, folder):
    """One process is signalled; both stop after the same step, and go on to the same bits."""
    whole = signalled(accelerator, folder / "whole")[1]
    stops = [signalled(accelerator, folder / "stopped", after)[0] for after in (0, 1)]
    _, resumed = signalled(accelerator, folder / "stopped")
    assert stops == [1, 2] and gather_object(stops) == [1, 2, 1, 2]  # at the end of that step
    (line,), (other,) = (t.run.lines("metrics.jsonl") for t in (whole, resumed))
    assert all(line[name] == other[name] for name in ("train_loss", "valid_loss", "valid_top1"))
    expected = whole.network.state_dict()  # with running statistics of all processes
    for name, value in resumed.network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def make_cycles(accelerator, folder):
    images = trainer_images()
    supernet = PRDARTSSuperNet(CYCLES.first(), channels=4, cells=3, nodes=2, classes=3).double()
    run = Run(folder, "test", accelerator)
    return CycleTrainer(CYCLES, supernet, run, images, Split.halves(80, 0))


def make_reading(accelerator, folder):
    if accelerator.is_main_process:
        make_imagenet_folder(folder / "images", splits=("train",), count=8, size=(20, 30))
    accelerator.wait_for_everyone()
    images = load_train("imagenet", folder / "images", 16, workers=1)
    config = dataclasses.replace(CONFIG, batch_size=8, arch_grad_clip=1.0)
    supernet = SuperNet(channels=4, cells=3, nodes=2, classes=2, large_images=True)
    split = Split.per_class(images, (0.5, 0.5), 0)
    return BilevelTrainer(config, supernet, Run(folder, "test", accelerator), images, split)


def make_retrainer(accelerator, folder):
    images = trainer_images()
    config = RetrainConfig(
        epochs=1, batch_size=16, channels=4, cells=3, cutout=0, drop_path=0, auxiliary_weight=0,
        learning_rate=0.1, momentum=0, weight_decay=0, grad_clip=0, genotype="pc_darts_cifar10",
    )  # fmt: skip
    genotype = load(config.genotype)
    network = Network(genotype, 4, 3, 3)
    return Retrainer(config, genotype, network, Run(folder, "test", accelerator), images, images)


def language_models(accelerator, folder):
    """Columns are shared out; what is trained and reported is that of all of them."""
    texts = Corpus.of(small_text())
    texts = dataclasses.replace(texts, train=texts.train[:401], valid=texts.valid[:201])
    sizes = {"units": 6, "batch_size": 8, "bptt": 9, "epochs": 1, "threads": 1}
    rest = {f"dropout_{name}": 0 for name in DROPOUTS}
    config = RNNTrainConfig(**sizes, **rest, grad_clip=0, slowness=0.1, learning_rate=1)
    torch.manual_seed(0)
    trainer = LanguageTrainer(
        config, load("darts_v2_rnn"), Run(folder, "test", accelerator), texts
    )
    model = trainer.model.double()
    trainer.hidden = trainer.hidden.double()
    whole = Columns(texts.train, 8, "training")
    hidden = model.initial(8)
    for start in (0, 9):
        before = [weight.detach().clone() for weight in trainer.weights]
        chunk = whole.chunk(start, 9)
        reading = model(chunk.words, hidden)
        loss = chunk_loss(reading, chunk.targets) + 0.1 * slowness(reading.states)
        expected = torch.autograd.grad(loss, trainer.weights)
        hidden = reading.hidden.detach()
        trainer.weight_step(trainer.train_batches.chunk(start, 9))
        for weight, old, gradient in zip(trainer.weights, before, expected, strict=True):
            torch.testing.assert_close(weight, old - gradient, rtol=1e-5, atol=1e-7)  # decay 8e-7
    assert trainer.hidden.shape == (1, 4, 6)
    torch.testing.assert_close(trainer.everyones(trainer.hidden), hidden)
    assert torch.equal(trainer.my_share(trainer.everyones(trainer.hidden)), trainer.hidden)

    with torch.no_grad():
        reading = model.eval()(texts.valid[:-1, None], model.initial(1))
    alone = chunk_loss(reading, texts.valid[1:, None])
    assert abs(exact_loss(accelerator, model, texts.valid, 8, 9) - alone.item()) < 1e-10

    config = GDASRNNConfig(**sizes, nodes=4)
    torch.manual_seed(0)
    supernet = RecurrentSuperNet(len(texts.words), 6, 3, config.dropouts)
    searching = RecurrentSearchTrainer(config, supernet, trainer.run, texts)
    start = searching.arch[0].detach().clone()
    for searching.global_step, (at, valid) in enumerate(((0, 0), (9, 9))):
        torch.manual_seed(accelerator.process_index)
        searching.weight_step(searching.train_batches.chunk(at, 9), 2.0)
        searching.arch_step(searching.valid_columns.chunk(valid, 9), 2.0)
    everywhere_equal(accelerator, torch.tensor(searching.valid_loss(2.0)))
    for parameter in supernet.parameters():
        everywhere_equal(accelerator, parameter)
    assert not torch.equal(searching.arch[0], start)


def everywhere_equal(accelerator, tensor):
    gathered = accelerator.gather(tensor.detach().reshape(1, -1))
    assert torch.equal(gathered[0], gathered[1])


def main(folder):
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    trainer = make(accelerator, folder, how={"K": 2})

    # Averaged gradients are those of the whole batch (normalisations by running statistics).
    trainer.supernet.eval()
    x, y = trainer.train_batches.train(0)
    x = x.double()
    both_x, both_y = accelerator.gather(x), accelerator.gather(y)
    assert len(both_y) == 16
    for step, of in ((trainer.weight_step, trainer.weights), (trainer.arch_step, trainer.arch)):
        loss = F.cross_entropy(trainer.supernet(both_x), both_y)
        expected = torch.autograd.grad(loss, of)
        step((x, y))
        for parameter, wanted in zip(of, expected, strict=True):
            torch.testing.assert_close(parameter.grad, wanted, rtol=1e-6, atol=1e-10)

    # So is the second-order one: what one process would find for the whole batches.
    def whole(batch, of):
        with torch.enable_grad():
            loss = F.cross_entropy(trainer.supernet(batch[0]), batch[1])
            return torch.autograd.grad(loss, of)

    v, w = trainer.valid_batches.train(0)
    v = v.double()
    everything = (both_x, both_y), (accelerator.gather(v), accelerator.gather(w))
    losses = (functools.partial(whole, batch) for batch in everything)
    wanted = second_order(*losses, trainer.weights, trainer.arch, trainer.optimizer)
    before = [p.detach().clone() for p in trainer.arch]
    trainer.unrolled_arch_step((x, y), (v, w))
    for parameter, old, gradient in zip(trainer.arch, before, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-8)
        assert not torch.equal(parameter, old)

    # Steps leave all processes with equal parameters, to the bit.
    trainer.supernet.train()
    for step in range(3):
        for verb, batches in (
            (trainer.arch_step, trainer.valid_batches),
            (trainer.weight_step, trainer.train_batches),
        ):
            images, labels = batches.train(step)
            verb((images.double(), labels))
    for parameter in trainer.supernet.parameters():
        everywhere_equal(accelerator, parameter)

    # What a method draws, by `generator` or torch's own, and what follows: the same on both.
    in_201 = functools.partial(ITNASSuperNet, space=NASBENCH201)
    for kind in (GDASSuperNet, ITNASSuperNet, in_201, drnas()[1].DrNASSuperNet, FairSuperNet):
        drawing, drawn = make(accelerator, folder, kind), []
        start, mixes = [p.detach().clone() for p in drawing.arch], drawing.supernet.mixes
        drawing.supernet.mixes = lambda *given, m=mixes, d=drawn: d.append(m(*given)) or d[-1]
        for drawing.global_step in range(2):
            torch.manual_seed(accelerator.process_index)  # what a process draws for itself
            for verb, batches in (
                (drawing.weight_step, drawing.train_batches),
                (drawing.arch_step, drawing.valid_batches),
            ):
                images, labels = batches.train(drawing.global_step)
                verb((images.double(), labels))
        for mix in filter(None, sum(drawn, [])):  # None: a residual block
            draw = mix.op if isinstance(mix, Mix) else torch.tensor(mix.active)
            everywhere_equal(accelerator, draw)
        for parameter in drawing.supernet.parameters():
            everywhere_equal(accelerator, parameter)
        assert not any(torch.equal(p, old) for p, old in zip(drawing.arch, start, strict=True))
        # Operations that did not run rest on both.
        assert any(p.grad is None for p in drawing.weights) == (kind is GDASSuperNet)

    # The edge that EDAS relaxes: the same on both, and alphas of the others rest on both.
    relaxing = make(accelerator, folder, EDASSuperNet)
    start = [p.detach().clone() for p in relaxing.arch]
    config = EDASConfig(inversion_epochs=0, arch_weight_decay=0)
    for relaxing.global_step in range(2):
        torch.manual_seed(accelerator.process_index)
        halves = relaxing.train_batches, relaxing.valid_batches
        pairs = (half.train(relaxing.global_step) for half in halves)
        edge = iteration(config, relaxing, *((x.double(), labels) for x, labels in pairs))
        everywhere_equal(accelerator, torch.tensor(edge))
    for parameter in relaxing.supernet.parameters():
        everywhere_equal(accelerator, parameter)
    moved = sum(not torch.equal(p, old) for p, old in zip(relaxing.arch, start, strict=True))
    assert 1 <= moved <= 2

    # PR-DARTS' cycles: batches, pools and what new candidates inherit are the same on both.
    changing = make_cycles(accelerator, folder)
    net, table, changing.bar = changing.supernet, changing.columns, tqdm(disable=True)
    for cycle in table[:2]:
        everywhere_equal(accelerator, torch.tensor(changing.batch_size))
        for train, valid in changing.batches():
            assert len(train[1]) == len(valid[1]) == changing.batch_size // 2
            changing.arch_step((valid[0].double(), valid[1]))
            changing.weight_step((train[0].double(), train[1]))
        average_statistics(accelerator, net)
        next_cycle(CYCLES, changing, cycle)
        pools = [str(pool) for kind in net.kinds for pool in net.pools[kind]]
        everywhere_equal(accelerator, torch.tensor([seed_of(pool) for pool in pools]))
        assert len(set(pools)) > 5
        for tensor in net.state_dict().values():
            everywhere_equal(accelerator, tensor.double())
        changing.epoch, changing.step, changing.seen = changing.epoch + 1, 0, 0

    # The fullest GPU decides for all.
    share = batch_size.fullest(accelerator, 0.2 + 0.3 * accelerator.process_index)
    assert abs(share - 0.5) < 1e-6

    # Running statistics differ until they are averaged.
    name = "cells.0.inputs.first.2.running_mean"
    mine = trainer.supernet.state_dict()[name].clone()
    both = accelerator.gather(mine.reshape(1, -1))
    assert not torch.equal(both[0], both[1])
    average_statistics(accelerator, trainer.supernet)
    torch.testing.assert_close(trainer.supernet.state_dict()[name], both.mean(0))
    for buffer in trainer.supernet.buffers():
        everywhere_equal(accelerator, buffer.double())

    # Large images, read from their files: equal parameters again.
    reading = make_reading(accelerator, folder)
    for step in range(2):
        reading.arch_step(reading.valid_batches.train(step))
        reading.weight_step(reading.train_batches.train(step))
    labels = accelerator.gather(reading.train_batches.train(0)[1])
    assert labels.bincount().tolist() == [4, 4]  # a pass in one batch: all of its images once
    for parameter in reading.supernet.parameters():
        everywhere_equal(accelerator, parameter)

    # A derived network, channels last in memory: averaged gradients reach the right weights.
    retrainer = make_retrainer(accelerator, folder)
    before = [p.detach().clone() for p in retrainer.weights]
    x, y = retrainer.train_batches.train(0)
    retrainer.network.eval()
    loss = F.cross_entropy(retrainer.network(accelerator.gather(x)), accelerator.gather(y))
    expected = torch.autograd.grad(loss, retrainer.weights, materialize_grads=True)
    retrainer.weight_step((x, y))
    assert any(not p.is_contiguous() for p in retrainer.weights)
    for weight, old, gradient in zip(retrainer.weights, before, expected, strict=True):
        torch.testing.assert_close(weight, old - 0.1 * gradient, rtol=1e-4, atol=1e-6)

    # evaluate/test.py: each process looks at its share, both know what all images gave.
    measure = runpy.run_path(str(ROOT / "evaluate/test.py"))["measure"]
    network, images = retrainer.derived.eval(), trainer_images()
    draws = {"seed": 0, "stream": "test"}
    whole, shared = (
        measure(network, loader.batches(images, "cpu", None, 16, Augmentation(), **draws, **ours),
                images.classes, accelerator)
        for ours in ({}, {"rank": accelerator.process_index, "processes": 2})
    )
    assert shared[0]["images"] == 80 and whole[0]["images"] == 160  # each looked at all of them
    assert shared[0]["top1"] == whole[0]["top1"]
    assert abs(shared[0]["loss"] - whole[0]["loss"]) < 1e-6
    assert torch.equal(2 * torch.tensor(shared[1]), torch.tensor(whole[1]))

    preemption(accelerator, folder)

    # A detector: the weights stay equal, and each validation image is looked at once.
    if accelerator.is_main_process:
        make_coco(folder / "coco", train=8, valid=3)
    accelerator.wait_for_everyone()
    detecting = make_detector_trainer(folder / "coco", folder, accelerator)
    for images, targets in detecting.train_batches.from_step(0, 2):
        assert len(images) == 4
        detecting.network.train()
        detecting.weight_step(images / 255, targets)
    for parameter in detecting.weights:
        everywhere_equal(accelerator, parameter)
    scored = []
    loop.average_precision = lambda split, found: scored.extend(found)
    detecting.score()
    assert scored == ([0, 1, 2] if accelerator.is_main_process else [])

    language_models(accelerator, folder)

    # Random cells, trained briefly: one result, the same for both.
    genotype = random_genotype(2, 0, 0)
    recipe = TrainConfig(
        epochs=1, batch_size=16, channels=4, cells=3, threads=1, crop_padding=1, dataset="digits"
    )
    images = trainer_images()
    result = train_briefly(recipe, Run(folder, "t", accelerator), genotype, 0, images, images)
    everywhere_equal(accelerator, torch.tensor([result["valid_top1"], result["valid_loss"]]))

    # What is drawn is equal everywhere, whatever the process drew for itself.
    torch.manual_seed(accelerator.process_index)
    draws = GDASSuperNet(channels=4, cells=3).mixes(trainer.generator.manual_seed(7))
    everywhere_equal(accelerator, torch.tensor([sample.active for sample in draws]))
    trainer.run.close()  # as every search ends


if __name__ == "__main__":
    main(Path(sys.argv[1]))
