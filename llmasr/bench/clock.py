"""Time that counts work on a GPU too, split by the parts of a network.

Below one call, a GPU is never waited for: its own events are recorded where a part begins and ends
and are read when all is done, so that a split run is as fast as one that is not split.
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

OTHER = "other"


def synchronise() -> None:
    """Wait until the current GPU has done what it was asked; without one there is no wait."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def now() -> float:
    """Return the time in seconds at which all work asked for so far is done."""
    synchronise()
    return time.perf_counter()


class StageClock(AbstractContextManager["StageClock"]):
    """Adds up the seconds that modules of a network spend, by names of stages.

    Modules must not contain one another, or their time would count twice. Leaving the context takes
    the hooks off.

    Args:
        on_gpu: whether the modules work on a GPU, whose events are then used.
    """

    def __init__(self, on_gpu: bool = False) -> None:
        self._mark: Callable[[], Any] = _gpu_mark if on_gpu else time.perf_counter
        self._between: Callable[[Any, Any], float] = _gpu_seconds if on_gpu else _seconds
        self._hooks = ExitStack()
        self._spans: list[tuple[str, Any, Any]] = []

    def __exit__(self, *raised: object) -> None:
        self._hooks.close()

    def watch(self, module: Any, stage: Callable[[], str]) -> None:
        """Count every forward of a `torch.nn.Module`; the stage is asked for when one begins."""
        began: list[tuple[str, Any]] = []

        def before(*call: object) -> None:
            began.append((stage(), self._mark()))

        def after(*call: object) -> None:
            name, start = began.pop()
            self._spans.append((name, start, self._mark()))

        for handle in (
            module.register_forward_pre_hook(before),
            # A forward that raises ends too, so that the next one does not take over its start.
            module.register_forward_hook(after, always_call=True),
        ):
            self._hooks.callback(handle.remove)

    def reset(self) -> None:
        """Forget what was counted."""
        self._spans.clear()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage since the last reset, in the order of their begins."""
        synchronise()
        total: dict[str, float] = {}
        for name, start, end in self._spans:
            total[name] = total.get(name, 0.0) + self._between(start, end)
        return total


def _seconds(start: float, end: float) -> float:
    return end - start


def _gpu_mark() -> Any:
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _gpu_seconds(start: Any, end: Any) -> float:
    return float(start.elapsed_time(end)) / 1000
