"""Interfaces and a language model that have not met yet, as one model to be trained."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from llmasr.config import ModelConfig, PromptConfig
from llmasr.importers.language import load_language_model
from llmasr.models.checkpoint import Bundle
from llmasr.models.language.any_tokenizer import load_tokenizer
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.speech import SpeechInterface, build_speech
from llmasr.models.xllm import XLLM
from llmasr.prompts import TRANSCRIBE, choose_prompt


def attach_language_model(
    speech: Bundle,
    folder: str | Path,
    *,
    instruction: str | None = None,
    layout: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Bundle:
    """Put the interfaces of a model, for speech and for what is seen, in front of another LM.

    What hears and sees stays as it was trained; the adaptors and the boundaries, which speak to the
    new language model, begin at random and are to be trained (stage 2 of X-LLM, arXiv 2305.04160).
    The CIF hypothesis, in its own vocabulary, is the draft of the answer.

    Args:
        speech: has the interfaces; it is not changed.
        folder: a language model as :func:`load_language_model` takes it, with its tokenizer.
        instruction: what the language model is told to do; None for the usual words in the first
            language of ``speech``.
        layout: of the prompt, a key of `llmasr.prompts.LAYOUTS`; None for the one that suits the
            tokenizer.
        dtype: of the language model's weights.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        ValueError: a file is damaged or does not fit, or the layout is not one of the tokenizer's.
    """
    folder = Path(folder)
    language_model = load_language_model(folder, dtype=dtype)
    tokenizer = load_tokenizer(folder, config=language_model.config.to_dict())
    trained = speech.model.config
    prompt = PromptConfig(
        TRANSCRIBE[trained.languages[0]] if instruction is None else instruction,
        tokenizer.layout if layout is None else layout,
    )
    width = language_model.get_input_embeddings().weight.shape[1]
    vision = trained.vision and replace(trained.vision, adaptor_width=width)
    config = replace(
        trained, speech=replace(trained.speech, adaptor_width=width), prompt=prompt, vision=vision
    )
    interfaces = {
        "speech": _with_new_adaptor(speech.model.speech, config),
        **_seeing_with_new_adaptors(speech.model, config),
    }
    ids = choose_prompt(tokenizer, prompt).ids
    model = XLLM(interfaces, language_model, ids, config)
    return Bundle(model.eval(), tokenizer, _speech_tokenizer(speech))


def _with_new_adaptor(trained: SpeechInterface, config: ModelConfig) -> SpeechInterface:
    speech = build_speech(config.speech)
    fresh = {name: value for name, value in speech.state_dict().items() if "adaptor." in name}
    speech.load_state_dict(trained.state_dict() | fresh)
    return speech


def _seeing_with_new_adaptors(trained: XLLM, config: ModelConfig) -> dict[str, nn.Module]:
    """Copy what sees; the copies share a trunk as the originals do."""
    if config.vision is None:
        return {}
    copies = deepcopy({name: trained.interfaces[name] for name in config.vision.modalities})
    for interface in copies.values():
        interface.adaptor = nn.Linear(config.vision.qformer.width, config.vision.adaptor_width)
    return copies


def _speech_tokenizer(speech: Bundle) -> Tokenizer:
    found = speech.speech_tokenizer or speech.tokenizer
    assert isinstance(found, Tokenizer), "a shared vocabulary is one of ours"
    return found
