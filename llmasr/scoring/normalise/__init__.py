"""Text normalisers for scoring, each with an id and a hash that are printed beside every number.

| name | for | what it does |
| --- | --- | --- |
| `raw` | all | nothing |
| `llmasr-en` | English | case, punctuation; ours |
| `llmasr-zh` | Chinese | width, case, punctuation, script, digits read aloud; ours |
| `whisper-en` | English | Whisper's English rules |
| `whisper-basic` | other languages | Whisper's basic rules |
| `whisper-basic-letters` | languages without spaces | the same, a space between any two letters |
| `open-asr` | English | the rules of the Open ASR leaderboard |
| `open-asr-compounds` | English | the same, and no error for "white paper" against "whitepaper" |
| `zh-basic` | Chinese | width, case, punctuation |
| `zh-speechio` | Chinese | those, script, digits, fillers and erhua, in the style of SpeechIO |

`package.module:function` names a normaliser of the user: text in, text out.

A change of what a normaliser does needs a new number in its id. Nothing here is used in training
or in decoding. Libraries that a normaliser needs are imported when it is first looked up.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from llmasr.scoring.normalise.basic_chinese import zh_basic
from llmasr.scoring.normalise.english import llmasr_en
from llmasr.scoring.normalise.llmasr_chinese import llmasr_zh
from llmasr.scoring.normalise.normalizer import Normalizer, content_hash
from llmasr.scoring.normalise.open_asr import open_asr, open_asr_compounds
from llmasr.scoring.normalise.own import load_normalizer
from llmasr.scoring.normalise.speechio import zh_speechio
from llmasr.scoring.normalise.whisper import whisper_basic, whisper_basic_letters, whisper_en

__all__ = ["NORMALIZERS", "Normalizer", "find_normalizer"]


def _raw() -> Normalizer:
    return Normalizer("raw", content_hash(_unchanged), _unchanged)


def _unchanged(text: str) -> str:
    return text


class _Catalogue(Mapping[str, Normalizer]):
    """Normalisers by name, each made when it is first asked for."""

    def __init__(self, makers: dict[str, Callable[[], Normalizer]]) -> None:
        self._makers = {name: cache(make) for name, make in makers.items()}

    def __getitem__(self, name: str) -> Normalizer:
        return self._makers[name]()

    def __contains__(self, name: object) -> bool:
        # The inherited one would make the normaliser, and with it import its libraries.
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


NORMALIZERS: Mapping[str, Normalizer] = _Catalogue(
    {
        "raw": _raw,
        "llmasr-en": llmasr_en,
        "llmasr-zh": llmasr_zh,
        "whisper-en": whisper_en,
        "whisper-basic": whisper_basic,
        "whisper-basic-letters": whisper_basic_letters,
        "open-asr": open_asr,
        "open-asr-compounds": open_asr_compounds,
        "zh-basic": zh_basic,
        "zh-speechio": zh_speechio,
    }
)


def find_normalizer(name: str) -> Normalizer:
    """Return the normaliser called `name`.

    Args:
        name: one of `NORMALIZERS`, or `package.module:function`.

    Raises:
        ValueError: no normaliser has that name, or the user's function cannot be used.
        ImportError: it needs a library that is not installed; says which, and how to install it.
    """
    if ":" in name:
        return load_normalizer(name)
    if name not in NORMALIZERS:
        allowed = f"{', '.join(NORMALIZERS)}, package.module:function"
        raise ValueError(f"normalizer is {name!r}; allowed: {allowed}")
    return NORMALIZERS[name]
