"""A stand-in for a model: it hears one word a second, and the level of the audio as the word."""

import io
import math

import numpy as np
import soundfile
import torch

from llmasr.audio import SAMPLE_RATE
from llmasr.config import ModelConfig
from llmasr.decoding.greedy import Hypothesis

# By level: 0, 0.25, 0.5, 0.75.
WORDS = ["silence", "low", "mid", "high"]


class StubTokenizer:
    bos_id = 1

    def encode(self, text):
        return []

    def pieces(self, ids):
        return ["\u2581" + WORDS[index] for index in ids]

    def decode(self, ids):
        return " ".join(WORDS[index] for index in ids)


class StubBundle:
    def __init__(self, languages=("en",)):
        self.model = torch.nn.Identity()
        self.model.config, self.model.interfaces = ModelConfig(), {"speech": None}
        self.tokenizer, self.speech_tokenizer = StubTokenizer(), None
        self.languages = languages


class StubRecognise:
    """Hears one word a second, if there is sound, and remembers the batches it was given."""

    def __init__(self):
        self.batches = []
        self.finish_reason = "stop"
        self.most_rows = 1000

    def __call__(self, model, waveforms, lengths, how, seen):
        self.how = how
        if len(waveforms) > self.most_rows:
            raise torch.OutOfMemoryError
        assert waveforms.dtype == torch.float32
        assert lengths.dtype == torch.int64
        assert waveforms.shape[1] == lengths.max()
        assert all(not row[length:].any() for row, length in zip(waveforms, lengths, strict=True))
        self.batches.append(lengths.tolist())
        rows = zip(waveforms, lengths.tolist(), strict=True)
        return [self.hear(row[:length]) for row, length in rows]

    def hear(self, waveform):
        seconds = range(math.ceil(len(waveform) / SAMPLE_RATE))
        levels = [waveform[s * SAMPLE_RATE : (s + 1) * SAMPLE_RATE].abs().mean() for s in seconds]
        ids = [round(float(level) * 4) for level in levels]
        if not any(ids):
            return Hypothesis([], [], [], [], "silence")
        ends = [min(second + 1, len(waveform) / SAMPLE_RATE) for second in seconds]
        timings = {"acoustic": 2.0, "language_model": 1.0}
        return Hypothesis(ids, [-0.5] * len(ids), ids, ends, self.finish_reason, timings)


def sound(*levels: float) -> tuple[np.ndarray, int]:
    """Make a second of each level."""
    return np.repeat(np.array(levels, np.float32), SAMPLE_RATE), SAMPLE_RATE


def wav(samples: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
