"""What a recogniser looks at: pictures and videos as vectors that the language model reads.

Letters: n vectors of a modality, H LM width.
"""

import os
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmasr.media import DamagedVideoWarning, MediaError, load_image, load_video
from llmasr.models.xllm import XLLM
from llmasr.prompts import MODALITIES


class Sight(NamedTuple):
    """A picture and a video as a user gives them; None where there is none."""

    image: Any = None
    video: Any = None


class Context(NamedTuple):
    """What a prompt shows and lets hear."""

    vectors: Mapping[str, Tensor] = {}  # by modality, [n, H], in the order in which they are read
    flags: tuple[str, ...] = ()  # what a reader of the result should know about it

    def join(self, other: "Context") -> "Context":
        """Return what is in either of two contexts that have no modality in common."""
        both = {**self.vectors, **other.vectors}
        return Context(
            {name: both[name] for name in MODALITIES if name in both}, (*self.flags, *other.flags)
        )


@torch.inference_mode()
def look(model: XLLM, sight: Sight, device: torch.device) -> Context:
    """Return what a model sees; a damaged video, which is still warned of, is flagged.

    Raises:
        MediaError: a picture or video cannot be read, or the model has no interface for it.
    """
    _check(model, sight)
    config = model.config.vision
    seen: dict[str, Tensor] = {}
    if config is None:
        return Context(seen)
    size = config.vit.image_size
    if sight.image is not None:
        pixels = load_image(sight.image, size=size).to(device)
        seen["image"] = model.image(pixels[None])[0]
    if sight.video is None:
        return Context(seen)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        video = load_video(sight.video, size=size, config=config.frames)
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    is_damaged = any(issubclass(warning.category, DamagedVideoWarning) for warning in caught)
    vectors, lengths = model.video(video.frames[None].to(device), video.mask[None].to(device))
    seen["video"] = vectors[0, : int(lengths[0])]
    return Context(seen, ("video_damaged",) if is_damaged else ())


def _check(model: XLLM, sight: Sight) -> None:
    """Refuse what the model cannot look at."""
    for modality, source in sight._asdict().items():
        if source is not None and modality not in model.interfaces:
            is_path = isinstance(source, str | os.PathLike)
            shown = repr(os.fspath(source)) if is_path else f"a {type(source).__name__}"
            raise MediaError(
                f"{modality} is {shown}, but this model has no {modality} interface;"
                f" it takes: {', '.join(model.interfaces)}"
            )
