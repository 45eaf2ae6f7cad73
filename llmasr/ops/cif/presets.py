"""What other implementations do with the end of a row, as options of `cif`.

    cif(hidden, alpha, lengths, **FUNASR)

They reproduce the semantics, not the defects: see the table in README.md. In training all of them
scale the weights to the transcript, which is ``target_lengths`` here.
"""

from typing import TypedDict

from llmasr.ops.cif.backend import TOKEN, Tail


class Preset(TypedDict):
    """Options of `cif` that an implementation fixes."""

    threshold: float
    tail: Tail
    tail_threshold: float


# FunASR (Paraformer) and wenet add a frame of weight 0.45 with a zero vector, so that a rest of
# 0.55 and more becomes a token, which keeps the weight that it has.
FUNASR: Preset = {"threshold": 1.0, "tail": "fire", "tail_threshold": 0.55}

# CIF-PyTorch and CIF-HieraDist bring a rest of more than one half up to a whole token.
CIF_PYTORCH: Preset = {"threshold": 1.0, "tail": "normalize", "tail_threshold": 0.5 + 1 / TOKEN}

# torch_cif does so from one half on, the half included.
TORCH_CIF: Preset = {"threshold": 1.0, "tail": "normalize", "tail_threshold": 0.5}
