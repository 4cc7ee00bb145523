"""Images of any size: odd ones, large ones, tiny ones."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from common.data.images import Images, large
from common.errors import InputError
from common.networks.genotype import load, published
from common.networks.macro import LargeStem, Place, SmallStem, check_size
from common.networks.network import AuxiliaryHead, FixedReductionCell, Network, PoolTo2x2
from common.run import checkpoint
from common.run.config import SearchConfig
from common.supernet.supernet import SuperNet, shape
from edas.supernet import EDASSuperNet
from gdas.supernet import GDASSuperNet
from itnas.supernet import ITNASSuperNet
from pc_darts.supernet import PCDARTSSuperNet, bypass
from pr_darts.config import PRDARTSConfig
from pr_darts.supernet import PRDARTSSuperNet
from retraining.config import RetrainConfig
from retraining.loop import check_images

IMAGE_CELLS = [name for name in published() if "normal" in load(name).cells]
SUPERNETS = {
    "DARTS": SuperNet,
    "PC-DARTS": PCDARTSSuperNet,
    "PC-DARTS, random mask": lambda **shape: PCDARTSSuperNet(mask="random", **shape),
    "GDAS": GDASSuperNet,
    "GDAS (FRC)": lambda **shape: GDASSuperNet("fixed", **shape),
    "EDAS": EDASSuperNet,
    "ITNAS": ITNASSuperNet,
    "PR-DARTS": lambda **shape: PRDARTSSuperNet(PRDARTSConfig().first(), **shape),
}


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def images_of(*shape):
    pixels = torch.zeros(4, *shape, dtype=torch.uint8)
    nothing = (0.0,) * shape[0]
    return Images(pixels, torch.tensor([0, 1, 0, 1]), ("cat", "dog"), nothing, nothing)


# ------------------------------------------------------------------------------------- odd sizes


@pytest.mark.parametrize("name", IMAGE_CELLS)
def test_derived_networks_of_odd_sizes(name):
    network = Network(load(name), 4, 3, 5, auxiliary=True)
    logits, auxiliary = network(noise(2, 3, 33, 30))
    assert logits.shape == auxiliary.shape == (2, 5)
    assert torch.isfinite(logits).all() and torch.isfinite(auxiliary).all()


@pytest.mark.parametrize("kind", SUPERNETS)
def test_supernets_of_odd_sizes(kind):
    supernet = SUPERNETS[kind](channels=8, cells=3, nodes=2, classes=5)
    loss, logits = supernet.loss(noise(2, 3, 33, 30), torch.tensor([0, 4]))
    assert logits.shape == (2, 5)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in supernet.parameters() if p.grad is not None)


def test_the_fixed_reduction_cell_rounds_up():
    cell = FixedReductionCell(Place(0, 8, (6, 5), True, True))  # its first input is twice as large
    assert cell(noise(2, 6, 33, 29), noise(2, 5, 17, 15)).shape == (2, 32, 9, 8)


def test_the_bypass_of_pc_darts_rounds_up():
    """The last row and column of an odd map are pooled by themselves, as if padded."""
    x, one = noise(1, 1, 3, 3), torch.ones(1, 1)
    (window,) = bypass([x], one, 2)
    corners = [[x[0, 0, :2, :2].max(), x[0, 0, :2, 2].max()], [x[0, 0, 2, :2].max(), x[0, 0, 2, 2]]]
    torch.testing.assert_close(window[0, 0], torch.tensor(corners))


# --------------------------------------------------------------------------------------- the stem


@pytest.mark.parametrize(
    ("size", "expected"),
    [((128, 128), True), ((127, 500), False), ((500, 127), False), ((32, 32), False),
     ((130, 140), True)],
)  # fmt: skip
def test_128_pixels_on_the_smaller_side_are_large(size, expected):
    assert large((3, *size)) is expected
    assert shape(SearchConfig(), images_of(3, *size))["large_images"] is expected


@pytest.mark.parametrize("kind", SUPERNETS)
def test_the_image_size_chooses_a_supernets_stem(kind):
    config = SearchConfig(nodes=3, cells=3, channels=8)
    small, big = (
        SUPERNETS[kind](**shape(config, images_of(1, size, size))) for size in (127, 129)
    )
    assert isinstance(small.stem, SmallStem) and isinstance(big.stem, LargeStem)
    assert big(noise(2, 1, 129, 129)).shape == (2, 2)


def test_large_odd_images_round_up_three_times():
    s0, s1 = LargeStem(3, 4)(noise(2, 3, 129, 161))
    assert (s0.shape[2:], s1.shape[2:]) == ((33, 41), (17, 21))
    network = Network(load("gdas_frc"), 4, 3, 5, large_images=True, auxiliary=True)
    assert [y.shape for y in network(noise(2, 3, 129, 161))] == [(2, 5)] * 2


# --------------------------------------------------------------------------------- auxiliary head


@pytest.mark.parametrize(("size", "stride"), [(8, 3), (7, 2)])
def test_the_auxiliary_pool_of_the_papers_sizes(size, stride):
    x = noise(2, 3, size, size)
    assert torch.equal(PoolTo2x2()(x), F.avg_pool2d(x, 5, stride, count_include_pad=False))


@pytest.mark.parametrize("size", [(n, m) for n in (1, 2, 3, 4, 5, 9, 16) for m in (1, 7, n)])
def test_auxiliary_head_of_every_size(size):
    for large_images in (False, True):
        head = AuxiliaryHead(6, 9, large_images=large_images)
        assert head(noise(2, 6, *size)).shape == (2, 9)


@pytest.mark.parametrize("side", [2, 3, 4, 5, 6, 9, 10, 11, 17, 28])
def test_the_auxiliary_pool_covers_the_map_symmetrically(side):
    x = torch.zeros(1, 1, side, side, requires_grad=True)
    PoolTo2x2()(x).sum().backward()
    reached = x.grad[0, 0]
    assert (reached > 0).all()
    torch.testing.assert_close(reached, reached.flip(0, 1))


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("size", [(3, 3), (2, 64), (64, 1)])
def test_images_too_small_for_the_reductions_are_refused(size):
    named = f"{size[0]}x{size[1]} pixels are too small.*--image-size 4"
    with pytest.raises(InputError, match=named):
        check_size((3, *size), channels=16)
    with pytest.raises(InputError, match=named):
        check_images(RetrainConfig(genotype="gdas", batch_size=2), images_of(3, *size))


def test_four_pixels_are_enough():
    check_size((3, 4, 4), channels=1)
    assert Network(load("darts_v2"), 4, 3, 5)(noise(2, 3, 4, 4)).shape == (2, 5)


def test_a_large_image_needs_two_channels():
    check_size((3, 128, 128), channels=2)
    with pytest.raises(InputError, match="--channels 1: must be at least 2"):
        check_size((3, 128, 128), channels=1)


# -------------------------------------------------------------------------------- from the command


@pytest.mark.parametrize(("size", "flags", "stem"), [
    ((33, 30), [], "stem.0"),
    ((129, 128), ["--image-size", 128, "--workers", 0], "stem.quarter.0"),
])  # fmt: skip
def test_a_folder_retrains_with_its_stem_and_the_auxiliary_head(
    tmp_path, command, size, flags, stem
):
    draws = np.random.default_rng(0)
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / name).mkdir(parents=True)
        for k in range(4):
            pixels = draws.integers(0, 256, size, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    status, out, err = command(
        "evaluate/train.py", "--dataset", "folder", "--data-root", tmp_path, "--genotype", "gdas",
        "--channels", 4, "--cells", 3, "--epochs", 1, "--batch-size", 8, "--auxiliary-weight", 0.4,
        "--output", tmp_path / "run", *flags,
    )  # fmt: skip
    assert status == 0 and "of the test images" in out, err
    _, state = next(checkpoint.newest(tmp_path / "run" / "checkpoints"))
    assert f"{stem}.weight" in state["network"]


def test_a_network_without_classifier_outputs_averages():
    network = Network(load("darts_v2"), 4, 3, 0).eval()
    assert isinstance(network.classifier, nn.Identity)
    assert network(noise(2, 3, 8, 8)).shape == (2, 4 * 16)
