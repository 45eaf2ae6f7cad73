"""Texts by utterance id, for those who need no more than that of a file."""

from pathlib import Path

from llmasr.scoring.readers import read_utterances


def read_texts(path: str | Path) -> dict[str, str]:
    """Read the texts of a file that `read_utterances` reads, by id, in file order.

    Raises:
        ValueError: an id occurs twice, or what `read_utterances` says.
    """
    texts: dict[str, str] = {}
    for utterance in read_utterances(path):
        if utterance.id in texts:
            raise ValueError(f"{path}: id {utterance.id!r} occurs twice; a text has one id")
        texts[utterance.id] = utterance.text
    return texts
