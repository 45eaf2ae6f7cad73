"""Questions about scenes whose answers can be compared word for word."""

import random
from dataclasses import dataclass

from scenes import Scene
from sentences import SIDES, describe, sides
from words import NUMBERS, SEEN, THINGS, Word, near

NEAR_SHARE = 0.5  # of the questions for something that is not there


@dataclass(frozen=True)
class Question:
    """A question and its only answer."""

    text: str
    answer: str


def draw_question(rng: random.Random, scene: Scene) -> Question:
    """Draw a kind of question that the scene allows, then a question of that kind."""
    kinds = [_which, _how_many, _how_many_of, _is_there, _is_there, _what]
    while True:
        question = rng.choice(kinds)(rng, scene)
        if question is not None:
            return question


def _which(rng: random.Random, scene: Scene) -> Question | None:
    """Ask what is at a side at which only one thing is."""
    there = {side: [thing.word for thing in scene.things if side in sides(thing)] for side in SIDES}
    certain = [side for side, words in there.items() if len(words) == 1]
    if not certain:
        return None
    side = rng.choice(certain)
    return Question(f"what is {side}", there[side][0])


def _how_many(rng: random.Random, scene: Scene) -> Question:
    return Question("how many things are there", NUMBERS[len(scene.things)])


def _how_many_of(rng: random.Random, scene: Scene) -> Question | None:
    words = [word for word in _asked(rng, scene) if word.fits("plural")]
    if not words:
        return None
    word = rng.choice(words)
    answer = NUMBERS[scene.words().count(word.text)]
    return Question(f"how many {word.written('plural')} are there", answer)


def _is_there(rng: random.Random, scene: Scene) -> Question:
    word = rng.choice(_asked(rng, scene))
    answer = "yes" if word.text in scene.words() else "no"
    return Question(f"is there {word.article} {word.text}", answer)


def _what(rng: random.Random, scene: Scene) -> Question:
    return Question("what can you see", describe(scene))


def _asked(rng: random.Random, scene: Scene) -> list[Word]:
    """Return words to ask for: those of the scene, or as often others, many sounding near."""
    shown = scene.words()
    if rng.random() < 0.5:
        return [THINGS[text].word for text in dict.fromkeys(shown)]
    absent = [text for word in shown for text in near(word) if text not in shown]
    if absent and rng.random() < NEAR_SHARE:
        return [THINGS[text].word for text in absent]
    return [thing.word for thing in SEEN if thing.word.text not in shown]
