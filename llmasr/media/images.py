"""One picture from anywhere -> a square of normalised pixels.

As the image processor of BLIP-2: resized to exactly the square asked for with Pillow's bicubic
filter, then the mean and deviation of CLIP. Unlike it, transparent pixels become white, pictures
lie as their EXIF orientation says, and 16 bits keep their upper 8. Colour profiles are ignored.

Letters: H height, W width, S side of the square.
"""

import contextlib
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import torch
from torch import Tensor

from llmasr.media.source import MAX_PIXELS, FileSource, MediaError, find, require

if TYPE_CHECKING:
    from PIL import Image

ImageSource: TypeAlias = "FileSource | np.ndarray | Image.Image"

# CLIP (arXiv 2103.00020), as OpenAI's code normalises pixels in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)

ACCEPTED = (
    "accepted is one still picture (jpeg, png, webp, bmp, tiff, ...) as a path, bytes or a binary"
    " file object, a PIL image, or an array [H, W, 3] of uint8, or of floats in [0, 1]"
)
JPEG = b"\xff\xd8\xff"
# The strongest at which JPEG can be decoded: an eighth of each side.
JPEG_SHRINKS = (1, 2, 4, 8)
SIXTEEN_BITS = 65_535
EXIF_ORIENTATION = 0x0112


def load_image(source: ImageSource, *, size: int = 224) -> Tensor:
    """Read a picture as a normalised square.

    Pictures have at most 67 million pixels; memory holds 4 bytes of each up to three times. Only
    JPEGs, other than progressive ones, may be larger: they are decoded at a fraction.

    Args:
        source: path, bytes, binary file object, PIL image, or array: [H, W] or [H, W, 1] grey,
            [H, W, 3] RGB, [H, W, 4] RGB and opacity; uint8, or floats in [0, 1].
        size: S, pixels.

    Returns:
        RGB, float32 [3, S, S], about [-2, 3].

    Raises:
        MediaError: (a ValueError) the source is missing, a URL, no picture, animated, truncated or
            damaged, too large, or has values out of range.
        TypeError: the type of `source` is not accepted.
        ImportError: Pillow is not installed.
    """
    require("PIL", "reading pictures")
    from PIL import Image

    if isinstance(source, np.ndarray):
        return normalise(_from_array(source), size)
    if isinstance(source, Image.Image):
        return _square(source, f"PIL image {source.mode} {list(source.size)}", size)
    file = find(source, "image", ACCEPTED)
    with contextlib.ExitStack() as stack:
        try:
            handle = file.open(stack)
        except OSError as error:
            raise MediaError(f"cannot open {file.name}: {error.strerror}; {ACCEPTED}") from error
        # What Pillow warns of is damaged and read all the same, or has more than 89 million pixels.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return _square(_open(handle, file.name), file.name, size)


def normalise(image: "Image.Image", size: int, box: tuple[float, ...] | None = None) -> Tensor:
    """Resize an RGB picture, or the `box` (left, top, right, bottom) of it, to [3, S, S]."""
    from PIL import Image

    resized = image.resize((size, size), Image.Resampling.BICUBIC, box=box)  # type: ignore[arg-type]
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def _open(handle: BinaryIO, name: str) -> "Image.Image":
    """Open without decoding."""
    from PIL import Image, JpegImagePlugin

    start = handle.read(len(JPEG))
    handle.seek(0)
    try:
        if start != JPEG:
            return Image.open(handle)
        # Directly, because the pictures that phones append to a JPEG (a depth map, a brighter
        # version) would make it look animated, and because the size is checked here.
        image = JpegImagePlugin.JpegImageFile(handle)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MediaError(f"{name} is too large: {error}; {_limit()}") from error
    except Exception as error:  # a file of another kind makes its parsers trip over anything
        raise MediaError(f"{name} is no picture that can be read: {error}; {ACCEPTED}") from error
    _shrink(image)
    return image


def _shrink(image: Any) -> None:
    """Have a large JPEG decoded at the largest fraction that fits."""
    # A progressive one is held in memory as a whole while it is decoded, whatever the fraction.
    if "progressive" in image.info:
        return
    width, height = image.size
    for shrink in JPEG_SHRINKS:
        # Pillow rounds up, and takes no smaller fraction than the size it is asked for.
        if -(-width // shrink) * -(-height // shrink) <= MAX_PIXELS:
            image.draft(None, (width // shrink, height // shrink))
            return


def _square(image: "Image.Image", name: str, size: int) -> Tensor:
    """Check, decode, flatten, resize and turn."""
    width, height = image.size
    if width * height > MAX_PIXELS or not width * height:
        raise MediaError(f"{name} has {width} x {height} pixels; {_limit()}")
    try:
        if getattr(image, "is_animated", False):
            raise MediaError(
                f"{name} is animated or has pages; pass it as a video, or one picture of it;"
                f" {ACCEPTED}"
            )
        flat = _flatten(image, name)
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except MediaError:
        raise
    except Exception as error:  # a damaged file makes its decoder trip over anything
        raise MediaError(f"{name} is truncated or damaged: {error}; {ACCEPTED}") from error
    return _turned(normalise(flat, size), orientation)


def _flatten(image: "Image.Image", name: str) -> "Image.Image":
    """Decode to RGB: opaque on white, 8 bits a channel."""
    from PIL import Image

    image.load()
    if image.mode.startswith(("I", "F")):
        return _from_wide(image, name)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(layer, mask=layer)
    return white


def _from_wide(image: "Image.Image", name: str) -> "Image.Image":
    """Scale grey of 16 bits, and of floats in [0, 1], to 8 bits; Pillow itself would clip."""
    from PIL import Image

    values = np.asarray(image)
    top = 1.0 if values.dtype.kind == "f" else float(SIXTEEN_BITS)
    _require_range(values, top, name)
    return Image.fromarray((values * np.float32(255 / top) + 0.5).astype(np.uint8)).convert("RGB")


def _from_array(array: np.ndarray) -> "Image.Image":
    """Turn an array into an RGB picture."""
    from PIL import Image

    name = f"array of shape {list(array.shape)}"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise MediaError(f"{name} is no picture; {ACCEPTED}")
    if array.shape[0] * array.shape[1] > MAX_PIXELS or not array.size:
        raise MediaError(f"{name} has {array.shape[1]} x {array.shape[0]} pixels; {_limit()}")
    if array.dtype.kind == "f":
        _require_range(array, 1.0, name)
        array = (array * 255 + 0.5).astype(np.uint8)
    if array.dtype != np.uint8:
        raise TypeError(f"pixels are {array.dtype}; allowed: uint8, or floats in [0, 1]")
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _flatten(Image.fromarray(np.ascontiguousarray(squeezed)), name)


def _require_range(values: np.ndarray, top: float, name: str) -> None:
    low, high = float(values.min()), float(values.max())
    # NaN compares as false.
    if not (low >= 0 and high <= top):
        raise MediaError(f"{name} has values from {low:g} to {high:g}; allowed: 0 to {top:g}")


def _turned(pixels: Tensor, orientation: int) -> Tensor:
    """Turn a square [3, S, S] as EXIF 2.32, tag 0x0112, says; it was resized lying down."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels.flip(1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels.flip(2)
    return pixels.contiguous()


def _limit() -> str:
    side = int(MAX_PIXELS**0.5)
    return (
        f"allowed: 1 to {MAX_PIXELS} pixels, such as {side} x {side}, or any JPEG that is not"
        " progressive; scale it down first"
    )
