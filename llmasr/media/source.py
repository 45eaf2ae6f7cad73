"""Where an encoded picture or video lies, and how messages about it are worded; no decoder."""

import importlib.util
import os
import re
from typing import Any, BinaryIO, TypeAlias

from llmasr.files import File, read_object

FileSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

# At 4 bytes each, 256 MB: 8192 x 8192.
MAX_PIXELS = 2**26
# Two letters before the colon, because C:// is a path.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:[a-z]+/")


class MediaError(ValueError):
    """Says which picture or video cannot be used, why, and what is accepted."""


def find(source: Any, kind: str, accepted: str) -> File:
    """Locate encoded media; file objects are read to their end here.

    Args:
        source: path, bytes or binary file object.
        kind: what it should hold, "image" or "video", for messages.
        accepted: how messages end.

    Raises:
        MediaError: there is nothing to read.
        TypeError: `source` is something else.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        file = File(f"{kind} of {len(source)} bytes", bytes(source))
    elif isinstance(source, str | os.PathLike):
        file = _find_path(os.fsdecode(source), accepted)
    elif hasattr(source, "read"):
        file = read_object(source, lambda message: MediaError(f"{message}; {accepted}"))
    else:
        raise TypeError(f"{kind} is a {type(source).__name__}; {accepted}")
    if not file.content:
        raise MediaError(f"{file.name} is empty: it has 0 bytes; {accepted}")
    return file


def require(package: str, purpose: str) -> None:
    """Refuse to go on without a package of the extra `media`.

    Raises:
        ImportError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{purpose} needs {package}: pip install "llmasr[media]"')


def _find_path(path: str, accepted: str) -> File:
    if URL.match(path):
        shown = path if len(path) <= 80 else f"{path[:80]}..."
        raise MediaError(f"{shown!r} is a URL and nothing is downloaded; {accepted}")
    if os.path.isdir(path):
        raise MediaError(f"{path!r} is a directory; pass the files in it; {accepted}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise MediaError(f"{path!r} is a device, pipe or socket, not a file; {accepted}")
    try:
        with open(path, "rb") as file:
            return File(repr(path), path if file.read(1) else b"")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MediaError(f"cannot open {path!r}: {reason}; {accepted}") from error
