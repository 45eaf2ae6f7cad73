"""Which ChatGLM a folder holds, and its sizes in the words of `GlmConfig`, there and back.

ChatGLM2, ChatGLM3, their -32k variants and GLM-4 are one architecture, native `glm`; they differ in
sizes, in what ends an answer, and in the meaning of one field: `rope_ratio` divides positions in
ChatGLM2 and multiplies the rotary base in the others.
"""

from enum import Enum
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import GlmConfig

from llmasr.models.language.any_tokenizer import GLM4_VOCABULARY, chatglm_generation
from llmasr.models.language.chatglm1 import ChatGLM1Config

# Fields that have one value in every release; the code behind another value was never released.
CONSTANTS = {
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "fp32_residual_connection": False,
    "multi_query_attention": True,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
    "tie_word_embeddings": False,
}
# Sizes: the official field, and that of GlmConfig.
SIZES = {
    "padded_vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "ffn_hidden_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "multi_query_group_num": "num_key_value_heads",
    "kv_channels": "head_dim",
    "seq_length": "max_position_embeddings",
}
# The same of the first generation, whose fields keep their names.
FIRST_CONSTANTS = {"position_encoding_2d": True, "tie_word_embeddings": False}
FIRST_SIZES = (
    "vocab_size",
    "hidden_size",
    "inner_hidden_size",
    "num_layers",
    "num_attention_heads",
    "max_sequence_length",
)
FIRST_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "gmask_token_id")
FIRST_OPTIONS = ("rope_dtype", "use_cache", "initializer_range")
# The vocabulary of March 2023 began with image tokens, which nothing was ever said with.
IMAGE_ROWS = 20000
OLD_VOCABULARY, OLD_PAD = 150528, 20003
FIRST_KEYS = {"inner_hidden_size", "position_encoding_2d"}
LATER_KEYS = {"padded_vocab_size", "multi_query_attention", "multi_query_group_num"}
ROTARY_BASE = 10000.0
NAMES = {2: "THUDM/chatglm2-6b", 3: "THUDM/chatglm3-6b", 4: "THUDM/glm-4-9b-chat"}
# ChatGLM3 ends an answer where the next turn would begin. Its roles follow the pieces of the
# tokenizer and its five special tokens: system, user, assistant, observation.
PIECES_OF_64K_VOCABULARY = {65024: 64789}
USER, OBSERVATION = 6, 8
SENTENCEPIECE_END = 2


class Family(Enum):
    """What computes with the weights of a folder."""

    CHATGLM1 = "ChatGLM-6B, the first generation"
    CHATGLM2 = "ChatGLM2, ChatGLM3 or GLM-4 in the official layout"
    NATIVE = "a model that transformers knows"


def family(config: dict[str, Any]) -> Family:
    """Return what computes with a model of this ``config.json``.

    Raises:
        ValueError: the fields are those of two families or of none, or the model reads images.
    """
    if config.get("model_type") not in (None, "chatglm"):
        return Family.NATIVE
    first, later = sorted(FIRST_KEYS & config.keys()), sorted(LATER_KEYS & config.keys())
    if first and later:
        raise ValueError(
            f"mixed generations: {', '.join(first)} belongs to ChatGLM-6B, "
            f"{', '.join(later)} to ChatGLM2, ChatGLM3 and GLM-4"
        )
    if not first and not later:
        raise ValueError(
            f"model_type is {config.get('model_type')!r}, and neither a field of ChatGLM-6B "
            f"({', '.join(sorted(FIRST_KEYS))}) nor one of ChatGLM2, ChatGLM3 and GLM-4 "
            f"({', '.join(sorted(LATER_KEYS))}) is there"
        )
    if "vision_config" in config:
        raise ValueError("vision_config: a model that reads images; text-only ones are accepted")
    return Family.CHATGLM1 if first else Family.CHATGLM2


