"""Our tokenizer in the habits of transformers: the same ids and the same text."""

import shutil
from pathlib import Path
from typing import Any, ClassVar

from transformers import PythonBackend

from llmasr.models.language.tokenizer import Tokenizer

# Where the speech goes in a prompt; its id is the first that the vocabulary leaves free.
AUDIO_TOKEN = "<audio>"


class LlmasrTokenizer(PythonBackend):
    """Our tokenizer behind the interface of transformers.

    Args:
        vocab_file: a SentencePiece model.
    """

    vocab_files_names: ClassVar = {"vocab_file": "tokenizer.model"}
    model_input_names: ClassVar = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs: Any) -> None:
        self.inner = Tokenizer(Path(vocab_file))
        pieces = self.inner.pieces_model
        specials = {
            "bos_token": self.inner.bos_id,
            "eos_token": self.inner.eos_id,
            "pad_token": self.inner.pad_id,
            "unk_token": pieces.unk_id(),
        }
        kwargs |= {name: pieces.id_to_piece(index) for name, index in specials.items()}
        kwargs["extra_special_tokens"] = {"audio_token": AUDIO_TOKEN}
        # It pads nothing but labels; the pipeline wants the side of the waveforms.
        kwargs.setdefault("padding_side", "right")
        super().__init__(vocab_file=str(vocab_file), **kwargs)

    @property
    def vocab_size(self) -> int:
        """Number of pieces, the marker of speech not among them."""
        return len(self.inner)

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every piece and of the marker of speech."""
        pieces = {
            piece: index for index, piece in enumerate(self.inner.pieces([*range(len(self.inner))]))
        }
        return pieces | self._added_tokens_encoder

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return an answer: the ids, and the end id."""
        return [*token_ids_0, *(token_ids_1 or []), self.inner.eos_id]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces to text."""
        text: str = self.inner.pieces_model.decode(tokens)
        return text

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Copy the SentencePiece model to a folder."""
        name = f"{filename_prefix}-" if filename_prefix else ""
        target = Path(save_directory) / f"{name}tokenizer.model"
        if target.resolve() != self.inner.path.resolve():
            shutil.copyfile(self.inner.path, target)
        return (str(target),)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return self.inner.pieces(self.inner.encode(text))

    def _convert_token_to_id(self, token: str) -> int:
        return self.inner.pieces_model.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.inner.pieces([index])[0]

    def _decode(
        self, token_ids: int | list[int], skip_special_tokens: bool = False, **kwargs: Any
    ) -> str:
        """Return the text of ids; without special tokens it is that of a `Transcript`."""
        if not skip_special_tokens:
            return str(super()._decode(token_ids, skip_special_tokens=False, **kwargs))
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        return self.inner.decode([i for i in ids if i < len(self.inner)]).strip()
