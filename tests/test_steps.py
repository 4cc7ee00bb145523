"""What every step of a loop is given: the network's mode, its draws, gradients of all processes."""

import dataclasses
import signal

import pytest
import torch
from torch import nn

import retraining.loop
import retraining.rnn
from builders import (
    RANDOM_TEXT,
    SEARCH_CONFIG,
    TINY_DETECTION,
    make_corpus,
    make_detector_trainer,
    make_language_trainer,
    make_recurrent_trainer,
    make_retrainer,
    make_search_trainer,
    signal_in,
    snapshot,
    spread,
)
from common.errors import NotFinite
from common.supernet.supernet import SuperNet
from common.training import bilevel
from common.training.loop import Loop
from common.training.running_statistics import average_statistics, kept_statistics
from common.training.steps import descend, frozen
from detection import loop as detector_loop
from gdas import rnn_trainer
from shapes import make_coco

LIMIT = 1e-3


def searching(path, accelerator, **changed):
    config = dataclasses.replace(SEARCH_CONFIG, **changed)
    return make_search_trainer(path, accelerator, SuperNet, config=config)


def recurrent_search(path, accelerator, **changed):
    texts = make_corpus(path / "text", **RANDOM_TEXT)
    return make_recurrent_trainer(path, accelerator, texts, **changed)


def detection(path, accelerator, **changed):
    make_coco(path / "coco", train=18, valid=5)
    return make_detector_trainer(path / "coco", path, accelerator, **changed)


MAKERS = {
    "search": searching, "retraining": make_retrainer, "detection": detection,
    "recurrent search": recurrent_search, "recurrent training": make_language_trainer,
}  # fmt: skip


@pytest.mark.parametrize("what", MAKERS)
def test_every_epoch_trains_in_training_mode_whatever_validation_left(what, tmp_path, accelerator):
    trainer = MAKERS[what](tmp_path, accelerator, epochs=2)
    modes = []
    for _ in trainer.epochs():
        for _ in trainer.batches():
            modes.append({module.training for module in trainer.network.modules()})
        trainer.network.eval()  # as validation leaves it
        trainer.validated = True
    assert modes.count({True}) == len(modes) >= 2


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_bad_step_is_named_though_others_follow(tmp_path, accelerator, first):
    trainer = searching(tmp_path, accelerator)
    with pytest.raises(NotFinite, match=rf"not finite at step {first} "):
        for _ in trainer.epochs():
            for step in trainer.steps():
                trainer.watch(torch.tensor(torch.nan if step >= first else 1.0))
            trainer.validate()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_search_compiles_its_supernet_if_asked_to(tmp_path, accelerator, wanted):
    compiled = []

    class Compiled(SuperNet):
        def compile(self):
            compiled.append(self)

    config = dataclasses.replace(SEARCH_CONFIG, compile=wanted)
    trainer = make_search_trainer(tmp_path, accelerator, Compiled, config=config)
    assert compiled == [trainer.supernet] * wanted


def test_weights_and_architecture_are_drawn_for_apart_and_anew_at_each_step(tmp_path, accelerator):
    seeds = []

    class Recording(SuperNet):
        def mixes(self, generator, **given):
            seeds.append(generator.initial_seed())
            return super().mixes(generator, **given)

    trainer = make_search_trainer(tmp_path, accelerator, Recording)
    for step in (0, 1):
        trainer.global_step = step
        trainer.arch_step(trainer.valid_batches.train(0))
        trainer.weight_step(trainer.train_batches.train(0))
    assert len(set(seeds)) == 4


def test_a_genotype_says_how_many_images_found_it(tmp_path, accelerator):
    """Those that train the weights and those that train the architecture."""
    assert searching(tmp_path, accelerator).genotype().provenance["images"] == 40


class Penalised(SuperNet):
    def arch_loss(self, images, labels, mixes=None):
        loss, logits = self.loss(images, labels, mixes)
        return loss + sum(alpha.pow(3).sum() for alpha in self.arch.values()), logits


