"""Read references and hypotheses from files as mappings of utterance id to text.

JSON lines (a name ending in `.jsonl`): the fields `id` and `text`, others are ignored, so that a
data manifest is a reference file. Any other name: Kaldi text, `id word word ...`.
"""

import json
from collections.abc import Iterator
from pathlib import Path


def read_texts(path: str | Path) -> dict[str, str]:
    """Read utterance texts by id, in file order; an id that occurs twice is an error.

    Args:
        path: UTF-8 text, with or without byte-order mark, any line ends; blank lines are skipped.
    """
    path = Path(path)
    parse = _parse_json if path.suffix == ".jsonl" else _parse_kaldi
    texts: dict[str, str] = {}
    for number, line in _lines(path):
        try:
            identifier, text = parse(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if identifier in texts:
            raise ValueError(f"{path}, line {number}: id {identifier!r} occurs twice")
        texts[identifier] = text
    return texts


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Not str.splitlines, which also splits at separators that may stand inside a text.
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _parse_kaldi(line: str) -> tuple[str, str]:
    identifier, *text = line.split(maxsplit=1)
    return identifier, text[0].strip() if text else ""


def _parse_json(line: str) -> tuple[str, str]:
    entry = json.loads(line)
    for field in ("id", "text"):
        value = entry.get(field) if isinstance(entry, dict) else None
        if not isinstance(value, str):
            raise ValueError(f"field {field!r} is {value!r}; expected a string")
    return entry["id"], entry["text"]
