"""COCO's average precision against a computation by hand."""

import json
import sys
from pathlib import Path

import pytest
import torch

from detection.average_precision import METRICS, average_precision
from detection.coco import Coco, read_split
from shapes import make_coco


def split(*images):
    """Each image is a list of objects: left, top, right, bottom, then what differs from these."""
    objects = [
        [
            {"image_id": number, "category_id": 1, "bbox": [left, top, right - left, bottom - top],
             "area": (right - left) * (bottom - top), "iscrowd": 0, **changes}
            for (left, top, right, bottom), changes in rows
        ]
        for number, rows in enumerate(images)
    ]  # fmt: skip
    return Coco([Path()] * len(images), objects, ["a", "b"], "")


def found(*rows):
    """Detections of label 1: left, top, right, bottom, score."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    ones = torch.ones(len(table), dtype=torch.int64)
    return {"boxes": table[:, :4], "labels": ones, "scores": table[:, 4]}


def by_hand(truth, detections, threshold):
    """Percent of one class: precision made to fall, read at 101 recalls.

    Args:
        truth: for each image its boxes [N, 4].
        detections: image, box [4] and score.
        threshold: least overlap, as intersection over union.
    """
    taken = [set() for _ in truth]
    right = []
    for image, box, _ in sorted(detections, key=lambda one: -one[2]):
        best, at = threshold, None
        for k, other in enumerate(truth[image]):
            sides = [min(box[2 + a], other[2 + a]) - max(box[a], other[a]) for a in (0, 1)]
            inner = max(sides[0], 0) * max(sides[1], 0)
            area = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            overlap = inner / (sum(area) - inner)
            if k not in taken[image] and overlap >= best:
                best, at = overlap, k
        right.append(at is not None)
        if at is not None:
            taken[image].add(at)
    count, hits, curve = sum(map(len, truth)), 0, []
    for n, hit in enumerate(right, 1):
        hits += hit
        curve.append((hits / count, hits / n))
    read = [max([p for r, p in curve if r >= k / 100 - 1e-12], default=0) for k in range(101)]
    return 100 * sum(read) / 101


def test_the_ground_truth_scores_100(tmp_path, capfd):
    pytest.importorskip("pycocotools")
    make_coco(tmp_path, train=1, valid=5)
    truth = read_split(tmp_path, "val2017")
    perfect = {number: truth.target(number) for number in range(len(truth))}
    for one in perfect.values():
        one["scores"] = torch.rand(len(one["labels"]))
    scored = average_precision(truth, perfect)
    assert scored["AP"] == scored["AP50"] == scored["AP75"] == pytest.approx(100)
    assert tuple(scored) == METRICS and scored["APl"] is None  # no shape is that large
    wrong = {k: {**one, "labels": one["labels"] % 3 + 1} for k, one in perfect.items()}
    assert average_precision(truth, wrong)["AP"] < 20
    json.dumps(nothing := average_precision(truth, {}))  # plain floats
    assert nothing["AP"] == 0 and capfd.readouterr().out == ""


def test_shifted_missed_duplicate_and_wrong_boxes():
    pytest.importorskip("pycocotools")
    one, two = [(0, 0, 40, 40), (50, 50, 90, 90)], [(10, 10, 60, 60)]
    detections = [
        (0, (4, 0, 44, 40), 0.9),  # overlaps by 9/11
        (0, (2, 0, 42, 40), 0.8),  # 19/21, but at lower thresholds a duplicate
        (1, (70, 70, 90, 90), 0.7),  # nothing there
        (1, (10, 20, 60, 70), 0.6),  # overlaps by 2/3
    ]  # the fourth box is missed
    values = average_precision(
        split([(box, {}) for box in one], [(box, {}) for box in two]),
        {k: found(*((*box, score) for i, box, score in detections if i == k)) for k in (0, 1)},
    )
    expected = {t: by_hand([one, two], detections, t) for t in torch.arange(0.5, 1, 0.05).tolist()}
    assert values["AP"] == pytest.approx(sum(expected.values()) / 10)
    assert values["AP50"] == pytest.approx(list(expected.values())[0])
    assert values["AP75"] == pytest.approx(list(expected.values())[5])
    assert 0 < values["AP75"] < values["AP50"] < 100
    assert values["APs"] is None and values["APl"] is None  # areas of 1600 and 2500 are medium


@pytest.mark.parametrize("more", [[], [(55, 55, 70, 70, 0.9)]])
def test_a_crowd_may_be_found_or_missed(more):
    pytest.importorskip("pycocotools")
    truth = split([((0, 0, 40, 40), {}), ((50, 50, 90, 90), {"iscrowd": 1})])
    scored = average_precision(truth, {0: found((0, 0, 40, 40, 0.5), *more)})
    assert scored["AP"] == pytest.approx(100)


@pytest.mark.parametrize(("area", "size"), [(1000, "APs"), (2000, "APm"), (9999, "APl")])
def test_size_is_the_annotated_area_not_the_boxs(area, size):
    pytest.importorskip("pycocotools")
    truth = split([((0, 0, 40, 40), {"area": area})])
    scored = average_precision(truth, {0: found((0, 0, 40, 40, 0.5))})
    assert scored[size] == pytest.approx(100)
    assert [scored[other] for other in ("APs", "APm", "APl")].count(None) == 2


def test_without_pycocotools_no_run_begins(tmp_path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    status, _, err = command("evaluate/detect.py", "--output", tmp_path / "run")
    assert status == 2 and "pip install -e '.[detection]'" in err
    assert not (tmp_path / "run").exists()
