"""Checks of what a caller passes to the CIF functions; each error names the argument.

Values are read only where they lie in host memory: reading them from a GPU would stall it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from llmasr.ops.cif.backend import TAILS, Rule


def check_frames(hidden: Tensor, alpha: Tensor, lengths: Tensor, rank: int) -> None:
    """Raise unless hidden is [B, T, D] (rank 3) or [F, D] (rank 2) and alpha fits it."""
    if hidden.dim() != rank or not hidden.is_floating_point():
        shape = "[B, T, D]" if rank == 3 else "[F, D]"
        raise ValueError(f"hidden is {_describe(hidden)}; allowed: {shape} floating point")
    if alpha.shape != hidden.shape[:-1] or not alpha.is_floating_point():
        raise ValueError(
            f"alpha is {_describe(alpha)}; allowed: {list(hidden.shape[:-1])} floating point"
        )
    if alpha.device != hidden.device:
        raise ValueError(f"alpha is on {alpha.device}; allowed: {hidden.device}, as hidden")
    if lengths.dim() != 1 or (rank == 3 and lengths.shape[0] != hidden.shape[0]):
        rows = len(hidden) if rank == 3 else "B"
        raise ValueError(f"lengths is {_describe(lengths)}; allowed: [{rows}] int64")


def check_rows(lengths: Tensor, target_lengths: Tensor | None, hidden: Tensor) -> None:
    """Raise unless both are [B] int64 on the device of hidden, and in range if that can be seen."""
    limit = hidden.shape[-2]
    _check_counts("lengths", lengths, lengths, hidden, limit)
    if target_lengths is not None:
        _check_counts("target_lengths", target_lengths, lengths, hidden, None)


def check_linear(hidden: Tensor, features: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raise unless features are [B, T, E], weight [E] and bias [1]."""
    if features.dim() != 3 or not features.is_floating_point():
        raise ValueError(f"features is {_describe(features)}; allowed: [B, T, E] floating point")
    if features.shape[:2] != hidden.shape[:2]:
        rows, frames = hidden.shape[:2]
        raise ValueError(f"features is {_describe(features)}; allowed: [{rows}, {frames}, E]")
    for name, tensor, shape in (("weight", weight, features.shape[2:]), ("bias", bias, (1,))):
        if tensor.shape != shape or not tensor.is_floating_point():
            raise ValueError(
                f"{name} is {_describe(tensor)}; allowed: {list(shape)} floating point"
            )
    for name, tensor in (("features", features), ("weight", weight), ("bias", bias)):
        if tensor.device != hidden.device:
            raise ValueError(f"{name} is on {tensor.device}; allowed: {hidden.device}, as hidden")


def checked_rule(threshold: float, tail: Any, tail_threshold: float) -> Rule:
    """Return the rule, or raise for a value out of range."""
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold is {threshold}; allowed: above 0")
    if tail not in TAILS:
        raise ValueError(f"tail is {tail!r}; allowed: {', '.join(TAILS)}")
    if not 0 <= tail_threshold <= 1:
        raise ValueError(f"tail_threshold is {tail_threshold}; allowed: 0..1")
    return Rule(threshold, tail, tail_threshold)


def _check_counts(
    name: str, counts: Tensor, lengths: Tensor, hidden: Tensor, limit: int | None
) -> None:
    if counts.dtype is not torch.int64 or counts.shape != lengths.shape:
        raise ValueError(f"{name} is {_describe(counts)}; allowed: [{len(lengths)}] int64")
    if counts.device != hidden.device:
        raise ValueError(f"{name} is on {counts.device}; allowed: {hidden.device}, as hidden")
    if not counts.is_cpu or torch.compiler.is_compiling() or type(counts) is not Tensor:
        return
    values = counts.tolist()
    if values and (min(values) < 0 or (limit is not None and max(values) > limit)):
        allowed = "0 or more" if limit is None else f"0..{limit}"
        raise ValueError(f"{name} is {values}; allowed: {allowed}")


def _describe(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
