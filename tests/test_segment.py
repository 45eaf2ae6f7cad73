"""Spans are an exact partition of the audio, cut where it is quiet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasr.audio import SAMPLE_RATE
from llmasr.decoding.segment import MAX_SECONDS, sounding_spans, speech_spans


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


@given(st.integers(0, 3000), st.integers(2, 1000), st.booleans())
def test_spans_are_a_partition_and_none_is_too_long(samples, longest, is_silent):
    waveform = np.zeros(samples, np.float32) if is_silent else noise(samples)
    spans = speech_spans(waveform, max_seconds=longest / SAMPLE_RATE)
    edges = [0] + [edge for span in spans for edge in span] + [samples]
    assert edges[0::2] == edges[1::2]
    assert all(0 < span.end - span.start <= longest for span in spans)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.booleans()), max_size=6))
def test_everything_that_sounds_is_kept_once(parts):
    waveform = np.concatenate([[0.0], *(noise(n) * is_loud for n, is_loud in parts)])
    spans = sounding_spans(waveform)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    assert all(0 <= edge <= len(waveform) for edge in edges)
    outside = np.ones(len(waveform), bool)
    for span in spans:
        outside[span.start : span.end] = False
    assert not waveform[outside].any()


def test_long_digital_silence_is_left_out():
    speech, silence = noise(8_000), np.zeros(16_000)
    spans = sounding_spans(np.concatenate([silence, speech, silence, speech, silence]))
    assert spans == [(15_200, 24_800), (39_200, 48_800)]


def test_a_short_gap_or_faint_noise_is_no_digital_silence():
    speech = noise(8_000)
    for middle in (np.zeros(4_000), 1e-3 * noise(16_000)):
        waveform = np.concatenate([speech, middle, speech])
        assert sounding_spans(waveform) == [(0, len(waveform))]


def test_digital_silence_alone_has_no_span():
    assert sounding_spans(np.zeros(50_000, np.float32)) == []
    assert sounding_spans(np.zeros(0, np.float32)) == []


def test_short_audio_is_one_span():
    assert speech_spans(noise(int(MAX_SECONDS * SAMPLE_RATE))) == [(0, MAX_SECONDS * SAMPLE_RATE)]


def test_empty_audio_has_no_span():
    assert speech_spans(np.zeros(0, np.float32)) == []


def test_the_cut_is_in_the_pause():
    waveform = noise(30 * SAMPLE_RATE)
    waveform[15 * SAMPLE_RATE : 15 * SAMPLE_RATE + 4000] *= 0.01
    first, _ = speech_spans(waveform)
    assert 15 * SAMPLE_RATE < first.end < 15 * SAMPLE_RATE + 4000


def test_no_sliver_is_left_at_the_end():
    waveform = noise(int(MAX_SECONDS * SAMPLE_RATE) + 1)
    waveform[-SAMPLE_RATE:] *= 0.01
    assert speech_spans(waveform)[-1].end - speech_spans(waveform)[-1].start >= SAMPLE_RATE


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_span_has_a_length(seconds):
    with pytest.raises(ValueError, match="max_seconds is"):
        speech_spans(noise(100), max_seconds=seconds)
