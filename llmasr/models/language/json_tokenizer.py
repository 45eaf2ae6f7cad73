"""Tokenizers in `tokenizer.json` (GLM-4, GLM-Edge, other causal LMs), by the library `tokenizers`.

The chat template of such a model, if it has one, is rendered here too. No code of a folder is run.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

from llmasr.models.language.tokenizer import WORD_START

SLOT = "\N{OBJECT REPLACEMENT CHARACTER}"


class JsonTokenizer:
    """A tokenizer read from `tokenizer.json`.

    Text cannot contain special tokens: they are spelled as text.

    Args:
        path: `tokenizer.json`.
        special_ids: of "bos", "eos" and "pad", as far as the model's configuration names them.
        chat_template: Jinja template of a conversation, if the model has one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no `tokenizer.json`.
    """

    def __init__(
        self, path: Path, special_ids: dict[str, int], chat_template: str | None = None
    ) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self.path = path
        self.special_ids = special_ids
        self.chat_template = chat_template
        try:
            self.model = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            # The library raises nothing narrower.
            raise ValueError(f"{path}: not a tokenizer.json: {error}") from error
        self.model.encode_special_tokens = True
        self.model.no_padding()
        self.model.no_truncation()
        added = self.model.get_added_tokens_decoder()
        self.specials = {token.content: id for id, token in added.items() if token.special}

    def __len__(self) -> int:
        return max(self.model.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def layout(self) -> str:
        """Name of the prompt layout that suits this model; see ``llmasr.prompts``."""
        if self.specials.keys() >= {"[gMASK]", "<sop>", "<|user|>", "<|assistant|>"}:
            return "glm4"
        return "template" if self.chat_template else "plain"

    @property
    def bos_id(self) -> int:
        """Return the id that begins a sequence; that of `<sop>` if the model names none."""
        if "bos" not in self.special_ids and "<sop>" in self.specials:
            return self.specials["<sop>"]
        return self._special("bos")

    @property
    def eos_id(self) -> int:
        """Return the first of the ids that end an answer."""
        return self._special("eos")

    @property
    def pad_id(self) -> int:
        """Return the id of padding; the end id if the model names none."""
        return self._special("pad" if "pad" in self.special_ids else "eos")

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without special ids."""
        ids: list[int] = self.model.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; special and unknown ids give nothing."""
        known = [i for i in ids if i >= 0 and self.model.id_to_token(i) is not None]
        text: str = self.model.decode(known, skip_special_tokens=True)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the piece of each id, "" for an unknown one; U+2581 begins a word."""
        found = [self.model.id_to_token(i) if i >= 0 else None for i in ids]
        return [re.sub("^Ġ", WORD_START, piece or "") for piece in found]

    def id_of(self, piece: str) -> int:
        """Return the id of ``piece``, which may be a special token.

        Raises:
            ValueError: the vocabulary does not have it.
        """
        found: int | None = self.model.token_to_id(piece)
        if found is None:
            raise ValueError(f"{self.path}: no piece {piece!r}")
        return found

    def template_ids(
        self, query: str, history: Sequence[tuple[str, str]] = ()
    ) -> tuple[list[int], list[int]]:
        """Return the ids before a user's first words, and those words with all that follows.

        What users and the assistant say is text: special tokens in it are spelled out.

        Raises:
            ValueError: there is no template, or it does not show every turn once.
        """
        if not self.chat_template:
            raise ValueError(f"{self.path}: the model has no chat template; use another layout")
        said = [*(text for turn in history for text in turn), query]
        slots = [f"{SLOT}{number}{SLOT}" for number in range(len(said))]
        roles = ("user", "assistant")
        turns = [{"role": roles[i % 2], "content": slot} for i, slot in enumerate(slots)]
        names = {f"{name}_token": self.model.id_to_token(i) for name, i in self.special_ids.items()}
        rendered, _ = render_jinja_template(
            conversations=[turns], chat_template=self.chat_template, add_generation_prompt=True,
            **names,
        )  # fmt: skip
        before, *after = re.split("(" + "|".join(map(re.escape, slots)) + ")", rendered[0])
        if after[::2] != slots:
            shown = f"{len(after) // 2} of {len(slots)} turns"
            raise ValueError(f"{self.path}: the chat template shows {shown}, or not in order")
        words = dict(zip(slots, said, strict=True))
        parts = [
            self.encode(words[part]) if part in words else self._with_specials(part)
            for part in after
        ]
        return self._with_specials(before), [id for part in parts for id in part]

    def _with_specials(self, text: str) -> list[int]:
        longest_first = sorted(self.specials, key=len, reverse=True)
        parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
        ids = [
            [self.specials[part]] if part in self.specials else self.encode(part) for part in parts
        ]
        return [id for part in ids for id in part]

    def _special(self, name: str) -> int:
        if name not in self.special_ids:
            raise ValueError(f"{self.path.parent}: config.json names no {name}_token_id")
        return self.special_ids[name]
