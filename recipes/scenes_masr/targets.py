"""What queries and patches shall say of a picture, and pictures changed at random.

Each query stands for one of nine cells. Their edges are those between 'on the left', in the middle
and 'on the right', and between 'at the top' and 'at the bottom', of the sentences: a query whose
thing is known thus knows which sides the thing is at, and things are counted by counting queries.

Letters: N pictures, M most things in a picture, S side in pixels, G patches along a side,
Q = 9 queries. Pixels are in 0..1.
"""

import torch
from gallery import NOTHING, Gallery
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

EDGES = (0.42, 0.58)  # as in `sentences.sides`
CELLS = 9
IGNORED = -100  # what cross entropy leaves out
MOST_SHIFT = 0.15
INSIDE = 0.1  # centres stay so far from the edge
STILL_SHARE = 0.2  # of the pictures, neither moved nor scaled
BLUR_SHARE = 0.3
HOLE_SHARE = 0.3


def cells_of(centres: Tensor) -> Tensor:
    """Return the cell of each centre [..., 2], row by row from the top left, int64 [...]."""
    columns, rows = torch.bucketize(centres.contiguous(), torch.tensor(EDGES)).unbind(-1)
    return 3 * rows + columns


def cell_targets(words: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Say what stands in each cell, and where.

    Args:
        words: [N, M], as in :class:`gallery.Gallery`.
        boxes: [N, M, 4].

    Returns:
        Words [N, Q], `NOTHING` in empty cells and `IGNORED` where two things have their centres,
        and centres [N, Q, 2], zero in empty cells.
    """
    labels = torch.full((len(words), CELLS), NOTHING)
    places = torch.zeros(len(words), CELLS, 2)
    counts = torch.zeros(len(words), CELLS, dtype=torch.int64)
    rows, columns = (words >= 0).nonzero(as_tuple=True)
    centres = boxes[rows, columns, :2]
    cells = cells_of(centres)
    labels[rows, cells] = words[rows, columns]
    places[rows, cells] = centres
    counts.index_put_((rows, cells), torch.ones_like(cells), accumulate=True)
    return labels.masked_fill(counts > 1, IGNORED), places


def patch_targets(words: Tensor, boxes: Tensor, grid: int) -> Tensor:
    """Say what covers the centre of each patch, as if things were ellipses: int64 [N, G * G]."""
    axis = (torch.arange(grid) + 0.5) / grid
    centres = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, 1, -1, 2)
    offset = (centres - boxes[:, :, None, :2]) / (boxes[:, :, None, 2:] / 2).clamp(min=1e-6)
    covered = (offset.square().sum(-1) <= 1) & (words >= 0)[..., None]  # [N, M, G * G]
    labels = torch.full((len(words), grid * grid), NOTHING)
    for column in range(words.shape[1]):
        labels = torch.where(covered[:, column], words[:, column, None], labels)
    return labels


def vary(pictures: Gallery, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Change pictures at random, as cameras and backgrounds differ.

    Mirrored, scaled, moved without a centre leaving the picture, blurred, tinted, in another
    contrast, grainy, with a hole of one colour.

    Returns:
        Pixels [N, 3, S, S] and boxes [N, M, 4].
    """
    pixels, boxes = _move(pictures, rng)
    pixels = _tint(_blur(pixels, rng), rng)
    pixels = _dig(pixels, rng)
    grain = _uniform((len(pixels), 1, 1, 1), 0, 0.06, rng)
    grains = torch.randn(len(pixels), 1, *pixels.shape[2:], generator=rng)
    return (pixels + grain * grains).clamp(0, 1), boxes


def _move(pictures: Gallery, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    number = len(pictures.pixels)
    still = (torch.rand(number, generator=rng) < STILL_SHARE)[:, None]
    scale = _uniform((number, 1), 0.8, 1.25, rng).masked_fill(still, 1)
    mirror = torch.where(torch.rand(number, 1, generator=rng) < 0.5, -1.0, 1.0)
    # from the middle of the picture: x' = mirror * scale * x + shift, y' = scale * y + shift
    stretch = torch.cat([scale * mirror, scale], 1)  # [N, 2]
    centres = (pictures.boxes[..., :2] - 0.5) * stretch[:, None]  # [N, M, 2]
    there = (pictures.words >= 0)[..., None]
    lowest = centres.masked_fill(~there, 0).amin(1)
    highest = centres.masked_fill(~there, 0).amax(1)
    least = (INSIDE - 0.5 - lowest).clamp(-MOST_SHIFT, 0)
    most = (0.5 - INSIDE - highest).clamp(0, MOST_SHIFT)
    shift = least + (most - least) * torch.rand(number, 2, generator=rng)
    shift = shift.masked_fill(still, 0)
    boxes = torch.cat([centres + shift[:, None] + 0.5, pictures.boxes[..., 2:] * scale[:, None]], 2)
    # grid_sample asks where each new pixel comes from, in coordinates from -1 to 1
    inverse = torch.diag_embed(1 / stretch)
    matrix = torch.cat([inverse, (-2 * shift / stretch)[..., None]], 2)  # [N, 2, 3]
    pixels = pictures.pixels.float() / 255
    grid = affine_grid(matrix, list(pixels.shape), align_corners=False)
    return grid_sample(pixels, grid, padding_mode="border", align_corners=False), boxes


def _blur(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Mix some pictures with their means over three by three pixels."""
    share = _uniform((len(pixels), 1, 1, 1), 0, 1, rng)
    share = share * (torch.rand(share.shape, generator=rng) < BLUR_SHARE)
    means = avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    return pixels + share * (means - pixels)


def _tint(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Change brightness, contrast and the balance of colours."""
    contrast = _uniform((len(pixels), 1, 1, 1), 0.7, 1.3, rng)
    gain = _uniform((len(pixels), 3, 1, 1), 0.88, 1.12, rng)
    lift = _uniform((len(pixels), 1, 1, 1), -0.1, 0.1, rng)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return ((pixels - mean) * contrast + mean) * gain + lift


def _dig(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Fill a square of some pictures with one colour."""
    number, side = len(pixels), pixels.shape[-1]
    axis = (torch.arange(side) + 0.5) / side
    middle = torch.rand(number, 2, 1, generator=rng)
    half = _uniform((number, 1, 1), 0.05, 0.12, rng)
    near = (axis - middle).abs() < half  # [N, 2, S]
    hole = near[:, 1, :, None] & near[:, 0, None, :]
    hole &= torch.rand(number, 1, 1, generator=rng) < HOLE_SHARE
    return torch.where(hole[:, None], torch.rand(number, 3, 1, 1, generator=rng), pixels)


def _uniform(shape: tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)
