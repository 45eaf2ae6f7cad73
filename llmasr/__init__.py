"""Speech recognition with a large language model behind a CIF speech interface.

    import llmasr
    print(llmasr.transcribe("clip.wav").text)

The public names are imported when they are first used: `import llmasr` costs nothing, and
scoring never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmasr.api import Recognizer, transcribe
    from llmasr.audio import load_audio
    from llmasr.decoding.consistency import verify_batch
    from llmasr.decoding.search import SearchOptions
    from llmasr.decoding.verify import Acceptance
    from llmasr.ops.cif import cif
    from llmasr.reply import Reply
    from llmasr.scoring import score
    from llmasr.transcript import Transcript

__version__ = "0.1.0"

__all__ = [
    "Acceptance",
    "Recognizer",
    "Reply",
    "SearchOptions",
    "Transcript",
    "__version__",
    "cif",
    "load_audio",
    "score",
    "transcribe",
    "verify_batch",
]

_MODULE_OF = {
    "Acceptance": "llmasr.decoding.verify",
    "Recognizer": "llmasr.api",
    "Reply": "llmasr.reply",
    "SearchOptions": "llmasr.decoding.search",
    "Transcript": "llmasr.transcript",
    "cif": "llmasr.ops.cif",
    "load_audio": "llmasr.audio",
    "score": "llmasr.scoring",
    "transcribe": "llmasr.api",
    "verify_batch": "llmasr.decoding.consistency",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'llmasr' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
