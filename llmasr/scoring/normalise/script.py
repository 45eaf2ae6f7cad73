"""Traditional characters to simplified ones, by OpenCC's dictionary of words and characters.

OpenCC knows words: 乾燥 is 干燥, and 乾隆 stays. The package opencc is its own build with compiled
dictionaries, kept up by the project itself. opencc-python-reimplemented, a port with the same
import name, had its last dictionaries in 2023 and is not accepted here: its results may differ.
"""

from collections.abc import Callable
from functools import cache
from importlib import metadata

from llmasr.scoring.normalise.normalizer import needed


@cache
def to_simplified() -> Callable[[str], str]:
    """Return the function that writes simplified characters for traditional ones."""
    with needed("opencc"):
        import opencc

        script_version()
    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def script_version() -> str:
    """Return which dictionaries are in use, for a hash."""
    return f"opencc {metadata.version('opencc')}"
