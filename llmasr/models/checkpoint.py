"""Models as folders: `config.json`, `model.safetensors`, `tokenizer.model`, `language_model/`.

The language model is a transformers folder of its own, with its tokenizer in it unless it shares
that of the speech interface, `tokenizer.model`; its adapters, if it has any, are beside it in
`lora/`. Everything is read strictly: a missing or an unknown weight is an error, never a random
number. Nothing is unpickled.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from llmasr.config import ModelConfig, from_dict, to_dict
from llmasr.files import read_json
from llmasr.models.language.any_tokenizer import (
    TextTokenizer,
    copy_tokenizer,
    load_tokenizer,
    tokenizer_files,
)
from llmasr.models.language.layers import is_quantised
from llmasr.models.language.lora import (
    are_adapters_in,
    has_lora,
    load_lora,
    remove_lora,
    save_lora,
    without_lora,
)
from llmasr.models.language.saved import load_saved
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.precision import held_as
from llmasr.models.speech import build_speech
from llmasr.models.vision import build_vision
from llmasr.models.xllm import XLLM
from llmasr.prompts import choose_prompt

LANGUAGE_MODEL, LORA = "language_model", "lora"


@dataclass(frozen=True)
class Bundle:
    """A model and the tokenizers it was trained with.

    Attributes:
        model: speech interface and language model.
        tokenizer: of the language model.
        speech_tokenizer: of the CIF hypothesis; None if that has the ids of the language model.
    """

    model: XLLM
    tokenizer: TextTokenizer
    speech_tokenizer: Tokenizer | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """Return the codes of the languages it understands."""
        return self.model.config.languages


def save_pretrained(bundle: Bundle, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a model to ``folder``, made if missing, with weights stored as ``dtype``.

    Adapters are stored apart from the language model and keep their dtype, also if they are merged.

    Raises:
        ValueError: the weights of the language model are int8.
    """
    if is_quantised(bundle.model.language_model):
        raise ValueError("a model with int8 weights is not saved; allowed: the one it came from")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in _own_weights(bundle.model).items()
    }
    save_file(weights, folder / "model.safetensors")
    config = json.dumps(to_dict(bundle.model.config), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")
    speech = bundle.speech_tokenizer or bundle.tokenizer
    if speech.path.resolve() != (folder / "tokenizer.model").resolve():
        shutil.copyfile(speech.path, folder / "tokenizer.model")
    language_model = bundle.model.language_model
    with _quiet(), without_lora(bundle.model), held_as(language_model, dtype):
        language_model.save_pretrained(folder / LANGUAGE_MODEL)
    if bundle.speech_tokenizer is not None:
        copy_tokenizer(bundle.tokenizer, folder / LANGUAGE_MODEL)
    remove_lora(folder / LORA)
    if has_lora(bundle.model):
        save_lora(bundle.model, folder / LORA)


def load_pretrained(folder: Path) -> Bundle:
    """Read a model from ``folder``, on the CPU, in float32 and eval mode.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        ValueError: a file is damaged, or weights do not fit the configuration.
        ImportError: the folder has adapters and PEFT is not installed.
    """
    for name in ("config.json", "model.safetensors", "tokenizer.model", LANGUAGE_MODEL):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name}: missing; a model folder needs it")
    config = _read_config(folder / "config.json")
    speech_tokenizer = Tokenizer(folder / "tokenizer.model")
    with _quiet():
        language_model = load_saved(folder / LANGUAGE_MODEL)
    tokenizer: TextTokenizer | None = None
    if tokenizer_files(folder / LANGUAGE_MODEL):
        known = language_model.config.to_dict()
        tokenizer = load_tokenizer(folder / LANGUAGE_MODEL, config=known)
    prompt = choose_prompt(tokenizer or speech_tokenizer, config.prompt).ids
    model = XLLM(build_interfaces(config), language_model, prompt, config)
    try:
        weights = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder / 'model.safetensors'}: damaged: {error}") from error
    expected = {name: value.shape for name, value in _own_weights(model).items()}
    _require_none(
        folder / "model.safetensors",
        expected.keys() - weights.keys(),
        weights.keys() - expected.keys(),
    )
    for name, value in weights.items():
        if value.shape != expected[name]:
            raise ValueError(
                f"{folder / 'model.safetensors'}: {name} is {list(value.shape)}; "
                f"config.json asks for {list(expected[name])}"
            )
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    if are_adapters_in(folder / LORA):
        load_lora(model, folder / LORA)
    if tokenizer is None:
        return Bundle(model.eval(), speech_tokenizer)
    return Bundle(model.eval(), tokenizer, speech_tokenizer)


def build_interfaces(config: ModelConfig) -> dict[str, nn.Module]:
    """Build all interfaces of a model with fresh weights."""
    interfaces: dict[str, nn.Module] = {"speech": build_speech(config.speech)}
    if config.vision is not None:
        interfaces |= build_vision(config.vision)
    return interfaces


def _own_weights(model: XLLM) -> dict[str, Tensor]:
    """Return all weights but the language model's; what two interfaces share is named once."""
    named = model.state_dict(keep_vars=True)
    found: dict[int, str] = {}
    for name, value in named.items():
        if not name.startswith(f"{LANGUAGE_MODEL}."):
            found.setdefault(id(value), name)
    return {name: named[name] for name in found.values()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing progress bars for a model that loads in a moment."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _read_config(path: Path) -> ModelConfig:
    values = read_json(path)
    try:
        config: ModelConfig = from_dict(ModelConfig, values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return config


def _require_none(path: Path, missing: object, unexpected: object) -> None:
    for problem, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            listed = ", ".join(sorted(str(name) for name in names)[:5])  # type: ignore[attr-defined]
            raise ValueError(f"{path}: {problem} weights: {listed}")
