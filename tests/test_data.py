"""Data sets, read without a network."""

import dataclasses
import pickle
import shutil
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from builders import make_image_folder, make_imagenet_folder
from common.data import datasets, loader
from common.data.batches import Augmentation
from common.data.images import ImageFiles, Images
from common.errors import InputError
from retraining.config import chosen_preset


def stream(images, size, indices=None, augmentation=None):
    augmentation = augmentation or Augmentation()
    return loader.batches(images, "cpu", indices, size, augmentation, seed=0, stream="train")


def check_measured(images):
    """Mean and standard deviation are those of the pixels."""
    values = images.pixels.double() / 255
    assert images.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert images.std == pytest.approx(values.std((0, 2, 3)).tolist(), abs=1e-3)


def test_digits_test_images_are_a_stratified_fifth():
    train = datasets.load_train("digits", "")
    test = datasets.load_test("digits", "", train)
    assert len(train) + len(test) == 1797 and train.shape == (1, 8, 8)
    shares = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert ((shares - 0.2).abs() < 0.01).all()
    assert train.pixels.max() == 255 and train.pixels.dtype == torch.uint8
    assert datasets.load_test("digits", "", train).sha256() == test.sha256() != train.sha256()
    assert test.mean == train.mean
    check_measured(train)


# ------------------------------------------------------------------------ folders of small images


@pytest.mark.parametrize(
    ("size", "mode"), [((9, 7), "RGB"), ((33, 33), "L"), ((9, 130), "RGB"), ((31, 40), "RGB")]
)
@pytest.mark.parametrize("tested", ["test", "val", "valid"])
def test_folder_of_small_images(tmp_path, size, mode, tested):
    """Shapes, classes, labels, statistics and batches, whatever the test split is called."""
    make_image_folder(tmp_path, ("train", tested), size=size, mode=mode)
    images = datasets.load_train("folder", tmp_path)
    assert images.shape == (3 if mode == "RGB" else 1, *size) and images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    check_measured(images)
    if tested == "val":
        (tmp_path / "test").write_text("a file is not a split")
    test = datasets.load_test("folder", tmp_path, images)
    assert len(test) == 6 and test.mean == images.mean
    served = stream(images, 3, augmentation=Augmentation(4, True, 16))
    x, labels = served.train(0)
    assert x.shape == (3, *images.shape) and x.isfinite().all() and len(labels) == 3


def test_scaled_images_keep_their_centre_and_aspect(tmp_path):
    """Of three stripes, three times as wide as high, only the middle one remains."""
    stripes = np.zeros((16, 48, 3), dtype=np.uint8)
    stripes[:, 16:32] = 200
    make_image_folder(tmp_path, size=(16, 16))
    for k, wide in enumerate((stripes, stripes.transpose(1, 0, 2))):
        for split in ("train", "test"):
            Image.fromarray(wide).save(tmp_path / split / "cat" / f"a{k}.png")
    train = datasets.load_train("folder", tmp_path, 8)
    for images in (train, datasets.load_test("folder", tmp_path, train, 8)):
        assert images.shape == (3, 8, 8)
        assert (images.pixels[3:5, :, 2:6, 2:6] == 200).all()  # after cat/0.png to cat/2.png
        assert (images.pixels[3:5] > 90).all()  # interpolation mixes the edges


def test_grey_and_coloured_images(tmp_path):
    """One bit and alpha are grey; one coloured image makes all of both splits coloured."""
    make_image_folder(tmp_path, size=(8, 8), mode="L")
    cat, dog = tmp_path / "train/cat", tmp_path / "train/dog"
    Image.new("1", (8, 8), 1).save(cat / "0.png")
    Image.new("LA", (8, 8), (70, 255)).save(dog / "0.png")
    train = datasets.load_train("folder", tmp_path)
    assert train.shape == (1, 8, 8)
    assert (train.pixels[0] == 255).all() and (train.pixels[3] == 70).all()
    Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / "test/cat/0.png")
    test = datasets.load_test("folder", tmp_path, train)
    assert test.shape == (1, 8, 8) and (test.pixels[0] == 90).all()  # the training images' channels

    Image.new("P", (8, 8)).save(dog / "1.png")  # a palette has colours
    train = datasets.load_train("folder", tmp_path)
    test = datasets.load_test("folder", tmp_path, train)
    assert train.shape == test.shape == (3, 8, 8) and (train.pixels[3] == 70).all()
    assert test.mean == train.mean
    in_files = stream(datasets.load_train("folder", tmp_path, 128), 6)
    for x in (in_files.train(0)[0], next(in_files.evaluate())[0]):
        assert x.shape == (6, 3, 128, 128)


