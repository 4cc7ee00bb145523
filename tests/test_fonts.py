"""Class names whose characters the pictures' own font lacks."""

import warnings

import numpy as np
import pytest

from common.draw import fonts
from common.draw.confusion import confusion_figure

OTHER = "\u732b", "\u72ac\u79d1", "\udcff"  # cat, dogs, and a byte that is no UTF-8


@pytest.fixture
def installed(monkeypatch):
    """Pretend that other fonts with these characters are installed, and no more."""
    own = fonts.characters(fonts.OWN)

    def install(*texts):
        found = {fonts.OWN: own}
        found |= {fonts.OTHERS[k]: frozenset(map(ord, text)) for k, text in enumerate(texts)}
        monkeypatch.setattr(fonts, "characters", lambda font: found.get(font, frozenset()))

    return install


def test_names_are_drawn_by_fonts_that_have_them_or_are_numbers(installed):
    names = ["caf\u00e9", *OTHER]
    installed()
    assert fonts.drawable(names) == (
        ["caf\u00e9", "number 2", "number 3", "number 4"], [fonts.OWN]
    )
    installed("\u732b\u72ac", "\u79d1\u72ac")
    texts, families = fonts.drawable(names)
    assert texts == [*names[:3], "number 4"] and families == [fonts.OWN, *fonts.OTHERS[:2]]


@pytest.mark.parametrize("count", [3, 21])
def test_names_in_unknown_scripts_give_no_warnings(installed, tmp_path, count, caplog):
    installed()
    names = [*OTHER, *(f"name {k}" for k in range(count - 3))]
    counts = 9 * np.eye(count, dtype=int) + np.eye(count, k=1, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = confusion_figure(counts, names)
        for kind in ("svg", "png"):
            figure.savefig(tmp_path / f"x.{kind}")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["number 1", "number 2", "number 3", *names[3:]] and not caplog.records
    assert "as in test.json" in figure.axes[0].get_ylabel()


def test_labels_use_an_installed_font(installed):
    installed("".join(OTHER[:2]))
    figure = confusion_figure(np.eye(2, dtype=int), OTHER[:2])
    (label, _) = figure.axes[0].get_xticklabels()
    assert label.get_text() == OTHER[0] and fonts.OTHERS[0] in label.get_fontfamily()
    assert figure.axes[0].get_ylabel() == "class"
