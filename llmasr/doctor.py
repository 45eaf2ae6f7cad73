"""What is installed, what will be used, and how to repair what is broken.

Every check imports what it looks at, because a broken library is found in no other way, and turns
any failure into a line of the report: this is the one place that may catch everything.
"""

import importlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import llmasr

# Distribution, module, and the extra that brings it; without an extra nothing works without it.
LIBRARIES = (
    ("torch", "torch", None),
    ("torchaudio", "torchaudio", None),
    ("transformers", "transformers", None),
    ("sentencepiece", "sentencepiece", None),
    ("numba", "numba", None),
    ("librosa", "librosa", None),
    ("soundfile", "soundfile", None),
    ("av", "av", "media"),
    ("peft", "peft", "lora"),
    ("torchao", "torchao", "int8"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        result: a version, a choice, or what is wrong.
        fix: the command that repairs it; None when nothing is wrong.
        is_fatal: whether nothing can be transcribed before it is repaired.
    """

    subject: str
    result: str
    fix: str | None = None
    is_fatal: bool = False

    def __str__(self) -> str:
        """Return the line, and the fix under it."""
        mark = "BROKEN " if self.is_fatal else "missing" if self.fix else "ok     "
        line = f"{mark} {self.subject}: {self.result}"
        return line if self.fix is None else f"{line}\n        fix: {self.fix}"


def examine() -> Iterator[Finding]:
    """Yield findings, one after the other, since some take a second to make."""
    yield Finding("llmasr", llmasr.__version__)
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    for distribution, module, extra in LIBRARIES:
        yield _library(distribution, module, extra)
    yield _attempt("devices", _devices)
    yield _attempt("CIF back-end", _cif_backends)
    yield _attempt("bundled models", _models)


def _library(distribution: str, module: str, extra: str | None) -> Finding:
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        if extra is None:
            return Finding(distribution, "not installed", _install(distribution), is_fatal=True)
        return Finding(distribution, "not installed, optional", f'pip install "llmasr[{extra}]"')
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  a binary that does not fit fails in any way it likes
        reason = f"{version} does not import: {_first_line(error)}"
        return Finding(distribution, reason, _install(distribution), is_fatal=extra is None)
    return Finding(distribution, version)


def _install(distribution: str) -> str:
    """Return the command that installs what this version of llmasr was made for."""
    # torchaudio is built for one version of torch, so the two are only ever repaired together.
    names = ("torch", "torchaudio") if distribution in ("torch", "torchaudio") else (distribution,)
    return "pip install " + " ".join(f'"{_requirement(name)}"' for name in names)


def _requirement(distribution: str) -> str:
    try:
        requirements = metadata.requires("llmasr") or []
    except metadata.PackageNotFoundError:  # running from a folder that was not installed
        return distribution
    return next((line for line in requirements if _name(line) == distribution), distribution)


def _name(requirement: str) -> str:
    for mark in "<>=!~;[ ":
        requirement = requirement.split(mark)[0]
    return requirement


def _attempt(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, check())
    except Exception as error:  # noqa: BLE001  as above
        fix = "repair what is broken above, or: pip install --force-reinstall --no-deps llmasr"
        return Finding(subject, _first_line(error), fix, is_fatal=True)


def _devices() -> str:
    import torch

    gpus = [
        f"cuda:{index} {torch.cuda.get_device_name(index)}"
        for index in range(torch.cuda.device_count())
    ]
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    return ", ".join([f"cpu ({torch.get_num_threads()} threads)", *gpus]) + f"; auto is {chosen}"


def _cif_backends() -> str:
    from llmasr.ops.cif import available_backends, chosen_backend

    on_gpu = ", ".join(available_backends("cuda"))
    return (
        f"{chosen_backend('cpu')} on the CPU; {chosen_backend('cuda')} on a GPU "
        f"(can run: {on_gpu}; the choice is not measured yet)"
    )


def _models() -> str:
    from llmasr.api import ASSETS, Recognizer, bundled_models

    names = bundled_models()
    if not names:
        raise FileNotFoundError(f"{ASSETS}: no model")
    for name in names:
        Recognizer.from_pretrained(name, device="cpu")
    return ", ".join(names)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
