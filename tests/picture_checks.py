"""Checks of a figure: its layout, its legends and its colours."""

from itertools import combinations

from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text


def nothing_overlaps(figure: Figure) -> None:
    """Every text is inside the picture and overlaps no other; panels overlap no other panel."""
    figure.draw_without_rendering()
    texts = {text: text.get_window_extent() for text in shown_texts(figure)}
    panels = [axes.get_window_extent().padded(-1) for axes in figure.axes]
    panels += [legend.get_window_extent() for legend in figure.findobj(Legend)]
    for box in texts.values():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
    for (one, box), (other, beside) in combinations(texts.items(), 2):
        assert not box.overlaps(beside), (one, other)
    for one, other in combinations(panels, 2):
        assert not one.overlaps(other)


def legends_match_lines(figure: Figure) -> None:
    """The legends have the looks of the panels' lines, and no others."""
    legends = [handle for legend in figure.findobj(Legend) for handle in legend.legend_handles]
    named = {look(handle) for handle in legends if isinstance(handle, Line2D)}
    assert named == {look(line) for axes in figure.axes for line in axes.lines if has_data(line)}


def has_data(line: Line2D) -> bool:
    """Whether it is not the vertical line of an epoch."""
    return len(line.get_xdata()) != 2 or line.get_xdata()[0] != line.get_xdata()[1]


def look(line: Line2D) -> tuple:
    """What distinguishes a line: its colour, width, dashes and marks."""
    return (
        to_hex(line.get_color()), line.get_linewidth(), line.get_linestyle(), line.get_marker(),
        line.get_markersize(),
    )  # fmt: skip


def luminance(colour: tuple) -> float:
    """Relative luminance, 0 (black) to 1, as WCAG defines it."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(one: tuple, other: tuple) -> float:
    """Contrast of two colours, 1 to 21, as WCAG defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def shown_texts(figure: Figure) -> list[Text]:
    """The texts of a figure; tick labels only where they are on their axis."""
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not (low <= tick.get_loc() <= high and axes.axison):
                    shown = [text for text in shown if text not in (tick.label1, tick.label2)]
    return shown
