"""Data sets, read without the network."""

import dataclasses
import hashlib
import io
import pickle
import tarfile
import urllib.error
import urllib.request

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, SVHN

from common.data import datasets, loader
from common.data.batches import Augmentation
from common.data.images import ImageFiles, Images
from common.errors import InputError
from retraining.config import chosen_preset
from test_streamed_batches import make_files


def make_folder(root, splits=("train", "test"), classes=("cat", "dog"), size=(9, 7), mode="RGB"):
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


def test_digits_hold_out_a_fixed_stratified_fifth():
    train = datasets.load_train("digits", "")
    test = datasets.load_test("digits", "", train)
    assert len(train) + len(test) == 1797 and train.shape == (1, 8, 8)
    shares = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert ((shares - 0.2).abs() < 0.01).all()
    assert train.pixels.max() == 255 and train.pixels.dtype == torch.uint8
    again = datasets.load_test("digits", "", train)
    assert again.sha256() == test.sha256() != train.sha256()
    assert test.mean == train.mean  # of the training images
    values = train.pixels.double() / 255
    assert train.mean[0] == pytest.approx(values.mean().item(), abs=1e-6)
    assert train.std[0] == pytest.approx(values.std().item(), abs=1e-4)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_folder_reads_channels_size_and_classes(tmp_path, mode, channels):
    images = datasets.load_train("folder", make_folder(tmp_path, mode=mode))
    assert images.shape == (channels, 9, 7) and images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert len(images.mean) == channels


def test_folder_takes_val_where_there_is_no_test(tmp_path):
    make_folder(tmp_path, splits=("train", "val"))
    train = datasets.load_train("folder", tmp_path)
    assert len(datasets.load_test("folder", tmp_path, train)) == 6


def test_small_images_need_no_size_however_long_their_other_side(tmp_path):
    assert datasets.load_train("folder", make_folder(tmp_path, size=(9, 130))).shape == (3, 9, 130)


def test_scaled_images_are_their_centres_undistorted_in_either_split(tmp_path):
    """Three stripes as wide as each is high: of the middle one all remains, of the others none."""
    stripes = np.zeros((16, 48, 3), dtype=np.uint8)
    stripes[:, 16:32] = 200
    make_folder(tmp_path, size=(16, 16))
    for k, wide in enumerate((stripes, stripes.transpose(1, 0, 2))):
        for split in ("train", "test"):
            Image.fromarray(wide).save(tmp_path / split / "cat" / f"a{k}.png")
    train = datasets.load_train("folder", tmp_path, 8)
    for images in (train, datasets.load_test("folder", tmp_path, train, 8)):
        assert images.shape == (3, 8, 8)
        assert (images.pixels[3:5, :, 2:6, 2:6] == 200).all()  # after cat/0.png to cat/2.png
        assert (images.pixels[3:5] > 90).all()  # what scaling mixes at the edges


def test_mixed_sizes_need_an_image_size(tmp_path):
    make_folder(tmp_path)
    Image.new("RGB", (20, 30)).save(tmp_path / "train" / "dog" / "z.png")
    with pytest.raises(InputError, match=r"30x20, others are 9x7; --image-size"):
        datasets.load_train("folder", tmp_path)
    images = datasets.load_train("folder", tmp_path, image_size=8)
    assert images.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: None, "no folder train/"),
        (lambda root: (root / "train").mkdir(), "holds 0 class folders"),
        (lambda root: make_folder(root, classes=("cat",)), "holds 1 class folders"),
        (lambda root: (make_folder(root) / "train" / "eel").mkdir(), "no image in .*eel"),
        (lambda root: (make_folder(root) / "train" / "cat" / "1.png").write_text("no"),
         "1.png is no readable image"),
    ],
)
def test_what_is_wrong_with_a_folder(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        datasets.load_train("folder", tmp_path)


def test_a_file_of_a_splits_name_is_no_split(tmp_path):
    make_folder(tmp_path, splits=("train", "val"))
    (tmp_path / "test").write_text("no folder")
    train = datasets.load_train("folder", tmp_path)
    assert len(datasets.load_test("folder", tmp_path, train)) == 6


def test_test_split_problems_are_named(tmp_path):
    train = datasets.load_train("folder", make_folder(tmp_path, splits=("train",)))
    with pytest.raises(InputError, match="no test/ and no val/ and no valid/"):
        datasets.load_test("folder", tmp_path, train)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "owl").mkdir()
    with pytest.raises(InputError, match="other classes"):
        datasets.load_test("folder", tmp_path, train)


