"""COCO's average precision against a computation by hand."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from common.errors import InputError
from detection.average_precision import METRICS, Found, average_precision, check_installed
from detection.coco import Boxes, Coco, read_split
from shapes import make


def boxes(*rows):
    """Of rows: left, top, right, bottom, label[, crowd]."""
    table = torch.tensor([[*row, 0][:6] for row in rows], dtype=torch.float32).view(-1, 6)
    corners = table[:, :4]
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    return Boxes(corners, table[:, 4].long(), areas, table[:, 5] > 0)


def split(*images):
    counts = torch.tensor([0, *map(len, images)])
    parts = ("corners", "labels", "areas", "crowd")
    whole = Boxes(*(torch.cat([getattr(one, part) for one in images]) for part in parts))
    return Coco(("",) * len(images), whole, counts.cumsum(0), {3: "a", 7: "b"}, "")


def found(image, *rows):
    """Of rows: left, top, right, bottom, label, score."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return Found(image, table[:, :4], table[:, 4].long(), table[:, 5])


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


def test_the_ground_truth_scores_100(tmp_path):
    pytest.importorskip("pycocotools")
    make(tmp_path, train=1, valid=5)
    truth = read_split(tmp_path, "val2017")
    perfect = [
        Found(k, b.corners, b.labels, torch.rand(len(b)))
        for k in range(len(truth)) for b in [truth.boxes_of(k)]
    ]  # fmt: skip
    scored = average_precision(truth, perfect)
    assert scored["AP"] == scored["AP50"] == scored["AP75"] == pytest.approx(100)
    assert tuple(scored) == METRICS and scored["APl"] is None  # no shape is that large
    wrong = [Found(one.image, one.corners, one.labels % 3 + 1, one.scores) for one in perfect]
    assert average_precision(truth, wrong)["AP"] < 20
    assert average_precision(truth, [])["AP"] == 0


def test_shifted_missed_doubled_and_wrong_boxes_score_what_a_hand_computes():
    pytest.importorskip("pycocotools")
    one, two = [(0, 0, 40, 40), (50, 50, 90, 90)], [(10, 10, 60, 60)]
    truth = split(boxes(*(b + (1,) for b in one)), boxes(*(b + (1,) for b in two)))
    detections = [
        (0, (4, 0, 44, 40), 0.9),  # overlaps by 9/11
        (0, (2, 0, 42, 40), 0.8),  # 19/21, but at lower thresholds a double
        (1, (70, 70, 90, 90), 0.7),  # nothing there
        (1, (10, 20, 60, 70), 0.6),  # overlaps by 2/3
    ]  # the fourth box is missed
    values = average_precision(
        truth, [found(k, *((*b, 1, s) for i, b, s in detections if i == k)) for k in (0, 1)]
    )
    expected = {t: by_hand([one, two], detections, t) for t in torch.arange(0.5, 1, 0.05).tolist()}
    assert values["AP"] == pytest.approx(sum(expected.values()) / 10)
    assert values["AP50"] == pytest.approx(list(expected.values())[0])
    assert values["AP75"] == pytest.approx(list(expected.values())[5])
    assert 0 < values["AP75"] < values["AP50"] < 100
    assert values["APs"] is None and values["APl"] is None  # areas of 1600 and 2500 are medium


def test_a_crowd_is_neither_missed_nor_a_mistake_to_find():
    pytest.importorskip("pycocotools")
    truth = split(boxes((0, 0, 40, 40, 1), (50, 50, 90, 90, 1, 1)))
    assert average_precision(truth, [found(0, (0, 0, 40, 40, 1, 0.5))])["AP"] == pytest.approx(100)
    both = found(0, (0, 0, 40, 40, 1, 0.5), (55, 55, 70, 70, 1, 0.9))
    assert average_precision(truth, [both])["AP"] == pytest.approx(100)


def test_the_annotated_area_says_what_is_small():
    pytest.importorskip("pycocotools")
    truth = split(boxes((0, 0, 40, 40, 1)))  # the box is medium, the shape in it need not be
    for area, size in ((1000, "APs"), (2000, "APm")):
        annotated = replace(truth, boxes=replace(truth.boxes, areas=torch.tensor([float(area)])))
        scored = average_precision(annotated, [found(0, (0, 0, 40, 40, 1, 0.5))])
        assert scored[size] == pytest.approx(100)
        assert [scored[other] for other in ("APs", "APm", "APl")].count(None) == 2


def test_without_pycocotools_the_extra_is_named_before_anything_starts(
    tmp_path, command, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[detection\]'"):
        check_installed()
    status, _, err = command("evaluate/detect.py", "--output", tmp_path / "run")
    assert status == 2 and "[detection]" in err and not (tmp_path / "run").exists()


def test_pycocotools_does_not_print(tmp_path, capfd):
    pytest.importorskip("pycocotools")
    average_precision(split(boxes((0, 0, 40, 40, 1))), [])
    assert capfd.readouterr().out == ""
    json.dumps(average_precision(split(boxes((0, 0, 40, 40, 1))), []))  # plain floats
