"""Backgrounds that look a little like photographs, made of noise: no picture is read.

Letters: S side of the picture in pixels. Images are float32 [S, S, 3] in 0..1.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

Colour = tuple[float, float, float]
SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((0.30, 0.52, 0.82), (0.78, 0.87, 0.94)),
    ((0.55, 0.62, 0.70), (0.85, 0.86, 0.86)),
    ((0.30, 0.30, 0.50), (0.95, 0.66, 0.45)),
)
WOODS: tuple[Colour, ...] = ((0.55, 0.38, 0.24), (0.38, 0.25, 0.16), (0.74, 0.60, 0.44))
WALLS: tuple[Colour, ...] = (
    (0.82, 0.79, 0.72), (0.66, 0.74, 0.70), (0.72, 0.62, 0.58), (0.60, 0.66, 0.76),
)  # fmt: skip


def texture(rng: np.random.Generator, side: int, stretch: tuple[float, float]) -> np.ndarray:
    """Multi-scale noise [S, S], zero mean, about one at most: octaves of smooth random grids.

    Args:
        rng: where it comes from.
        side: S.
        stretch: (rows, columns); above one makes the grain longer that way.
    """
    total = np.zeros((side, side), np.float32)
    for octave in range(1, 7):
        size = [max(2, round(2**octave / factor)) for factor in stretch]
        grid = Image.fromarray(rng.uniform(-1, 1, size).astype(np.float32))
        total += 0.65**octave * np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC))
    return total


def paint(rng: np.random.Generator, side: int, colour: Colour, stretch=(1.0, 1.0)) -> np.ndarray:
    """Return a surface of one colour, mottled in brightness and a little in hue."""
    depth = rng.uniform(0.15, 0.5)
    mottled = 1 + depth * texture(rng, side, stretch)[..., None]
    base = np.array(colour) * rng.uniform(0.75, 1.2) + rng.uniform(-0.06, 0.06, 3)
    return (base * mottled).astype(np.float32)


def fade(rng: np.random.Generator, side: int, colours: tuple[Colour, Colour]) -> np.ndarray:
    """Return a gradient from the top colour to the bottom one, with thin clouds."""
    share = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    top, bottom = (np.array(colour, np.float32) for colour in colours)
    clouds = np.clip(texture(rng, side, (0.6, 2.0)), 0, 1)[..., None] * rng.uniform(0, 0.7)
    sky = (1 - share) * top + share * bottom
    return sky + clouds * (0.95 - sky)


def over(upper: np.ndarray, lower: np.ndarray, horizon: float) -> np.ndarray:
    """Put ``lower`` as ground under ``upper``, drawn closer together towards the horizon.

    Args:
        upper: [S, S, 3].
        lower: [S, S, 3], seen from above.
        horizon: height of the edge, 0 top to 1 bottom.
    """
    side = len(upper)
    edge = round(horizon * side)
    depth = np.linspace(0.12, 1, side - edge)
    rows = ((1 - 0.12 / depth) / 0.88 * (side - 1)).astype(int)
    picture = upper.copy()
    picture[edge:] = lower[rows]
    return picture


def _outdoors(colour: Colour, stretch: tuple[float, float]):
    def draw(rng: np.random.Generator, side: int) -> np.ndarray:
        sky = fade(rng, side, SKIES[rng.integers(len(SKIES))])
        return over(sky, paint(rng, side, colour, stretch), rng.uniform(0.25, 0.65))

    return draw


def _plain(colours: tuple[Colour, ...], stretch: tuple[float, float]):
    def draw(rng: np.random.Generator, side: int) -> np.ndarray:
        return paint(rng, side, colours[rng.integers(len(colours))], stretch)

    return draw


def _planks(rng: np.random.Generator, side: int) -> np.ndarray:
    surface = paint(rng, side, WOODS[rng.integers(len(WOODS))], (4.0, 0.5))
    width = int(rng.integers(side // 8, side // 4))
    board = np.arange(side) // width
    shade = rng.uniform(0.8, 1.15, board[-1] + 1)[board]
    shade[np.arange(side) % width == 0] = 0.45
    return surface * shade[None, :, None].astype(np.float32)


def _room(rng: np.random.Generator, side: int) -> np.ndarray:
    wall = paint(rng, side, WALLS[rng.integers(len(WALLS))], (1.5, 1.5))
    return over(wall, _planks(rng, side), rng.uniform(0.35, 0.7))


def _tiles(rng: np.random.Generator, side: int) -> np.ndarray:
    surface = paint(rng, side, WALLS[rng.integers(len(WALLS))], (1.0, 1.0))
    width = int(rng.integers(side // 7, side // 4))
    index = np.arange(side)
    grout = (index % width < 2)[:, None] | (index % width < 2)[None, :]
    checks = ((index[:, None] // width + index[None, :] // width) % 2) * rng.uniform(0, 0.3)
    floor = surface * (1 - checks - 0.3 * grout)[..., None].astype(np.float32)
    wall = paint(rng, side, WALLS[rng.integers(len(WALLS))])
    return over(wall, floor, rng.uniform(0.0, 0.5))


def _beach(rng: np.random.Generator, side: int) -> np.ndarray:
    sea = paint(rng, side, (0.20, 0.42, 0.55), (0.4, 3.0))
    horizon = rng.uniform(0.2, 0.4)
    scene = over(fade(rng, side, SKIES[rng.integers(len(SKIES))]), sea, horizon)
    return over(scene, paint(rng, side, (0.80, 0.70, 0.52)), horizon + rng.uniform(0.12, 0.3))


def _lights(rng: np.random.Generator, side: int) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    picture = paint(rng, side, (0.14, 0.13, 0.20))
    for _ in range(rng.integers(8, 24)):
        row, column, radius = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.03, 0.1)
        inside = (rows - row) ** 2 + (columns - column) ** 2 < (radius * side) ** 2
        picture[inside] += rng.uniform(0.05, 0.4) * np.array([1.0, rng.uniform(0.4, 1), 0.4])
    return picture


def _cloth(rng: np.random.Generator, side: int) -> np.ndarray:
    folds = np.sin(9 * texture(rng, side, (1.0, 3.0)) * rng.uniform(0.5, 1.2))[..., None]
    return paint(rng, side, tuple(rng.uniform(0.25, 0.8, 3))) * (1 + 0.18 * folds)


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "meadow": _outdoors((0.30, 0.48, 0.18), (1.6, 0.35)),
    "street": _outdoors((0.42, 0.42, 0.44), (0.5, 0.5)),
    "beach": _beach,
    "room": _room,
    "planks": _planks,
    "tiles": _tiles,
    "wall": _plain(WALLS, (1.5, 1.5)),
    "carpet": _plain(((0.55, 0.25, 0.24), (0.25, 0.32, 0.50), (0.5, 0.46, 0.4)), (0.3, 0.3)),
    "lights": _lights,
    "foliage": _plain(((0.20, 0.34, 0.16), (0.40, 0.36, 0.18)), (0.5, 0.5)),
    "snow": _outdoors((0.84, 0.87, 0.92), (0.6, 1.5)),
    "cloth": _cloth,
    "desert": _outdoors((0.76, 0.52, 0.34), (0.3, 2.5)),
}
HELD_KINDS = ("snow", "cloth", "desert")
TRAIN_KINDS = tuple(kind for kind in KINDS if kind not in HELD_KINDS)


def draw_background(kind: str, seed: int, side: int) -> Image.Image:
    """Return one background of a kind, [S, S] RGB, slightly out of focus; the same for a seed."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(KINDS[kind](rng, side), 0.02, 0.98)
    picture = Image.fromarray((255 * pixels).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.6) * side / 160))
