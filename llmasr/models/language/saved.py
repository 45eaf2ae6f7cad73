"""Read back a language model that transformers saved: of its own classes, or one of ours.

Checkpoints as others published them are the business of `llmasr.importers`.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from llmasr.files import read_json
from llmasr.models.language.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM


def build_language_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a language model with fresh weights."""
    if isinstance(config, ChatGLM1Config):
        return ChatGLM1ForCausalLM(config)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def load_saved(folder: Path) -> PreTrainedModel:
    """Load what `save_pretrained` of transformers wrote, in float32 on the CPU.

    Raises:
        FileNotFoundError: `config.json` is missing.
        ValueError: a file is damaged, or weights are missing, unknown or of another shape.
    """
    kind = read_json(folder / "config.json").get("model_type")
    is_ours = kind == ChatGLM1Config.model_type
    model, report = (ChatGLM1ForCausalLM if is_ours else AutoModelForCausalLM).from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
        # So that they are in the report, which names them all.
        ignore_mismatched_sizes=True, output_loading_info=True,
    )  # fmt: skip
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(_name(key) for key in report[problem]):
            listed = ", ".join(names[:5])
            raise ValueError(f"{folder}: {problem.replace('_keys', '')} weights: {listed}")
    loaded: PreTrainedModel = model
    return loaded


def _name(key: str | tuple[str, ...]) -> str:
    """Return the name of a weight; where shapes differ they come with it."""
    return key if isinstance(key, str) else key[0]
