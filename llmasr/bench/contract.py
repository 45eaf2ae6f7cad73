"""The one contract between the benchmark and what it measures.

A system is any object with a name that loads itself and turns a batch of sounds into as many texts.
Nothing else about a system is known to the benchmark, so a person's own system needs no adapter:
a class with these methods goes into :func:`llmasr.bench.runner.bench` as it is.
"""

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

SAMPLE_RATE = 16_000
DTYPES = ("float32", "bfloat16", "float16")
BLOCK_BYTES = 2**20


@dataclass(frozen=True, eq=False, slots=True)
class Sound:
    """An utterance to transcribe.

    Attributes:
        id: that of the reference.
        samples: float32 [samples], mono, 16 kHz, about [-1, 1].
    """

    id: str
    samples: np.ndarray

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


class System(Protocol):
    """What can be measured.

    More is used where a system has it. `describe()` returns versions and parameters by name, before
    the system is loaded too; they stand on the run card. `stages()` returns the seconds of the last
    `transcribe` by stage, as far as they are known. `unload()` lets go of what `load` took, so that
    the next system finds the memory free. `hears = False` says that no sound is looked
    at, so that none is read and no speed is given; `is_here = False` that the work is done in
    another process, so that the memory of this one says nothing.
    """

    name: str

    def load(self) -> None:
        """Get ready; this is timed apart."""
        ...

    def transcribe(self, batch: Sequence[Sound]) -> list[str]:
        """Return the text of each sound, in order; an exception fails the batch."""
        ...


@dataclass(frozen=True)
class Setup:
    """Where and how exactly a system computes, if it has the choice.

    Attributes:
        device: "auto" (the GPU if there is one), "cpu", "cuda", "cuda:1", ...
        dtype: one of `DTYPES`.

    Raises:
        ValueError: the dtype is not one of these.
    """

    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}")


def description(system: System) -> dict[str, Any]:
    """Return what a system says about itself; nothing if it says nothing."""
    describe = getattr(system, "describe", dict)
    return dict(describe())


def stages_of(system: System) -> dict[str, float]:
    """Return the seconds of the last call by stage; nothing if the system does not know them."""
    stages = getattr(system, "stages", dict)
    return dict(stages())


def unload(system: System) -> None:
    """Let a system go, if it can."""
    getattr(system, "unload", bool)()


def hears(system: System) -> bool:
    """Tell whether a system looks at the sounds."""
    return bool(getattr(system, "hears", True))


def is_here(system: System) -> bool:
    """Tell whether a system works in this process."""
    return hears(system) and bool(getattr(system, "is_here", True))


def require(module: str, package: str) -> ModuleType:
    """Import an optional library when it is used.

    Raises:
        ImportError: it is not there or broken; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} cannot be imported ({error}); pip install {package}"
        ) from error


def local_folder(spec: str, argument: str) -> Path:
    """Return the folder of a model; nothing is ever downloaded.

    Raises:
        ValueError: it is not a folder.
    """
    if not argument or not Path(argument).is_dir():
        raise ValueError(f"{spec}:{argument} names no folder; allowed: a folder with a model")
    return Path(argument)


def digest_of_folder(folder: Path) -> str:
    """Return 8 hex digits of the sha256 of all files under a folder, names and contents."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    total.update(block)
    return total.hexdigest()[:8]


def torch_device(device: str) -> str:
    """Return the name of the device that torch will use.

    Raises:
        ValueError: a GPU is named, and torch finds none.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no GPU; allowed here: cpu")
    return device
