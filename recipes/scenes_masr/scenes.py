"""Scenes of one to four things on a background, and their pictures.

Things are drawn with the picture font Noto Color Emoji (SIL Open Font License). Letters: S side of
the picture in pixels. Places and sizes are shares of the side, x from the left and y from the top.
"""

import random
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from backgrounds import draw_background
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 160
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the one size whose bitmaps the font holds
MOST_THINGS = 4
LEAST_CONTRAST = 30.0  # of 255, mean over the pixels of a thing
FLIPPED = Image.Transpose.FLIP_LEFT_RIGHT
LAYOUTS: dict[int, tuple[tuple[tuple[float, float], ...], ...]] = {
    1: (((0.5, 0.5),), ((0.3, 0.5),), ((0.7, 0.5),), ((0.5, 0.32),), ((0.5, 0.68),)),
    2: (
        ((0.27, 0.5), (0.73, 0.5)),
        ((0.27, 0.36), (0.73, 0.64)),
        ((0.27, 0.64), (0.73, 0.36)),
        ((0.5, 0.27), (0.5, 0.73)),
    ),
    3: (
        ((0.26, 0.28), (0.74, 0.28), (0.5, 0.73)),
        ((0.26, 0.73), (0.74, 0.73), (0.5, 0.27)),
        ((0.19, 0.4), (0.5, 0.62), (0.81, 0.4)),
        ((0.19, 0.6), (0.5, 0.38), (0.81, 0.6)),
    ),
    4: (((0.26, 0.27), (0.74, 0.27), (0.26, 0.74), (0.74, 0.74)),),
}
SIZES = {1: (0.42, 0.6), 2: (0.34, 0.44), 3: (0.28, 0.34), 4: (0.29, 0.4)}


@dataclass(frozen=True)
class Placed:
    """One thing in a scene: its word, its character, where, how large, turned by degrees."""

    word: str
    drawing: str
    x: float
    y: float
    size: float
    angle: float
    flip: bool


@dataclass(frozen=True)
class Scene:
    """What a picture shows. ``backgrounds`` are the kinds allowed, ``seed`` chooses among them."""

    things: tuple[Placed, ...]
    backgrounds: tuple[str, ...]
    seed: int

    def words(self) -> list[str]:
        """Return the words of the things, from left to right."""
        return [thing.word for thing in sorted(self.things, key=lambda thing: (thing.x, thing.y))]


def arrange(
    rng: random.Random, drawings: list[tuple[str, str]], backgrounds: tuple[str, ...]
) -> Scene:
    """Place one to four things, given as (word, character), at random without overlap.

    Raises:
        ValueError: there are none or more than four.
    """
    if not 1 <= len(drawings) <= MOST_THINGS:
        raise ValueError(f"drawings has {len(drawings)} things; 1 to {MOST_THINGS} are allowed")
    places = rng.choice(LAYOUTS[len(drawings)])
    shuffled = rng.sample(drawings, len(drawings))
    things = []
    for (word, drawing), (x, y) in zip(shuffled, places, strict=True):
        things.append(
            Placed(
                word=word,
                drawing=drawing,
                x=round(x + rng.uniform(-0.05, 0.05), 3),
                y=round(y + rng.uniform(-0.05, 0.05), 3),
                size=round(rng.uniform(*SIZES[len(drawings)]), 3),
                angle=round(rng.uniform(-18, 18), 1),
                flip=rng.random() < 0.5,
            )
        )
    return Scene(tuple(things), backgrounds, rng.randrange(2**31))


@cache
def glyph(character: str, font: Path = FONT) -> Image.Image:
    """Return a character of the font as a tight RGBA picture.

    Raises:
        SystemExit: the font is not installed.
        ValueError: the font has no picture of the character.
    """
    if not font.exists():
        raise SystemExit(f"{font} is missing: apt-get install fonts-noto-color-emoji")
    canvas = Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE))
    loaded = ImageFont.truetype(str(font), FONT_SIZE)
    ImageDraw.Draw(canvas).text((20, 20), character, font=loaded, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"{font} has no picture of {character!r}; a newer version may")
    return canvas.crop(box)