@pytest.mark.parametrize(("size", "mode"), [((30, 30), "RGB"), ((33, 33), "L"), ((31, 40), "RGB")])
def test_images_of_odd_sizes_and_grey_ones_make_batches(tmp_path, size, mode):
    images = datasets.load_train("folder", make_folder(tmp_path, size=size, mode=mode))
    assert images.shape == (3 if mode == "RGB" else 1, *size)
    served = loader.batches(
        images, "cpu", None, 3, Augmentation(4, True, 16), seed=0, stream="train"
    )
    x, labels = served.train(0)
    assert x.shape == (3, *images.shape) and x.isfinite().all() and len(labels) == 3
    assert [len(y) for _, y in served.evaluate()] == [3, 3]


# -------------------------------------------------------------------- CINIC-10 and large images


def test_cinic10_trains_on_two_splits_and_tests_on_the_third(tmp_path):
    make_folder(tmp_path, splits=("train", "valid", "test"))
    parts = [datasets.load_train("folder", tmp_path), datasets.load_train("cinic10", tmp_path)]
    assert [len(part) for part in parts] == [6, 12]
    train, test = parts[1], datasets.load_test("cinic10", tmp_path, parts[1])
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] * 2 and len(test) == 6
    assert torch.equal(train.pixels[:6], parts[0].pixels)
    values = train.pixels.double() / 255
    assert train.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert test.mean == train.mean
    (tmp_path / "valid" / "cat").rename(tmp_path / "valid" / "owl")
    with pytest.raises(InputError, match="valid/ has other classes than the training images"):
        datasets.load_train("cinic10", tmp_path)
    for path in sorted((tmp_path / "valid").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "valid").rmdir()
    with pytest.raises(InputError, match="no folder valid/ there"):
        datasets.load_train("cinic10", tmp_path)


def test_imagenet_stays_in_its_files(tmp_path):
    make_files(tmp_path)
    train = datasets.load_train("imagenet", tmp_path, workers=3)
    assert train.shape == (3, 224, 224) and train.classes == ("n01", "n02") and len(train) == 12
    assert (train.mean, train.std) == datasets.STATISTICS["imagenet"] and train.workers == 3
    assert train.path(7) == tmp_path / "train/n02/1.JPEG" and train.labels[7] == 1
    test = datasets.load_test("imagenet", tmp_path, train)
    assert test.path(0) == tmp_path / "val/n01/0.JPEG" and test.shape == train.shape
    assert datasets.load_train("imagenet", tmp_path, 32).shape == (3, 32, 32)
    part = train.subset(torch.tensor([9, 2]))
    assert [part.path(k).name for k in range(2)] == ["3.JPEG", "2.JPEG"]
    assert part.labels.tolist() == [1, 0] and len(train.limited(5, 0)) == 5


def test_files_are_told_apart_by_name_length_and_label(tmp_path):
    make_files(tmp_path)
    first = datasets.load_train("imagenet", tmp_path)
    same = datasets.load_train("imagenet", tmp_path).sha256()
    assert first.sha256() == same != datasets.load_train("imagenet", tmp_path, 128).sha256()
    file = tmp_path / "train/n01/0.JPEG"
    file.write_bytes(file.read_bytes() + b"0")
    assert datasets.load_train("imagenet", tmp_path).sha256() != same
    file.write_bytes(file.read_bytes()[:-1])
    assert datasets.load_train("imagenet", tmp_path).sha256() == same
    file.rename(file.with_name("z.JPEG"))
    assert datasets.load_train("imagenet", tmp_path).sha256() != same


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_large_images_of_a_folder_stay_in_their_files_too(tmp_path, mode, channels):
    make_folder(tmp_path, size=(130, 140), mode=mode)
    with pytest.raises(InputError, match="0.png is 130x140 pixels; .* --image-size 224"):
        datasets.load_train("folder", tmp_path)
    small = datasets.load_train("folder", tmp_path, 64)
    assert isinstance(small, Images) and small.shape == (channels, 64, 64)
    train = datasets.load_train("folder", tmp_path, 128)
    assert isinstance(train, ImageFiles) and train.shape == (channels, 128, 128)
    whole = [x for x, _ in loader.batches(train, "cpu", None, 6, Augmentation(), seed=0, stream="")
             .evaluate()]
    pixels = torch.cat(whole)  # normalised by what was measured
    assert pixels.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(pixels.square().mean((0, 2, 3)), torch.ones(channels))
    test = datasets.load_test("folder", tmp_path, train)
    assert (test.mean, test.std, test.shape) == (train.mean, train.std, train.shape)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: None, "no folder train/"),
        (lambda root: make_files(root, splits=("train",)), "holds no val/ with class"),
        (lambda root: make_files(root, splits=("train",)) and (root / "val").mkdir(),
         "holds no val/ with class folders"),
        (lambda root: [f.unlink() for f in make_files(root).glob("val/n01/*")],
         "no image in .*val/n01"),
    ],
)
def test_what_is_wrong_with_imagenet(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        datasets.load_test("imagenet", tmp_path, datasets.load_train("imagenet", tmp_path))


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "svhn", "cinic10"])
def test_a_size_that_cannot_be_chosen(tmp_path, dataset):
    with pytest.raises(InputError, match=f"--image-size .* {dataset} has one size"):
        datasets.load_train(dataset, tmp_path, 32)


