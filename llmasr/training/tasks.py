"""Losses of batches that mix tasks: transcripts with and without pictures, descriptions, answers.

Every example says for itself what it shows and lets hear. Nothing is filled in for what it lacks,
so an interface that no example of a batch uses gets no gradient from it.

Letters: B examples, A of them with speech, I with an image, V with a video, F frames, M mel bins,
T frames of a video, S side of a picture in pixels, P patches, C ViT width.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llmasr.models.xllm import XLLM
from llmasr.prompts import PromptIds
from llmasr.training.losses import acoustic_losses, hear_transcript


@dataclass(frozen=True)
class Speech:
    """What is heard in some of the examples.

    `transcripts`, in the vocabulary of the speech interface, are wanted for its own losses only. If
    it `is_heard`, a frozen interface listened before: `features` are what its C-Former gave, and
    only the adaptor is left.
    """

    rows: list[int]  # A of the examples
    # [A, F, M] log-mel, or what another interface under "speech" reads; heard, [A, N, D] tokens
    features: Tensor
    lengths: Tensor  # [A] int64 frames, or tokens
    transcripts: Tensor | None = None  # [A, N] int64
    transcript_lengths: Tensor | None = None  # [A] int64
    is_heard: bool = False


@dataclass(frozen=True)
class Images:
    """What is seen in some of the examples."""

    rows: list[int]  # I of the examples
    # [I, 3, S, S] pixels, or [I, P, C] what a frozen ViT made of them before
    pixels: Tensor


@dataclass(frozen=True)
class Videos:
    """The same for videos."""

    rows: list[int]  # V of the examples
    frames: Tensor  # [V, T, 3, S, S]
    mask: Tensor  # [V, T] bool


@dataclass(frozen=True)
class TaskBatch:
    """Examples of any tasks."""

    tasks: list[str]  # B names
    prompts: list[PromptIds]
    answers: list[list[int]]  # with their end ids
    speech: Speech | None = None
    images: Images | None = None
    videos: Videos | None = None

    def to(self, device: str | torch.device) -> "TaskBatch":
        """Return the batch on another device."""
        parts = {
            name: _moved(getattr(self, name), device) for name in ("speech", "images", "videos")
        }
        return replace(self, **parts)


def task_losses(
    model: XLLM,
    batch: TaskBatch,
    weights: Mapping[str, float],
    *,
    acoustic: float = 0.0,
) -> dict[str, Tensor]:
    """Return the loss of each task, per token of its answers, and their weighted sum.

    Args:
        model: has the interfaces that the examples need.
        batch: any examples, or none.
        weights: by task; a task without a weight is an error.
        acoustic: weight of the speech interface's own losses, for examples with transcripts.

    Returns:
        "loss" = sum of weight times loss over the tasks of the batch (+ acoustic); and each task's.
        A batch without examples has the loss 0.

    Raises:
        ValueError: a task has no weight.
    """
    unknown = sorted(set(batch.tasks) - set(weights))
    if unknown:
        raise ValueError(f"weights lack {', '.join(unknown)}; given: {', '.join(weights)}")
    if not batch.tasks:
        return {"loss": _nothing(model)}
    rows: list[dict[str, Tensor]] = [{} for _ in batch.tasks]
    _see(model, batch, rows)
    heard = _hear(model, batch.speech, rows, acoustic) if batch.speech else None
    sums = model.losses(rows, batch.answers, batch.prompts)  # [B]
    members: dict[str, list[int]] = defaultdict(list)
    for index, task in enumerate(batch.tasks):
        members[task].append(index)
    parts = {
        task: sums[indices].sum() / sum(len(batch.answers[index]) for index in indices)
        for task, indices in members.items()
    }
    total = torch.stack([weights[task] * value for task, value in parts.items()]).sum()
    if heard is not None:
        parts["acoustic"] = heard
        total = total + acoustic * heard
    return {"loss": total, **parts}


def _nothing(model: XLLM) -> Tensor:
    """Return a loss of 0 that can be gone back from."""
    return torch.stack([boundary.sum() for boundary in model.boundaries.values()]).sum() * 0.0


def _see(model: XLLM, batch: TaskBatch, rows: Sequence[dict[str, Tensor]]) -> None:
    """Put what is seen into the rows."""
    if batch.images is not None:
        pixels = batch.images.pixels
        is_seen = pixels.dim() == 3
        vectors = model.image.read_patches(pixels) if is_seen else model.image(pixels)
        for row, image in zip(batch.images.rows, vectors, strict=True):
            rows[row]["image"] = image
    if batch.videos is not None:
        vectors, lengths = model.video(batch.videos.frames, batch.videos.mask)
        _put(rows, "video", batch.videos.rows, vectors, lengths)


def _hear(
    model: XLLM, speech: Speech, rows: Sequence[dict[str, Tensor]], acoustic: float
) -> Tensor | None:
    """Put what is heard into the rows, as CIF fires in use; return the interface's own loss."""
    interface = model.speech
    if speech.is_heard:
        _put(rows, "speech", speech.rows, interface.adaptor(speech.features), speech.lengths)
        return None
    tokens, lengths = speech.transcripts, speech.transcript_lengths
    if not acoustic or tokens is None or lengths is None:
        _put(rows, "speech", speech.rows, *interface(speech.features, speech.lengths))
        return None
    frames = interface.encode(speech.features, speech.lengths)
    free = interface.integrate(frames)
    _put(rows, "speech", speech.rows, interface.adaptor(free.tokens), free.cif.token_lengths)
    scaled = hear_transcript(interface, frames, tokens, lengths)
    return acoustic_losses(interface, scaled, tokens, lengths).total


def _put(
    rows: Sequence[dict[str, Tensor]],
    modality: str,
    members: Sequence[int],
    vectors: Tensor,
    lengths: Tensor,
) -> None:
    """Put vectors [n, L, H] with lengths [n] into n of the rows."""
    for index, each, length in zip(members, vectors, lengths.tolist(), strict=True):
        rows[index][modality] = each[:length]


def _moved(part: Any, device: str | torch.device) -> Any:
    if part is None:
        return None
    tensors = {name: value for name, value in vars(part).items() if isinstance(value, Tensor)}
    return replace(part, **{name: value.to(device) for name, value in tensors.items()})