@lru_cache(maxsize=64)
def sticker(thing: Placed) -> Image.Image:
    """Return a thing as it lies in the picture, RGBA, its longer side ``size`` before turning."""
    drawn = glyph(thing.drawing)
    if thing.flip:
        drawn = drawn.transpose(FLIPPED)
    scale = thing.size * SIDE / max(drawn.size)
    drawn = drawn.resize([max(1, round(scale * edge)) for edge in drawn.size])
    return drawn.rotate(thing.angle, Image.Resampling.BICUBIC, expand=True)


def box(thing: Placed) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom in pixels; right and bottom are just outside of the thing.

    A thing at the edge may reach a few pixels beyond the picture.
    """
    width, height = sticker(thing).size
    left, top = round(thing.x * SIDE - width / 2), round(thing.y * SIDE - height / 2)
    return left, top, left + width, top + height


def settle(scene: Scene) -> Scene:
    """Return the scene before a background against which every thing can be seen.

    Up to twenty are tried; if none will do, the one that shows the least visible thing best stays.
    """
    best, contrast = scene, -1.0
    for attempt in range(20):
        candidate = replace(scene, seed=scene.seed + attempt)
        behind = _background(candidate)
        seen = min((_contrast(thing, behind) for thing in scene.things), default=255.0)
        if seen > contrast:
            best, contrast = candidate, seen
        if contrast >= LEAST_CONTRAST:
            break
    return best


def visible_box(thing: Placed) -> tuple[int, ...]:
    """Return the part of the box that lies in the picture."""
    return tuple(min(max(edge, 0), SIDE) for edge in box(thing))


def draw_scene(scene: Scene) -> Image.Image:
    """Return the picture, [S, S] RGB. Without things it shows the same place, empty."""
    return _photograph(_lay(scene, _background(scene)), scene.seed)


def _background(scene: Scene) -> Image.Image:
    kind = random.Random(scene.seed).choice(scene.backgrounds)
    return draw_background(kind, scene.seed, SIDE)


def _contrast(thing: Placed, background: Image.Image) -> float:
    drawn = sticker(thing)
    behind = background.crop(box(thing))
    solid = np.asarray(drawn.getchannel("A")) > 128
    difference = np.asarray(drawn.convert("RGB"), np.float32) - np.asarray(behind, np.float32)
    return float(np.abs(difference[solid]).mean())


def _lay(scene: Scene, background: Image.Image) -> Image.Image:
    """Put the things on the background, each above its soft shadow, all lit the same way."""
    rng = np.random.default_rng([scene.seed, 1])
    light, strength, across = rng.uniform(0.85, 1.12), rng.uniform(0.2, 0.5), rng.uniform(-0.1, 0.1)
    picture = background.copy()
    for thing in scene.things:
        drawn, (left, top, right, _) = sticker(thing), box(thing)
        reach = round(0.06 * (right - left)) + 1
        shadow = Image.new("L", picture.size)
        offset = (left + round(across * (right - left)), top + reach)
        shadow.paste(drawn.getchannel("A").point(lambda alpha: alpha * strength), offset)
        shadow = shadow.filter(ImageFilter.GaussianBlur(reach))
        picture.paste((0, 0, 0), (0, 0), shadow)
        lit = drawn.convert("RGB").point(lambda level: min(255, level * light))
        picture.paste(lit, (left, top), drawn.getchannel("A"))
    return picture


def _photograph(picture: Image.Image, seed: int) -> Image.Image:
    """Add what a camera adds: a colour cast, darker corners, a little blur and grain."""
    rng = np.random.default_rng([seed, 2])
    soft = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    pixels = np.asarray(soft, np.float32) * rng.uniform(0.92, 1.08, 3)
    axis = np.linspace(-1, 1, SIDE)
    distance = (axis[:, None] ** 2 + axis[None, :] ** 2)[..., None] / 2
    pixels *= 1 - rng.uniform(0, 0.45) * distance
    pixels += rng.normal(0, rng.uniform(1, 5), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
