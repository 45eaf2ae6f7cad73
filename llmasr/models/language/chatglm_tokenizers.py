"""Tokenizers of ChatGLM2-6B and ChatGLM3-6B, directly on SentencePiece.

Their special tokens follow the pieces of the vocabulary file, whatever its size. They give what the
published tokenizers give, prompts and padding included, with one difference: `decode` never shows a
special token.

Letters: B rows, T padded length.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import sentencepiece
import torch
from torch import Tensor

History = Sequence[tuple[str, str]]  # questions and answers


class Message(TypedDict):
    """One turn of a ChatGLM3 conversation; tools belong to a system message."""

    role: str
    content: str
    metadata: NotRequired[str]
    tools: NotRequired[list[Any]]


class PaddedInputs(NamedTuple):
    """A left-padded batch as a ChatGLM model takes it."""

    input_ids: Tensor  # [B, T] int64
    attention_mask: Tensor  # v1: [B, 1, T, T] bool, True = hidden; later: [B, T] int64, 1 = real
    position_ids: Tensor  # v1: [B, 2, T] int64; later: [B, T] int64; 0 on padding


class AppendedSpecials:
    """What the tokenizers of ChatGLM2-6B and ChatGLM3-6B share.

    Args:
        path: `tokenizer.model`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no SentencePiece model, or has no unknown, begin or end piece.
    """

    specials: tuple[str, ...] = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pieces_model = open_pieces(path)
        self.bos_id, self.eos_id = self.pieces_model.bos_id(), self.pieces_model.eos_id()
        self.pad_id = self.pieces_model.unk_id()
        if min(self.bos_id, self.eos_id, self.pad_id) < 0:
            raise ValueError(f"{path}: needs pieces for unknown, begin and end of text")
        self.num_pieces = self.pieces_model.get_piece_size()
        self.names = dict(enumerate(self.specials, start=self.num_pieces))
        named = {"<bos>": self.bos_id, "<eos>": self.eos_id, "<pad>": self.pad_id}
        self.ids = {name: id for id, name in self.names.items()} | named
        self.gmask_id, self.sop_id = self.ids["[gMASK]"], self.ids["sop"]

    def __len__(self) -> int:
        return self.num_pieces + len(self.specials)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; a special token in it is spelled as text."""
        ids: list[int] = self.pieces_model.encode(text)
        return ids

    def encode_inside(self, text: str) -> list[int]:
        """Return the ids of ``text`` where it continues a line: no space is put in front."""
        return self.encode("\n" + text)[len(self.encode("\n")) :]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; special and unknown ids give nothing."""
        text: str = self.pieces_model.decode([i for i in ids if self._is_text(i)])
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the piece of each id, "" for an unknown one; U+2581 begins a word."""
        known = range(self.num_pieces)
        return [
            self.pieces_model.id_to_piece(i) if i in known else self.names.get(i, "") for i in ids
        ]

    def id_of(self, piece: str) -> int:
        """Return the id of ``piece``, which may be a special token.

        Raises:
            ValueError: the vocabulary does not have it.
        """
        if piece in self.ids:
            return self.ids[piece]
        return find_piece(self.pieces_model, piece, self.path)

    def build_inputs(self, text: Sequence[int], answer: Sequence[int] | None = None) -> list[int]:
        """Return `[gMASK]`, sop, text; with an answer also that and the end id."""
        ids = [self.gmask_id, self.sop_id, *text]
        return ids if answer is None else [*ids, *answer, self.eos_id]

    def pad(
        self, rows: Sequence[Sequence[int]], *, length: int | None = None, multiple: int = 1
    ) -> PaddedInputs:
        """Pad on the left.

        Args:
            rows: ids of each row.
            length: T; None for that of the longest row.
            multiple: T is rounded up to a multiple of it.

        Raises:
            ValueError: a row is longer than ``length``.
        """
        width = padded_width(rows, length, multiple)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        places = torch.arange(width) - (width - lengths)[:, None]  # [B, T], negative on padding
        ids = pad_left(rows, self.pad_id, width)
        return PaddedInputs(ids, (places >= 0).long(), places.clamp(min=0))

    def _is_text(self, id: int) -> bool:
        return 0 <= id < self.num_pieces and id not in (self.bos_id, self.eos_id, self.pad_id)


