"""The run card: what a number was made with. Equal cards are the same experiment.

Knows machines and versions; knows nothing of what was measured.
"""

import hashlib
import json
import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import llmasr

PACKAGE = Path(llmasr.__file__).parent
CPUS = Path("/proc/cpuinfo")


def machine(device: str) -> dict[str, Any]:
    """Return the kind of machine: processor, how many of it we may use, and the GPU if one is used.

    Args:
        device: "cpu", "cuda", "cuda:1", ...
    """
    card: dict[str, Any] = {
        "cpu": _cpu(),
        "cpu_count": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if device.startswith("cuda"):
        import torch

        card["gpu"] = torch.cuda.get_device_name(device)
    return card


def load_average() -> float | None:
    """Return how many processes were ready to run in the last minute, on average."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of installed distributions; those that are not there are left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def commit() -> str | None:
    """Return what `git describe` says of the checkout this package lies in; None if in none."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    git = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(git, cwd=PACKAGE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or a checkout of another user
        return None
    return done.stdout.strip()


def fingerprint(card: dict[str, Any]) -> str:
    """Return 8 hex digits that stand for a card."""
    text = json.dumps(card, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _cpu() -> str:
    try:
        lines = CPUS.read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
