"""The recogniser keeps inputs, spans, batches, flags and times together.

Most tests put a stub in place of the network; the bundled test model shows that the network fits in
the same place.
"""

import io
import math
import warnings

import numpy as np
import pytest
import torch
from stubs import StubBundle, StubRecognise, sound, wav

import llmasr
from llmasr import api
from llmasr.api import Recognizer, bundled_models
from llmasr.audio import SAMPLE_RATE, AudioError, ChannelWarning, TruncatedAudioWarning
from llmasr.transcript import Transcript


@pytest.fixture
def stub(monkeypatch):
    recognise = StubRecognise()
    monkeypatch.setattr(api, "recognise", recognise)
    return recognise


@pytest.fixture
def recognizer(stub):
    return Recognizer(StubBundle(), name="stub")


def test_one_input_gives_a_transcript_with_text_words_and_times(recognizer):
    transcript = recognizer.transcribe(sound(0.25, 0.75))
    assert (transcript.text, transcript.status, transcript.finish_reason) == (
        "low high",
        "ok",
        "stop",
    )
    assert (transcript.language, transcript.model, transcript.duration) == ("en", "stub", 2.0)
    assert transcript.flags == ()
    low, high = transcript.words
    assert (low.text, low.start, low.end) == ("low", 0.0, 1.0)
    assert (high.text, high.start, high.end) == ("high", 1.0, 2.0)
    assert low.confidence == pytest.approx(math.exp(-0.5), abs=1e-4)


def test_a_list_gives_a_list_in_its_order(recognizer):
    inputs = [sound(0.25), sound(0.5, 0.5, 0.5), sound(0.75, 0.75)]
    texts = [transcript.text for transcript in recognizer.transcribe(inputs)]
    assert texts == ["low", "mid mid mid", "high high"]


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_many_inputs_come_in_any_container(recognizer, kind):
    inputs = [sound(0.25), sound(0.5), sound(0.75)]
    assert [t.text for t in recognizer.transcribe(kind(inputs))] == ["low", "mid", "high"]


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_no_inputs_give_no_transcripts(recognizer, kind):
    assert recognizer.transcribe(kind([])) == []


def test_samples_with_their_rate_are_one_input(recognizer):
    samples, rate = sound(0.5)
    assert recognizer.transcribe((samples, rate)).text == "mid"
    assert recognizer.transcribe((samples, np.int64(rate))).text == "mid"
    assert recognizer.transcribe(samples, sample_rate=rate).text == "mid"
    assert recognizer.transcribe(torch.from_numpy(samples), sample_rate=rate).text == "mid"


def test_a_pair_of_inputs_is_two(recognizer):
    assert len(recognizer.transcribe((sound(0.25), sound(0.5)))) == 2


def test_paths_bytes_and_file_objects_are_read(recognizer, tmp_path):
    content = wav(sound(0.5)[0])
    (tmp_path / "a.wav").write_bytes(content)
    inputs = [tmp_path / "a.wav", str(tmp_path / "a.wav"), content, io.BytesIO(content)]
    assert [recognizer.transcribe(item).text for item in inputs] == ["mid"] * 4
    assert [transcript.text for transcript in recognizer.transcribe(inputs)] == ["mid"] * 4


@pytest.mark.parametrize("batch_seconds", [0.5, 4.0, 1000.0])
def test_batches_bound_their_padded_seconds_and_change_no_text(recognizer, stub, batch_seconds):
    inputs = [sound(*[0.25 * (1 + n % 3)] * n) for n in (1, 5, 2, 3, 1, 25)]
    alone = [recognizer.transcribe(item).text for item in inputs]
    stub.batches.clear()
    together = recognizer.transcribe(inputs, batch_seconds=batch_seconds)
    assert [transcript.text for transcript in together] == alone
    for lengths in stub.batches:
        assert len(lengths) == 1 or max(lengths) * len(lengths) <= batch_seconds * SAMPLE_RATE


