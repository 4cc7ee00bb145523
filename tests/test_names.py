"""Names that users gave go into pictures and pages as they are, never as markup or formulas."""

import numpy as np

from common.draw.confusion import confusion_figure
from comparison.report import COLUMNS, Plan, Report, page
from comparison.rows import Mean, Summary
from comparison.run_folders import LeftOut

NAMES = ["<script>alert(1)</script>", r"$\frac{1}{$", "a & b"]
ESCAPED = ["&lt;script&gt;alert(1)&lt;/script&gt;", r"$\frac{1}{$", "a &amp; b"]


def test_classes_in_a_picture(tmp_path):
    figure = confusion_figure(np.array([[5, 3, 2], [1, 8, 1], [0, 4, 6]]), NAMES)
    figure.savefig(tmp_path / "x.svg", metadata={"Date": None})
    assert "<script>" not in (tmp_path / "x.svg").read_text()


def test_labels_and_logs_in_a_comparisons_report(tmp_path):
    one, both = Mean(1.0, None, {0: 1.0}), {"normal": None, "reduction": None}
    means = {name: None for _, name, _ in COLUMNS} | {"skips": both, "pools": both}
    means |= {"accuracy": one, "search_seconds": one}
    rows = [Summary(name, means, {}, [name], []) for name in NAMES]
    left = [LeftOut(name, name) for name in NAMES]
    about = {"date": "", "commit": "", "started": [], "finished": [], "runs": {"machine": NAMES}}
    text = page(
        Report(NAMES[0], NAMES[0], Plan(NAMES[0]), {}, [], rows, [], left, NAMES, about), tmp_path
    )
    assert "<script>alert" not in text
    # Table, chart's legend and values, reasons, warnings, notes, machines.
    assert all(text.count(name) >= 7 for name in ESCAPED)
