"""Files of any kind: where encoded media lie, small JSON, and writing at once or not at all."""

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple


class File(NamedTuple):
    """Where encoded media lie, and what messages call them."""

    name: str
    content: str | bytes  # a path, or the encoded media themselves

    def open(self, stack: contextlib.ExitStack) -> BinaryIO:
        """Open for reading until `stack` closes, without a name that a decoder could trust."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        return stack.enter_context(open(os.open(self.content, os.O_RDONLY), "rb"))


def read_object(source: Any, refuse: Callable[[str], Exception]) -> File:
    """Read a file object to its end, from its beginning if it has one.

    Args:
        source: has `read`.
        refuse: makes an exception of a message; raised if it cannot be read.

    Raises:
        TypeError: it gives something else than bytes.
    """
    name = f"file object {getattr(source, 'name', source)!r}"
    try:
        if not hasattr(source, "seekable") or source.seekable():
            source.seek(0)
        content = source.read()
    except (OSError, ValueError) as error:
        raise refuse(f"cannot read {name}: {error}") from error
    if not isinstance(content, bytes):
        raise TypeError(f"{name} gives {type(content).__name__}; allowed: bytes (open it as 'rb')")
    return File(name, content)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: the file is damaged, or holds something else than an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; a model folder needs it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; an object is needed")
    return content


def replace_file(path: Path, content: str) -> None:
    """Write a file at once or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
