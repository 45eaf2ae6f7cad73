"""The tokenizer of any language model folder, behind one small interface.

The classes are in the files beside this one; here is which of them reads a folder. No code of the
folder is run.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from llmasr.files import read_json
from llmasr.models.language.chatglm1_tokenizer import ChatGLM1Tokenizer
from llmasr.models.language.chatglm_tokenizers import ChatGLM2Tokenizer, ChatGLM3Tokenizer
from llmasr.models.language.json_tokenizer import JsonTokenizer
from llmasr.models.language.tokenizer import Tokenizer

CHATGLM_NAMES = {1: "ChatGLM-6B", 2: "ChatGLM2-6B", 3: "ChatGLM3-6B", 4: "GLM-4"}
CHATGLM_FILES = {
    1: "ice_text.model",
    2: "tokenizer.model",
    3: "tokenizer.model",
    4: "tokenizer.json",
}
GLM4_VOCABULARY = 151552
ID_KEYS = {
    "bos_token_id": "bos_id",
    "eos_token_id": "eos_id",
    "pad_token_id": "pad_id",
    "mask_token_id": "mask_id",
    "gmask_token_id": "gmask_id",
}


class TextTokenizer(Protocol):
    """What this library asks of a tokenizer."""

    path: Path

    @property
    def layout(self) -> str:
        """Return the layout of prompts that suits it; see `llmasr.prompts`."""
        ...

    @property
    def bos_id(self) -> int:
        """Return the id that begins a sequence."""
        ...

    @property
    def eos_id(self) -> int:
        """Return the id that ends an answer."""
        ...

    @property
    def pad_id(self) -> int:
        """Return the id for places that nobody reads."""
        ...

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without those that a prompt adds."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Return the text of ``ids``; special ids give nothing."""
        ...

    def pieces(self, ids: list[int]) -> list[str]:
        """Return the piece of each id; one that begins a word starts with U+2581."""
        ...

    def id_of(self, piece: str) -> int:
        """Return the id of ``piece``; ValueError if the vocabulary does not have it."""
        ...


class ChatGLMTokenizer(TextTokenizer, Protocol):
    """What the tokenizers of the ChatGLM family add."""

    def build_inputs(self, text: Sequence[int], answer: Sequence[int] | None = None) -> list[int]:
        """Return the ids of a prompt, and of its answer."""
        ...


def encode_inputs(
    tokenizer: ChatGLMTokenizer,
    text: str,
    answer: str | None = None,
    *,
    max_length: int | None = None,
) -> list[int]:
    """Return the ids of a prompt and, if given, its answer.

    Args:
        tokenizer: of any ChatGLM generation.
        text: the prompt.
        answer: what is to be learnt.
        max_length: cut the end of ``text`` so that there are at most so many ids.

    Raises:
        ValueError: what remains besides ``text`` is longer than ``max_length``.
    """
    ids = tokenizer.encode(text)
    answered = None if answer is None else tokenizer.encode(answer)
    if max_length is not None:
        room = max_length - len(tokenizer.build_inputs([], answered))
        if room < 0:
            raise ValueError(f"max_length is {max_length}; {max_length - room} ids cannot be cut")
        ids = ids[:room]
    return tokenizer.build_inputs(ids, answered)


def load_tokenizer(
    folder: Path, *, config: Mapping[str, Any] | None = None, generation: int | None = None
) -> TextTokenizer:
    """Return the tokenizer of a language model folder, found by its files and `config.json`.

    Args:
        folder: as published, or as saved by transformers.
        config: fields of the model's configuration, if that is no longer what `config.json` says:
            ids are those of the model, also if image tokens were left out.
        generation: 2 or 3 if nothing says which ChatGLM this is.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the tokenizer and the model do not belong together.
    """
    settings = _settings(folder)
    config = read_json(folder / "config.json") if config is None else config
    is_chatglm = config.get("model_type") == "chatglm" or "chatglm_generation" in config
    if is_chatglm or settings.get("tokenizer_class") == "ChatGLMTokenizer":
        generation = generation or _known_generation(folder, config)
        path = _require(folder, CHATGLM_FILES[generation], CHATGLM_NAMES[generation])
        tokenizer = _open_chatglm(path, generation, config, settings)
    elif (folder / "tokenizer.json").is_file():
        tokenizer = _open_json(folder / "tokenizer.json", config, settings)
    else:
        tokenizer = Tokenizer(_require(folder, "tokenizer.model", config.get("model_type")))
    _check(tokenizer, config, folder)
    return tokenizer


