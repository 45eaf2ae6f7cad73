"""Text to ids and back, directly on SentencePiece, so that ids are exact by construction."""

from pathlib import Path

import sentencepiece

WORD_START = "\u2581"


class Tokenizer:
    """A SentencePiece model whose control pieces were fixed when it was trained.

    Args:
        path: a SentencePiece model file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no SentencePiece model, or has no begin, end or pad piece.
    """

    layout = "plain"  # of prompts, see llmasr.prompts

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such SentencePiece model")
        self.path = path
        try:
            self.pieces_model = sentencepiece.SentencePieceProcessor(str(path))
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{path}: not a SentencePiece model") from error
        self.pad_id = self._special("pad", self.pieces_model.pad_id())
        self.bos_id = self._special("begin", self.pieces_model.bos_id())
        self.eos_id = self._special("end", self.pieces_model.eos_id())

    def __len__(self) -> int:
        return self.pieces_model.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without special ids."""
        return self.pieces_model.encode(text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ``ids``; control pieces give nothing."""
        return self.pieces_model.decode([i for i in ids if not self.pieces_model.is_control(i)])

    def pieces(self, ids: list[int]) -> list[str]:
        """Return the piece of each id; one that begins a word starts with U+2581."""
        return [self.pieces_model.id_to_piece(i) for i in ids]

    def id_of(self, piece: str) -> int:
        """Return the id of ``piece``.

        Raises:
            ValueError: the vocabulary does not have it.
        """
        found = self.pieces_model.piece_to_id(piece)
        if self.pieces_model.id_to_piece(found) != piece:
            raise ValueError(f"{self.path}: no piece {piece!r}")
        return found

    def _special(self, name: str, found: int) -> int:
        if found < 0:
            raise ValueError(f"{self.path}: the vocabulary has no {name} piece")
        return found
