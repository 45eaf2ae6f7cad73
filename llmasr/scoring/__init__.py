"""Error rates that cannot lie: every reference counts, and every number says how it was made.

Useful without our models: nothing here imports torch or another room of the library.

    from llmasr.scoring import read_texts, score
    print(score(read_texts("ref.jsonl"), read_texts("hyp.jsonl"), normalizer="llmasr-en"))
"""

from llmasr.scoring.errors import Score, score
from llmasr.scoring.normalise import NORMALIZERS
from llmasr.scoring.texts import read_texts

__all__ = ["NORMALIZERS", "Score", "read_texts", "score"]
