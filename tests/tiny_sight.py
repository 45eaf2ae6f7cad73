"""A tiny model that hears and sees, with random weights, and pictures and videos to show it.

It is `tiny-test` with an image and a video interface in front. What it writes is meaningless, but
depends on what it is shown.
"""

import io

import numpy as np
import torch

from llmasr.api import ASSETS
from llmasr.audio import SAMPLE_RATE
from llmasr.config import FrameConfig, QFormerConfig, VisionConfig, ViTConfig
from llmasr.models.checkpoint import Bundle, load_pretrained
from llmasr.models.seeing import with_vision

VISION = VisionConfig(
    vit=ViTConfig(image_size=28, patch_size=14, width=32, num_blocks=1, num_heads=2, mlp_width=48),
    qformer=QFormerConfig(width=32, num_blocks=2, num_heads=2, mlp_width=48),
    frames=FrameConfig(num_frames=3),
    num_queries=4,
    adaptor_width=32,
)


def build(vision: VisionConfig = VISION) -> Bundle:
    """Build the model with a fixed seed, and with weights that let it tell pictures apart."""
    torch.manual_seed(0)
    bundle = with_vision(load_pretrained(ASSETS / "tiny-test"), vision)
    for modality in vision.modalities:
        for name, weight in bundle.model.interfaces[modality].named_parameters():
            weight.data += 0.3 * torch.randn_like(weight) * ("norm" not in name.lower())
    return bundle


def noise(seconds: float, seed: int = 0) -> tuple[np.ndarray, int]:
    """Make noise in syllables, which a random model takes for words."""
    generator = np.random.default_rng(seed)
    samples = generator.standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32)
    syllables = np.abs(np.sin(np.arange(len(samples)) / 2000)).astype(np.float32)
    return 0.1 * samples * syllables, SAMPLE_RATE


def picture(seed: int = 0) -> np.ndarray:
    """Make a picture of big random squares, [32, 48, 3] uint8."""
    squares = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return squares.repeat(8, 0).repeat(8, 1)


def video(seed: int = 0, num_frames: int = 8, *, has_sound: bool = False) -> bytes:
    """Make a video of random pictures, 8 a second."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        film = container.add_stream("ffv1", rate=8)
        film.width, film.height, film.pix_fmt = 48, 32, "yuv444p"
        if has_sound:
            sound = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
            samples = (noise(num_frames / 8, seed)[0] * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            container.mux(sound.encode(frame))
        for number in range(num_frames):
            container.mux(film.encode(av.VideoFrame.from_ndarray(picture(100 * seed + number))))
        container.mux(film.encode(None))
    return file.getvalue()
