"""What is missing from a file is said; what is no audio is an error; nothing is invented."""

import io
import os
import socket
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile

from llmasr.audio import SAMPLE_RATE, AudioError, TruncatedAudioWarning, load_audio

NOISE = np.random.default_rng(0).normal(0, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
TEXT = b"the woman in the red dress is walking to school with her friend\n" * 300


def encoded(name: str, subtype: str | None = None) -> bytes:
    """Four seconds of noise."""
    file = io.BytesIO()
    soundfile.write(file, NOISE, SAMPLE_RATE, format=name, subtype=subtype)
    return file.getvalue()


def media(container: str, codec: str, **options: str) -> bytes:
    """Four seconds of noise, encoded by FFmpeg."""
    av = pytest.importorskip("av", reason="the media extra is not installed")
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.tile(NOISE, 3)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return file.getvalue()


def quiet(source) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_audio(source)


def without_lengths(wav: bytes, riff: int, data: int) -> bytes:
    """A WAV as a program writes it that cannot seek back to fill in the lengths."""
    return wav[:4] + struct.pack("<I", riff) + wav[8:40] + struct.pack("<I", data) + wav[44:]


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        *(("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM")),
        *((name, "PCM_16") for name in ("AIFF", "AU", "FLAC", "MAT4", "RF64", "SVX", "VOC")),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
    ],
)
def test_the_first_part_of_a_cut_file_is_read_with_a_warning(name, subtype):
    content = encoded(name, subtype)
    whole = quiet(content)
    with pytest.warns(TruncatedAudioWarning, match="cut short"):
        part = load_audio(content[: len(content) * 6 // 10])
    assert 1.5 < len(part) / SAMPLE_RATE < 3.0
    # Decoders may invent the last packet; what lies before is the same sound.
    sure = len(part) - SAMPLE_RATE // 10
    np.testing.assert_allclose(part[:sure], whole[:sure], atol=1e-3)


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
        ("matroska", "aac", {}),
        ("webm", "libopus", {}),
    ],
)
def test_the_first_part_of_a_cut_media_file_is_read_with_a_warning(container, codec, options):
    content = media(container, codec, **options)
    assert abs(len(quiet(content)) / SAMPLE_RATE - 4) < 0.1
    with pytest.warns(TruncatedAudioWarning, match="cut short"):
        part = load_audio(content[: len(content) // 2])
    assert 1.5 < len(part) / SAMPLE_RATE < 2.5


def test_packets_that_cannot_be_decoded_are_counted():
    content = bytearray(media("mp4", "aac"))
    middle = len(content) // 2
    content[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    with pytest.warns(TruncatedAudioWarning, match=r"[1-9] packets cannot be decoded"):
        waveform = load_audio(bytes(content))
    assert 3.7 < len(waveform) / SAMPLE_RATE < 4.1


def test_a_flac_with_a_damaged_middle_gives_what_lies_before():
    content = bytearray(encoded("FLAC", "PCM_16"))
    middle = len(content) // 2
    content[middle : middle + 20] = b"\xff" * 20
    with pytest.warns(TruncatedAudioWarning, match=r"fails after [12]\.\d\d s"):
        waveform = load_audio(bytes(content))
    assert SAMPLE_RATE < len(waveform) < 2.1 * SAMPLE_RATE
    np.testing.assert_allclose(waveform, NOISE[: len(waveform)], atol=1e-4)


def test_a_film_without_its_index_cannot_be_decoded():
    content = media("mp4", "aac")
    with pytest.raises(AudioError, match="FFmpeg says"):
        load_audio(content[: len(content) // 2])


@pytest.mark.parametrize("size", [1, 20, 44])
def test_a_piece_of_a_header_cannot_be_decoded(size):
    with pytest.raises(AudioError, match="cannot decode audio of"):
        load_audio(encoded("WAV")[:size])


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x7FFFFFFF, 0x7FFFFFFF - 36),
        (0x7FFFF024, 0x7FFFF000),
        (0x80000024, 0x80000000),
        (0, 0),
        (36, 0),
        (0xFFFFFFFF, 0),
    ],
)
def test_a_wav_from_a_pipe_is_whole(riff, data):
    waveform = quiet(without_lengths(encoded("WAV", "PCM_16"), riff, data))
    np.testing.assert_allclose(waveform, NOISE, atol=1e-4)


def test_tags_behind_an_empty_wav_are_not_audio():
    empty = io.BytesIO()
    soundfile.write(empty, NOISE[:0], SAMPLE_RATE, format="WAV")
    content = empty.getvalue()[:44] + b"LIST" + struct.pack("<I", len(TEXT)) + TEXT
    content = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
    assert quiet(content).shape == (0,)


def test_a_flac_from_a_pipe_is_whole():
    content = bytearray(encoded("FLAC", "PCM_16"))
    # The last 36 bits before the MD5 sum count the samples; 0 is unknown.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    pytest.importorskip("av", reason="the media extra is not installed")
    np.testing.assert_allclose(quiet(bytes(content)), NOISE, atol=1e-4)


def test_a_flac_from_a_pipe_is_whole_without_ffmpeg(monkeypatch):
    content = bytearray(encoded("FLAC", "PCM_16"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    monkeypatch.setitem(sys.modules, "av", None)
    waveform = quiet(bytes(content))
    assert len(NOISE) - 64 <= len(waveform) <= len(NOISE)
    np.testing.assert_allclose(waveform, NOISE[: len(waveform)], atol=1e-4)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "au", "gsm", "vox", "raw", "txt"])
@pytest.mark.parametrize(
    "content",
    [TEXT, bytes(50_000), np.random.default_rng(1).bytes(100_000), b"<html>404</html>" * 99],
    ids=["text", "zeros", "random", "html"],
)
def test_what_is_no_audio_is_an_error_whatever_its_name(tmp_path, suffix, content):
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=rf"clip\.{suffix}'.*accepted is what libsndfile reads"):
        load_audio(path)


def test_a_playlist_does_not_open_other_files(tmp_path, monkeypatch):
    (tmp_path / "secret.wav").write_bytes(encoded("WAV"))
    (tmp_path / "list.wav").write_bytes(b"ffconcat version 1.0\nfile secret.wav\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match="cannot decode"):
        load_audio("list.wav")


def test_a_path_that_is_not_there_is_an_error():
    with pytest.raises(AudioError, match=r"cannot open 'nowhere\.wav': No such file"):
        load_audio("nowhere.wav")


def test_a_path_with_a_null_byte_is_an_error():
    with pytest.raises(AudioError, match="null byte"):
        load_audio("a\0b.wav")


def test_a_directory_is_an_error(tmp_path):
    with pytest.raises(AudioError, match="is a directory"):
        load_audio(tmp_path)


def test_a_file_without_permission_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "mine.wav"
    path.write_bytes(encoded("WAV"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything
        monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(AudioError, match=r"cannot open '.*mine\.wav': Permission denied"):
        load_audio(path)


def forbidden(path, *_):
    raise PermissionError(13, "Permission denied", path)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_an_error(path):
    with pytest.raises(AudioError, match="device or socket"):
        load_audio(path)


def test_a_socket_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        with pytest.raises(AudioError, match="device or socket"):
            load_audio("socket.wav")


def test_a_closed_file_is_an_error():
    file = io.BytesIO(encoded("WAV"))
    file.close()
    with pytest.raises(AudioError, match="closed file"):
        load_audio(file)


def test_a_pipe_as_file_object_is_read_from_where_it_stands():
    code = "import sys; sys.stdout.buffer.write(b'??' + sys.stdin.buffer.read())"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encoded("OGG", "OPUS"))
        process.stdin.close()
        assert process.stdout.read(2) == b"??"
        assert len(quiet(process.stdout)) == len(NOISE)


def test_a_header_with_an_impossible_rate_is_an_error():
    content = bytearray(encoded("WAV", "PCM_16"))
    content[24:28] = struct.pack("<I", 1)
    with pytest.raises(AudioError, match="has sample_rate 1; allowed"):
        load_audio(bytes(content))


def test_a_warning_points_at_the_caller():
    content = encoded("WAV", "PCM_16")
    with pytest.warns(TruncatedAudioWarning) as caught:
        load_audio(content[:5_000])
    assert caught[0].filename == __file__


def test_files_are_closed_after_errors_too(tmp_path):
    path = tmp_path / "clip.wav"
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for content in (TEXT, encoded("WAV")[:44], encoded("FLAC")):
        path.write_bytes(content)
        try:
            load_audio(path)
        except AudioError:
            continue
    if before is None:
        pytest.skip("this system has no /proc to count open files")
    assert len(os.listdir("/proc/self/fd")) == before
