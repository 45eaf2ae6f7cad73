"""Replies of a judge as JSON lines, so that an interrupted judging goes on where it stopped.

One object a line: `judge`, `id`, `order`, `prompt` (SHA-256 of what was asked, so that a changed
answer is judged anew), `reply`. Several lines of one prompt are its attempts, in order.
"""

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

FIELDS = ("judge", "id", "order", "prompt", "reply")


class Query(NamedTuple):
    """What is asked: by whom it is answered, about which item, in which order, in which words."""

    judge: str
    id: str
    order: str
    prompt: str


class ReplyLog:
    """Replies by query, kept in a file if there is one.

    A last line without its end, as an interrupted run leaves it, is taken away.

    Raises:
        ValueError: another line is no object with the fields above, all strings.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._replies: defaultdict[Query, list[str]] = defaultdict(list)
        if path is not None and path.exists():
            for query, reply in _read(path):
                self._replies[query].append(reply)

    def replies(self, query: Query) -> list[str]:
        """Return the replies to a query so far, oldest first."""
        return self._replies[_digested(query)]

    def add(self, query: Query, reply: str) -> None:
        """Remember a reply, in the file too before this returns."""
        query = _digested(query)
        self._replies[query].append(reply)
        if self._path is not None:
            line = json.dumps({**query._asdict(), "reply": reply}, ensure_ascii=False)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _digested(query: Query) -> Query:
    return query._replace(prompt=hashlib.sha256(query.prompt.encode()).hexdigest())


def _read(path: Path) -> list[tuple[Query, str]]:
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("r+b") as file:
            file.truncate(end)
    found = []
    # Not str.splitlines, which also splits at separators that may stand inside a reply.
    for number, line in enumerate(content[:end].split(b"\n")[:-1], start=1):
        try:
            found.append(_parse(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return found


def _parse(line: bytes) -> tuple[Query, str]:
    entry = json.loads(line)
    values = [entry.get(field) if isinstance(entry, dict) else None for field in FIELDS]
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(FIELDS):
        raise ValueError(f"expected an object with the strings {', '.join(FIELDS)}")
    *query, reply = texts
    return Query(*query), reply
