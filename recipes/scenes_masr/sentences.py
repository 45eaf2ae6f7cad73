"""Sentences about scenes, and scenes to say them of.

A sentence is drawn first, then a scene that fits it:

- about the picture (55 %): every thing it names is shown, with up to three others around;
- not about it (45 %): nothing it names is shown. Most of these say the word that sounds like a
  thing and cannot be drawn ('pair'); the rest name a thing that is elsewhere, and in one picture
  of three stands something that sounds nearly like it, so that nobody can do without listening.

The spelling that cannot be drawn is a little more frequent in each kind of slot than the one that
can. Without a picture it is thus the better guess, and a picture that shows neither says nothing:
what is lost without the picture is not lost again by a wrong one.
"""

import random
from dataclasses import dataclass

from scenes import MOST_THINGS, Placed, Scene, arrange
from words import NUMBERS, SEEN, THINGS, UNSEEN, Thing, Word, near, pairs, unpaired

ABOUT_SHARE = 0.55
PAIRED_SHARE = 0.55  # of the things named in sentences about the picture, in each slot
ALIKE_SHARE = 0.85  # of the words in sentences that are not about it; keeps 'pair' before 'pear'
TRAP_SHARE = 0.3
SLOT_WEIGHTS = {"indefinite": 0.32, "definite": 0.28, "quoted": 0.3, "plural": 0.1}
TEMPLATES: dict[tuple[str, int], tuple[str, ...]] = {
    ("indefinite", 1): (
        "i can see {}", "there is {}", "look there is {}", "here we have {}", "this is {}",
        "we found {} today", "it looks like {}", "you can see {} here", "that must be {}",
    ),
    ("indefinite", 2): (
        "i can see {} and {}", "there is {} next to {}", "{} and {}", "first {} then {}",
        "here we have {} and {}", "i see {} and also {}", "not only {} but also {}",
    ),
    ("indefinite", 3): ("{} {} and {}", "i can see {} {} and {}", "there is {} {} and {}"),
    ("definite", 1): (
        "look at the {}", "can you see the {}", "i like the {}", "the {} is here",
        "now comes the {}", "what about the {}", "do not forget the {}", "show me the {}",
    ),
    ("definite", 2): (
        "look at the {} and the {}", "i like the {} and the {}", "the {} and the {} are here",
        "the {} is near the {}", "show me the {} or the {}", "the {} comes before the {}",
    ),
    ("quoted", 1): (
        "the word is {}", "please write {}", "say {} again", "i said {}", "spell {} for me",
        "write {} on the paper", "the next word is {}",
    ),
    ("quoted", 2): (
        "the words are {} and {}", "write {} and then {}", "say {} not {}", "{} comes after {}",
        "first write {} then {}",
    ),
    ("quoted", 3): ("{} {} {}", "the words are {} {} and {}", "write {} {} and {}"),
    ("plural", 1): ("there are {number} {}", "i see {number} {}", "{number} of them are {}"),
}  # fmt: skip
SIDES = ("on the left", "on the right", "at the top", "at the bottom")


@dataclass(frozen=True)
class Sentence:
    """What is said of a scene.

    Attributes:
        text: the words.
        spoken: the words in the slots, as they are spelt in the text.
        about_picture: whether the picture shows what is named.
        focus: the first word that needs the picture even without noise, as another one sounds the
            same and would fit as well; None if there is none.
        scene: the picture.
    """

    text: str
    spoken: tuple[str, ...]
    about_picture: bool
    focus: str | None
    scene: Scene


@dataclass(frozen=True)
class Style:
    """What may be drawn: kinds of background, and whether by drawings kept out of training.

    ``unseen`` makes every sentence about the picture, and one thing in it of those kept out.
    """

    backgrounds: tuple[str, ...]
    held_drawings: bool = False
    unseen: bool = False


def draw_sentence(rng: random.Random, style: Style) -> Sentence:
    """Draw a sentence and its scene."""
    slot = rng.choices(list(SLOT_WEIGHTS), list(SLOT_WEIGHTS.values()))[0]
    count = rng.choice([number for name, number in TEMPLATES if name == slot])
    number = rng.choice((2, 3)) if slot == "plural" else 1
    about = style.unseen or style.held_drawings or rng.random() < ABOUT_SHARE
    named = _shown(rng, slot, count, style) if about else []
    words = [thing.word for thing in named] if about else _elsewhere(rng, slot, count)
    things = named * number + _others(rng, words, MOST_THINGS - len(named) * number)
    scene = arrange(rng, [(thing.word.text, _drawing(rng, thing, style)) for thing in things],
                    style.backgrounds)  # fmt: skip
    template = rng.choice(TEMPLATES[slot, count] + _positions(rng, slot, words, scene, about))
    spoken = [word.written(slot) for word in words]
    return Sentence(
        text=template.format(*spoken, number=NUMBERS[number]),
        spoken=tuple(spelt.split()[-1] for spelt in spoken),
        about_picture=about,
        focus=_focus(words, slot),
        scene=scene,
    )


