"""Our tokenizers in the habits of transformers: the same ids and the same text."""

import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from transformers import PythonBackend

from llmasr.decoding.drafts import DraftSource, retokenised, same_ids
from llmasr.hub.vocabularies import (
    LANGUAGE_FILES,
    LANGUAGE_FOLDER,
    SPEECH_FILE,
    open_vocabularies,
    special_names,
    unique_names,
)
from llmasr.models.language.tokenizer import Tokenizer

# Where the speech goes in a prompt; its id is the first that the vocabulary leaves free.
AUDIO_TOKEN = "<audio>"


class LlmasrTokenizer(PythonBackend):
    """The tokenizer of the language model behind the interface of transformers.

    Where the CIF hypothesis has a vocabulary of its own, `speech` is its tokenizer, else None.

    Args:
        vocab_file: a SentencePiece model, of the CIF hypothesis.
        language_files: names of the files in `language_tokenizer/` beside it, if the language model
            has a vocabulary of its own.

    Raises:
        ValueError: a file is missing or damaged.
    """

    # Those of the folder are listed so that they are fetched with the rest.
    vocab_files_names: ClassVar = {"vocab_file": SPEECH_FILE} | {
        path: path for path in (f"{LANGUAGE_FOLDER}/{name}" for name in LANGUAGE_FILES)
    }
    model_input_names: ClassVar = ["input_ids", "attention_mask"]

    def __init__(
        self, vocab_file: str | None, language_files: Sequence[str] = (), **kwargs: Any
    ) -> None:
        # Where there is no such file, transformers gives None, and the folder under another name.
        self.folder = (
            Path(vocab_file).parent if vocab_file else Path(kwargs.get("name_or_path", ""))
        )
        self.language_files = [*language_files]
        self.inner, self.speech = open_vocabularies(self.folder, self.language_files)
        self._names = unique_names(self.inner)
        self._ids = {name: index for index, name in enumerate(self._names)}
        kwargs = {
            name: value for name, value in kwargs.items() if name not in self.vocab_files_names
        }
        specials = {"eos_token": self.inner.eos_id, "pad_token": self.inner.pad_id}
        if isinstance(self.inner, Tokenizer):
            pieces = self.inner.pieces_model
            specials |= {"bos_token": self.inner.bos_id, "unk_token": pieces.unk_id()}
        kwargs |= {name: self._names[index] for name, index in specials.items()}
        kwargs["extra_special_tokens"] = {"audio_token": AUDIO_TOKEN}
        if language_files:
            kwargs["model_specific_special_tokens"] = kwargs["extra_special_tokens"]
            kwargs["extra_special_tokens"] = special_names(self.inner)
            # Such a tokenizer decides for itself which special tokens a text may spell.
            kwargs |= {"language_files": self.language_files, "split_special_tokens": True}
        # It pads nothing but labels; the pipeline wants the side of the waveforms.
        kwargs.setdefault("padding_side", "right")
        super().__init__(vocab_file=str(vocab_file), **kwargs)

    @property
    def draft(self) -> DraftSource:
        """Return what turns CIF hypotheses into ids of the language model."""
        return same_ids if self.speech is None else retokenised(self.speech, self.inner)

    @property
    def vocab_size(self) -> int:
        """Number of ids, that of the marker of speech not among them."""
        return len(self.inner)

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every piece and of the marker of speech."""
        return self._ids | self._added_tokens_encoder

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return an answer: the ids, and the end id."""
        return [*token_ids_0, *(token_ids_1 or []), self.inner.eos_id]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces to text, in which the marker of speech is seen, but no other special one."""
        if isinstance(self.inner, Tokenizer):
            text: str = self.inner.pieces_model.decode(tokens)
            return text
        return "".join(
            "".join(run)
            if is_marker
            else self.inner.decode([self._ids[token] for token in run if token in self._ids])
            for is_marker, run in groupby(tokens, AUDIO_TOKEN.__eq__)
        )

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Copy the files of the vocabularies to a folder."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        copies = {f"{prefix}{SPEECH_FILE}": SPEECH_FILE} | {
            path: path for path in (f"{LANGUAGE_FOLDER}/{name}" for name in self.language_files)
        }
        for name, source in copies.items():
            target = Path(save_directory) / name
            target.parent.mkdir(exist_ok=True)
            if target.resolve() != (self.folder / source).resolve():
                shutil.copyfile(self.folder / source, target)
        return tuple(str(Path(save_directory) / name) for name in copies)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return [self._names[index] for index in self.inner.encode(text)]

    def _convert_token_to_id(self, token: str) -> int | None:
        return self._ids.get(token, self.unk_token_id)

    def _convert_id_to_token(self, index: int) -> str:
        # A model may have more rows than its tokenizer has ids.
        return self._names[index] if index < len(self._names) else ""

    def _decode(
        self, token_ids: int | list[int], skip_special_tokens: bool = False, **kwargs: Any
    ) -> str:
        """Return the text of ids; without special tokens it is that of a `Transcript`."""
        if not skip_special_tokens:
            return str(super()._decode(token_ids, skip_special_tokens=False, **kwargs))
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        ends = {self.inner.eos_id, self.inner.pad_id}
        return self.inner.decode([i for i in ids if i < len(self.inner) and i not in ends]).strip()
