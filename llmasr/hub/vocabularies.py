"""The vocabularies of an exported folder.

`tokenizer.model` is that of the CIF hypothesis, and of the language model too if they share one. A
language model with a vocabulary of its own has it in `language_tokenizer/`: the files as they were
published, and the `config.json` that tells how to read them. Their names are on record in the
`tokenizer_config.json` of the export, so that a lost file is missed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from llmasr.hub.config import language_config
from llmasr.models.checkpoint import Bundle
from llmasr.models.language.any_tokenizer import (
    CHATGLM_FILES,
    TextTokenizer,
    copy_tokenizer,
    load_tokenizer,
)
from llmasr.models.language.chatglm1_tokenizer import ChatGLM1Tokenizer
from llmasr.models.language.chatglm_tokenizers import AppendedSpecials
from llmasr.models.language.json_tokenizer import JsonTokenizer
from llmasr.models.language.tokenizer import Tokenizer

SPEECH_FILE, LANGUAGE_FOLDER = "tokenizer.model", "language_tokenizer"
SETTINGS = ("tokenizer_config.json", "chat_template.jinja")
LANGUAGE_FILES = ("config.json", *sorted({*CHATGLM_FILES.values()}), *SETTINGS)


class Vocabularies(NamedTuple):
    """The tokenizers of a model."""

    language: TextTokenizer
    speech: Tokenizer | None  # None if it is the same


def write_language_tokenizer(bundle: Bundle, folder: Path) -> list[str]:
    """Write the language model's own tokenizer into an export, and return the names of its files.

    Files that another tokenizer left there are removed.
    """
    target, source = folder / LANGUAGE_FOLDER, bundle.tokenizer.path
    names = [source.name, *(name for name in SETTINGS if (source.parent / name).is_file())]
    target.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(bundle.tokenizer, target)
    for name in {*LANGUAGE_FILES} - {*names}:
        (target / name).unlink(missing_ok=True)
    config = json.dumps(language_config(bundle.model.language_model), indent=2, ensure_ascii=False)
    (target / "config.json").write_text(config + "\n", encoding="utf-8")
    return ["config.json", *names]


def open_vocabularies(folder: Path, language_files: Sequence[str]) -> Vocabularies:
    """Open the tokenizers of an export.

    Args:
        folder: of the export.
        language_files: names of the files in `language_tokenizer/`; empty if there is none.

    Raises:
        ValueError: a file is missing, damaged, or does not belong to the language model.
    """
    own = folder / LANGUAGE_FOLDER
    for path in (folder / SPEECH_FILE, *(own / name for name in language_files)):
        if not path.is_file():
            # Not a FileNotFoundError: transformers puts one that names no file in its place.
            raise ValueError(f"{path}: missing; the tokenizer needs it")
    speech = Tokenizer(folder / SPEECH_FILE)
    return (
        Vocabularies(load_tokenizer(own), speech) if language_files else Vocabularies(speech, None)
    )


def unique_names(tokenizer: TextTokenizer) -> list[str]:
    """Return a name for each id: its piece, or its number if no or another id has that piece."""
    names: dict[str, None] = {}
    for index, piece in enumerate(tokenizer.pieces([*range(len(tokenizer))])):
        names[piece if piece and piece not in names else f"<|id {index}|>"] = None
    return [*names]


def special_names(tokenizer: TextTokenizer) -> list[str]:
    """Return the special tokens that a tokenizer of a language model names besides the usual."""
    if isinstance(tokenizer, ChatGLM1Tokenizer | AppendedSpecials | JsonTokenizer):
        return [*tokenizer.specials]
    return []
