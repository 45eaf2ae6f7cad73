"""The filterbank against Kaldi's, and under padding."""

import pytest
import torch
import torchaudio

from llmasr.filterbank import FilterBank, num_frames


def kaldi(waveform):
    return torchaudio.compliance.kaldi.fbank(
        waveform[None] * 32768, num_mel_bins=80, dither=0.0, sample_frequency=16_000
    )


@pytest.mark.parametrize("samples", [400, 559, 560, 16_000, 40_001])
def test_features_equal_kaldi(samples):
    waveform = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    features, lengths = FilterBank()(waveform[None], torch.tensor([samples]))
    expected = kaldi(waveform)
    assert lengths.tolist() == [len(expected)]
    torch.testing.assert_close(features[0, : lengths[0]], expected, atol=1e-3, rtol=0)


def test_features_of_real_speech_equal_kaldi(data):
    from llmasr.audio import load_audio

    path = next((data / "en_an4_mini/audio").glob("*.flac"))
    waveform = torch.from_numpy(load_audio(path))
    features, _ = FilterBank()(waveform[None], torch.tensor([len(waveform)]))
    torch.testing.assert_close(features[0], kaldi(waveform), atol=1e-3, rtol=0)


def test_frame_counts_follow_the_formula():
    seconds = torch.tensor([0.4, 1.0, 2.0, 5.0, 10.0])
    assert num_frames((seconds * 16_000).long()).tolist() == [38, 98, 198, 498, 998]


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_audio_shorter_than_a_window_has_no_frame(samples):
    _, lengths = FilterBank()(torch.zeros(1, samples), torch.tensor([samples]))
    assert lengths.tolist() == [0]


def test_padding_changes_no_valid_frame():
    waveforms = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0))
    together, lengths = FilterBank()(waveforms, torch.tensor([8_000, 5_000]))
    alone, _ = FilterBank()(waveforms[1:, :5_000], torch.tensor([5_000]))
    assert torch.equal(together[1, : lengths[1]], alone[0])