def remove(*names):
    return lambda root: [shutil.rmtree(root / name) for name in names]


def make(*names):
    return lambda root: [(root / name).mkdir(parents=True) for name in names]


def replace(name, size, dtype=np.uint8):
    return lambda root: Image.fromarray(np.zeros(size, dtype=dtype)).save(root / name)


BAD_FOLDERS = [  # the data set, the change to a good folder, and what the message names
    ("folder", remove("train"), "no folder train/"),
    ("folder", remove("train/cat", "train/dog"), "holds 0 class folders"),
    ("folder", remove("train/cat"), "holds 1 class folders"),
    ("folder", make("train/eel"), "no image in .*eel"),
    ("folder", lambda root: (root / "train/cat/1.png").write_text("no"), "1.png is no readable"),
    ("folder", replace("train/dog/2.png", (30, 20)), "30x20, others are 9x7; --image-size"),
    ("folder", replace("train/cat/0.png", (9, 7), np.uint16), "more than 8 bits"),
    ("folder", remove("test"), "no test/ and no val/ and no valid/"),
    ("folder", make("test/owl"), "other classes.*owl"),
    ("folder", replace("test/cat/0.png", (9, 9)), "9x9, others are 9x7"),
    ("cinic10", lambda root: None, "no folder valid/"),
    ("cinic10", make("valid/cat", "valid/owl"), "valid/ has other classes"),
    ("imagenet", lambda root: None, "holds no val/ with class folders"),
    ("imagenet", make("val"), "holds no val/ with class folders"),
    ("imagenet", make("val/cat", "val/dog"), "no image in .*val/cat"),
]


@pytest.mark.parametrize(("dataset", "spoil", "message"), BAD_FOLDERS)
def test_bad_folder(tmp_path, dataset, spoil, message):
    spoil(make_image_folder(tmp_path))
    with pytest.raises(InputError, match=message):
        datasets.load_test(dataset, tmp_path, datasets.load_train(dataset, tmp_path))


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "svhn", "cinic10"])
def test_data_set_of_one_size_refuses_image_size(tmp_path, dataset):
    with pytest.raises(InputError, match=f"--image-size .* {dataset} has one size"):
        datasets.load_train(dataset, tmp_path, 32)


def test_cinic10_trains_on_two_splits(tmp_path):
    make_image_folder(tmp_path, splits=("train", "valid", "test"))
    half, train = (datasets.load_train(name, tmp_path) for name in ("folder", "cinic10"))
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert torch.equal(train.pixels[:6], half.pixels)
    check_measured(train)
    test = datasets.load_test("cinic10", tmp_path, train)
    assert len(test) == 6 and test.mean == train.mean


# ------------------------------------------------------------------------ folders of large images


def test_imagenet_stays_in_its_files(tmp_path):
    make_imagenet_folder(tmp_path)
    train = datasets.load_train("imagenet", tmp_path, workers=3)
    assert train.shape == (3, 224, 224) and train.classes == ("n01", "n02") and len(train) == 12
    assert (train.mean, train.std) == datasets.STATISTICS["imagenet"] and train.workers == 3
    assert train.path(7) == tmp_path / "train/n02/1.JPEG" and train.labels[7] == 1
    test = datasets.load_test("imagenet", tmp_path, train)
    assert test.path(0) == tmp_path / "val/n01/0.JPEG" and test.shape == train.shape
    part = train.subset(torch.tensor([9, 2]))
    assert [part.path(k).name for k in range(2)] == ["3.JPEG", "2.JPEG"]
    assert part.labels.tolist() == [1, 0] and len(train.limited(5, 0)) == 5


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_large_images_of_a_folder_stay_in_their_files(tmp_path, mode, channels):
    make_image_folder(tmp_path, size=(130, 140), mode=mode)
    with pytest.raises(InputError, match="0.png is 130x140 pixels; .* --image-size 224"):
        datasets.load_train("folder", tmp_path)
    small = datasets.load_train("folder", tmp_path, 64)
    assert isinstance(small, Images) and small.shape == (channels, 64, 64)
    train = datasets.load_train("folder", tmp_path, 128)
    assert isinstance(train, ImageFiles) and train.shape == (channels, 128, 128)
    pixels = torch.cat([x for x, _ in stream(train, 6).evaluate()])  # normalised by the sample
    assert pixels.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(pixels.square().mean((0, 2, 3)), torch.ones(channels))
    test = datasets.load_test("folder", tmp_path, train)
    assert (test.mean, test.std, test.shape) == (train.mean, train.std, train.shape)


