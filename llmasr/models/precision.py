"""Which part of a model has which dtype: the one place that decides.

- The language model, its adapters and the boundary vectors that it reads: what the user asks for.
  They hold nearly all of the memory, and language models are trained in half precision.
- Everything acoustic, from the filterbank to the adaptor: float32. CIF adds up weights over time
  and fires at a threshold, so a rounded sum can move or lose a token.
- Log-probabilities and losses: float32; whoever reads logits casts them first.
- Buffers: as they were built. The frequencies of rotary positions are such buffers; rounded to half
  precision they would turn late positions by the wrong angle.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from llmasr.models.xllm import XLLM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """Return the dtype of a language model by its name; None stands for float32.

    Raises:
        ValueError: it is not one of ``DTYPES``.
    """
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}; allowed: {', '.join(DTYPES)}")
    return DTYPES[name]


def set_precision(model: XLLM, dtype: torch.dtype) -> None:
    """Cast what may be of ``dtype``, in place, and leave the rest in float32."""
    for part in (model.language_model, model.boundaries):
        for parameter in part.parameters():
            parameter.data = parameter.data.to(dtype)


@contextmanager
def held_as(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Cast the parameters for a while; afterwards they are what they were, to the bit."""
    originals = [(parameter, parameter.data) for parameter in module.parameters()]
    try:
        for parameter, data in originals:
            parameter.data = data.to(dtype)
        yield
    finally:
        for parameter, data in originals:
            parameter.data = data
