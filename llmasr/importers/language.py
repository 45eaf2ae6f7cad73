"""`load_language_model`: any language model, by the path of its folder alone."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
)

from llmasr.importers.chatglm import load_chatglm1, load_chatglm2
from llmasr.importers.chatglm_config import Family, family
from llmasr.importers.folders import find_weights, read_config

ACCEPTED = (
    "chatglm (ChatGLM-6B, ChatGLM2, ChatGLM3, GLM-4), and every model type that transformers "
    "has a causal language model for"
)


def load_language_model(
    folder: str | Path, *, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Load a language model from ``folder``, on the CPU, in eval mode.

    ChatGLM-6B, ChatGLM2, ChatGLM3 and GLM-4 are read in the layout they were published in, plain,
    int4 or int8, from `.bin` or `.safetensors`, whole or in shards. Every other folder is read by
    transformers. Nothing is downloaded, no code of a checkpoint is run, and every weight must be
    there and be used.

    Args:
        folder: holds `config.json` and weights.
        dtype: floating-point type of the weights in memory; each is turned into it directly.

    Returns:
        `GlmForCausalLM` for ChatGLM2, ChatGLM3 and GLM-4, `ChatGLM1ForCausalLM` for ChatGLM-6B,
        and what `AutoModelForCausalLM` gives for others. What ends an answer is in its
        `generation_config`.

    Raises:
        FileNotFoundError: the folder or a file in it is missing.
        ValueError: a file is damaged, a model type or a field's value is not supported, or weights
            and fields do not fit. The message names the file or key, what is there and what is
            accepted.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}; a floating-point type is needed")
    folder = Path(folder)
    config = read_config(folder)
    try:
        found = family(config)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    if found is Family.CHATGLM1:
        return load_chatglm1(folder, config, dtype)
    if found is Family.CHATGLM2:
        return load_chatglm2(folder, config, dtype)
    return _load_native(folder, config, dtype)


def _load_native(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    """Load what transformers knows, as strictly as the rest."""
    _check_model_type(folder, config)
    find_weights(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False,
            weights_only=True, output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # a broken folder makes it trip over anything
        raise ValueError(f"{folder}: transformers cannot load it: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report[problem]:
            listed = ", ".join(sorted(str(item) for item in report[problem])[:5])
            raise ValueError(f"{folder}: {problem.replace('_', ' ')} in the weights: {listed}")
    return model.eval()


def _check_model_type(folder: Path, config: dict[str, Any]) -> None:
    try:
        known = type(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:  # likewise
        raise ValueError(
            f"{folder / 'config.json'}: model_type is {config.get('model_type')!r}, or its fields "
            f"are not valid; accepted are {ACCEPTED}: {error}"
        ) from error
    if known not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"{folder / 'config.json'}: model_type is {config.get('model_type')!r}, which is no "
            f"causal language model; accepted are {ACCEPTED}"
        )
