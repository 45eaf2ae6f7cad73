"""Continuous integrate-and-fire: frames in, one vector per token out. See README.md."""

from llmasr.ops.cif.backend import Tail
from llmasr.ops.cif.function import (
    PackedCifOutput,
    available_backends,
    chosen_backend,
    cif,
    cif_linear,
    cif_packed,
)
from llmasr.ops.cif.presets import CIF_PYTORCH, FUNASR, TORCH_CIF
from llmasr.ops.cif.reference import CifOutput
from llmasr.ops.cif.streaming import CIFStream

__all__ = [
    "CIF_PYTORCH",
    "FUNASR",
    "TORCH_CIF",
    "CIFStream",
    "CifOutput",
    "PackedCifOutput",
    "Tail",
    "available_backends",
    "chosen_backend",
    "cif",
    "cif_linear",
    "cif_packed",
]