def quantization_bits(config: dict[str, Any]) -> int:
    """Return 4, 8, or 0 for plain weights.

    Raises:
        ValueError: another number is given.
    """
    bits = config.get("quantization_bit") or 0
    if bits not in (0, 4, 8):
        raise ValueError(f"quantization_bit is {bits!r}; 0, 4 and 8 are accepted")
    return int(bits)


def refuse_prefix(config: dict[str, Any]) -> None:
    """Refuse a model trained with P-tuning.

    Raises:
        ValueError: it was.
    """
    if config.get("pre_seq_len"):
        raise ValueError(
            f"pre_seq_len is {config['pre_seq_len']!r}: P-tuning prefixes are not supported; "
            "give the base model, or one fine-tuned in full or with merged LoRA"
        )


def to_chatglm1_config(config: dict[str, Any]) -> ChatGLM1Config:
    """Translate an official ``config.json`` of ChatGLM-6B.

    Of the vocabulary of March 2023, the image tokens are left out: ids are 20000 lower.

    Raises:
        ValueError: a field is missing or has a value that no release has.
    """
    _check_constants(config, FIRST_CONSTANTS)
    sizes = {name: positive_integer(config, name) for name in FIRST_SIZES}
    ids = {name: _one_id(config, name, sizes["vocab_size"]) for name in FIRST_IDS}
    if sizes["vocab_size"] == OLD_VOCABULARY or ids["pad_token_id"] == OLD_PAD:
        sizes["vocab_size"] -= IMAGE_ROWS
        text = {name: i for name, i in ids.items() if i is not None and i >= IMAGE_ROWS}
        ids = {name: i - IMAGE_ROWS for name, i in text.items()}
    return ChatGLM1Config(
        **sizes,
        **{name: i for name, i in ids.items() if i is not None},
        **{name: config[name] for name in FIRST_OPTIONS if name in config},
        layernorm_epsilon=_positive(config, "layernorm_epsilon"),
    )


def to_glm_config(config: dict[str, Any], folder: Path) -> GlmConfig:
    """Translate an official ``config.json`` of ChatGLM2, ChatGLM3 or GLM-4.

    Args:
        config: its fields.
        folder: where it was; tokenizer files there say what fields do not.

    Returns:
        The native configuration; `chatglm_generation` in it is 2, 3 or 4 where it is known.

    Raises:
        ValueError: a field is missing or has a value that no release has.
    """
    _check_constants(config, CONSTANTS)
    sizes = {native: positive_integer(config, name) for name, native in SIZES.items()}
    if sizes["num_attention_heads"] % sizes["num_key_value_heads"]:
        raise ValueError("num_attention_heads is no multiple of multi_query_group_num")
    if sizes["head_dim"] % 4:
        raise ValueError(f"kv_channels is {sizes['head_dim']}; a multiple of 4 is needed")
    generation = chatglm_generation(folder, config)
    extra = {} if generation is None else {"chatglm_generation": generation}
    return GlmConfig(
        **sizes,
        rms_norm_eps=_positive(config, "layernorm_epsilon"),
        rope_parameters=_rope(config, generation),
        attention_bias=True,
        attention_dropout=config.get("attention_dropout", 0.0),
        tie_word_embeddings=False,
        use_cache=config.get("use_cache", True),
        bos_token_id=_one_id(config, "bos_token_id", sizes["vocab_size"]),
        eos_token_id=_stop_ids(config, folder, generation),
        pad_token_id=_one_id(config, "pad_token_id", sizes["vocab_size"]),
        **extra,
    )


