"""Image folders as users have them: links, hidden files, damaged and unusual images."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from builders import make_image_folder
from common.data import datasets
from common.data.image_folder import open_image, read_images
from common.errors import InputError
from common.run.config import RunConfig
from common.run.start import training_images


def test_photographs_are_upright(tmp_path):
    """EXIF orientation 6: the top is on the right."""
    stored = np.zeros((4, 6), dtype=np.uint8)
    stored[:, 0] = 255  # the left column becomes the bottom row
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(open_image(tmp_path / "a.png", None))
    assert upright.shape == (6, 4) and (upright[0] == 255).all() and (upright[1:] == 0).all()
    pixels = read_images(tmp_path, np.array([b"a.png"]), None)
    assert np.array_equal(pixels[0, 0].numpy(), upright)


def test_hidden_files_pipes_and_other_formats_are_skipped_and_links_followed(tmp_path, capsys):
    root = make_image_folder(tmp_path / "images", splits=("train",), size=(8, 8))
    before = len(datasets.load_train("folder", root))
    cat = root / "train" / "cat"
    (cat / ".ipynb_checkpoints").mkdir()
    (cat / "@linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "b.JFIF", format="JPEG")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")
    Image.new("RGB", (8, 8)).save(cat / ".ipynb_checkpoints" / "a.png")
    (cat / "@eaDir" / "a.png").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(cat / "@eaDir" / "a.png" / "thumbnail.jpg")
    (cat / "._0.png").write_text("no image")
    os.mkfifo(cat / "pipe")
    (cat / "raw.heic").touch()
    capsys.readouterr()
    assert len(datasets.load_train("folder", root)) == before + 1  # the linked one
    assert "skipped" in (err := capsys.readouterr().err) and "1 .heic" in err


def test_choice_of_the_test_split(tmp_path, capsys):
    """A flat test/ is skipped, a flag chooses; classes may be missing, others are refused."""
    root = make_image_folder(tmp_path, splits=("train", "valid"), size=(8, 8))
    (root / "test").mkdir()
    Image.new("RGB", (8, 8)).save(root / "test" / "0001.png")
    train = datasets.load_train("folder", root)
    full = datasets.load_test("folder", root, train)
    assert "has no class folders" in capsys.readouterr().err and len(full) > 0
    shutil.rmtree(root / "valid" / train.classes[0])
    some = datasets.load_test("folder", root, train, split="valid")
    assert train.classes[0] in capsys.readouterr().err
    assert some.classes == train.classes and 0 not in some.labels
    assert torch.equal(some.labels, full.labels[full.labels > 0])
    (root / "valid" / "zebra").mkdir()
    with pytest.raises(InputError, match="other classes than the training images: zebra"):
        datasets.load_test("folder", root, train)
    with pytest.raises(InputError, match="holds no nowhere/"):
        datasets.load_test("folder", root, train, split="nowhere")


@pytest.mark.parametrize("size", [None, 128])
def test_all_damaged_files_are_named(tmp_path, accelerator, size):
    root = make_image_folder(tmp_path, splits=("train",), size=(130, 130) if size else (8, 8))
    files = sorted((root / "train").rglob("*.png"))
    for path in files[1:3]:
        path.write_bytes(path.read_bytes()[:40])
    config = RunConfig(dataset="folder", data_root=str(root), image_size=size, workers=0)
    with pytest.raises(InputError) as error:
        training_images(config, accelerator)
    assert all(str(path) in str(error.value) for path in files[1:3])
    assert str(files[0]) not in str(error.value)


def test_unreadable_images_are_refused_with_a_reason(tmp_path, monkeypatch):
    Image.new("LAB", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="mode LAB, other colours; save it as RGB"):
        open_image(tmp_path / "a.tif", None)
    Image.new("L", (40, 40)).save(tmp_path / "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="over 200 pixels; scale it down"):
        open_image(tmp_path / "b.png", None)


def test_class_name_must_be_utf_8(tmp_path):
    root = make_image_folder(tmp_path, splits=("train",), size=(8, 8))
    os.mkdir(os.fsencode(root / "train") + b"/caf\xe9")
    with pytest.raises(InputError, match="is not UTF-8; rename"):
        datasets.load_train("folder", root)


def test_one_coloured_image_makes_all_large_images_coloured(tmp_path, monkeypatch):
    """Even if the measured sample is grey."""
    monkeypatch.setattr(datasets, "MEASURED", 1)
    root = make_image_folder(tmp_path, splits=("train",), size=(130, 130), mode="L")
    files = sorted((root / "train").rglob("*.png"))
    for coloured in files[:2]:
        Image.open(coloured).convert("RGB").save(coloured)
        assert datasets.load_train("folder", root, 128).shape[0] == 3
        Image.open(coloured).convert("L").save(coloured)
    assert datasets.load_train("folder", root, 128).shape[0] == 1


@pytest.mark.parametrize("linked", [False, True])
def test_links_list_no_image_twice_and_none_of_another_class(tmp_path, linked):
    """Even if the class folder is a link itself."""
    root = make_image_folder(tmp_path / "images", splits=("train",), size=(8, 8))
    before = datasets.load_train("folder", root)
    cat = root / "train" / "cat"
    if linked:
        (tmp_path / "elsewhere").mkdir()
        cat.rename(tmp_path / "elsewhere" / "cat")
        cat.symlink_to(tmp_path / "elsewhere" / "cat")
        Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "no_cat.png")
    for number, above in enumerate((root / "train", root, tmp_path, cat, cat.resolve().parent)):
        (cat / f"above{number}").symlink_to(above)
    (cat / "more").mkdir()
    (cat / "again").symlink_to(cat / "more")
    Image.new("RGB", (8, 8)).save(cat / "more" / "b.png")
    images = datasets.load_train("folder", root)
    more = torch.bincount(images.labels) - torch.bincount(before.labels)
    assert [(name, n) for name, n in zip(images.classes, more.tolist(), strict=True) if n] == [
        ("cat", 1)
    ]


def test_links_change_neither_names_nor_order(tmp_path):
    root = make_image_folder(tmp_path, splits=("train",), size=(8, 8))
    cat = root / "train" / "cat"
    (cat / "more").mkdir()
    (cat / "2.png").rename(cat / "more" / "2.png")
    (cat / "again").symlink_to(cat / "more")
    (cat / "0.png").rename(tmp_path / "elsewhere.png")
    (cat / "0.png").symlink_to(tmp_path / "elsewhere.png")
    images = datasets.load_train("folder", root, 128)
    assert [str(images.path(k).relative_to(cat)) for k in range(3)] == [
        "0.png", "1.png", "more/2.png"
    ]


@pytest.mark.parametrize("kind", ["a broken link", "a pipe or a device"])
def test_broken_link_or_pipe_of_an_images_name_is_refused(tmp_path, kind):
    root = make_image_folder(tmp_path, splits=("train",), size=(8, 8))
    path = root / "train" / "cat" / "x.png"
    if "link" in kind:
        path.symlink_to(root / "gone.png")
    else:
        os.mkfifo(path)
    with pytest.raises(InputError, match=f"{path} is {kind}; remove it"):
        datasets.load_train("folder", root)


def test_unreadable_folder_is_named(tmp_path, monkeypatch):
    root = make_image_folder(tmp_path, splits=("train",), size=(8, 8))
    original = os.scandir

    def scandir(path):  # permissions do not stop root
        if str(path).endswith("train/cat"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="train/cat cannot be read .Permission denied"):
        datasets.load_train("folder", root)
