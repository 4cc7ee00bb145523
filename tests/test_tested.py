"""evaluate/test.py: its figures, its picture and what it refuses."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from builders import assert_refused, of_an_older_version
from common.data.datasets import load_test, load_train
from common.draw import pictures
from common.draw.confusion import NAMED, confusion_figure
from common.networks.trained import load_trained
from picture_checks import nothing_overlaps

TEST = "evaluate/test.py"


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.fixture
def no_picture(monkeypatch):
    monkeypatch.setattr(pictures, "confusion", lambda *_: None)


def read(path):
    return json.loads(path.read_text())


def oracle(folder, images):
    """Probabilities [N, K] of images, by the network and nothing else."""
    trained = load_trained(folder)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (trained.mean, trained.std))
    with torch.no_grad():
        return trained.network((images.pixels / 255 - mean) / std).softmax(1)


def test_the_figures_agree_with_the_run_and_with_an_oracle(run, command):
    status, out, err = command(TEST, run, "--threads", 1)
    assert status == 0, err
    tested, result = read(run / "test.json"), read(run / "result.json")
    assert tested["top1"] == result["test_top1"] > 30
    assert tested["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    assert f"top-1  {result['test_top1']:6.2f} %   (the run's result: " in out
    images = load_test("digits", "", load_train("digits", ""))
    probabilities, labels = oracle(run, images), images.labels
    assert tested["images"] == len(labels)
    assert tested["test_sha256"] == images.sha256() == read(run / "images.json")["test_sha256"]
    ranks = (probabilities > probabilities.gather(1, labels[:, None])).sum(1)
    assert tested["top5"] == pytest.approx(100 * (ranks < 5).double().mean().item())
    assert tested["top1"] < tested["top5"] < 100
    confusion = np.array(tested["confusion"])
    guesses = probabilities.argmax(1)
    for label, name in enumerate(images.classes):
        of_class = guesses[labels == label]
        assert confusion[label].tolist() == torch.bincount(of_class, minlength=10).tolist()
        right = 100 * (of_class == label).double().mean().item()
        assert tested["per_class"][name] == pytest.approx(right)
    for kind in ("svg", "png"):
        assert (run / "pictures" / f"confusion.{kind}").stat().st_size > 1000
    # As a script its folder comes first on the path, where `import test` would find the script.
    assert "test" not in sys.modules


def test_json_and_another_batch_size(run, command, no_picture):
    status, out, err = command(TEST, run, "--json", "--batch-size", 7, "--threads", 1)
    assert status == 0, err
    figures, result = json.loads(out), read(run / "result.json")
    assert {**figures, "confusion": 0} == {**read(run / "test.json"), "confusion": 0}
    assert figures["batch_size"] == 7
    assert figures["loss"] == pytest.approx(result["test_loss"], rel=1e-5)


def folder_of_digits(root, part, classes="0123456789", size=8):
    """The test digits as an image folder."""
    images = load_test("digits", "", load_train("digits", ""))
    for k, (pixels, label) in enumerate(zip(images.pixels, images.labels.tolist(), strict=True)):
        folder = root / part / classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels[0].numpy()).resize((size, size), Image.NEAREST)
        image.save(folder / f"{k:04d}.png")
    return root


def test_a_folder_of_the_users_own(run, tmp_path, command, no_picture):
    """Written as files and read back they are the same digits."""
    root = folder_of_digits(tmp_path / "mine", "test")
    status, out, err = command(TEST, run, "--dataset", "folder", "--data-root", root)
    assert status == 0, err
    figures, result = read(run / "test.json"), read(run / "result.json")
    assert figures["dataset"] == "folder" and figures["images"] == 359
    assert figures["top1"] == result["test_top1"]
    assert figures["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    assert "the run's result is on other images" in out  # they come in another order


def test_larger_images_are_scaled_to_the_runs(run, tmp_path, command, no_picture):
    root = folder_of_digits(tmp_path / "mine", "val", size=24)
    status, out, err = command(TEST, run, "--dataset", "folder", "--data-root", root, "--json")
    assert status == 0, err
    assert json.loads(out)["images"] == 359


BAD = {
    "no run": (lambda d, run: [d / "no"], "no run there"),
    "batch": (lambda d, run: [run, "--batch-size", 0], "--batch-size 0: must be 1"),
    "threads": (lambda d, run: [run, "--threads", 0], "--threads 0: must be 1"),
    "no folder": (
        lambda d, run: [run, "--dataset", "folder", "--data-root", d / "no"],
        "--data-root .*holds no test/ and no val/ and no valid/",
    ),
    "classes": (
        lambda d, run: [run, "--dataset", "folder", "--data-root",
                        folder_of_digits(d, "test", "abcdefghij")],
        "--data-root .*test/ has other classes than the training images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_it_refuses(run, tmp_path, command, case):
    arguments, message = BAD[case]
    assert_refused(command(TEST, *arguments(tmp_path / "in", run)), message, run / "test.json")


def test_another_data_set_is_refused(run, command):
    """One that is not a folder, and comes with its own classes."""
    images = read(of_an_older_version(run) / "images.json")  # one without digests
    names = [f"class {k}" for k in range(10)]
    (run / "images.json").write_text(json.dumps({**images, "classes": names}))
    result = command(TEST, run, "--dataset", "digits")
    assert_refused(result, "--dataset digits: other classes", run / "test.json")


def test_images_of_another_shape_are_refused(run, command):
    """A data set of the same classes, as digits and SVHN are."""
    images = read(of_an_older_version(run) / "images.json")  # one without digests
    (run / "images.json").write_text(json.dumps({**images, "shape": [1, 32, 32]}))
    result = command(TEST, run, "--dataset", "digits")
    assert_refused(result, "--dataset digits: images of 1x8x8 .*on 1x32x32", run / "test.json")


# ------------------------------------------------------------------------------------- the picture


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_few_classes_have_their_shares_written_down():
    figure = confusion_figure(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 199]]), ["a", "b$b$", "c"])
    (axes,) = figure.axes
    assert texts(axes) == ["75", "25", "100"]  # a class without images has none
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b$b$", "c"]
    nothing_overlaps(figure)  # a $ is a $
    (image,) = axes.images
    assert image.get_array()[0].tolist() == [75, 25, 0]


def test_the_same_matrix_gives_the_same_file(tmp_path):
    tested = {"per_class": {"a": 100, "b": 50}, "confusion": [[2, 0], [1, 1]]}
    for name in ("one", "two"):
        pictures.confusion(tested, tmp_path / name)
    one, two = ((tmp_path / name / "confusion.svg").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("count", [21, 100, NAMED + 1])
def test_many_classes_have_their_commonest_confusions_named(count):
    counts = 90 * np.eye(count, dtype=int)
    counts[3, 7], counts[5, 2], counts[9, 1] = 60, 30, 10
    names = [f"name {k}" for k in range(count - 1)] + ["a very long name of a class"]
    figure = confusion_figure(counts, names)
    matrix, bars = figure.axes
    assert not texts(matrix)
    labels = [label.get_text() for label in bars.get_yticklabels()]
    assert labels == ["name 3 \u2192 name 7", "name 5 \u2192 name 2", "name 9 \u2192 name 1"]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([40, 25, 10])
    shown = [label.get_text() for label in matrix.get_yticklabels()]
    assert (shown[:-1] == names[:-1] and shown[-1].endswith("\u2026")) == (count <= NAMED)


def test_names_of_a_hundred_classes_do_not_overlap():
    figure = confusion_figure(np.eye(100, dtype=int), [f"class number {k}" for k in range(100)])
    nothing_overlaps(figure)
    assert min(label.get_fontsize() for label in figure.axes[0].get_yticklabels()) >= 5


def test_a_run_folder_is_drawn_with_its_confusion_matrix(run):
    (run / "test.json").write_text(json.dumps({"per_class": {"odd": 100}, "confusion": [[2]]}))
    pictures.run(run)
    assert ">odd</text>" in (run / "pictures" / "confusion.svg").read_text()
