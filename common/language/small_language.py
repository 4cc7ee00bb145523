"""A text that needs no download: stories in a small language, drawn from a grammar.

It can be learned in minutes and yet needs a memory: a verb agrees with its subject across a
relative clause, a pronoun with what it stands for, and a story keeps to the nouns of the place that
it begins with. It is drawn with `random.Random.random`, which gives the same numbers in every
version of Python.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Sequence

STORIES = {"train": 1000, "valid": 120, "test": 120}  # a line each
PLACES = {
    "at the sea": "sailor whale captain gull shark pirate diver turtle",
    "at the farm": "farmer cow goat hen shepherd rooster piglet donkey",
    "in the town": "baker tailor clerk mayor teacher beggar soldier singer",
    "in the forest": "hunter owl bear badger ranger squirrel stranger raven",
    "in the castle": "king queen knight jester guard dragon minstrel servant",
}
SEES = "see hear follow find know fear like call remember trust help admire".split()
SLEEPS = "sleep wait sing fall laugh return dance rest".split()
KINDS = "old small quiet bright strange proud hungry lonely wise grey".split()
WHEN = ("today", "again", "slowly", "at night", "in the morning", "without a word")


class _Story:
    """A story as it is drawn, word by word."""

    def __init__(self, draw: random.Random):
        self.draw, self.words = draw, []
        self.place = self.one_of(sorted(PLACES))
        self.nouns = PLACES[self.place].split()

    def happens(self, chance: float) -> bool:
        """True with this probability."""
        return self.draw.random() < chance

    def one_of(self, among: Sequence[str]) -> str:
        """One of these, the earlier ones more often: like words in a language, by rank."""
        up_to = list(itertools.accumulate(1 / rank for rank in range(1, len(among) + 1)))
        return among[bisect.bisect(up_to, self.draw.random() * up_to[-1], hi=len(among) - 1)]

    def say(self, text: str) -> None:
        """More words of the story."""
        self.words += text.split()

    def somebody(self, depth: int) -> bool:
        """A noun phrase; whether it is one alone, which the verb must agree with."""
        single = self.happens(0.6)
        self.say(self.one_of(("the", "a", "every") if single else ("the", "some", "many")))
        if self.happens(0.3):
            self.say(self.one_of(KINDS))
        self.say(self.one_of(self.nouns) + ("" if single else "s"))
        if depth < 2 and self.happens(0.3):
            self.say("who")
            self.does(single, depth + 1)
        return single

    def does(self, single: bool, depth: int) -> None:
        """A verb phrase of such a subject."""
        ending = "s" if single else ""
        if self.happens(0.6):
            self.say(self.one_of(SEES) + ending)
            self.somebody(depth + 1)
        else:
            self.say(self.one_of(SLEEPS) + ending)

    def sentence(self, subject: bool | None) -> bool:
        """One sentence; whether its subject is one alone.

        Args:
            subject: of the sentence before, which a pronoun can stand for.
        """
        if subject is not None and self.happens(0.4):
            single = subject
            self.say("it" if single else "they")
        else:
            single = self.somebody(0)
        self.does(single, 0)
        if self.happens(0.3):
            self.say(self.one_of(WHEN))
        self.say(".")
        return single


def small_text() -> dict[str, list[list[str]]]:
    """The words of each line of the training, validation and test text; always the same."""
    draw = random.Random(0)
    return {part: [_tell(draw) for _ in range(count)] for part, count in STORIES.items()}


def _tell(draw: random.Random) -> list[str]:
    story = _Story(draw)
    story.say(f"{story.place} :")
    subject = None
    while subject is None or story.happens(0.75):
        subject = story.sentence(subject)
    return story.words
