"""What a recogniser looks at: pictures and videos as vectors that the language model reads."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmasr.media import load_image, load_video
from llmasr.models.xllm import XLLM


class Sight(NamedTuple):
    """A picture and a video as a user gives them; None where there is none."""

    image: Any = None
    video: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities that are there, in the order in which they are read."""
        return tuple(name for name, source in self._asdict().items() if source is not None)


def check_sight(model: XLLM, sight: Sight) -> None:
    """Refuse what the model cannot look at.

    Raises:
        ValueError: a modality is given for which the model has no interface.
    """
    for name in sight.names:
        if name not in model.interfaces:
            known = " and ".join(model.interfaces)
            raise ValueError(f"{name} is given, but this model takes {known} only")


@torch.inference_mode()
def look(model: XLLM, sight: Sight, device: torch.device) -> Mapping[str, Tensor]:
    """Return what a model sees, by modality, each [n, H].

    Raises:
        MediaError: a picture or video cannot be read.
        ValueError: the model has no interface for it.
    """
    check_sight(model, sight)
    config = model.config.vision
    if config is None:
        return {}
    seen: dict[str, Tensor] = {}
    size = config.vit.image_size
    if sight.image is not None:
        pixels = load_image(sight.image, size=size).to(device)
        seen["image"] = model.image(pixels[None])[0]
    if sight.video is not None:
        video = load_video(sight.video, size=size, config=config.frames)
        vectors, lengths = model.video(video.frames[None].to(device), video.mask[None].to(device))
        seen["video"] = vectors[0, : int(lengths[0])]
    return seen
