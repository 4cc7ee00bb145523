"""Fonts for names whose characters the pictures' own font lacks; without a font, a number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager

OWN = "DejaVu Sans"  # comes with matplotlib
# Fonts with Chinese, Japanese, Korean and other scripts, by their names on common systems.
OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC",
    "Hiragino Sans GB", "Apple SD Gothic Neo", "Microsoft YaHei", "SimHei", "SimSun",
    "Yu Gothic", "Malgun Gothic", "Noto Sans Devanagari", "Nirmala UI", "Noto Sans Thai",
    "Leelawadee UI", "Arial Unicode MS",
)  # fmt: skip


def drawable(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names as installed fonts can draw them, and these fonts.

    A name that no font can draw becomes "number K", counted from 1 in the order of the names.
    """
    families, texts = [OWN], []
    for number, name in enumerate(names, 1):
        needed = _fonts_of(name)
        texts.append(f"number {number}" if needed is None else name)
        families += [font for font in needed or () if font not in families]
    return texts, families


def family_of(families: list[str]) -> dict[str, list[str]]:
    """Text arguments for these fonts; none for the pictures' own font."""
    return {} if families == [OWN] else {"fontfamily": families}


def _fonts_of(name: str) -> list[str] | None:
    """The other fonts that a name needs; None: no installed font has a character."""
    needed: list[str] = []
    for character in sorted(set(name)):
        if not any(ord(character) in characters(font) for font in (OWN, *needed)):
            font = next((font for font in OTHERS if ord(character) in characters(font)), None)
            if font is None:
                return None
            needed.append(font)
    return needed


@cache
def characters(font: str) -> frozenset[int]:
    """Code points of a font; none if it is not installed."""
    for entry in font_manager.fontManager.ttflist:
        if entry.name == font:
            return frozenset(font_manager.get_font(entry.fname).get_charmap())
    return frozenset()
