"""ChatGLM checkpoints in the official layout: read as native models, written back on request.

One table of names serves both directions. The table is applied here and not by the checkpoint
conversion of transformers, for four reasons: that conversion is registered for a class, so every
native GLM folder would pass through it; it has no place for int4 weights, whose scale may lie in
another shard; its reports name the native weight, not the one in the user's file; and it writes
official weights beside a native `config.json`. What is used of transformers is public.

Strict in both generations: every weight is used, none is missing, none is random.
"""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import GlmForCausalLM, PreTrainedModel

from llmasr.importers.chatglm_config import (
    IMAGE_ROWS,
    quantization_bits,
    refuse_prefix,
    to_chatglm1_config,
    to_glm_config,
    to_official_config,
)
from llmasr.importers.chatglm_quantised import dequantise_all
from llmasr.importers.folders import read_weights
from llmasr.models.language.chatglm1 import ChatGLM1ForCausalLM

# Tables that are computed anew.
COMPUTED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq")
# How the layers are called tells who wrote a file.
LAYERS = {
    "ChatGLM-6B": "transformer.layers.",
    "ChatGLM2, ChatGLM3 or GLM-4": "transformer.encoder.layers.",
    "a native model of transformers": "model.layers.",
}
SHOWN = 5


def load_chatglm1(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> ChatGLM1ForCausalLM:
    """Load ChatGLM-6B, with the vocabulary of the first or of the final release.

    Args and errors are those of :func:`load_chatglm2`. Without image tokens, ids of the first
    release are 20000 lower than its own tokenizer gives them.
    """
    own_config = _in_config(folder, to_chatglm1_config, config)
    weights = read_official_weights(folder, config, dtype)
    for name in ("transformer.word_embeddings.weight", "lm_head.weight"):
        if name in weights and len(weights[name]) == own_config.vocab_size + IMAGE_ROWS:
            weights[name] = weights[name][IMAGE_ROWS:]
    expected = shapes(ChatGLM1ForCausalLM, own_config)
    check_weights(folder, weights, expected, "ChatGLM-6B")
    for name in expected:
        weights[name] = weights[name].to(dtype, copy=True)
    return assemble(ChatGLM1ForCausalLM, own_config, weights, folder, dtype)


def load_chatglm2(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> GlmForCausalLM:
    """Load ChatGLM2, ChatGLM3 or GLM-4 in the official layout as the native model.

    Args:
        folder: holds `config.json`, the weights, and the tokenizer's files.
        config: the fields of `config.json`.
        dtype: floating-point type of the weights, into which each is turned at once.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a field or a weight is missing, unknown, or does not fit; the message names it.
    """
    native_config = _in_config(folder, to_glm_config, config, folder)
    weights = read_official_weights(folder, config, dtype)
    native_shapes = shapes(GlmForCausalLM, native_config)
    table = official_names(native_config.num_hidden_layers)
    check_weights(folder, weights, _stack(table, native_shapes), "ChatGLM2, ChatGLM3 or GLM-4")
    native: dict[str, Tensor] = {}
    for name, parts in table.items():
        rows = [native_shapes[part].shape[0] for part in parts]
        # a copy each, so that nothing shares memory or depends on the file any more
        pieces = [piece.to(dtype, copy=True) for piece in weights.pop(name).split(rows)]
        native |= dict(zip(parts, pieces, strict=True))
    return assemble(GlmForCausalLM, native_config, native, folder, dtype)


def save_official(model: GlmForCausalLM, folder: Path) -> None:
    """Write a model in the official layout of ChatGLM2, ChatGLM3 and GLM-4, as safetensors.

    Tokenizer files are not written. :func:`load_chatglm2` reads what this wrote.

    Raises:
        ValueError: the model has no counterpart in that layout.
    """
    config = to_official_config(model.config) | {"torch_dtype": str(model.dtype).split(".")[1]}
    weights = _stack(official_names(model.config.num_hidden_layers), model.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_torch_state_dict(weights, folder)


def official_names(layers: int) -> dict[str, list[str]]:
    """Return, for each official name, the native weights whose rows it holds one after the other.

    Query, key and value are one official weight; feed-forward gate and value are one in both.
    """
    table = {
        "transformer.embedding.word_embeddings.weight": ["model.embed_tokens.weight"],
        "transformer.encoder.final_layernorm.weight": ["model.norm.weight"],
        "transformer.output_layer.weight": ["lm_head.weight"],
    }
    alike = ("input_layernorm", "post_attention_layernorm")
    renamed = {
        "self_attention.dense": "self_attn.o_proj",
        "mlp.dense_h_to_4h": "mlp.gate_up_proj",
        "mlp.dense_4h_to_h": "mlp.down_proj",
    } | {name: name for name in alike}
    for layer in range(layers):
        theirs, ours = f"transformer.encoder.layers.{layer}", f"model.layers.{layer}"
        table |= {f"{theirs}.{a}.weight": [f"{ours}.{b}.weight"] for a, b in renamed.items()}
        for kind in ("weight", "bias"):
            parts = [f"{ours}.self_attn.{part}_proj.{kind}" for part in "qkv"]
            table[f"{theirs}.self_attention.query_key_value.{kind}"] = parts
    return table


def read_official_weights(
    folder: Path, config: dict[str, Any], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the plain weights of an official folder of any generation, by official name.

    Quantised ones are turned into ``dtype``; the others keep theirs.
    """
    _in_config(folder, refuse_prefix, config)
    bits = _in_config(folder, quantization_bits, config)
    weights = read_weights(folder)
    prefixes = sorted(name for name in weights if "prefix_encoder" in name)
    if prefixes:
        raise ValueError(f"{folder}: {prefixes[0]}: P-tuning prefixes are not supported")
    try:
        dequantise_all(weights, bits, dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return {name: value for name, value in weights.items() if not name.endswith(COMPUTED)}


def shapes(model_class: type[PreTrainedModel], config: Any) -> dict[str, Tensor]:
    """Return the weights that a model of ``config`` has, without any numbers in them."""
    with torch.device("meta"):
        return dict(model_class(config).state_dict())


def check_weights(
    folder: Path, found: dict[str, Tensor], expected: dict[str, Tensor], described: str
) -> None:
    """Require the same names and shapes, and floating-point numbers.

    Raises:
        ValueError: something else was found; the message names it.
    """
    written_by = [who for who, start in LAYERS.items() if any(n.startswith(start) for n in found)]
    if written_by and described not in written_by:
        raise ValueError(
            f"{folder}: config.json describes {described}; the weights are of {written_by[0]}"
        )
    for problem, names in (
        ("missing", expected.keys() - found.keys()),
        ("not known to the model that config.json describes", found.keys() - expected.keys()),
    ):
        if names:
            listed = ", ".join(sorted(names)[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
            raise ValueError(f"{folder}: {len(names)} weights are {problem}: {listed}")
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{folder}: {name} is {list(value.shape)}; "
                f"config.json asks for {list(expected[name].shape)}"
            )
        if not value.is_floating_point():
            raise ValueError(f"{folder}: {name} is {value.dtype}; floating point is needed")


def assemble(
    model_class: type[PreTrainedModel],
    config: Any,
    weights: dict[str, Tensor],
    folder: Path,
    dtype: torch.dtype,
) -> Any:
    """Return a model of ``weights``, which are used as they are, in eval mode."""
    model, report = model_class.from_pretrained(
        None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
    )
    assert not any(report.values()), report
    model.config.name_or_path = model.name_or_path = str(folder)
    return model.eval()


def _stack(table: dict[str, list[str]], native: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([native[part] for part in parts]) for name, parts in table.items()}


def _in_config(folder: Path, check: Any, *arguments: Any) -> Any:
    """Call ``check``, and say that what it complains about is in ``config.json``."""
    try:
        return check(*arguments)
    except (ValueError, StrictDataclassError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
