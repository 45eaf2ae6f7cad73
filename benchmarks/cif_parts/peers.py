"""Who `benchmarks/cif.py` measures, and on what: batches, our back-ends, the code of others.

All candidates get the same frames and the same float32 weights, which are 0 on padding already (the
peers leave that to their callers). They fire without targets and drop the tail, the one rule that
all of them know; `scale` is the arithmetic that each of them uses to reach a target length.

Knows nothing of time and errors. Letters: B rows, T frames, U tokens, D width.
"""

import importlib
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple
from warnings import catch_warnings

import torch
from torch import Tensor

import llmasr
from llmasr import cif
from llmasr.ops.cif import available_backends

ALPHA_BIAS = -2.209  # sigmoid(1.5 z + bias) is 1/6 on average: six frames a token
REFERENCE_BYTES = 0.75 * 2**30  # the reference is not run on a larger overlap matrix [B, U, T]
FUNASR = "pip install --no-deps funasr"  # its predictor needs none of what funasr depends on


class Shape(NamedTuple):
    """Size of a batch, and the type of its frames."""

    rows: int
    frames: int
    width: int
    dtype: torch.dtype = torch.float32

    @property
    def size(self) -> int:
        """Number of values in the hidden vectors."""
        return self.rows * self.frames * self.width

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"({self.rows}, {self.frames}, {self.width}) {name}"


class Speech(NamedTuple):
    """A random batch; `hidden` and `alpha` ask for gradients."""

    hidden: Tensor  # [B, T, D]
    alpha: Tensor  # [B, T] float32
    lengths: Tensor  # [B] int64
    max_tokens: int  # what the heaviest row fires

    @property
    def overlap_bytes(self) -> int:
        """Size of the overlap matrix of the reference, in float64."""
        return 8 * self.alpha.numel() * self.max_tokens


@dataclass(frozen=True)
class Candidate:
    """An implementation: `fire` gives [B, at least U, D], `scale` the same for targets [B]."""

    name: str
    version: str
    fire: Callable[[Speech], Tensor]
    scale: Callable[[Speech, Tensor], Tensor]
    is_ours: bool = False
    is_graph: bool = False  # recorded as a CUDA graph, with the number of tokens given
    is_dense: bool = False  # has an overlap matrix in memory
    is_loop: bool = False  # its backward makes a tensor of the whole batch for every frame


def random_speech(shape: Shape, device: str, seed: int = 0) -> Speech:
    """Make a batch with lengths between 0.8 T and T, the last row full."""
    rng = torch.Generator().manual_seed(seed)
    rows, frames, _, dtype = shape
    lengths = torch.randint(int(0.8 * frames), frames + 1, (rows,), generator=rng)
    lengths[-1] = frames
    valid = torch.arange(frames) < lengths[:, None]
    logits = 1.5 * torch.randn(rows, frames, generator=rng) + ALPHA_BIAS
    alpha = torch.where(valid, torch.sigmoid(logits), 0.0).to(device)
    hidden = torch.randn(shape[:3], generator=rng).add_(0.3).to(device, dtype)
    max_tokens = int(alpha.double().sum(1).max())
    return Speech(hidden.requires_grad_(), alpha.requires_grad_(), lengths.to(device), max_tokens)


def our_backends(device: str) -> list[Candidate]:
    """List the back-ends that run on a device; on a GPU each a second time as a CUDA graph."""
    found = []
    for backend in available_backends(device):
        call = partial(cif, backend=backend)
        candidate = Candidate(
            f"llmasr {backend}",
            llmasr.__version__,
            partial(_fire_ours, call),
            partial(_scale_ours, call),
            is_ours=True,
            is_dense=backend == "reference",
        )
        found.append(candidate)
        if device == "cuda" and backend != "reference":
            found.append(_as_graph(candidate, call))
    return found


def peers() -> tuple[list[Candidate], list[str]]:
    """Return the installed implementations of others, and how to install those that are not."""
    found: list[Candidate] = []
    missing: list[str] = []
    for distribution, module, command, build in (
        ("torch-cif", "torch_cif", "pip install torch-cif", _torch_cif),
        ("funasr", "funasr.models.paraformer.cif_predictor", FUNASR, _funasr),
    ):
        try:
            with redirect_stdout(None), catch_warnings(action="ignore"):  # funasr tells a lot
                imported = importlib.import_module(module)
            found += build(imported, version(distribution))
        except (ImportError, PackageNotFoundError) as error:
            missing.append(f"{distribution} is not measured ({error}): {command}")
    return found, missing


def _as_graph(candidate: Candidate, call: Callable[..., Any]) -> Candidate:
    """Return the candidate with a given width, which needs no word from the GPU."""

    def fire(speech: Speech) -> Tensor:
        return call(
            speech.hidden, speech.alpha, speech.lengths, max_tokens=speech.max_tokens
        ).tokens

    name = f"{candidate.name}, graph"
    return Candidate(name, candidate.version, fire, candidate.scale, is_ours=True, is_graph=True)


def _fire_ours(call: Callable[..., Any], speech: Speech) -> Tensor:
    return call(speech.hidden, speech.alpha, speech.lengths).tokens


def _scale_ours(call: Callable[..., Any], speech: Speech, targets: Tensor) -> Tensor:
    return call(speech.hidden, speech.alpha, speech.lengths, target_lengths=targets).tokens


def _torch_cif(module: Any, installed: str) -> list[Candidate]:
    def fire(speech: Speech) -> Tensor:
        found = module.cif_function(speech.hidden, speech.alpha, tail_thres=float("inf"))
        return found["cif_out"][0]

    def scale(speech: Speech, targets: Tensor) -> Tensor:
        found = module.cif_function(speech.hidden, speech.alpha, target_lengths=targets)
        return found["cif_out"][0]

    return [Candidate("torch_cif", installed, fire, scale)]


def _funasr(module: Any, installed: str) -> list[Candidate]:
    def fire(function: Callable[..., Any], speech: Speech) -> Tensor:
        return function(speech.hidden, speech.alpha, 1.0)[0]

    def scale(function: Callable[..., Any], speech: Speech, targets: Tensor) -> Tensor:
        # As CifPredictor.forward does it.
        factor = (targets.float() / speech.alpha.sum(-1))[:, None]
        return function(speech.hidden, speech.alpha * factor, 1.0)[0]

    return [
        Candidate(
            f"FunASR {label}",
            installed,
            partial(fire, function),
            partial(scale, function),
            is_loop=function is module.cif,
        )
        for label, function in (("cif_v1", module.cif_v1), ("cif (loop)", module.cif))
    ]
