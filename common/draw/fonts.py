"""Names in pictures whose characters the pictures' own font lacks: another font, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager

OWN = "DejaVu Sans"  # which comes with matplotlib
# Fonts with Chinese, Japanese, Korean and other scripts, as systems name them.
OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC",
    "Hiragino Sans GB", "Apple SD Gothic Neo", "Microsoft YaHei", "SimHei", "SimSun",
    "Yu Gothic", "Malgun Gothic", "Noto Sans Devanagari", "Nirmala UI", "Noto Sans Thai",
    "Leelawadee UI", "Arial Unicode MS",
)  # fmt: skip


def drawable(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names as they can be drawn, and the fonts that have their characters.

    A name that no font here has is "number K", counted from 1 in the order of the names.
    """
    families, texts = [OWN], []
    for number, name in enumerate(names, 1):
        needed = _fonts_of(name)
        texts.append(f"number {number}" if needed is None else name)
        families += [font for font in needed or () if font not in families]
    return texts, families


def family_of(families: list[str]) -> dict[str, list[str]]:
    """The argument of a text in these fonts; none where the picture's own is enough."""
    return {} if families == [OWN] else {"fontfamily": families}


def _fonts_of(name: str) -> list[str] | None:
    """Which others draw what the own font lacks; None: no font here does."""
    needed: list[str] = []
    for character in sorted(set(name)):
        if not any(ord(character) in _characters(font) for font in (OWN, *needed)):
            font = next((font for font in OTHERS if ord(character) in _characters(font)), None)
            if font is None:
                return None
            needed.append(font)
    return needed


@cache
def _characters(font: str) -> frozenset[int]:
    """The codes that an installed font draws; none of one that is not installed."""
    for entry in font_manager.fontManager.ttflist:
        if entry.name == font:
            return frozenset(font_manager.get_font(entry.fname).get_charmap())
    return frozenset()
