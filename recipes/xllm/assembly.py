"""What each stage starts from: the folder of the stage before, and what is new in this one.

The folder of stage 1 has no language model: `config.json`, `model.safetensors`, `tokenizer.model`.
The folders of the others are whole models; see `llmasr.models.checkpoint`.
"""

import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from presets import FRAMES, VISION, chosen
from safetensors.torch import load_file, save_file

from llmasr.config import ModelConfig, PromptConfig, SpeechConfig, from_dict, to_dict
from llmasr.files import read_json
from llmasr.importers.blip2 import blip2_config, load_blip2
from llmasr.importers.language import load_language_model
from llmasr.models.checkpoint import Bundle, load_pretrained
from llmasr.models.language.any_tokenizer import load_tokenizer
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.precision import set_precision
from llmasr.models.seeing import with_vision
from llmasr.models.speech import SpeechInterface, build_speech
from llmasr.models.xllm import XLLM
from llmasr.prompts import TRANSCRIBE, choose_prompt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hearing:
    """The result of stage 1."""

    speech: SpeechInterface
    tokenizer: Tokenizer
    language: str


def save_hearing(hearing: Hearing, folder: Path) -> None:
    """Write the folder of stage 1; the adaptor, which is not trained there, stays out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in hearing.speech.state_dict().items()
        if not name.startswith("adaptor.")
    }
    save_file(weights, folder / "model.safetensors")
    config = {"language": hearing.language, "speech": to_dict(hearing.speech.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(hearing.tokenizer.path, folder / "tokenizer.model")


def load_hearing(folder: Path, adaptor_width: int) -> Hearing:
    """Read the folder of stage 1, strictly, and give it a fresh adaptor of the LM's width."""
    values = read_json(folder / "config.json")
    if values.keys() != {"language", "speech"}:
        raise ValueError(f"{folder}: not a folder of stage1_speech.py")
    config = replace(from_dict(SpeechConfig, values["speech"]), adaptor_width=adaptor_width)
    speech = build_speech(config)
    fresh = {name: value for name, value in speech.state_dict().items() if "adaptor." in name}
    speech.load_state_dict(load_file(folder / "model.safetensors") | fresh)
    return Hearing(speech, Tokenizer(folder / "tokenizer.model"), values["language"])


def in_front_of(language_model: Path, start: Path, dtype: torch.dtype) -> Bundle:
    """Put the result of stage 1 in front of a language model."""
    reader = load_language_model(language_model, dtype=dtype)
    tokenizer = load_tokenizer(language_model, config=reader.config.to_dict())
    hearing = load_hearing(start, reader.get_input_embeddings().weight.shape[1])
    prompt = PromptConfig(TRANSCRIBE[hearing.language], tokenizer.layout)
    config = ModelConfig(hearing.speech.config, prompt, (hearing.language,))
    ids = choose_prompt(tokenizer, prompt).ids
    model = XLLM({"speech": hearing.speech}, reader, ids, config)
    set_precision(model, dtype)
    return Bundle(model, tokenizer, hearing.tokenizer)


def load(start: Path, dtype: torch.dtype) -> Bundle:
    """Read the folder of stage 2 or 3."""
    bundle = load_pretrained(start)
    set_precision(bundle.model, dtype)
    return bundle


def with_pictures(bundle: Bundle, size: str, blip2: str) -> Bundle:
    """Add an image interface, with the weights of a BLIP-2 folder if there is one."""
    width = bundle.model.reader.width
    if not blip2:
        vision = replace(chosen(VISION, size, "vision"), adaptor_width=width)
        return with_vision(bundle, replace(vision, modalities=("image",)))
    vision = replace(blip2_config(blip2, adaptor_width=width), modalities=("image",))
    seeing = with_vision(bundle, vision)
    taken = load_blip2(blip2, seeing.model.image)
    log.info("BLIP-2: ViT %s, adaptor %s", *("taken" if each else "fresh" for each in taken))
    return seeing


def with_videos(bundle: Bundle, frames: str) -> Bundle:
    """Add a video interface that shares the trunk of the image interface."""
    known = bundle.model.config.vision
    if known is None:
        raise ValueError("init has no image interface; allowed: the folder of --modality image")
    wanted = chosen(FRAMES, frames, "frames")
    return with_vision(bundle, replace(known, modalities=("image", "video"), frames=wanted))