def after(path, accelerator, kind, step):
    """A trainer in float64 after a step on its first batches, and its alphas from before it."""
    config = dataclasses.replace(SEARCH_CONFIG, grad_clip=0.0)
    trainer = make_search_trainer(path, accelerator, kind, config=config)
    spread(trainer.supernet.double(), 300)
    for state in trainer.optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].double()
    alphas = snapshot(trainer.arch)
    halves = (trainer.train_batches, trainer.valid_batches)
    step(trainer, *((x.double(), y) for x, y in (half.train(0) for half in halves)))
    return trainer, alphas


@pytest.mark.parametrize("step", [
    lambda trainer, train, valid: trainer.arch_step(valid),
    lambda trainer, train, valid: trainer.unrolled_arch_step(train, valid),
    lambda trainer, train, valid: trainer.weight_step(train),
], ids=["first order", "second order", "weights"])  # fmt: skip
def test_the_arch_step_alone_adds_to_the_loss(tmp_path, accelerator, step):
    """By sum alpha^3 here, whose gradient is 3 alpha^2."""
    (plain, alphas), (penalised, _) = (
        after(tmp_path, accelerator, kind, step) for kind in (SuperNet, Penalised)
    )
    for old, a, b in zip(alphas, plain.arch, penalised.arch, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(b.grad - a.grad, 3 * old**2, rtol=1e-8, atol=1e-10)
    for a, b in zip(plain.weights, penalised.weights, strict=True):
        assert torch.equal(a, b)
    assert plain.meters["loss"].avg == penalised.meters["loss"].avg  # of the weight step


class Idle(SuperNet):
    """A parameter that its loss does not depend on, as an own operation may have."""

    def __init__(self, **shape):
        super().__init__(**shape)
        self.idle = nn.Parameter(torch.ones(3))


def test_second_order_takes_a_weight_without_a_gradient(tmp_path, accelerator):
    trainers = [
        after(tmp_path, accelerator, kind, lambda trainer, train, valid:
              trainer.unrolled_arch_step(train, valid))[0] for kind in (SuperNet, Idle)
    ]  # fmt: skip
    for a, b in zip(*(trainer.arch for trainer in trainers), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_a_joint_step_has_both_gradients_of_one_pass(tmp_path, accelerator, monkeypatch):
    alone = [
        after(tmp_path, accelerator, Penalised, lambda trainer, train, _, verb=verb: getattr(
            trainer, verb)(train))[0] for verb in ("weight_step", "arch_step")
    ]  # fmt: skip
    passes, forward = [], Penalised.forward
    monkeypatch.setattr(
        Penalised, "forward", lambda self, *given: passes.append(1) or forward(self, *given)
    )
    joint, _ = after(
        tmp_path, accelerator, Penalised, lambda trainer, train, _: trainer.joint_step(train)
    )
    assert len(passes) == 1
    for parts in ("weights", "arch"):
        trainer = alone[parts == "arch"]
        for a, b in zip(getattr(trainer, parts), getattr(joint, parts), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)  # both have moved
    assert joint.meters["loss"].count > 0


# ----------------------------------------------------------------------- what every step is made of


def test_what_has_no_gradient_rests_whatever_it_had_before():
    moved, idle = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    sgd = torch.optim.SGD([moved, idle], 1.0)
    descend(sgd, [moved, idle], [torch.ones(2)] * 2)
    descend(sgd, [moved, idle], [torch.ones(2), None], clip=100.0)
    assert moved.tolist() == [-2, -2] and idle.tolist() == [-1, -1]


def test_what_fails_leaves_nothing_frozen_and_no_statistics_changed():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    before = [buffer.clone() for buffer in network.buffers()]
    with pytest.raises(KeyError), frozen(list(network.parameters())), kept_statistics(network):
        assert not network(torch.rand(3, 1, 5, 5)).requires_grad
        raise KeyError
    assert all(parameter.requires_grad for parameter in network.parameters())
    # Means, variances and how many batches they are of.
    assert all(map(torch.equal, network.buffers(), before)) and len(before) == 6


def test_statistics_become_their_mean_over_processes_and_counts_stay(accelerator, monkeypatch):
    """As if the other process' were all 4 larger."""
    monkeypatch.setattr(
        "common.training.running_statistics.average",
        lambda accelerator, tensors: [tensor + 2 for tensor in tensors],
    )
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    norm = nn.BatchNorm2d(2)
    norm(torch.rand(3, 2, 4, 4))
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    average_statistics(accelerator, norm)
    assert torch.equal(norm.running_mean, before["running_mean"] + 2)
    assert torch.equal(norm.running_var, before["running_var"] + 2)
    assert norm.num_batches_tracked == 1


# -------------------------------------------------------------------- what an image's loop records


def test_a_recorded_loss_holds_no_graph_and_an_evaluation_makes_none(tmp_path, accelerator):
    """Graphs of a whole epoch would fill the memory."""
    trainer = searching(tmp_path, accelerator)
    loss = torch.ones((), requires_grad=True) * 2
    trainer.record(loss, torch.zeros(4, 2, requires_grad=True), torch.zeros(4, dtype=torch.long))
    assert not any(meter.avg.requires_grad for meter in trainer.meters.values())
    made = []

    def network(images):
        logits = trainer.supernet(images)
        made.append(logits.requires_grad)
        return logits

    trainer.evaluate(network, trainer.valid_batches)
    assert made and not any(made)


def test_an_epoch_ends_with_the_last_whole_batch(tmp_path, accelerator):
    """Also where that is the last image, and where a batch has grown on the way."""
    for size, steps in ((10, 2), (8, 2), (20, 1)):
        trainer = searching(tmp_path, accelerator, batch_size=4)
        trainer.train_batches.batch_size = size  # of 20 images
        for _ in trainer.epochs():
            assert len(list(trainer.steps())) == steps and trainer.seen == size * steps
            break


@pytest.mark.parametrize("logit", [-torch.inf, torch.nan])
def test_a_held_out_loss_that_is_not_finite_ends_the_run(tmp_path, accelerator, logit):
    """Be it infinite or no number."""
    trainer = searching(tmp_path, accelerator)
    trainer.epoch = 1
    with pytest.raises(NotFinite, match="after epoch 2"):
        trainer.held_out(
            lambda x: torch.tensor([logit, 0.0, 0.0]).expand(len(x), 3), trainer.valid_batches
        )


def test_what_a_person_reads_is_of_the_split_that_is_named(tmp_path, accelerator):
    trainer = searching(tmp_path, accelerator)
    metrics = {"train_loss": 1.5, "train_top1": 11.0, "valid_loss": 2.5, "valid_top1": 77.0}
    train, valid = (trainer.in_words(split, metrics) for split in ("train", "valid"))
    assert "1.5" in train and "11" in train and "2.5" in valid and "77" in valid


# -------------------------------------------------------------------------------- several processes


def weight_step(trainer):
    trainer.weight_step(trainer.train_batches.train(0))
    return trainer.weights


def arch_step(trainer):
    trainer.arch_step(trainer.valid_batches.train(0))
    return trainer.arch


def second_order_step(trainer):
    trainer.unrolled_arch_step(trainer.train_batches.train(0), trainer.valid_batches.train(0))
    return trainer.arch


def detection_step(trainer):
    trainer.network.train()
    images, targets = next(trainer.train_batches.from_step(0, 1))
    trainer.weight_step(images / 255, targets)
    return trainer.weights


def recurrent_step(trainer):
    given = [3.0] if hasattr(trainer, "arch") else []
    trainer.weight_step(trainer.train_batches.chunk(0, 9), *given)
    return trainer.weights


CLIPPED = {
    "search": (searching, bilevel, weight_step, "grad_clip"),
    "architecture": (searching, bilevel, arch_step, "arch_grad_clip"),
    "retraining": (make_retrainer, retraining.loop, weight_step, "grad_clip"),
    "second order": (searching, bilevel, second_order_step, "arch_grad_clip"),
    "detection": (detection, detector_loop, detection_step, "grad_clip"),
    "recurrent search": (recurrent_search, rnn_trainer, recurrent_step, "grad_clip"),
    "recurrent training": (make_language_trainer, retraining.rnn, recurrent_step, "grad_clip"),
}  # fmt: skip


@pytest.mark.parametrize("what", CLIPPED)
def test_the_average_over_processes_is_clipped(what, tmp_path, accelerator, monkeypatch):
    maker, module, step, flag = CLIPPED[what]
    averaged = []

    def more(accelerator, tensors):
        """As if the other processes' gradients were a hundred times as large."""
        averaged.append(tensors)
        return [None if tensor is None else 100 * tensor for tensor in tensors]

    monkeypatch.setattr(module, "average", more)
    parameters = step(maker(tmp_path, accelerator, **{flag: LIMIT}))
    gradients = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    assert averaged and gradients.norm().item() == pytest.approx(LIMIT, rel=1e-2)


# --------------------------------------------------------------------------------- initial weights

DIGITS = "--preset digits --threads 1 --channels 4 --cells 3".split()
TEXT = "--preset text --threads 1 --units 6".split()
BEGUN = {
    "pc_darts/search.py": DIGITS, "gdas/search.py": DIGITS, "edas/search.py": DIGITS,
    "itnas/search.py": DIGITS, "pr_darts/search.py": DIGITS, "gdas/rnn_search.py": TEXT,
    "common/baselines/darts.py": DIGITS,
    "evaluate/train.py": [*DIGITS, "--genotype", "gdas"],
    "evaluate/train_rnn.py": [*TEXT, "--genotype", "gdas_rnn"],
    "evaluate/detect.py": TINY_DETECTION,
}  # fmt: skip


@pytest.fixture
def flags_of(tmp_path):
    """The flags of a script of `BEGUN`, with what they need in place."""
    def of(script):
        if script != "evaluate/detect.py":
            return BEGUN[script]
        pytest.importorskip("pycocotools")
        make_coco(tmp_path / "coco", train=16, valid=2)
        return [*BEGUN[script], "--data-root", tmp_path / "coco"]

    return of


@pytest.mark.parametrize("script", BEGUN)
def test_initial_weights_are_the_seeds_whatever_was_drawn_before(
    script, flags_of, tmp_path, command, monkeypatch
):
    """And an architecture's noise; for many trainings in one run see `test_training.py`."""
    networks, flags = [], flags_of(script)

    def stop(loop, until=None):
        networks.append(torch.cat([p.detach().flatten() for p in loop.network.parameters()]))
        raise SystemExit

    monkeypatch.setattr(Loop, "epochs", stop)
    for number, (seed, state) in enumerate([(2, 0), (2, 1), (3, 1)]):
        torch.manual_seed(state)
        output = tmp_path / str(number)
        status, _, err = command(script, *flags, "--seed", seed, "--output", output)
        assert status == 0, err
    assert torch.equal(networks[0], networks[1]) and not torch.equal(networks[1], networks[2])


# ------------------------------------------------------------------------------------- its signals


@pytest.mark.parametrize("script", [
    name for name in BEGUN if not name.startswith(("gdas/search", "edas", "itnas", "common"))
])  # fmt: skip  # one of the image searches: their loop is one
def test_a_signal_ends_every_command_after_the_step_and_its_line_goes_on(
    script, flags_of, tmp_path, command
):
    line = [script, *flags_of(script), "--output", tmp_path / "run"]
    expected = ""
    for number, step in ((signal.SIGTERM, 1), (signal.SIGUSR1, 2)):
        with pytest.MonkeyPatch.context() as patch:
            signal_in(patch, Loop, "_save_within", number)
            status, out, err = command(*line)
        assert status == 75, out + err
        assert f"{number.name} after epoch 1, step {step}, all saved; to continue: " in err
        assert expected in out
        expected = "resuming at epoch 1, step 2"
