"""Sizes of a model as frozen dataclasses that travel inside its checkpoint as JSON."""

import dataclasses
from dataclasses import dataclass, field
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
    none. ``num_phones`` counts the blank.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    vocab_size: int = 512
    cformer_blocks: int = 2
    cformer_expansion: int = 4
    phone_block: int = 0
    num_phones: int = 0
    adaptor_width: int = 256


@dataclass(frozen=True)
class PromptConfig:
    """How speech and text meet in front of the language model; see ``llmasr.prompts``."""

    instruction: str = ""
    layout: str = field(default="plain", metadata=OPTIONAL)


@dataclass(frozen=True)
class ModelConfig:
    """A whole X-LLM: its interfaces, the prompt it was trained with and what it understands.

    The language model keeps its own ``config.json`` in the folder ``language_model``.
    """

    speech: SpeechConfig = field(default_factory=SpeechConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    languages: tuple[str, ...] = ("en",)
    version: int = 1


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
        if isinstance(value, dict):
            value = from_dict(fields[name].type, value)  # type: ignore[arg-type]
        built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)
