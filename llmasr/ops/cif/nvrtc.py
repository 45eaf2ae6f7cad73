"""Compile CUDA C++ at run time, keep the result on disk, and launch it on PyTorch's stream.

Knows nothing about CIF. NVRTC and the driver are reached through the package ``cuda-bindings``,
which comes with PyTorch's wheels for CUDA 13; compiling needs no GPU.
"""

import ctypes
import hashlib
import importlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

INSTALL = 'pip install cuda-bindings "cuda-toolkit[nvrtc]"'
DIGEST_BYTES = hashlib.sha256().digest_size

logger = logging.getLogger(__name__)
_thread = threading.local()


def missing() -> str | None:
    """Say what is missing to compile and launch, or None; needs no GPU."""
    try:
        _version()
    except (ImportError, RuntimeError, OSError) as error:
        return f"NVRTC cannot be used: {error}; install it: {INSTALL}"
    return None


def cache_folder() -> Path:
    """Return where compiled kernels are kept: $LLMASR_CACHE/cubin or ~/.cache/llmasr/cubin."""
    chosen = os.environ.get("LLMASR_CACHE")
    if chosen:
        return Path(chosen) / "cubin"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmasr" / "cubin"


def cubin(
    source: str, options: tuple[str, ...], arch: str, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return machine code for ``arch`` ("sm_90"), compiled unless the cache on disk has it.

    Args:
        source: CUDA C++.
        options: of the compiler.
        arch: real architecture, "sm_" and the compute capability.
        headers: what the source may include, by name.

    Raises:
        RuntimeError: NVRTC is missing, or it rejects the source; the message says why.
    """
    reason = missing()
    if reason:
        raise RuntimeError(reason)
    options = (*options, f"--gpu-architecture={arch}")
    headers = headers or {}
    parts = (source, *headers, *headers.values(), *options, _version())
    path = cache_folder() / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}.bin"
    code = _read(path)
    if code is None:
        code = _compile(source, options, headers)
        _write(path, code)
    return code


def load(code: bytes) -> Callable[[str], int]:
    """Load machine code on the current device; return the function from a kernel's name to it."""
    driver = importlib.import_module("cuda.bindings.driver")
    _enter_context()
    module = _checked(driver.cuModuleLoadData(code))
    return lambda name: int(_checked(driver.cuModuleGetFunction(module, name.encode())))


def launch(
    function: int, grid: tuple[int, int], threads: int, parameters: ctypes.Structure
) -> None:
    """Launch a kernel that takes one structure, on the current stream of the current device."""
    driver = importlib.import_module("cuda.bindings.driver")
    _enter_context()
    stream = torch.cuda.current_stream().cuda_stream
    addresses = (ctypes.c_void_p * 1)(ctypes.addressof(parameters))
    _checked(
        driver.cuLaunchKernel(
            function, *grid, 1, threads, 1, 1, 0, stream, ctypes.addressof(addresses), 0
        )
    )


def _version() -> str:
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    error, major, minor = nvrtc.nvrtcVersion()
    _checked((error,))
    return f"{major}.{minor}"


def _compile(source: str, options: tuple[str, ...], headers: Mapping[str, str]) -> bytes:
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    names = [name.encode() for name in headers]
    texts = [text.encode() for text in headers.values()]
    program = _checked(
        nvrtc.nvrtcCreateProgram(source.encode(), b"llmasr.cu", len(names), texts, names)
    )
    try:
        encoded = [option.encode() for option in options]
        (error,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
        if int(error):
            log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
            _checked(nvrtc.nvrtcGetProgramLog(program, log))
            raise RuntimeError(f"NVRTC {_version()} with {' '.join(options)}: {log.decode()}")
        code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
        _checked(nvrtc.nvrtcGetCUBIN(program, code))
        return code
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _read(path: Path) -> bytes | None:
    """Return the code in a file of the cache; None if there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    """Put code into the cache in one step, so that no other process sees a part of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(file.name, path)
    except OSError as error:
        logger.warning("compiled kernels are not kept, set LLMASR_CACHE to a folder: %s", error)


def _enter_context() -> None:
    """Give a new thread the context of PyTorch's current device; autograd runs in such threads."""
    if getattr(_thread, "ready", False):
        return
    driver = importlib.import_module("cuda.bindings.driver")
    _checked(driver.cuInit(0))
    if not int(_checked(driver.cuCtxGetCurrent())):
        device = _checked(driver.cuDeviceGet(torch.cuda.current_device()))
        _checked(driver.cuCtxSetCurrent(_checked(driver.cuDevicePrimaryCtxRetain(device))))
    _thread.ready = True


def _checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a call, or raise the error it came with."""
    error, *values = result
    if int(error):
        raise RuntimeError(f"CUDA: {getattr(error, 'name', error)}")
    return values[0] if values else None
