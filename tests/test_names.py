"""Names that users gave go into pictures and pages as they are, never as markup or formulas."""

import numpy as np

from common.draw.confusion import confusion_figure
from comparison import charts, html_report
from comparison.rows import Mean, Summary

NAMES = ["<script>alert(1)</script>", r"$\frac{1}{$", "a & b"]
ESCAPED = ["&lt;script&gt;alert(1)&lt;/script&gt;", r"$\frac{1}{$", "a &amp; b"]


def test_classes_in_a_picture(tmp_path):
    figure = confusion_figure(np.array([[5, 3, 2], [1, 8, 1], [0, 4, 6]]), NAMES)
    figure.savefig(tmp_path / "x.svg", metadata={"Date": None})
    assert "<script>" not in (tmp_path / "x.svg").read_text()


def test_rows_of_a_page():
    nothing = {"normal": None, "reduction": None}
    one = Mean(1.0, None, {0: 1.0})
    rows = [
        Summary(name, one, None, one, *[None] * 5, nothing, nothing, None, {0: name}, [], [])
        for name in NAMES
    ]
    svg = charts.cost(rows)
    page = "".join(html_report._failures(rows)) + html_report._figure("", "", title=NAMES[0])
    page += "".join(html_report._list(NAMES))
    assert "<script>" not in svg + page
    for name in ESCAPED:
        assert name in svg and page.count(name) >= 3