def test_batches_hold_inputs_of_similar_length(recognizer, stub):
    recognizer.transcribe([sound(*[0.5] * n) for n in (1, 8, 1, 8)], batch_seconds=16)
    assert [[length // SAMPLE_RATE for length in lengths] for lengths in stub.batches] == [
        [8, 8],
        [1, 1],
    ]


def test_inputs_are_read_as_they_are_needed(recognizer):
    read = []

    def inputs():
        for index in range(100):
            read.append(index)
            yield sound(0.5)

    transcripts = recognizer.transcribe_each(inputs(), batch_seconds=0.5)
    assert next(transcripts).text == "mid"
    assert len(read) < 20
    assert len(list(transcripts)) == 99


def test_long_audio_is_cut_and_times_go_on(recognizer, stub):
    transcript = recognizer.transcribe(sound(*[0.5] * 70))
    assert len(transcript.segments) > 3
    assert all(max(lengths) <= 20 * SAMPLE_RATE for lengths in stub.batches)
    assert transcript.segments[0].start == 0.0
    assert transcript.segments[-1].end == transcript.duration == 70.0
    edges = [edge for word in transcript.words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert edges[-1] == 70.0
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)


def test_a_batch_that_does_not_fit_in_memory_runs_in_parts(recognizer, stub, caplog):
    stub.most_rows = 2
    inputs = [sound(0.25), sound(0.5), sound(0.75), sound(0.25), sound(0.5)]
    texts = [transcript.text for transcript in recognizer.transcribe(inputs)]
    assert texts == ["low", "mid", "high", "low", "mid"]
    assert "did not fit in memory" in caplog.text


def test_one_span_that_does_not_fit_in_memory_is_an_error(recognizer, stub):
    stub.most_rows = 0
    with pytest.raises(torch.OutOfMemoryError):
        recognizer.transcribe(sound(0.5))


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_audio_without_a_single_frame_is_empty_and_not_recognised(recognizer, stub, samples):
    transcript = recognizer.transcribe(np.full(samples, 0.5, np.float32), sample_rate=SAMPLE_RATE)
    assert (transcript.text, transcript.status, transcript.segments) == ("", "empty", ())
    assert transcript.finish_reason == "silence"
    assert stub.batches == []


def test_silence_is_empty(recognizer):
    transcript = recognizer.transcribe(sound(0.0, 0.0))
    assert (transcript.text, transcript.status, transcript.flags) == ("", "empty", ("silence",))
    assert transcript.finish_reason == "silence"


def test_silence_beside_speech_is_no_news(recognizer):
    transcript = recognizer.transcribe(sound(*[0.5] * 20, *[0.0] * 40))
    assert (transcript.status, transcript.flags) == ("ok", ())
    assert len(transcript.segments) < 3


def test_reaching_the_bound_of_tokens_is_told(recognizer, stub):
    stub.finish_reason = "length"
    transcript = recognizer.transcribe(sound(0.5))
    assert (transcript.text, transcript.status) == ("mid", "truncated")
    assert (transcript.finish_reason, transcript.flags) == ("length", ("length",))


def test_a_truncated_file_is_told_and_its_beginning_recognised(recognizer):
    content = wav(sound(0.5, 0.5, 0.5)[0])
    with pytest.warns(TruncatedAudioWarning):
        transcript = recognizer.transcribe(content[: len(content) // 2])
    assert (transcript.status, transcript.flags) == ("truncated", ("audio_truncated",))
    assert transcript.text.startswith("mid")


def test_an_empty_file_is_truncated_and_has_no_words(recognizer):
    with pytest.warns(TruncatedAudioWarning):
        transcript = recognizer.transcribe(b"")
    assert (transcript.text, transcript.status) == ("", "truncated")


def test_channels_that_differ_are_told(recognizer):
    left = np.tile(np.array([0.5, -0.5], np.float32), SAMPLE_RATE // 2)
    stereo = (np.stack([left, np.zeros_like(left)]), SAMPLE_RATE)
    with pytest.warns(ChannelWarning):
        transcript = recognizer.transcribe(stereo)
    assert (transcript.status, transcript.flags) == ("ok", ("channels_differ",))
    assert recognizer.transcribe(stereo, channel="right").status == "empty"
    assert recognizer.transcribe(stereo, channel=0).flags == ()


@pytest.mark.parametrize(
    "bad",
    ["missing.wav", b"no sound at all", (np.full(1000, np.nan), SAMPLE_RATE)],
    ids=["missing", "corrupt", "nan"],
)
def test_bad_input_raises_alone_and_fails_in_a_list(recognizer, bad):
    with pytest.raises(AudioError):
        recognizer.transcribe(bad)
    first, failed, last = recognizer.transcribe([sound(0.25), bad, sound(0.75)])
    assert (first.text, last.text) == ("low", "high")
    assert (failed.status, failed.text, failed.finish_reason) == ("failed", "", None)
    assert failed.error


def test_warnings_are_errors_if_the_caller_says_so(recognizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TruncatedAudioWarning):
            recognizer.transcribe(b"")


def test_work_on_a_batch_is_shared_by_seconds(recognizer):
    one, three = recognizer.transcribe([sound(0.5), sound(0.5, 0.5, 0.5)])
    assert set(one.timings) == {"load", "acoustic", "language_model"}
    assert one.timings["acoustic"] == pytest.approx(0.5)
    assert three.timings["acoustic"] == pytest.approx(1.5)


def test_progress_counts_seconds_up_to_all(recognizer):
    calls = []
    inputs = [sound(0.5), sound(0.5, 0.5), "missing.wav"]
    recognizer.transcribe(inputs, batch_seconds=1, on_progress=lambda *call: calls.append(call))
    assert calls == [(2.0, 3.0), (3.0, 3.0)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "zh"}, r"language is 'zh'.*en"),
        ({"batch_seconds": 0}, r"batch_seconds is 0"),
        ({"batch_seconds": float("nan")}, r"batch_seconds is nan"),
        ({"channel": "middle"}, r"channel is 'middle'"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(recognizer, options, message):
    for audio in (sound(0.5), [sound(0.5)]):
        with pytest.raises(ValueError, match=message):
            recognizer.transcribe(audio, **options)


def test_an_unknown_option_is_named(recognizer):
    with pytest.raises(TypeError, match="hotword"):
        recognizer.transcribe(sound(0.5), hotword="x")


def test_the_language_is_the_one_given_or_the_only_one(stub):
    recognizer = Recognizer(StubBundle(("en", "zh")))
    assert recognizer.transcribe(sound(0.5)).language is None
    assert recognizer.transcribe(sound(0.5), language="zh").language == "zh"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_folder": "huge-en"}, r"model is 'huge-en'.*tiny-test"),
        ({"device": "abacus"}, r"device is 'abacus'.*auto"),
        ({"dtype": "int4"}, r"dtype is 'int4'.*float32, bfloat16, float16"),
        ({"dtype": torch.int8}, r"dtype is 'int8'"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_what_can(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recognizer.from_pretrained(**{"name_or_folder": "tiny-test"} | arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no GPU"):
        Recognizer.from_pretrained("tiny-test", device="cuda")


@pytest.fixture(scope="module")
def tiny():
    return Recognizer.from_pretrained("tiny-test", device="cpu")


def clips() -> list[tuple[np.ndarray, int]]:
    """Make noise in syllables, of several lengths, which a random model takes for words."""
    generator = np.random.default_rng(0)
    lengths = (8_000, 31_999, 400, 16_001)
    noises = [generator.standard_normal(length).astype(np.float32) for length in lengths]
    return [
        (0.1 * noise * np.abs(np.sin(np.arange(len(noise)) / 2000)).astype(np.float32), 16_000)
        for noise in noises
    ]


def test_the_test_model_gives_the_same_alone_and_in_a_batch(tiny):
    together = tiny.transcribe(clips())
    alone = [tiny.transcribe(clip) for clip in clips()]
    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.status, one.flags) == (other.text, other.status, other.flags)
        assert [(w.text, w.start, w.end) for w in one.words] == [
            (w.text, w.start, w.end) for w in other.words
        ]


def test_the_test_model_survives_saving(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "copy")
    copy = Recognizer.from_pretrained(tmp_path / "copy", device="cpu")
    texts = [transcript.text for transcript in tiny.transcribe(clips())]
    assert [transcript.text for transcript in copy.transcribe(clips())] == texts


def test_the_test_model_runs_in_half_precision():
    recognizer = Recognizer.from_pretrained("tiny-test", device="cpu", dtype="bfloat16")
    assert recognizer.bundle.model.language_model.dtype == torch.bfloat16
    assert recognizer.bundle.model.speech.token_head.weight.dtype == torch.float32
    assert all(isinstance(transcript, Transcript) for transcript in recognizer.transcribe(clips()))


def test_the_public_function_keeps_the_model_loaded(monkeypatch):
    loads = []
    original = api.load_pretrained
    monkeypatch.setattr(api, "load_pretrained", lambda path: loads.append(path) or original(path))
    api._loaded.cache_clear()
    for _ in range(2):
        transcript = llmasr.transcribe(clips()[0], model="tiny-test", device="cpu")
        assert transcript.model == "tiny-test"
    assert len(loads) == 1


def test_bundled_models_are_listed():
    assert "tiny-test" in bundled_models()