class ChatGLM2Tokenizer(AppendedSpecials):
    """The tokenizer of ChatGLM2-6B; arguments and errors as for `AppendedSpecials`."""

    layout = "chatglm2"

    def decode_with_special(self, ids: Sequence[int]) -> str:
        """Return what the published tokenizer gives; this one shows no special tokens."""
        return self.decode(ids)

    def chat_prompt(self, query: str, history: History = ()) -> str:
        """Return the text of a conversation; rounds count from 1."""
        answered = [f"{_round(i, q)}{a}\n\n" for i, (q, a) in enumerate(history, start=1)]
        return "".join(answered) + _round(len(history) + 1, query)

    def build_chat(self, query: str, history: History = ()) -> list[int]:
        """Return the ids of a conversation, ready to be answered."""
        return self.build_inputs(self.encode(self.chat_prompt(query, history)))

    def continue_chat(self, query: str, history: History = ()) -> list[int]:
        """Return the ids of the next round alone, to follow a kept cache of the others."""
        if not history:
            return self.build_chat(query)
        # The first id is the space that SentencePiece puts in front of any text.
        return self.encode("\n\n" + _round(len(history) + 1, query))[1:]


class ChatGLM3Tokenizer(AppendedSpecials):
    """The tokenizer of ChatGLM3-6B; arguments and errors as for `AppendedSpecials`."""

    layout = "chatglm3"
    roles = ("system", "user", "assistant", "observation")
    role_tokens = tuple(f"<|{role}|>" for role in roles)
    specials = (*AppendedSpecials.specials, *role_tokens)

    def encode_with_roles(self, text: str) -> list[int]:
        """Return the ids of ``text``; role tokens in it become their ids."""
        parts = re.split("(" + "|".join(map(re.escape, self.role_tokens)) + ")", text)
        ids = [[self.ids[part]] if i % 2 else self.encode(part) for i, part in enumerate(parts)]
        return [id for part in ids for id in part]

    def decode_with_special(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` with the special tokens that follow the vocabulary."""
        shown = [i for i in ids if i in self.names or self._is_text(i)]
        text: str = self.pieces_model.decode_pieces(self.pieces(shown))
        return text

    def build_message(self, role: str, content: str, metadata: str = "") -> list[int]:
        """Return the ids of one message: role, line of metadata, content.

        Raises:
            ValueError: there is no such role.
        """
        if role not in self.roles:
            raise ValueError(f"role is {role!r}; allowed: {', '.join(self.roles)}")
        return [self.ids[f"<|{role}|>"], *self.encode(f"{metadata}\n"), *self.encode(content)]

    def build_chat(
        self, query: str, history: Sequence[Message] = (), role: str = "user"
    ) -> list[int]:
        """Return the ids of a conversation whose last message is ``query``, ready to be answered.

        Raises:
            ValueError: a message has an unknown role.
        """
        ids = []
        for message in history:
            content = message["content"]
            if message["role"] == "system" and "tools" in message:
                content += "\n" + json.dumps(message["tools"], indent=4, ensure_ascii=False)
            ids += self.build_message(message["role"], content, message.get("metadata", ""))
        ids += self.build_message(role, query)
        return self.build_inputs([*ids, self.ids["<|assistant|>"]])


def open_pieces(path: Path) -> Any:
    """Open a SentencePiece model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such SentencePiece model")
    try:
        return sentencepiece.SentencePieceProcessor(str(path))
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path}: not a SentencePiece model") from error


def find_piece(pieces_model: Any, piece: str, path: Path) -> int:
    """Return the row of ``piece`` in a SentencePiece model read from ``path``.

    Raises:
        ValueError: the vocabulary does not have it.
    """
    found: int = pieces_model.piece_to_id(piece)
    if pieces_model.id_to_piece(found) != piece:
        raise ValueError(f"{path}: no piece {piece!r}")
    return found


def padded_width(rows: Sequence[Sequence[int]], length: int | None, multiple: int) -> int:
    """Return T for ``rows``.

    Raises:
        ValueError: a row is longer than ``length``.
    """
    longest = max((len(row) for row in rows), default=0)
    if length is not None and length < longest:
        raise ValueError(f"length is {length}; the longest row has {longest} ids")
    return -(-(longest if length is None else length) // multiple) * multiple


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, width: int) -> Tensor:
    """Return ``rows`` as one tensor [B, width] int64."""
    padded = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    return torch.tensor(padded, dtype=torch.int64).view(len(rows), width)


def _round(number: int, query: str) -> str:
    return f"[Round {number}]\n\n问：{query}\n\n答："