def tokenizer_files(folder: Path) -> list[str]:
    """Return the names of the vocabularies in a folder."""
    return sorted(name for name in {*CHATGLM_FILES.values()} if (folder / name).is_file())


def copy_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Copy the files that `load_tokenizer` reads, but for `config.json`, to a folder."""
    for name in (tokenizer.path.name, "tokenizer_config.json", "chat_template.jinja"):
        source = tokenizer.path.parent / name
        if source.is_file() and source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)


def chatglm_generation(folder: Path, config: Mapping[str, Any]) -> int | None:
    """Return which ChatGLM a folder holds: 1, 2, 3, or 4 for GLM-4; None if nothing says.

    Args:
        folder: where it is or was; names and tokenizer files there say what fields do not.
        config: fields of its `config.json`.
    """
    if "chatglm_generation" in config:
        return int(config["chatglm_generation"])
    if config.keys() & {"position_encoding_2d", "inner_hidden_size"}:
        return 1
    if config.get("padded_vocab_size") == GLM4_VOCABULARY:
        return 4
    settings = _settings(folder)
    names = [config.get("_name_or_path"), settings.get("name_or_path"), folder.resolve().name]
    for name in names:
        found = set(re.findall(r"(?:glm|codegeex)-?([234])(?!\d)", str(name).lower()))
        if len(found) == 1:
            return int(found.pop())
    if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        return 4
    return 3 if "<|user|>" in str(settings) else None


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _known_generation(folder: Path, config: Mapping[str, Any]) -> int:
    generation = chatglm_generation(folder, config)
    if generation is None:
        raise ValueError(
            f"{folder / 'config.json'}: _name_or_path is {config.get('_name_or_path')!r}, which "
            "does not say whether this is ChatGLM2 or ChatGLM3; pass generation=2 or generation=3"
        )
    return generation


def _open_chatglm(
    path: Path, generation: int, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> TextTokenizer:
    if generation == 1:
        tokenizer = ChatGLM1Tokenizer(path)
        # The first release has its image tokens in front; config.json knows whether the model has.
        extra = config.get("bos_token_id", tokenizer.bos_id) - tokenizer.bos_id
        return ChatGLM1Tokenizer(path, num_image_tokens=extra) if extra > 0 else tokenizer
    if generation == 4:
        return _open_json(path, config, settings)
    return ChatGLM2Tokenizer(path) if generation == 2 else ChatGLM3Tokenizer(path)


def _open_json(path: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> JsonTokenizer:
    special_ids = {}
    for name in ("bos", "eos", "pad"):
        value = config.get(f"{name}_token_id")
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            special_ids[name] = value
    template_file = path.parent / "chat_template.jinja"
    template = settings.get("chat_template")
    if template_file.is_file():
        template = template_file.read_text(encoding="utf-8")
    elif isinstance(template, list):
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    return JsonTokenizer(path, special_ids, template)


def _check(tokenizer: TextTokenizer, config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a tokenizer whose ids are not those of the model."""
    rows = config.get("padded_vocab_size", config.get("vocab_size"))
    if rows is not None and len(tokenizer) > rows:
        raise ValueError(
            f"{folder}: the model has {rows} ids, {tokenizer.path.name} gives {len(tokenizer)}"
        )
    if isinstance(tokenizer, JsonTokenizer):
        return
    for key, name in ID_KEYS.items():
        expected, found = config.get(key), getattr(tokenizer, name, None)
        if isinstance(expected, int) and found is not None and expected != found:
            raise ValueError(
                f"{folder}: {key} is {expected}; in {tokenizer.path.name} it is {found}"
            )


def _require(folder: Path, name: str, kind: object) -> Path:
    path = folder / name
    if not path.is_file():
        others = tokenizer_files(folder)
        raise FileNotFoundError(
            f"{path}: missing; {kind} needs it (found: {', '.join(others) or 'no tokenizer file'})"
        )
    return path
