"""Error rates that cannot lie: every reference counts, and every number says how it was made.

Useful without our models: nothing here imports torch or another room of the library.

    from llmasr.scoring import read_utterances, score
    print(score(read_utterances("ref.stm"), read_utterances("hyp.jsonl"), normalizer="llmasr-en"))
"""

from llmasr.scoring.alignment import ScoredUtterance, Step, align
from llmasr.scoring.compare import Comparison, compare
from llmasr.scoring.errors import Score, score
from llmasr.scoring.normalise import NORMALIZERS, find_normalizer
from llmasr.scoring.readers import read_pair, read_utterances
from llmasr.scoring.texts import read_texts
from llmasr.scoring.utterances import TimedWord, Utterance

__all__ = [
    "NORMALIZERS",
    "Comparison",
    "Score",
    "ScoredUtterance",
    "Step",
    "TimedWord",
    "Utterance",
    "align",
    "compare",
    "find_normalizer",
    "read_pair",
    "read_texts",
    "read_utterances",
    "score",
]