# ------------------------------------------------------------------------------ SVHN, the same way


def make_svhn(root, monkeypatch):
    """Three files of SVHN's format, and torchvision told their checksums."""
    generator = np.random.default_rng(0)
    root.mkdir()
    files = {}
    for split, count in (("train", 20), ("extra", 30), ("test", 10)):
        file = f"{split}_32x32.mat"
        pixels = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)[:, None] % 10 + 1  # a zero is a 10 there
        scipy.io.savemat(root / file, {"X": pixels, "y": labels})
        files[split] = ["no network", file, hashlib.md5((root / file).read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", files)


def test_svhn_trains_with_its_extra_images(tmp_path, monkeypatch):
    make_svhn(tmp_path / "data", monkeypatch)
    train = datasets.load_train("svhn", tmp_path / "data")
    assert len(train) == 50 and train.shape == (3, 32, 32) and train.classes == tuple("0123456789")
    assert train.labels[:12].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    extra = scipy.io.loadmat(tmp_path / "data" / "extra_32x32.mat")["X"]
    assert np.array_equal(train.pixels[20], extra[..., 0].transpose(2, 0, 1))
    values = train.pixels.double() / 255
    assert train.std == pytest.approx(values.std((0, 2, 3)).tolist(), abs=1e-3)
    test = datasets.load_test("svhn", tmp_path / "data", train)
    assert len(test) == 10 and (test.mean, test.std) == (train.mean, train.std)


def test_svhn_that_cannot_be_had_says_what_to_do(tmp_path, monkeypatch):
    make_svhn(tmp_path / "data", monkeypatch)
    (tmp_path / "data" / "extra_32x32.mat").unlink()

    def urlopen(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(SVHN, "split_list", {
        split: [f"http://localhost/{file}", file, md5]
        for split, (_, file, md5) in SVHN.split_list.items()
    })
    with pytest.raises(InputError, match=r"--dataset svhn: no complete copy .*\n.*folder"):
        datasets.load_train("svhn", tmp_path / "data")


# -------------------------------------------------------------------- CIFAR, without the network


def make_cifar10(root, monkeypatch):
    """An archive of CIFAR-10's layout with 20 images a file, and torchvision told its checksums."""
    generator = np.random.default_rng(0)
    base = root / "source" / CIFAR10.base_folder
    base.mkdir(parents=True)
    files = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    for name in files:
        content = {"data": generator.integers(0, 256, (20, 3072), dtype=np.uint8),
                   "labels": [k % 10 for k in range(20)]}
        (base / name).write_bytes(pickle.dumps(content))
    meta = CIFAR10.meta["filename"]
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
             "truck"]
    (base / meta).write_bytes(pickle.dumps({"label_names": names}))

    def md5(path):
        return hashlib.md5(path.read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR10, "train_list", [[n, md5(base / n)] for n in files[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[n, md5(base / n)] for n in files[5:]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(base / meta)})
    archive = root / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(base, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))

    class Response(io.BytesIO):
        length, url = None, CIFAR10.url

    def urlopen(request, *_, **__):  # in the network's place: the real download code, a local file
        assert request.full_url == CIFAR10.url
        if not archive.exists():
            raise urllib.error.URLError("no network")
        return Response(archive.read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return archive


def test_cifar10_is_downloaded_and_checked_once(tmp_path, monkeypatch):
    archive = make_cifar10(tmp_path, monkeypatch)
    root = tmp_path / "data"
    images = datasets.load_train("cifar10", root)
    assert len(images) == 100 and images.shape == (3, 32, 32)
    assert images.classes[0] == "airplane" and images.mean == datasets.STATISTICS["cifar10"][0]
    archive.unlink()
    assert datasets.load_train("cifar10", root).sha256() == images.sha256()  # no second download
    assert len(datasets.load_test("cifar10", root, images)) == 20


def test_cifar10_is_red_green_and_blue_row_by_row(tmp_path, monkeypatch):
    """As its authors describe their files: 1024 numbers a channel, 32 a row."""
    make_cifar10(tmp_path, monkeypatch)
    images = datasets.load_train("cifar10", tmp_path / "data")
    file = tmp_path / "source" / CIFAR10.base_folder / "data_batch_1"
    content = pickle.loads(file.read_bytes())  # which this test has written
    assert np.array_equal(images.pixels[:20].numpy(), content["data"].reshape(20, 3, 32, 32))
    assert images.labels[:20].tolist() == content["labels"]


def test_cifar10_that_cannot_be_had_says_what_to_do(tmp_path, monkeypatch):
    archive = make_cifar10(tmp_path, monkeypatch)
    archive.unlink()
    with pytest.raises(InputError, match=r"--data-root .*\n.*--dataset folder"):
        datasets.load_train("cifar10", tmp_path / "data")


def test_a_corrupted_download_is_refused(tmp_path, monkeypatch):
    archive = make_cifar10(tmp_path, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(InputError, match="download failed"):
        datasets.load_train("cifar10", tmp_path / "data")


# ------------------------------------------------------------------------- what a search is given


def test_a_search_never_opens_the_test_split(tmp_path, command, monkeypatch):
    """Nor would it survive the attempt: there is nothing readable in it."""
    make_folder(tmp_path / "images", splits=("train", "test"), size=(8, 8))
    for path in (tmp_path / "images" / "test").rglob("*.png"):
        path.write_bytes(b"not to be opened")
    opened = []
    original = datasets.load_test
    monkeypatch.setattr(datasets, "load_test", lambda *a: opened.append(a) or original(*a))
    status, out, err = command(
        "pc_darts/search.py", "--dataset", "folder", "--data-root", tmp_path / "images",
        "--channels", 4, "--cells", 3, "--epochs", 1, "--batch-size", 3, "--warmup-epochs", 0,
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert status == 0 and opened == [], err
    assert f"evaluate/train.py --genotype {tmp_path / 'run'}" in out
    (config,) = chosen_preset(["--genotype", str(tmp_path / "run")]).values()
    assert config.dataset == "folder" and config.batch_size == 3  # the search's images, its batch
    with pytest.raises(InputError, match="no readable image"):
        train = datasets.load_train("folder", tmp_path / "images")
        datasets.load_test("folder", tmp_path / "images", train)  # a retraining does open it


def test_grey_of_one_bit_or_with_an_alpha_channel_is_grey(tmp_path):
    make_folder(tmp_path, splits=("train",), size=(8, 8), mode="L")
    Image.new("1", (8, 8), 1).save(tmp_path / "train" / "cat" / "0.png")
    Image.new("LA", (8, 8), (70, 255)).save(tmp_path / "train" / "dog" / "0.png")
    images = datasets.load_train("folder", tmp_path)
    assert images.shape == (1, 8, 8)
    assert (images.pixels[0] == 255).all() and (images.pixels[3] == 70).all()
    Image.new("P", (8, 8)).save(tmp_path / "train" / "dog" / "1.png")  # a palette has colours
    assert datasets.load_train("folder", tmp_path).shape == (3, 8, 8)


def test_a_coloured_image_makes_all_training_images_coloured(tmp_path):
    make_folder(tmp_path, size=(8, 8))
    grey = Image.fromarray(np.full((8, 8), 77, dtype=np.uint8))
    for split in ("train", "test"):
        grey.save(tmp_path / split / "cat" / "0.png")
    train = datasets.load_train("folder", tmp_path)
    test = datasets.load_test("folder", tmp_path, train)
    for images in (train, test):
        assert images.shape == (3, 8, 8) and (images.pixels[0] == 77).all()
        assert not torch.equal(images.pixels[1, 0], images.pixels[1, 1])
    assert (test.mean, test.std) == (train.mean, train.std)


def test_test_images_have_the_size_and_channels_of_the_training_images(tmp_path):
    make_folder(tmp_path, splits=("train",), size=(8, 8), mode="L")
    make_folder(tmp_path, splits=("test",), size=(8, 8))
    train = datasets.load_train("folder", tmp_path)
    assert datasets.load_test("folder", tmp_path, train).shape == (1, 8, 8)
    Image.new("RGB", (9, 9)).save(tmp_path / "test" / "cat" / "0.png")
    with pytest.raises(InputError, match="9x9, others are 8x8"):
        datasets.load_test("folder", tmp_path, train)


def test_hidden_files_are_no_images_and_deep_ones_are_refused(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "cat" / "._0.png").write_text("no image")
    assert len(datasets.load_train("folder", tmp_path)) == 6
    deep = np.full((9, 7), 40_000, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(InputError, match="more than 8 bits"):
        datasets.load_train("folder", tmp_path)


def test_limited_images_are_a_seeded_choice():
    images = datasets.load_train("digits", "")
    few = images.limited(100, seed=0)
    assert len(few) == 100 and few.sha256() == images.limited(100, seed=0).sha256()
    assert few.sha256() != images.limited(100, seed=1).sha256()
    assert images.limited(None, seed=0) is images
    with pytest.raises(InputError, match=r"--limit-images 5000: .* 1438"):
        images.limited(5000, seed=0)


def test_all_images_may_be_asked_for_by_their_number():
    images = Images(torch.zeros(5, 1, 2, 2), torch.arange(5), tuple("abcde"), (0.0,), (1.0,))
    assert images.limited(5, seed=0).labels.tolist() == [0, 1, 2, 3, 4]
    assert all(len(set(images.limited(3, seed).labels.tolist())) == 3 for seed in range(9))


def test_images_are_described_by_what_they_are():
    images = Images(torch.zeros(2, 1, 3, 4), torch.arange(2), ("a", "b"), (0.25,), (0.5,))
    assert images.described() == {
        "classes": ["a", "b"], "shape": [1, 3, 4], "mean": [0.25], "std": [0.5]
    }


@pytest.mark.parametrize("size", [8, 128])
def test_only_the_given_indices_are_served_from_memory_and_files(tmp_path, size):
    images = datasets.load_train("folder", make_folder(tmp_path, size=(8, 8)), size)
    images = dataclasses.replace(images, labels=torch.arange(6))  # which say which it is
    served = loader.batches(
        images, "cpu", torch.tensor([4, 1, 3]), 1, Augmentation(), seed=0, stream="train"
    )
    assert len(served) == 3
    for first in (0, 3):
        labels = [served.train(first + k)[1].item() for k in range(3)]
        assert sorted(labels) == [1, 3, 4]
    assert torch.cat([labels for _, labels in served.evaluate()]).tolist() == [4, 1, 3]


def test_grey_images_in_files_are_served_beside_coloured_ones(tmp_path):
    make_folder(tmp_path, size=(8, 8))
    Image.new("L", (8, 8), 77).save(tmp_path / "train" / "cat" / "1.png")
    images = datasets.load_train("folder", tmp_path, 128)
    served = loader.batches(images, "cpu", None, 6, Augmentation(), seed=0, stream="train")
    for x in (served.train(0)[0], next(served.evaluate())[0]):
        assert x.shape == (6, 3, 128, 128)


def test_a_digest_tells_pixels_labels_and_shapes_apart():
    pixels = torch.arange(32, dtype=torch.uint8)
    kinds = [
        Images(pixels.view(2, *shape), torch.tensor(labels), ("a", "b"), (0.0,), (1.0,))
        for shape in ((1, 4, 4), (1, 2, 8)) for labels in ([0, 1], [1, 0])
    ]
    kinds.append(dataclasses.replace(kinds[0], pixels=kinds[0].pixels.flip(0)))
    assert len({images.sha256() for images in kinds}) == 5


def test_a_digest_of_files_tells_their_labels_apart(tmp_path):
    images = datasets.load_train("imagenet", make_files(tmp_path, count=1))
    assert dataclasses.replace(images, labels=1 - images.labels).sha256() != images.sha256()
