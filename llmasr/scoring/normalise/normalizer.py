"""What a normaliser is, and the hash that says which rules made a number.

Two results under the same `id@hash` were made by the same rules. The hash covers the source text
of the rules, comments too: one that is too careful misleads nobody. It does not cover the Unicode
tables of Python, which the rules read to tell letters from signs.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

HASH_DIGITS = 8

# Takes the words of a reference and of its hypothesis, and gives those of the hypothesis.
Respell = Callable[[Sequence[str], Sequence[str]], tuple[str, ...]]


@dataclass(frozen=True)
class Normalizer:
    """A rule for making two spellings of the same words equal.

    Attributes:
        id: name and version, printed with every score.
        hash: 8 hexadecimal digits of the SHA-256 of what the rule does; equal in every process.
        apply: the rule itself; text in, text out. The same for references and hypotheses.
        respell: what the rule does to a hypothesis once it is split into words and its reference
            is known; None for rules that look at one text at a time.
    """

    id: str
    hash: str
    apply: Callable[[str], str]
    respell: Respell | None = None

    @property
    def label(self) -> str:
        """What is printed beside a number: `id@hash`."""
        return f"{self.id}@{self.hash}"


def content_hash(*parts: str | ModuleType | Callable[..., object]) -> str:
    """Hash what defines a normaliser.

    Args:
        parts: source of a module or function, and text: tables, versions of libraries. Their order
            and their bounds count.
    """
    texts = [part if isinstance(part, str) else inspect.getsource(part) for part in parts]
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()[:HASH_DIGITS]


@contextmanager
def needed(package: str) -> Iterator[None]:
    """Turn a failed import inside the block into an error that says what to install."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f'this normalizer needs {package}: pip install "llmasr[score]"'
        ) from error