# --------------------------------------------------------------------------------- SVHN and CIFAR


@pytest.fixture
def no_network(monkeypatch):
    def urlopen(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def make_svhn(root, monkeypatch):
    """Three small files of SVHN's format; torchvision does not check them."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 20), ("extra", 30), ("test", 10)):
        pixels = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)[:, None] % 10 + 1  # a zero is stored as 10
        scipy.io.savemat(root / f"{split}_32x32.mat", {"X": pixels, "y": labels})
    monkeypatch.setattr(SVHN, "_check_integrity", lambda _: True)


def make_cifar(root, monkeypatch, kind=CIFAR10, pixels=None):
    """CIFAR's files with 20 images each; torchvision does not check them."""
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    folder = root / kind.base_folder
    folder.mkdir()
    content = {"data": pixels, "labels": [k % 10 for k in range(len(pixels))]}
    for name, _ in kind.train_list + kind.test_list:
        (folder / name).write_bytes(pickle.dumps(content))
    meta = {kind.meta["key"]: [f"class {k}" for k in range(10)]}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(kind, "_check_integrity", lambda _: True)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": None})
    return content


def test_svhn_trains_with_its_extra_images(tmp_path, monkeypatch):
    make_svhn(tmp_path, monkeypatch)
    train = datasets.load_train("svhn", tmp_path)
    assert len(train) == 50 and train.shape == (3, 32, 32) and train.classes == tuple("0123456789")
    assert train.labels[:12].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    extra = scipy.io.loadmat(tmp_path / "extra_32x32.mat")["X"]
    assert np.array_equal(train.pixels[20], extra[..., 0].transpose(2, 0, 1))
    check_measured(train)
    test = datasets.load_test("svhn", tmp_path, train)
    assert len(test) == 10 and (test.mean, test.std) == (train.mean, train.std)


def test_cifar10_is_red_green_blue_row_by_row(tmp_path, monkeypatch, no_network):
    """The format its authors describe; existing files are not downloaded again."""
    content = make_cifar(tmp_path, monkeypatch)
    train = datasets.load_train("cifar10", tmp_path)
    assert len(train) == 100 and train.classes[1] == "class 1"
    assert np.array_equal(train.pixels[:20].numpy(), content["data"].reshape(20, 3, 32, 32))
    assert train.labels[:20].tolist() == content["labels"]
    assert len(datasets.load_test("cifar10", tmp_path, train)) == 20


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_both_splits_of_cifar_have_its_published_statistics(tmp_path, monkeypatch, kind):
    make_cifar(tmp_path, monkeypatch, kind, np.full((10, 3072), 255, dtype=np.uint8))
    mean, std = {
        CIFAR10: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        CIFAR100: ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    }[kind]
    white = (1 - torch.tensor(mean)) / torch.tensor(std)
    dataset = kind.__name__.lower()
    train = datasets.load_train(dataset, tmp_path)
    for images in (train, datasets.load_test(dataset, tmp_path, train)):
        for x, _ in stream(images, 10).evaluate():
            torch.testing.assert_close(x, white[:, None, None].expand_as(x), atol=0.01, rtol=0)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "svhn"])
@pytest.mark.parametrize("corrupted", [False, True])
def test_failed_download_names_the_alternatives(tmp_path, no_network, dataset, corrupted):
    if corrupted:
        for name in ("cifar-10-python.tar.gz", "cifar-100-python.tar.gz", "train_32x32.mat"):
            (tmp_path / name).write_text("corrupted")
    with pytest.raises(InputError, match=f"--dataset {dataset}: .* --data-root .*\n.*folder"):
        datasets.load_train(dataset, tmp_path)


