"""From our folders to those of transformers and back.

Ours keeps the language model as a folder of its own, so that it can be any checkpoint. transformers
wants all weights under one index, which sharding, device maps and quantisation at load time rely
on. So the two differ, and a model is exported rather than stored in both ways.
"""

import copy
import shutil
from pathlib import Path

import torch

from llmasr.api import Recognizer
from llmasr.hub.model import LlmasrForConditionalGeneration
from llmasr.hub.processor import LlmasrFeatureExtractor, LlmasrProcessor
from llmasr.hub.tokenizer import AUDIO_TOKEN, LlmasrTokenizer
from llmasr.hub.vocabularies import SPEECH_FILE, write_language_tokenizer
from llmasr.models.checkpoint import Bundle
from llmasr.models.language.layers import is_quantised
from llmasr.models.language.lora import has_lora

# Far above what fires allow in any span; fires are the real bound.
MAX_NEW_TOKENS = 1024
ACOUSTIC = "xllm.interfaces."


def save_for_transformers(
    model: Bundle | Recognizer, folder: str | Path, *, dtype: torch.dtype | None = None
) -> None:
    """Write a folder that `pipeline`, `AutoModel` and `AutoProcessor` of transformers load.

    Args:
        model: what `Recognizer.from_pretrained` or `load_pretrained` gave.
        folder: made if missing.
        dtype: of the language model's weights in the files; None leaves them as they are. They are
            loaded in the dtype that the model has now, unless transformers is told otherwise; the
            acoustic part is always float32.

    Raises:
        ValueError: the language model has adapters or int8 weights.
    """
    bundle = model.bundle if isinstance(model, Recognizer) else model
    _check(bundle)
    tokenizer = _write_tokenizer(bundle, Path(folder))
    marker = tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
    wrapped = LlmasrForConditionalGeneration.wrap(bundle, marker)
    weights = wrapped.state_dict()
    if dtype is not None:
        weights = {
            name: value if name.startswith(ACOUSTIC) else value.to(dtype)
            for name, value in weights.items()
        }
    wrapped.save_pretrained(folder, state_dict=weights)
    # The pipeline of transformers searches with five beams unless a model says otherwise.
    defaults = copy.deepcopy(wrapped.generation_config)
    defaults.update(num_beams=1, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
    defaults.save_pretrained(folder)
    config = bundle.model.config
    prompt = (config.prompt.instruction, config.prompt.layout)
    LlmasrProcessor(LlmasrFeatureExtractor(), tokenizer, *prompt, config.languages).save_pretrained(
        folder
    )


def load_from_transformers(folder: str | Path) -> Bundle:
    """Read a folder that `save_for_transformers` or transformers wrote, in float32 on the CPU.

    Raises:
        ValueError: weights are missing or unknown, or a file of a tokenizer is missing.
    """
    model = LlmasrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer = LlmasrTokenizer.from_pretrained(folder)
    return Bundle(model.xllm.eval(), tokenizer.inner, tokenizer.speech)


def _write_tokenizer(bundle: Bundle, folder: Path) -> LlmasrTokenizer:
    """Write what the tokenizer reads, and open it there."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / SPEECH_FILE
    speech = bundle.speech_tokenizer or bundle.tokenizer
    if speech.path.resolve() != target.resolve():
        shutil.copyfile(speech.path, target)
    if bundle.speech_tokenizer is None:
        return LlmasrTokenizer(str(target))
    return LlmasrTokenizer(str(target), write_language_tokenizer(bundle, folder))


def _check(bundle: Bundle) -> None:
    language_model = bundle.model.language_model
    if has_lora(bundle.model):
        raise ValueError("the language model has adapters; allowed: after merge_and_unload")
    if is_quantised(language_model):
        raise ValueError("a model with int8 weights is not saved; allowed: the one it came from")
