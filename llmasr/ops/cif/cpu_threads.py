"""Divide a kernel's work among a few Python threads; kernels release the interpreter lock."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch

PIECES_PER_THREAD = 4
WORTH_A_THREAD = 1 << 18  # numbers that a kernel reads


def is_worth_threads(numbers: int) -> bool:
    """Tell whether a kernel that reads so many numbers gains from more than one thread."""
    return numbers >= WORTH_A_THREAD


def in_pieces(kernel: Callable[..., Any], count: int, numbers: int, *arguments: Any) -> None:
    """Call ``kernel(low, high, *arguments)`` so that the ranges cover 0..count.

    Runs on as many threads as PyTorch uses (one in a worker of a data loader), and on the caller's
    alone where fewer than ``WORTH_A_THREAD`` numbers are read.
    """
    threads = min(torch.get_num_threads(), count) if is_worth_threads(numbers) else 1
    if threads <= 1:
        kernel(0, count, *arguments)
        return
    pieces = min(threads * PIECES_PER_THREAD, count)
    edges = [count * piece // pieces for piece in range(pieces + 1)]
    pool = _pool(threads - 1, os.getpid())
    rest = iter(list(pairwise(edges)))

    def work() -> None:
        # next() on one list iterator is atomic, so that every piece is taken once
        for low, high in rest:
            kernel(low, high, *arguments)

    helpers = [pool.submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        helper.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of this process; those of a parent do not survive a fork."""
    del process
    return ThreadPoolExecutor(threads, thread_name_prefix="llmasr-cif")