def to_official_config(config: GlmConfig) -> dict[str, Any]:
    """Translate back, into the fields that the official layout has.

    Raises:
        ValueError: the configuration has no counterpart there.
    """
    rope = dict(config.rope_parameters)
    kind, base = rope.get("rope_type", "default"), rope["rope_theta"]
    ratio = rope["factor"] if kind == "linear" else base / ROTARY_BASE
    fits = kind == "default" or (kind == "linear" and base == ROTARY_BASE)
    if not fits or rope.get("partial_rotary_factor") != 0.5 or not config.attention_bias:
        raise ValueError(f"no ChatGLM has rope_parameters {rope}, or no bias in attention")
    generation = getattr(config, "chatglm_generation", 2 if kind == "linear" else None)
    if generation is None:
        generation = 4 if config.vocab_size == GLM4_VOCABULARY else 3
    return {
        "_name_or_path": NAMES[generation],
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        **CONSTANTS,
        **{name: getattr(config, native) for name, native in SIZES.items()},
        "layernorm_epsilon": config.rms_norm_eps,
        "rope_ratio": int(ratio) if ratio == int(ratio) else ratio,
        "attention_dropout": config.attention_dropout,
        "hidden_dropout": 0.0,
        "use_cache": config.use_cache,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }


def positive_integer(config: dict[str, Any], name: str) -> int:
    """Return a field that counts something.

    Raises:
        ValueError: it is missing or no positive integer.
    """
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name} is {value!r}; a positive integer is needed")
    return value


def token_ids(config: dict[str, Any], name: str, vocabulary: int) -> list[int]:
    """Return the ids in a field that holds one, several, or none.

    Raises:
        ValueError: it holds something else, or an id outside the vocabulary.
    """
    value = config.get(name)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for item in ids:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < vocabulary:
            raise ValueError(f"{name} is {value!r}; ids from 0 to {vocabulary - 1} are accepted")
    return ids


def _check_constants(config: dict[str, Any], constants: dict[str, bool]) -> None:
    for name, accepted in constants.items():
        if config.get(name, accepted) != accepted:
            raise ValueError(f"{name} is {config[name]!r}; every release has {accepted}")


def _positive(config: dict[str, Any], name: str, default: float | None = None) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name} is {value!r}; a positive number is needed")
    return float(value)


def _rope(config: dict[str, Any], generation: int | None) -> dict[str, Any]:
    ratio = _positive(config, "rope_ratio", 1.0)
    half = {"partial_rotary_factor": 0.5}
    if ratio == 1.0:
        return {"rope_type": "default", "rope_theta": ROTARY_BASE} | half
    if generation is None:
        raise ValueError(
            f"rope_ratio is {ratio:g}, which divides positions in ChatGLM2 and multiplies the "
            "rotary base in ChatGLM3 and GLM-4; set _name_or_path in config.json to one of "
            f"{', '.join(NAMES.values())}"
        )
    if generation == 2:
        return {"rope_type": "linear", "factor": ratio, "rope_theta": ROTARY_BASE} | half
    return {"rope_type": "default", "rope_theta": ROTARY_BASE * ratio} | half


def _one_id(config: dict[str, Any], name: str, vocabulary: int) -> int | None:
    ids = token_ids(config, name, vocabulary)
    if len(ids) > 1:
        raise ValueError(f"{name} is {ids}; one id is needed")
    return ids[0] if ids else None


def _stop_ids(config: dict[str, Any], folder: Path, generation: int | None) -> int | list[int]:
    """Return the ids that end an answer, as one number where there is one."""
    vocabulary = config["padded_vocab_size"]
    ids = token_ids(config, "eos_token_id", vocabulary)
    if not ids and generation == 4:
        raise ValueError("eos_token_id is missing; every GLM-4 has it")
    ids = ids or [SENTENCEPIECE_END]
    if generation == 3 and len(ids) == 1:
        pieces = _count_pieces(folder / "tokenizer.model")
        pieces = pieces or PIECES_OF_64K_VOCABULARY.get(vocabulary)
        ids = ids + [pieces + role for role in (USER, OBSERVATION)] if pieces else ids
        if ids[-1] >= vocabulary:
            raise ValueError(
                f"padded_vocab_size is {vocabulary}; the tokenizer beside it has {pieces} pieces "
                "and 9 special tokens"
            )
    return ids if len(ids) > 1 else ids[0]


def _count_pieces(path: Path) -> int | None:
    if not path.is_file():
        return None
    try:
        return int(sentencepiece.SentencePieceProcessor(str(path)).get_piece_size())
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path.name} beside it is no SentencePiece model") from error
