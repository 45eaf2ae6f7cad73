"""Sizes of a model as frozen dataclasses that travel inside its checkpoint as JSON."""

import dataclasses
import typing
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

# Marks a field that checkpoints from before it was there lack; its default is what they meant.
OPTIONAL = {"optional": True}


@dataclass(frozen=True)
class EncoderConfig:
    """Acoustic encoder: log-mel bins to hidden frames of ``frame_seconds`` each."""

    num_bins: int = 80
    width: int = 192
    num_blocks: int = 8
    num_heads: int = 4
    kernel: int = 15
    expansion: int = 4
    subsampling_channels: int = 32
    subsampling_layers: int = 3
    dropout: float = 0.1

    @property
    def frame_seconds(self) -> float:
        """Time step of the hidden frames."""
        return 0.01 * 2**self.subsampling_layers


@dataclass(frozen=True)
class SpeechConfig:
    """Speech interface: encoder, CIF, C-Former, heads and S-Adaptor.

    ``phone_block`` is the encoder block (1-based) that a phone CTC supervises in training; 0 for
    none. ``num_phones`` counts the blank. ``fires_with_ctc``: CIF fires once for each token that
    CTC says, and its weights only tell what belongs to it.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    vocab_size: int = 512
    cformer_blocks: int = 2
    cformer_expansion: int = 4
    phone_block: int = 0
    num_phones: int = 0
    adaptor_width: int = 256
    fires_with_ctc: bool = field(default=False, metadata=OPTIONAL)


@dataclass(frozen=True)
class FrameConfig:
    """Which frames of a video are looked at; see ``llmasr.media.load_video``.

    ``sampling`` is "uniform", "head" or "tail". ``frames_per_second`` thins the video first, 0 for
    every frame; ``window_seconds`` is where it is cut, 0 for nowhere. ``crop`` keeps the middle
    square instead of squeezing the whole frame into one.
    """

    num_frames: int = 5
    sampling: str = "uniform"
    frames_per_second: float = 0.0
    window_seconds: float = 0.0
    crop: bool = False


# What the X-LLM code does: the first 5 frames at 1 frame per second of the first minute, cropped.
XLLM_FRAMES = FrameConfig(sampling="head", frames_per_second=1.0, window_seconds=60.0, crop=True)


@dataclass(frozen=True)
class ViTConfig:
    """Vision transformer over square images; as given, the EVA ViT-g/14 of BLIP-2.

    ``frozen``: its weights are not trained, and it stays in eval mode.
    """

    image_size: int = 224
    patch_size: int = 14
    width: int = 1408
    num_blocks: int = 39
    num_heads: int = 16
    mlp_width: int = 6144
    norm_eps: float = 1e-6
    frozen: bool = True


@dataclass(frozen=True)
class QFormerConfig:
    """Q-Former of BLIP-2; every ``cross_every``-th block, from the first on, sees the image."""

    width: int = 768
    num_blocks: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    cross_every: int = 2
    dropout: float = 0.1
    norm_eps: float = 1e-12


@dataclass(frozen=True)
class VisionConfig:
    """Image and video interfaces: one ViT and Q-Former, and queries and an adaptor for each.

    ``modalities`` are "image", "video" or both. ``norm_eps`` is that of the layer norm between ViT
    and Q-Former, 1e-5 in LAVIS. ``frame_positions`` counts learned frame positions, 0 for none.
    """

    vit: ViTConfig = field(default_factory=ViTConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    frames: FrameConfig = field(default_factory=FrameConfig)
    modalities: tuple[str, ...] = ("image", "video")
    norm_eps: float = 1e-5
    num_queries: int = 32
    frame_positions: int = 0
    adaptor_width: int = 4096


@dataclass(frozen=True)
class PromptConfig:
    """How speech and text meet in front of the language model; see ``llmasr.prompts``."""

    instruction: str = ""
    layout: str = field(default="plain", metadata=OPTIONAL)
    # Other instructions of training, by task; see `llmasr.prompts.INSTRUCTIONS`.
    tasks: dict[str, str] = field(default_factory=dict, metadata=OPTIONAL)


@dataclass(frozen=True)
class ModelConfig:
    """A whole X-LLM: its interfaces, the prompt it was trained with and what it understands.

    The language model keeps its own ``config.json`` in the folder ``language_model``.
    """

    speech: SpeechConfig = field(default_factory=SpeechConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    languages: tuple[str, ...] = ("en",)
    version: int = 1
    vision: VisionConfig | None = field(default=None, metadata=OPTIONAL)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model can hear and see."""
        return ("speech", *(self.vision.modalities if self.vision else ()))


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a configuration into JSON types."""
    return dataclasses.asdict(config)


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """Build a configuration of type ``kind`` from what :func:`to_dict` gave.

    Raises:
        ValueError: a key is unknown or missing.
    """
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    required = {name for name, entry in fields.items() if not entry.metadata.get("optional")}
    for problem, names in (
        ("unknown", sorted(values.keys() - fields.keys())),
        ("missing", sorted(required - values.keys())),
    ):
        if names:
            raise ValueError(
                f"{kind.__name__}: {problem} {', '.join(names)}; allowed: {', '.join(fields)}"
            )
    built = {}
    for name, value in values.items():
        kinds = [kind for kind in _kinds(fields[name].type) if dataclasses.is_dataclass(kind)]
        if isinstance(value, dict) and kinds:
            value = from_dict(kinds[0], value)  # type: ignore[arg-type]
        built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)


def _kinds(annotation: object) -> tuple[object, ...]:
    """Return the types of a field: one, or those of a union."""
    return typing.get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