def _shown(rng: random.Random, slot: str, count: int, style: Style) -> list[Thing]:
    """Draw things to show and name; those with a sound-alike in this slot are drawn more often."""
    wanted = [thing for thing in UNSEEN if thing.word.fits(slot)]
    if style.held_drawings:
        wanted = [thing for thing in SEEN if thing.held and thing.word.fits(slot)]
    found = [rng.choice(wanted)] if style.unseen or style.held_drawings else []
    while len(found) < count:
        thing = rng.choice(pairs(slot) if rng.random() < PAIRED_SHARE else unpaired(slot))
        if thing not in found:
            found.append(thing)
    return rng.sample(found, count)


def _elsewhere(rng: random.Random, slot: str, count: int) -> list[Word]:
    """Draw words of which the picture will show nothing: sound-alikes, or things elsewhere."""
    groups: list[Thing] = []
    words = []
    while len(words) < count:
        alike = rng.random() < ALIKE_SHARE
        known = [thing for thing in SEEN + UNSEEN if thing.word.fits(slot)]
        thing = rng.choice(pairs(slot) if alike else known)
        if thing not in groups:
            groups.append(thing)
            words.append(thing.alike if alike and thing.alike else thing.word)
    return words


def _others(rng: random.Random, words: list[Word], most: int) -> list[Thing]:
    """Draw things that no one names: up to ``most``, and at least one where that is all."""
    taken = {word.text for word in words}
    free = [thing for thing in SEEN if not {thing.word.text, _alike(thing)} & taken]
    nothing_named = most == MOST_THINGS
    found = rng.sample(free, rng.randint(1 if nothing_named else 0, most))
    likely = [word for text in sorted(taken) for word in near(text)]
    traps = [thing for thing in free if thing.word.text in likely and thing not in found]
    if nothing_named and traps and rng.random() < TRAP_SHARE:
        found[0] = rng.choice(traps)
    return found


def _alike(thing: Thing) -> str:
    return thing.alike.text if thing.alike else ""


def _drawing(rng: random.Random, thing: Thing, style: Style) -> str:
    return thing.held if style.held_drawings and thing.held else rng.choice(thing.drawings)


def _positions(
    rng: random.Random, slot: str, words: list[Word], scene: Scene, about: bool
) -> tuple[str, ...]:
    """Return sentences on where things are: true ones where they are in the picture."""
    if slot != "definite" or len(words) > 2:
        return ()
    if not about:
        return (f"the {{}} is {rng.choice(SIDES)}",) if len(words) == 1 else ()
    places = [thing for word in words for thing in scene.things if thing.word == word.text]
    if len(words) == 2:
        return tuple(f"the {{}} is {relation} the {{}}" for relation in relations(*places))
    return tuple(f"the {{}} is {side}" for side in sides(places[0]))


def sides(thing: Placed) -> list[str]:
    """Return the sides of the picture at which a thing lies: none, one or two."""
    reached = (thing.x < 0.42, thing.x > 0.58, thing.y < 0.42, thing.y > 0.58)
    return [side for side, true in zip(SIDES, reached, strict=True) if true]


def relations(first: Placed, second: Placed) -> list[str]:
    """Return how the first thing lies to the second, as words that go between them."""
    across, down = first.x - second.x, first.y - second.y
    names = {"left of": -across, "right of": across, "above": -down, "below": down}
    return [name for name, distance in names.items() if distance > 0.2]


def _focus(words: list[Word], slot: str) -> str | None:
    same = {text for thing in pairs(slot) for text in (thing.word.text, _alike(thing))}
    found = [word.written(slot).split()[-1] for word in words if word.text in same]
    return found[0] if found else None


def describe(scene: Scene) -> str:
    """Name what a scene shows, from left to right, equal things together: 'two bees and a pie'."""
    names = scene.words()
    parts = []
    for text in dict.fromkeys(names):
        word, number = THINGS[text].word, names.count(text)
        several = f"{NUMBERS[number]} {word.written('plural')}"
        parts.append(f"{word.article} {text}" if number == 1 else several)
    return " and ".join([" ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
