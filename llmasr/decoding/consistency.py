"""Is the result of a batch that of each input alone?

Rounding depends on the shapes of a batch, so logits agree to some digits only. Both sides are asked
about the same answer, so that one flipped token does not hide how near they are.

Letters: B rows, S samples, K tokens of an answer, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmasr.audio import AudioSource
from llmasr.decoding.batching import Piece, batches, cut, pad, read
from llmasr.decoding.greedy import Decoding, draft_source, recognise
from llmasr.decoding.verify import pad_ids
from llmasr.models.checkpoint import Bundle
from llmasr.models.splice import splice
from llmasr.models.xllm import XLLM, speech_rows

BATCH_SECONDS = 120.0


@dataclass(frozen=True)
class BatchReport:
    """How far results of batches are from those of inputs alone.

    Attributes:
        files: how many were compared.
        largest_batch: pieces of audio in the largest batch.
        logit_deviation: largest absolute difference of a logit of the language model; infinite if
            CIF hears speech on one side only.
        differing: indices of the files whose texts differ.
    """

    files: int
    largest_batch: int
    logit_deviation: float
    differing: tuple[int, ...]

    @property
    def texts_equal(self) -> bool:
        """Whether every file has the same text on both sides."""
        return not self.differing


class Recognises(Protocol):
    """What a recogniser has that matters here; `llmasr.Recognizer` is one."""

    bundle: Bundle


@torch.inference_mode()
def verify_batch(
    model: Recognises, files: Sequence[AudioSource], *, batch_seconds: float = BATCH_SECONDS
) -> BatchReport:
    """Recognise files alone and in batches, and report how far the two differ.

    Long files are compared piece by piece.

    Args:
        model: a recogniser.
        files: any inputs of `transcribe`.
        batch_seconds: audio in a batch, padding included.

    Raises:
        AudioError: a file cannot be read.
    """
    bundle = model.bundle
    recordings = [read(file, channel="mix", sample_rate=None) for file in files]
    largest, deviation = 0, 0.0
    differing: set[int] = set()
    for batch in batches(cut(recordings), batch_seconds):
        largest = max(largest, len(batch))
        answers = [_recognise(bundle, [piece])[0] for piece in batch]
        for piece, alone, together in zip(batch, answers, _recognise(bundle, batch), strict=True):
            if bundle.tokenizer.decode(alone) != bundle.tokenizer.decode(together):
                differing.add(piece.recording)
        logits = _logits(bundle.model, batch, answers)
        for piece, answer, row in zip(batch, answers, logits, strict=True):
            alone_row = _logits(bundle.model, [piece], [answer])[0]
            deviation = max(deviation, _difference(alone_row, row))
    return BatchReport(len(recordings), largest, deviation, tuple(sorted(differing)))


def _recognise(bundle: Bundle, pieces: Sequence[Piece]) -> list[list[int]]:
    waveforms, lengths = _on_device(bundle.model, pieces)
    how = Decoding(draft=draft_source(bundle))
    return [found.token_ids for found in recognise(bundle.model, waveforms, lengths, how)]


def _logits(
    model: XLLM, pieces: Sequence[Piece], answers: Sequence[Sequence[int]]
) -> list[Tensor | None]:
    """Return the logits [1 + K, V] of each answer after its prompt; None where nothing fires."""
    heard = model.speech.listen(*model.speech.features(*_on_device(model, pieces)))
    speaking = heard.cif.token_lengths.nonzero()[:, 0].tolist()
    found: list[Tensor | None] = [None] * len(pieces)
    if not speaking:
        return found
    vectors = model.speech.adaptor(heard.tokens[speaking])
    prompts, mask = splice(
        model.prompt_pieces(speech_rows(vectors, heard.cif.token_lengths[speaking]))
    )
    ids, real = pad_ids([answers[row] for row in speaking], prompts.device)
    logits, _ = model.reader.read(
        torch.cat([prompts, model.reader.embed(ids)], 1), torch.cat([mask, real], 1),
        mask.sum(1), keep=1 + ids.shape[1],
    )  # fmt: skip
    for row, values in zip(speaking, logits, strict=True):
        found[row] = values[: 1 + len(answers[row])].float()
    return found


def _difference(one: Tensor | None, other: Tensor | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else float("inf")
    return float((one - other).abs().max())


def _on_device(model: XLLM, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
    waveforms, lengths = pad(pieces)
    device = model.language_model.device
    return waveforms.to(device), lengths.to(device)
