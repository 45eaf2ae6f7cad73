"""The systems that can be measured by name: one file each, found by a spec `kind:argument`.

    ours:tiny-en  transformers:FOLDER  faster-whisper:FOLDER  funasr:FOLDER  pocketsphinx
    command:PROGRAM ... {audio}  file:HYPOTHESES

Libraries of others are imported when a system is loaded. Models are local folders: nothing is
downloaded.
"""

from collections.abc import Callable, Mapping

from llmasr.bench.contract import Setup, System
from llmasr.bench.systems.command import Command
from llmasr.bench.systems.faster_whisper import FasterWhisper
from llmasr.bench.systems.funasr import FunAsr
from llmasr.bench.systems.hypotheses import HypothesisFile
from llmasr.bench.systems.ours import Ours
from llmasr.bench.systems.pocketsphinx import PocketSphinx
from llmasr.bench.systems.transformers import Transformers

__all__ = ["SYSTEMS", "find_system"]

SYSTEMS: Mapping[str, Callable[[str, Setup], System]] = {
    "ours": Ours,
    "transformers": Transformers,
    "faster-whisper": FasterWhisper,
    "funasr": FunAsr,
    "pocketsphinx": PocketSphinx,
    "command": Command,
    "file": HypothesisFile,
}


def find_system(spec: str, setup: Setup) -> System:
    """Return the system that a spec names, not loaded yet.

    Args:
        spec: one of `SYSTEMS`, and for all but pocketsphinx a colon and what it is made of.
        setup: device and dtype, for those that have the choice.

    Raises:
        ValueError: there is no such system, or its argument is not what it needs.
    """
    kind, _, argument = spec.partition(":")
    if kind not in SYSTEMS:
        raise ValueError(f"system is {spec!r}; allowed: {', '.join(SYSTEMS)}, then :ARGUMENT")
    return SYSTEMS[kind](argument, setup)
