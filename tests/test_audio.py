"""Audio comes in whole, at 16 kHz and at its level, or with a warning or an error that says why."""

import io
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

import llmasr.audio
from llmasr.audio import (
    SAMPLE_RATE,
    AudioError,
    ChannelWarning,
    ScaleWarning,
    TruncatedAudioWarning,
    load_audio,
)

EXAMPLE = Path(llmasr.audio.__file__).parents[1] / "assets/example.flac"
LEVEL = 0.3
# (format, subtype): what soundfile 0.12 can both write and read, and a loss that is fair for it.
EXACT = [
    *(("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    *((name, "PCM_16") for name in ("AIFF", "AU", "CAF", "FLAC", "HTK", "IRCAM", "MAT4", "MAT5")),
    *((name, "PCM_16") for name in ("NIST", "PAF", "PVF", "RF64", "SVX", "VOC", "W64", "WAVEX")),
    ("FLAC", "PCM_24"),
    ("CAF", "ALAC_16"),
]
LOSSY = [
    *(("WAV", subtype) for subtype in ("PCM_U8", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")),
    ("WAV", "GSM610"),
    ("AU", "G721_32"),
    ("AIFF", "PCM_S8"),
    ("FLAC", "PCM_S8"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def tone(rate: int = SAMPLE_RATE, *, hertz: float = 440.0, seconds: float = 1.0) -> np.ndarray:
    """A tone that is recognised by its frequency, with a fade so that no codec rings."""
    time = np.arange(round(seconds * rate)) / rate
    fade = np.minimum(1, np.minimum(time, seconds - time) / 0.05)
    return (LEVEL * fade * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = SAMPLE_RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", **options})
    return file.getvalue()


def media(container: str, codec: str, rate: int, layout: str = "stereo") -> bytes:
    """Two seconds of a tone in every channel, encoded by FFmpeg."""
    av = pytest.importorskip("av", reason="the media extra is not installed")
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    file = io.BytesIO()
    samples = np.repeat(tone(rate, seconds=2.0), av.AudioLayout(layout).nb_channels)[None]
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return file.getvalue()


def quiet(source, **options) -> np.ndarray:
    """Load, and fail on any warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_audio(source, **options)


def assert_tone(waveform: np.ndarray, *, seconds: float = 1.0, within: float = 0.02) -> None:
    """It is the 440 Hz tone, whole, at its level, with codec padding of a tenth of a second."""
    assert waveform.dtype == np.float32
    assert waveform.shape == (len(waveform),)
    assert abs(len(waveform) / SAMPLE_RATE - seconds) < 0.1
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    assert abs(spectrum.argmax() * SAMPLE_RATE / len(waveform) - 440) < 3
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4]
    assert abs(middle.std() * np.sqrt(2) - LEVEL) < within


@pytest.mark.parametrize(("name", "subtype"), EXACT)
def test_a_lossless_file_gives_its_samples(tmp_path, name, subtype):
    path = tmp_path / "clip.bin"
    soundfile.write(path, tone(), SAMPLE_RATE, format=name, subtype=subtype)
    np.testing.assert_allclose(quiet(path), tone(), atol=1.1 / 2**15)


@pytest.mark.parametrize(("name", "subtype"), LOSSY)
def test_a_lossy_file_gives_the_same_sound(tmp_path, name, subtype):
    path = tmp_path / "clip.bin"
    soundfile.write(path, tone(), SAMPLE_RATE, format=name, subtype=subtype)
    assert_tone(quiet(path), within=0.03)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp4", "aac", 44_100),
        ("ipod", "aac", 22_050),
        ("adts", "aac", 44_100),
        ("matroska", "aac", 48_000),
        ("webm", "libopus", 48_000),
        ("mpegts", "aac", 48_000),
        ("ac3", "ac3", 48_000),
    ],
)
def test_a_media_file_gives_the_same_sound(container, codec, rate):
    assert_tone(quiet(media(container, codec, rate)), seconds=2.0)


@pytest.mark.parametrize("layout", ["mono", "5.1", "7.1"])
def test_a_media_file_of_any_layout_gives_the_same_sound(layout):
    assert_tone(quiet(media("matroska", "wavpack", 48_000, layout)), seconds=2.0)


def test_a_media_file_without_the_extra_names_the_extra(monkeypatch):
    content = media("mp4", "aac", 44_100)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r'pip install "llmasr\[media\]"'):
        load_audio(content)


@pytest.mark.parametrize("name", ["lbax4n", "swwp2s"])
def test_the_sound_of_a_film_is_read(data, name):
    pytest.importorskip("av", reason="the media extra is not installed")
    waveform = quiet(data / f"multimodal/grid/{name}.mpg")
    assert abs(len(waveform) / SAMPLE_RATE - 2.978) < 0.01
    assert 0.02 < waveform.std() < 0.3


def test_a_picture_has_no_audio_track(data):
    pytest.importorskip("av", reason="the media extra is not installed")
    with pytest.raises(AudioError, match=r"horse.png' has no audio track"):
        load_audio(data / "multimodal/images/horse.png")


def test_real_clips_are_read_without_a_warning(data):
    patterns = ("noise/audio/**/*.*g", "en_ljspeech/**/*.*g", "en_digits/**/*.flac")
    clips = [clip for pattern in patterns for clip in sorted(data.glob(pattern))[:3]]
    for clip in clips:
        waveform = quiet(clip)
        assert abs(len(waveform) / SAMPLE_RATE - soundfile.info(clip).duration) < 0.001
        assert 0.001 < waveform.std() < 0.5
    assert len(clips) == 9


@pytest.mark.parametrize("rate", [6_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_any_rate_becomes_16_khz(rate):
    waveform = quiet(tone(rate), sample_rate=rate)
    np.testing.assert_allclose(waveform, tone(), atol=0.002)


def test_a_long_array_is_resampled_as_if_in_one_piece():
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * 44_100 + 7).astype(np.float32)
    expected = soxr.resample(noise, 44_100, SAMPLE_RATE, "HQ")
    np.testing.assert_allclose(quiet(noise, sample_rate=44_100), expected, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", ">f4", ">f8", "i1", "i2", ">i2", "i4", "u1", "u2", "u4"]
)
def test_an_array_of_any_dtype_is_scaled_by_its_range(dtype):
    kind = np.dtype(dtype)
    half = 2.0 ** (8 * kind.itemsize - 1)
    samples = tone().astype(np.float64)
    if kind.kind != "f":
        samples = np.round(samples * half) + (half if kind.kind == "u" else 0)
    atol = {"i1": 0.004, "u1": 0.004, "f2": 2e-4}.get(dtype, 2e-5)
    np.testing.assert_allclose(
        quiet(samples.astype(dtype), sample_rate=SAMPLE_RATE), tone(), atol=atol
    )


@pytest.mark.parametrize("dtype", [bool, np.complex64, object, np.int64, str])
def test_an_array_of_a_dtype_without_a_scale_is_a_type_error(dtype):
    with pytest.raises(TypeError, match="samples are"):
        load_audio(np.zeros(100).astype(dtype), sample_rate=SAMPLE_RATE)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.from_numpy(tone()),
        torch.from_numpy(tone()).double().requires_grad_(),
        torch.from_numpy(tone()).bfloat16(),
        (torch.from_numpy(tone()) * 32_768).round().short(),
    ],
    ids=["float32", "with gradient", "bfloat16", "int16"],
)
def test_a_tensor_is_read(tensor):
    np.testing.assert_allclose(quiet(tensor, sample_rate=SAMPLE_RATE), tone(), atol=0.001)


def test_audio_is_imported_without_torch_and_without_decoders():
    code = (
        "import sys, llmasr.audio; print({'torch', 'soundfile', 'soxr', 'av'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@pytest.mark.parametrize(
    "view",
    [
        lambda stereo: stereo,
        lambda stereo: stereo.T,
        lambda stereo: np.repeat(stereo, 2, axis=1)[:, ::2],
        lambda stereo: np.asfortranarray(stereo),
        lambda stereo: stereo[:1],
    ],
    ids=["channels first", "channels last", "strided", "Fortran order", "one channel"],
)
def test_the_shorter_axis_is_the_channels(view):
    stereo = np.stack([tone(), tone()])
    np.testing.assert_allclose(quiet(view(stereo), sample_rate=SAMPLE_RATE), tone(), atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 20), (40, 50), (1, 2, 300), ()])
def test_an_array_of_doubtful_shape_is_a_value_error(shape):
    with pytest.raises(ValueError, match="array has shape"):
        load_audio(np.zeros(shape, np.float32), sample_rate=SAMPLE_RATE)


def test_the_result_is_not_the_memory_of_the_caller():
    samples = tone()
    quiet(samples, sample_rate=SAMPLE_RATE)[:] = 0
    assert samples.any()


def test_the_same_sound_comes_from_every_kind_of_source(tmp_path):
    content = encoded(tone(8_000), 8_000)
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    used = io.BytesIO(content)
    used.read()
    with path.open("rb") as file:
        sources = [str(path), content, bytearray(content), memoryview(content), file, used]
        results = [quiet(source) for source in sources]
    results += [quiet((tone(8_000), 8_000)), quiet(tone(8_000), sample_rate=8_000.0)]
    for result in results:
        np.testing.assert_allclose(result, quiet(path), atol=1e-4)
    assert_tone(results[0])


def test_a_named_pipe_is_read_to_its_end(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(encoded(tone()),))
    writer.start()
    assert_tone(quiet(path))
    writer.join()


@pytest.mark.parametrize("source", [None, 3, [0.1], {}, (16_000, tone()), (tone(), 8_000, 1)])
def test_an_unknown_kind_of_source_is_a_type_error(source):
    with pytest.raises(TypeError, match="allowed: "):
        load_audio(source)


def test_a_text_mode_file_is_a_type_error():
    with pytest.raises(TypeError, match="open it as 'rb'"):
        load_audio(io.StringIO("RIFF"))


@pytest.mark.parametrize("rate", [None, 0, -16_000, 10**9, 999, 44_100.5, float("nan")])
def test_a_rate_that_cannot_be_is_a_value_error(rate):
    with pytest.raises(ValueError, match="sample_rate"):
        load_audio(tone(), sample_rate=rate)


def test_a_rate_beside_a_source_that_has_one_is_a_value_error():
    for source in (encoded(tone()), (tone(), 8_000)):
        with pytest.raises(ValueError, match="sample_rate is 8000"):
            load_audio(source, sample_rate=8_000)


def test_the_mix_is_the_mean_of_six_channels():
    channels = [tone(hertz=100.0 * (1 + c)) for c in range(6)]
    waveform = quiet(encoded(np.stack(channels, axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(waveform, np.mean(channels, axis=0), atol=1e-6)


@pytest.mark.parametrize(("channel", "index"), [("left", 0), ("right", 1), (0, 0), (1, 1)])
def test_one_channel_is_taken_as_it_is(channel, index):
    stereo = np.stack([tone(), -tone()])
    waveform = quiet(stereo, sample_rate=SAMPLE_RATE, channel=channel)
    np.testing.assert_allclose(waveform, stereo[index], atol=1e-6)


@pytest.mark.parametrize("channel", ["right", 1, 7])
def test_a_channel_that_is_not_there_is_an_error(channel):
    with pytest.raises(AudioError, match=f"channel is {channel!r}.* channels: 1"):
        load_audio(tone(), sample_rate=SAMPLE_RATE, channel=channel)


@pytest.mark.parametrize("channel", ["middle", -1, True, 1.0, None])
def test_a_channel_that_cannot_be_is_a_value_error(channel):
    with pytest.raises(ValueError, match=r"allowed: 'mix', 'left', 'right', 0, 1"):
        load_audio(tone(), sample_rate=SAMPLE_RATE, channel=channel)


def test_a_silent_channel_does_not_lower_the_speech():
    stereo = np.stack([np.full(SAMPLE_RATE, 0.2, np.float32), tone()])
    with pytest.warns(ChannelWarning, match=r"channels \[0\] are silent; only channels \[1\]"):
        waveform = load_audio(stereo, sample_rate=SAMPLE_RATE)
    np.testing.assert_allclose(waveform, tone(), atol=1e-6)


def test_a_channel_that_speaks_once_is_not_silent():
    stereo = np.zeros((2, 60 * SAMPLE_RATE), np.float32)
    stereo[0] = 0.1 * np.sin(np.arange(stereo.shape[1]) / 9)
    stereo[1, -SAMPLE_RATE:] = tone(hertz=1_000)
    np.testing.assert_allclose(quiet(stereo, sample_rate=SAMPLE_RATE), stereo.mean(0), atol=1e-6)


def test_channels_in_anti_phase_do_not_cancel():
    stereo = np.stack([tone(), -0.8 * tone() + 0.01])
    with pytest.warns(ChannelWarning, match=r"\[1\] are in anti-phase .* only channels \[0\]"):
        waveform = load_audio(stereo, sample_rate=SAMPLE_RATE)
    np.testing.assert_allclose(waveform, tone(), atol=1e-6)


def test_channels_that_are_all_silent_are_mixed_without_a_warning():
    assert not quiet(np.zeros((2, 1_000), np.float32), sample_rate=SAMPLE_RATE).any()


def test_floats_on_the_int16_scale_are_rescaled_with_a_warning():
    with pytest.warns(ScaleWarning, match="divided by 32768"):
        waveform = load_audio(encoded(tone() * 32_768, subtype="FLOAT"))
    np.testing.assert_allclose(waveform, tone(), atol=1e-6)


def test_a_loud_float_file_keeps_its_level():
    assert quiet(5 * tone(), sample_rate=SAMPLE_RATE).max() == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_counted_and_located(bad):
    samples = tone(seconds=3.0)
    samples[[17_000, 40_000]] = bad
    with pytest.raises(AudioError, match=r"2 samples .* first at index 17000 \(1\.062 s\)"):
        load_audio(encoded(samples, subtype="FLOAT"))


@pytest.mark.parametrize("peak", [1e5, 1e30, 1e300])
def test_a_peak_on_no_known_scale_is_an_error(peak):
    with pytest.raises(AudioError, match="allowed"):
        load_audio(np.array([0.0, peak, 0.0]), sample_rate=SAMPLE_RATE)


def test_a_dc_offset_is_kept_for_the_filterbank():
    waveform = quiet(tone() + np.float32(0.25), sample_rate=SAMPLE_RATE)
    np.testing.assert_allclose(waveform, tone() + 0.25, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, SAMPLE_RATE, 44_100])
@pytest.mark.parametrize("count", [0, 1])
def test_no_sample_and_one_sample_are_sounds(rate, count):
    samples = np.full(count, 0.1, np.float32)
    for source in ((samples, rate), encoded(samples, rate)):
        waveform = quiet(source)
        assert waveform.dtype == np.float32
        assert len(waveform) <= 2 * count
    assert len(quiet((samples, SAMPLE_RATE))) == count


def test_the_example_is_a_short_clear_clip():
    waveform = quiet(EXAMPLE)
    assert 3 < len(waveform) / SAMPLE_RATE < 5
    assert 0.5 < np.abs(waveform).max() < 1
    assert EXAMPLE.with_suffix(".txt").read_text().split()[:3] == ["the", "woman", "in"]


def test_a_file_of_no_bytes_is_empty_with_a_warning(tmp_path):
    path = tmp_path / "empty.wav"
    path.touch()
    with pytest.warns(TruncatedAudioWarning, match="empty.wav' is empty"):
        assert load_audio(path).shape == (0,)
