"""A normaliser of the user's by import path: `package.module:function`, text in, text out.

Its hash covers the source of the module that is named and of the one that the function came from,
for helpers and tables stand there too.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from llmasr.scoring.normalise.normalizer import Normalizer, content_hash


def load_normalizer(path: str) -> Normalizer:
    """Import the function at `path`, `package.module:function`, as a normaliser."""
    name, _, attribute = path.partition(":")
    module = _module(path, name)
    if not hasattr(module, attribute):
        raise ValueError(f"normalizer is {path!r}; module {name!r} has no {attribute!r}")
    function = getattr(module, attribute)
    if not callable(function) or isinstance(function, type):
        raise ValueError(f"normalizer is {path!r}; expected a function, got {function!r}")
    home = sys.modules.get(getattr(function, "__module__", name), module)
    modules = [module] if home is module else [module, home]
    return Normalizer(path, _hash(path, modules), _checked(path, function))


def _module(path: str, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"normalizer is {path!r}; expected package.module:function")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # An import that fails inside the user's module is theirs to see as it is.
        if not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"normalizer is {path!r}; module {name!r} is not found: is its folder on PYTHONPATH?"
        ) from error


def _hash(path: str, modules: list[ModuleType]) -> str:
    try:
        return content_hash(path, *modules)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"normalizer is {path!r}; it has no Python source that a hash could cover"
        ) from error


def _checked(path: str, function: Callable[[str], Any]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        result = function(text)
        if not isinstance(result, str):
            raise ValueError(f"normalizer {path!r} returned {result!r} for {text!r}; expected text")
        return result

    return apply
