"""Sizes of the interfaces by name; add your own here.

Widths of the language model and of its vocabulary come from its folder.
"""

from llmasr.config import (
    XLLM_FRAMES,
    EncoderConfig,
    FrameConfig,
    QFormerConfig,
    SpeechConfig,
    VisionConfig,
    ViTConfig,
)

# "xllm": 512 wide, as the vectors that X-LLM's speech encoder gives; its depth was not published
# and is that of the same author's LibriSpeech recipe. The C-Former has X-LLM's 12 layers.
SPEECH = {
    "small": SpeechConfig(EncoderConfig(width=256, num_blocks=12, num_heads=4), cformer_blocks=4),
    "xllm": SpeechConfig(EncoderConfig(width=512, num_blocks=17, num_heads=8), cformer_blocks=12),
    "tiny": SpeechConfig(
        EncoderConfig(
            width=32, num_blocks=1, num_heads=2, kernel=5, expansion=2, subsampling_channels=4
        ),
        cformer_blocks=1, cformer_expansion=2,
    ),
}  # fmt: skip

# "xllm": ViT-g/14 and Q-Former of BLIP-2.
VISION = {
    "xllm": VisionConfig(),
    "tiny": VisionConfig(
        vit=ViTConfig(
            image_size=28, patch_size=14, width=32, num_blocks=1, num_heads=2, mlp_width=48
        ),
        qformer=QFormerConfig(width=32, num_blocks=2, num_heads=2, mlp_width=48),
        num_queries=4,
    ),
}

# "xllm" is what the code of X-LLM does; the paper speaks of frames spread evenly.
FRAMES = {"uniform": FrameConfig(), "xllm": XLLM_FRAMES}


def chosen(presets: dict, name: str, flag: str):
    """Return a preset by its name."""
    if name not in presets:
        raise ValueError(f"{flag} is {name!r}; allowed: {', '.join(presets)}")
    return presets[name]
