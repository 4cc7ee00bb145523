"""Checks of a figure's layout, by the extents that matplotlib gives."""

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text


def nothing_overlaps(figure: Figure) -> None:
    """Every text is inside the picture and overlaps no other; panels overlap no other panel."""
    figure.draw_without_rendering()
    texts = {text: text.get_window_extent() for text in shown_texts(figure)}
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    panels = [axes.get_window_extent().padded(-1) for axes in figure.axes]
    panels += [legend.get_window_extent() for legend in legends if legend]
    for box in texts.values():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
    for (one, box), (other, beside) in combinations(texts.items(), 2):
        assert not box.overlaps(beside), (one, other)
    for one, other in combinations(panels, 2):
        assert not one.overlaps(other)


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
