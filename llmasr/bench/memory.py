"""Peak memory of this process and of its GPUs.

The peak of resident memory includes what Python and its libraries needed before; `rss_before` says
how much that was. A system that runs as a process of its own, as a command does, is not in it.
"""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc/self")
KIBIBYTE = 1024


@dataclass(frozen=True)
class Memory:
    """Memory in bytes.

    Attributes:
        rss_before: resident memory before the system was loaded; None where it cannot be known.
        rss_peak: its highest value since, or since the start of the process if `rss_before` is
            None, as the kernel then keeps one peak only.
        cuda_peak: highest memory of torch on all GPUs since; None if torch used none.
    """

    rss_before: int | None
    rss_peak: int
    cuda_peak: int | None


def start() -> int | None:
    """Forget earlier peaks; return the resident memory in bytes, or None if that is impossible."""
    torch = _torch_with_gpu()
    if torch is not None:
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
        # What torch keeps for itself would be missing to a system that does not use torch.
        torch.cuda.empty_cache()
    try:
        # Linux: 5 resets the high-water mark of resident memory (man 5 proc).
        (PROC / "clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def peak(before: int | None) -> Memory:
    """Return the peaks since :func:`start`, which returned ``before``."""
    torch = _torch_with_gpu()
    cuda = None
    if torch is not None:
        devices = range(torch.cuda.device_count())
        cuda = sum(int(torch.cuda.max_memory_allocated(index)) for index in devices)
    return Memory(before, _process_peak() if before is None else _status("VmHWM"), cuda)


def _status(field: str) -> int:
    lines = (PROC / "status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values[field].split()[0]) * KIBIBYTE


def _process_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIBIBYTE


def _torch_with_gpu():  # type: ignore[no-untyped-def]
    torch = sys.modules.get("torch")
    is_used = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch if is_used else None