def test_downloaded_files_appear_whole(tmp_path):
    """A second run that starts meanwhile sees none of them; files already there are used."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "archive.gz").write_text("archive")

    def make(folder, download=False):
        batch = Path(folder) / "batches" / "1"
        if download:
            assert (Path(folder) / "archive.gz").read_text() == "archive"
            batch.parent.mkdir()
            batch.write_text("half")
            assert not (root / "batches").exists()
            batch.write_text("whole")
        if not batch.exists():
            raise RuntimeError("missing")
        return batch

    assert datasets._downloaded("cifar10", root, make) == root / "batches" / "1"
    assert (root / "batches/1").read_text() == "whole"
    names = {path.name for path in root.iterdir()} - {".downloading"}
    assert names == {"archive.gz", "batches"}


def test_runs_that_start_together_download_once(tmp_path):
    downloads = []

    def make(folder, download=False):
        file = Path(folder) / "batch"
        if download:
            downloads.append(folder)
            time.sleep(0.3)
            file.write_text("whole")
        if not file.exists():
            raise RuntimeError("missing")
        return file.read_text()

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(datasets._downloaded, "cifar10", tmp_path, make) for _ in range(3)]
        assert [run.result() for run in runs] == ["whole"] * 3
    assert len(downloads) == 1


# ------------------------------------------------------------------------------------- all images


def test_search_never_reads_the_test_split(tmp_path, command):
    """Its images are unreadable, and a retraining of the found cells refuses them."""
    images = make_image_folder(tmp_path / "images", size=(8, 8))
    for path in (images / "test").rglob("*.png"):
        path.write_bytes(b"damaged")
    status, _, err = command(
        "pc_darts/search.py", "--dataset", "folder", "--data-root", images, "--channels", 4,
        "--cells", 3, "--epochs", 1, "--batch-size", 3, "--warmup-epochs", 0, "--output",
        tmp_path / "run",
    )  # fmt: skip
    assert status == 0, err
    (config,) = chosen_preset(["--genotype", str(tmp_path / "run")]).values()
    assert config.dataset == "folder" and config.batch_size == 3  # those of the search
    with pytest.raises(InputError, match="no readable image"):
        datasets.load_test("folder", images, datasets.load_train("folder", images))


def test_limited_images_are_a_seeded_choice():
    images = datasets.load_train("digits", "")
    few = images.limited(100, seed=0)
    assert len(few) == 100 and few.sha256() == images.limited(100, seed=0).sha256()
    assert few.sha256() != images.limited(100, seed=1).sha256()
    assert images.limited(None, seed=0) is images
    assert images.limited(len(images), seed=0).sha256() == images.sha256()  # in the same order
    with pytest.raises(InputError, match=r"--limit-images 5000: .* 1438"):
        images.limited(5000, seed=0)


def test_description_of_images():
    images = Images(torch.zeros(2, 1, 3, 4), torch.arange(2), ("a", "b"), (0.25,), (0.5,))
    assert images.described() == {
        "classes": ["a", "b"], "shape": [1, 3, 4], "mean": [0.25], "std": [0.5]
    }


@pytest.mark.parametrize("size", [8, 128])
def test_only_the_given_indices_are_served(tmp_path, size):
    images = datasets.load_train("folder", make_image_folder(tmp_path, size=(8, 8)), size)
    images = dataclasses.replace(images, labels=torch.arange(6))  # each image has its own
    served = stream(images, 1, torch.tensor([4, 1, 3]))
    assert len(served) == 3
    for first in (0, 3):
        assert sorted(served.train(first + k)[1].item() for k in range(3)) == [1, 3, 4]
    assert torch.cat([labels for _, labels in served.evaluate()]).tolist() == [4, 1, 3]


def test_digest_depends_on_pixels_labels_and_shape():
    pixels = torch.arange(32, dtype=torch.uint8)
    kinds = [
        Images(pixels.view(2, *shape), torch.tensor(labels), ("a", "b"), (0.0,), (1.0,))
        for shape in ((1, 4, 4), (1, 2, 8)) for labels in ([0, 1], [1, 0])
    ]
    kinds.append(dataclasses.replace(kinds[0], pixels=kinds[0].pixels.flip(0)))
    assert len({images.sha256() for images in kinds}) == 5


def test_digest_of_files_depends_on_name_length_label_and_size(tmp_path):
    make_imagenet_folder(tmp_path, count=1)
    file = tmp_path / "train/n01/0.JPEG"

    def digest(size=None):
        return datasets.load_train("imagenet", tmp_path, size).sha256()

    first = datasets.load_train("imagenet", tmp_path)
    digests = [digest(), digest(128)]
    digests.append(dataclasses.replace(first, labels=1 - first.labels).sha256())
    content = file.read_bytes()
    file.write_bytes(content + b"0")
    digests.append(digest())
    file.write_bytes(content)
    assert digest() == digests[0]
    file.rename(file.with_name("z.JPEG"))
    assert len({*digests, digest()}) == 5
