"""Data sets, read without the network."""

import hashlib
import io
import pickle
import tarfile
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from common import data
from common.data import Split
from common.errors import InputError


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
    train = data.load_train("digits", "")
    test = data.load_test("digits", "", train)
    assert len(train) + len(test) == 1797 and train.shape == (1, 8, 8)
    shares = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert ((shares - 0.2).abs() < 0.01).all()
    assert train.pixels.max() == 255 and train.pixels.dtype == torch.uint8
    again = data.load_test("digits", "", train)
    assert again.sha256() == test.sha256() != train.sha256()
    assert test.mean == train.mean  # of the training images
    values = train.pixels.double() / 255
    assert train.mean[0] == pytest.approx(values.mean().item(), abs=1e-6)
    assert train.std[0] == pytest.approx(values.std().item(), abs=1e-4)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_folder_reads_channels_size_and_classes(tmp_path, mode, channels):
    images = data.load_train("folder", make_folder(tmp_path, mode=mode))
    assert images.shape == (channels, 9, 7) and images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert len(images.mean) == channels


def test_folder_takes_val_where_there_is_no_test(tmp_path):
    make_folder(tmp_path, splits=("train", "val"))
    train = data.load_train("folder", tmp_path)
    assert len(data.load_test("folder", tmp_path, train)) == 6


def test_mixed_sizes_need_an_image_size(tmp_path):
    make_folder(tmp_path)
    Image.new("RGB", (20, 30)).save(tmp_path / "train" / "dog" / "z.png")
    with pytest.raises(InputError, match=r"30x20, others are 9x7; --image-size"):
        data.load_train("folder", tmp_path)
    images = data.load_train("folder", tmp_path, image_size=8)
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
        data.load_train("folder", tmp_path)


def test_test_split_problems_are_named(tmp_path):
    train = data.load_train("folder", make_folder(tmp_path, splits=("train",)))
    with pytest.raises(InputError, match="no test/ and no val/"):
        data.load_test("folder", tmp_path, train)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "owl").mkdir()
    with pytest.raises(InputError, match="other classes"):
        data.load_test("folder", tmp_path, train)


# -------------------------------------------------------------------- CIFAR, without the network


def make_cifar10(root, monkeypatch):
    """An archive of CIFAR-10's layout with 20 images a file, and torchvision told its checksums."""
    from torchvision.datasets import CIFAR10

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
    images = data.load_train("cifar10", root)
    assert len(images) == 100 and images.shape == (3, 32, 32)
    assert images.classes[0] == "airplane" and images.mean == data.STATISTICS["cifar10"][0]
    archive.unlink()
    assert data.load_train("cifar10", root).sha256() == images.sha256()  # no second download
    assert len(data.load_test("cifar10", root, images)) == 20


def test_cifar10_that_cannot_be_had_says_what_to_do(tmp_path, monkeypatch):
    archive = make_cifar10(tmp_path, monkeypatch)
    archive.unlink()
    with pytest.raises(InputError, match=r"--data-root .*\n.*--dataset folder"):
        data.load_train("cifar10", tmp_path / "data")


def test_a_corrupted_download_is_refused(tmp_path, monkeypatch):
    archive = make_cifar10(tmp_path, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(InputError, match="download failed"):
        data.load_train("cifar10", tmp_path / "data")


# -------------------------------------------------------------------------------------- the split


def test_halves_are_disjoint_seeded_and_equal():
    split = Split.halves(101, seed=0)
    assert len(split.train) == len(split.valid) == 50
    assert not set(split.train.tolist()) & set(split.valid.tolist())
    assert Split.halves(101, seed=0).to_json() == split.to_json()
    assert Split.halves(101, seed=1).to_json()["sha256"] != split.to_json()["sha256"]


def test_a_search_never_opens_the_test_split(tmp_path, command, monkeypatch):
    """Nor would it survive the attempt: there is nothing readable in it."""
    make_folder(tmp_path / "images", splits=("train", "test"), size=(8, 8))
    for path in (tmp_path / "images" / "test").rglob("*.png"):
        path.write_bytes(b"not to be opened")
    opened = []
    original = data.load_test
    monkeypatch.setattr(data, "load_test", lambda *a: opened.append(a) or original(*a))
    status, out, err = command(
        "pc_darts/search.py", "--dataset", "folder", "--data-root", tmp_path / "images",
        "--channels", 4, "--cells", 3, "--epochs", 1, "--batch-size", 3, "--warmup-epochs", 0,
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert status == 0 and opened == [], err
    assert "--auxiliary-weight 0 --batch-size 3" in out  # the next command fits these images
    with pytest.raises(InputError, match="no readable image"):
        train = data.load_train("folder", tmp_path / "images")
        data.load_test("folder", tmp_path / "images", train)  # a retraining does open it


def test_a_coloured_image_makes_all_training_images_coloured(tmp_path):
    make_folder(tmp_path, size=(8, 8))
    grey = Image.fromarray(np.full((8, 8), 77, dtype=np.uint8))
    for split in ("train", "test"):
        grey.save(tmp_path / split / "cat" / "0.png")
    train = data.load_train("folder", tmp_path)
    test = data.load_test("folder", tmp_path, train)
    for images in (train, test):
        assert images.shape == (3, 8, 8) and (images.pixels[0] == 77).all()
        assert not torch.equal(images.pixels[1, 0], images.pixels[1, 1])
    assert (test.mean, test.std) == (train.mean, train.std)


def test_test_images_have_the_size_and_channels_of_the_training_images(tmp_path):
    make_folder(tmp_path, splits=("train",), size=(8, 8), mode="L")
    make_folder(tmp_path, splits=("test",), size=(8, 8))
    train = data.load_train("folder", tmp_path)
    assert data.load_test("folder", tmp_path, train).shape == (1, 8, 8)
    Image.new("RGB", (9, 9)).save(tmp_path / "test" / "cat" / "0.png")
    with pytest.raises(InputError, match="9x9, others are 8x8"):
        data.load_test("folder", tmp_path, train)


def test_hidden_files_are_no_images_and_deep_ones_are_refused(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "cat" / "._0.png").write_text("no image")
    assert len(data.load_train("folder", tmp_path)) == 6
    deep = np.full((9, 7), 40_000, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(InputError, match="more than 8 bits"):
        data.load_train("folder", tmp_path)


def test_limited_images_are_a_seeded_choice():
    images = data.load_train("digits", "")
    few = images.limited(100, seed=0)
    assert len(few) == 100 and few.sha256() == images.limited(100, seed=0).sha256()
    assert few.sha256() != images.limited(100, seed=1).sha256()
    assert images.limited(None, seed=0) is images
    with pytest.raises(InputError, match=r"--limit-images 5000: .* 1438"):
        images.limited(5000, seed=0)
