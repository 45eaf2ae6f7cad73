"""Memory for large results: on huge pages, in step with cache lines, and used again.

A fresh page costs more than the kernel that fills it: it is cleared first, and by default there are
thousands of them. So large blocks come from numpy, which asks for huge pages, and the last few are
kept until nobody refers to them; then the next result of that size goes there.
"""

import math
import sys
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGE = 1 << 22  # bytes from which numpy asks for huge pages
KEPT = 2  # blocks: the tokens of a forward pass and the gradient of a backward pass
CACHE_LINE = 64  # bytes
UNUSED = 3  # references to a block that only this file knows: list, loop, argument

_blocks: list[NDArray[Any]] = []
_lock = threading.Lock()


def vectors(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor whose vectors do not straddle cache lines."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return torch.empty(shape, dtype=dtype)
    with _lock:
        block = _unused_block(size + 2 * CACHE_LINE)
        # Half a line on: frames often begin on a page, and equal low bits of addresses collide.
        begin = -block.ctypes.data % CACHE_LINE + CACHE_LINE // 2
        memory = torch.from_numpy(block[begin : begin + size])
    return memory.view(dtype).view(shape)


def _unused_block(size: int) -> NDArray[Any]:
    """Return a block that is large enough but not twice too large, a kept one if possible."""
    for block in _blocks:
        if size <= block.nbytes < 2 * size and sys.getrefcount(block) == UNUSED:
            return block
    block = np.empty(size, np.uint8)
    _blocks.append(block)
    if len(_blocks) > KEPT:
        del _blocks[0]  # whoever uses it keeps it alive
    return block
