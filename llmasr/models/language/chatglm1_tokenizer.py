"""The tokenizer of ChatGLM-6B (v1), directly on SentencePiece.

Its special tokens are pieces of the vocabulary, and newlines, tabs and runs of spaces are too. It
gives what the published tokenizer gives, prompts, masks and positions included, with one
difference: `decode` never shows a special token.

Letters: B rows, T padded length.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from llmasr.models.language.chatglm_tokenizers import (
    History,
    PaddedInputs,
    find_piece,
    open_pieces,
    pad_left,
    padded_width,
)

LONGEST_BLANK = 80


class ChatGLM1Tokenizer:
    """The tokenizer of ChatGLM-6B.

    Args:
        path: `ice_text.model`.
        num_image_tokens: ids before the first piece; 20000 in the first release, later 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no SentencePiece model of ChatGLM-6B.
    """

    layout = "chatglm"
    specials = (
        "[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>",
        "<pad>", "<unk>",
    )  # fmt: skip
    # Those which the published tokenizer takes out of running text.
    split_at = re.compile(r"(\[MASK\]|<sop>|<eop>|<pad>|<unk>)")

    def __init__(self, path: Path, *, num_image_tokens: int = 0) -> None:
        self.path = path
        self.pieces_model = open_pieces(path)
        self.num_image_tokens = num_image_tokens
        self.mask_id, self.gmask_id = self.id_of("[MASK]"), self.id_of("[gMASK]")
        self.bos_id, self.eos_id = self.id_of("<sop>"), self.id_of("<eop>")
        self.pad_id = self.id_of("<pad>")
        self.special_ids = frozenset(map(self.id_of, self.specials))

    def __len__(self) -> int:
        return self.num_image_tokens + self.pieces_model.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without those that a prompt adds.

        As in the published tokenizer, `[MASK]`, `<sop>` and the like in the text become their ids.
        """
        ids = []
        parts = self.split_at.split(text)
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self.id_of(part))
                continue
            part = part.lstrip() if index else part
            part = part.rstrip() if index + 1 < len(parts) else part
            ids += self._spell(map_blanks(map_newlines(part)))
        return ids

    def encode_inside(self, text: str) -> list[int]:
        """Return the ids of ``text`` where it continues a line: no space is put in front."""
        return self._spell("<n>" + map_blanks(map_newlines(text)))[2:]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; special and unknown ids give nothing."""
        return self.decode_with_special([i for i in ids if i not in self.special_ids])

    def decode_with_special(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` with special tokens, but without padding."""
        known = range(self.num_image_tokens, len(self))
        rows = [i - self.num_image_tokens for i in ids if i in known and i != self.pad_id]
        return unmap(self.pieces_model.decode(rows))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the piece of each id, "" for an unknown one; U+2581 begins a word."""
        known = range(self.num_image_tokens, len(self))
        rows = [i - self.num_image_tokens if i in known else None for i in ids]
        return ["" if row is None else self.pieces_model.id_to_piece(row) for row in rows]

    def id_of(self, piece: str) -> int:
        """Return the id of ``piece``.

        Raises:
            ValueError: the vocabulary does not have it.
        """
        return self.num_image_tokens + find_piece(self.pieces_model, piece, self.path)

    def build_inputs(self, text: Sequence[int], answer: Sequence[int] | None = None) -> list[int]:
        """Return text, `[gMASK]`, `<sop>`; with an answer also that and `<eop>`."""
        ids = [*text, self.gmask_id, self.bos_id]
        return ids if answer is None else [*ids, *answer, self.eos_id]

    def chat_prompt(self, query: str, history: History = ()) -> str:
        """Return the text of a conversation; rounds count from 0, a first query stays bare."""
        if not history:
            return query
        rounds = [f"[Round {i}]\n问：{q}\n答：{a}\n" for i, (q, a) in enumerate(history)]
        return "".join(rounds) + f"[Round {len(history)}]\n问：{query}\n答："

    def build_chat(self, query: str, history: History = ()) -> list[int]:
        """Return the ids of a conversation, ready to be answered."""
        return self.build_inputs(self.encode(self.chat_prompt(query, history)))

    def pad(
        self, rows: Sequence[Sequence[int]], *, length: int | None = None, multiple: int = 1
    ) -> PaddedInputs:
        """Pad on the left; a prompt sees itself whole, what follows `<sop>` sees the past.

        Args:
            rows: ids of each row.
            length: T; None for that of the longest row.
            multiple: T is rounded up to a multiple of it.

        Raises:
            ValueError: a row is longer than ``length``.
        """
        width = padded_width(rows, length, multiple)
        hidden = torch.ones(len(rows), 1, width, width, dtype=torch.bool)
        positions = torch.zeros(len(rows), 2, width, dtype=torch.int64)
        for index, row in enumerate(rows):
            start, total, context = width - len(row), len(row), self._context_length(row)
            seen = torch.ones(total, total, dtype=torch.bool).tril()
            seen[:, :context] = True
            hidden[index, 0, start:, start:] = ~seen
            positions[index, 0, start:] = torch.arange(total)
            for mask in (self.gmask_id, self.mask_id):  # what follows fills the latter, if there
                if mask in row:
                    positions[index, 0, start + context :] = row.index(mask)
            positions[index, 1, start + context :] = torch.arange(1, total - context + 1)
        return PaddedInputs(pad_left(rows, self.pad_id, width), hidden, positions)

    def _context_length(self, row: Sequence[int]) -> int:
        return row.index(self.bos_id) if self.bos_id in row else len(row)

    def _spell(self, text: str) -> list[int]:
        return [self.num_image_tokens + row for row in self.pieces_model.encode(text)]


def map_newlines(text: str) -> str:
    """Write each newline as its piece."""
    return text.replace("\n", "<n>")


def map_blanks(text: str) -> str:
    """Write each tab, and each run of 2 to 80 spaces, as its piece; longer runs are cut."""
    text = text.replace("\t", "<|tab|>")
    return re.sub(f" {{2,{LONGEST_BLANK}}}", lambda run: f"<|blank_{len(run[0])}|>", text)


def unmap(text: str) -> str:
    """Write the pieces of newlines, tabs and runs of spaces as what they stand for."""
    text = text.replace("<n>", "\n").replace("<|tab|>", "\t")

    def spaces(found: re.Match[str]) -> str:
        length = int(found[1])
        return " " * length if 2 <= length <= LONGEST_BLANK else found[0]

    return re.sub(r"<\|blank_([1-9]\d?)\|>", spaces, text)
