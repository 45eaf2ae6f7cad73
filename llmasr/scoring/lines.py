"""Text files for the readers: decompressed, decoded strictly, cut into lines that errors can name.

Files are UTF-8, with or without byte-order mark, or UTF-16 with one (Praat writes that), plain or
gzip, with any line ends. Nothing is guessed and no byte is replaced.
"""

import codecs
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

GZIP = b"\x1f\x8b"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    r"""Return the whole text of a file, with `\n` at line ends.

    Raises:
        ValueError: the bytes are not in an accepted encoding, or the gzip data is damaged.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: the gzip data is damaged ({error})") from error
    encoding = "utf-16" if content.startswith(UTF16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(_wrong_encoding(path, content, error)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _wrong_encoding(path: Path, content: bytes, error: UnicodeDecodeError) -> str:
    if error.encoding != "utf-8":
        return f"{path}: encoding is not {error.encoding}, though its mark says so: {error.reason}"
    # Positions of the decoder are counted after the mark.
    content = content.removeprefix(codecs.BOM_UTF8)
    before = content[: error.start]
    line = before.count(b"\n") + 1
    column = error.start - before.rfind(b"\n")
    return (
        f"{path}, line {line}: encoding is not UTF-8, byte {column} of the line is"
        f" 0x{content[error.start]:02x}; accepted: UTF-8, or UTF-16 with byte-order mark"
        " (iconv converts)"
    )


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return number and text of every line that is not blank."""
    # Not str.splitlines, which also splits at separators that may stand inside a text.
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(number, line) for number, line in lines if line.strip()]


def parse_lines(path: Path, parse: Callable[[str], T], *, skip: int = 0) -> list[tuple[int, T]]:
    """Return number and meaning of every line that is not blank, after so many skipped.

    A ValueError of `parse` gets the file and the line before its message.
    """
    parsed = []
    for number, line in read_lines(path)[skip:]:
        try:
            parsed.append((number, parse(line)))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return parsed


def suffix(path: Path) -> str:
    """Return the suffix in lower case, without regard to `.gz` after it."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def stem(path: Path) -> str:
    """Return the name without its suffix, and without `.gz`."""
    return Path(path.name.removesuffix(".gz")).stem


def number_of(name: str, text: str) -> float:
    """Return the number that a text says."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected a number") from None
