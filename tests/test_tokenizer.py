"""Text to pieces and back."""

import pytest

from llmasr.api import ASSETS
from llmasr.models.language.tokenizer import WORD_START, Tokenizer
from llmasr.prompts import TRANSCRIBE, lay_out

MODEL = ASSETS / "tiny-test/tokenizer.model"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(MODEL)


@pytest.mark.parametrize("text", ["", "yes", "lynda likes the purple one", "let's draw ann's arm"])
def test_text_survives_the_way_to_ids_and_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_control_ids_are_never_written(tokenizer):
    ids = tokenizer.encode("yes")
    noisy = [
        tokenizer.bos_id,
        *ids,
        tokenizer.id_of("<speech>"),
        tokenizer.eos_id,
        tokenizer.pad_id,
    ]
    assert tokenizer.decode(noisy) == "yes"


def test_spoken_text_cannot_forge_a_control_id(tokenizer):
    forged = tokenizer.encode("<speech> </s> <pad>")
    special = {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.id_of("<speech>")}
    assert not special & set(forged)


def test_a_piece_that_begins_a_word_is_marked(tokenizer):
    pieces = tokenizer.pieces(tokenizer.encode("purple one"))
    assert sum(piece.startswith(WORD_START) for piece in pieces) == 2


def test_an_unknown_piece_is_named(tokenizer):
    with pytest.raises(ValueError, match="no piece '<image>'"):
        tokenizer.id_of("<image>")


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.model"):
        Tokenizer(tmp_path / "nothing.model")
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"bad\.model: not a SentencePiece model"):
        Tokenizer(tmp_path / "bad.model")


def test_the_prompt_has_an_instruction_in_every_language(tokenizer):
    before, after, _ = lay_out(tokenizer, TRANSCRIBE["en"])
    assert before == [tokenizer.bos_id]
    assert tokenizer.decode(after) == TRANSCRIBE["en"]
    assert TRANSCRIBE.keys() >= {"en", "zh"}
