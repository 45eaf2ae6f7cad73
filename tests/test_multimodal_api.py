"""Pictures and videos beside speech, and questions about them, through the public interface.

The model is tiny and random: what it writes means nothing, but must not depend on what else is in
a batch, nor on how an answer is searched, and must say what it was made from.
"""

import io
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_sight import VISION, build, noise, picture, video

from llmasr import Recognizer, SearchOptions, Transcript
from llmasr.audio import SAMPLE_RATE, AudioError
from llmasr.config import PromptConfig
from llmasr.decoding import answers
from llmasr.decoding.batching import cut, read
from llmasr.decoding.greedy import Decoding, draft_source, recognise, write
from llmasr.decoding.sight import Sight, look
from llmasr.importers.attach import attach_language_model
from llmasr.media import DamagedVideoWarning, MediaError, images, load_image
from llmasr.models.checkpoint import Bundle, load_pretrained, save_pretrained
from llmasr.models.xllm import XLLM
from llmasr.prompts import lay_out

Image = pytest.importorskip("PIL.Image", reason="the media extra is not installed")
av = pytest.importorskip("av", reason="the media extra is not installed")

GOLDEN = Path(__file__).parent / "golden"
CLIPS = [noise(seconds, seed) for seed, seconds in enumerate((1.0, 2.3, 0.6, 1.7, 1.2))]
SILENCE = (np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
QUESTION = "what is it"


@pytest.fixture(scope="module")
def bundle():
    return build()


@pytest.fixture(scope="module")
def recognizer(bundle):
    return Recognizer(bundle, name="tiny-sight")


@pytest.fixture(scope="module")
def deaf_blind():
    return Recognizer.from_pretrained("tiny-test", device="cpu")


def essence(transcript: Transcript) -> tuple:
    """Return all of a transcript but what took how long."""
    words = [(word.text, word.start, word.end) for word in transcript.words]
    return (
        transcript.text, transcript.status, transcript.finish_reason, transcript.flags,
        transcript.context, transcript.error, words,
    )  # fmt: skip


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# Transcripts


def test_a_transcript_says_what_was_looked_at(recognizer):
    contexts = [
        recognizer.transcribe(CLIPS[0], image=image, video=film).context
        for image, film in [(None, None), (picture(), None), (None, video()), (picture(), video())]
    ]
    assert contexts == [(), ("image",), ("video",), ("image", "video")]


def test_the_context_survives_json(recognizer):
    transcript = recognizer.transcribe(CLIPS[0], image=picture(), video=video())
    values = json.loads(json.dumps(transcript.to_dict()))
    assert values["context"] == ["image", "video"]
    assert Transcript.from_dict(values) == transcript


def test_pictures_and_videos_change_what_is_written(recognizer):
    shown = [{}, {"image": picture(0)}, {"image": picture(1)}, {"video": video()}]
    texts = {recognizer.transcribe(CLIPS[1], **sight).text for sight in shown}
    assert len(texts) == len(shown)


def test_a_batch_of_inputs_with_and_without_pictures_gives_what_each_gives_alone(recognizer):
    shown = [picture(0), None, None, picture(1), None]
    films = [None, video(0), None, video(1), None]
    together = recognizer.transcribe(CLIPS, image=shown, video=films)
    alone = [
        recognizer.transcribe(clip, image=image, video=film)
        for clip, image, film in zip(CLIPS, shown, films, strict=True)
    ]
    assert [*map(essence, together)] == [*map(essence, alone)]
    assert [transcript.context for transcript in together] == [
        ("image",), ("video",), (), ("image", "video"), (),
    ]  # fmt: skip


def test_small_batches_give_what_one_large_batch_gives(recognizer):
    shown = [picture(seed) for seed in range(len(CLIPS))]
    large, small = (
        recognizer.transcribe(CLIPS, image=shown, batch_seconds=seconds) for seconds in (120, 2)
    )
    assert [*map(essence, large)] == [*map(essence, small)]


def test_one_picture_is_for_all_inputs_and_is_looked_at_once(recognizer, monkeypatch):
    calls = []
    interface = recognizer.bundle.model.image
    forward = interface.forward
    monkeypatch.setattr(interface, "forward", lambda pixels: calls.append(1) or forward(pixels))
    together = recognizer.transcribe(CLIPS, image=io.BytesIO(png(picture())))
    assert len(calls) == 1
    alone = [recognizer.transcribe(clip, image=picture()) for clip in CLIPS]
    assert [*map(essence, together)] == [*map(essence, alone)]


def test_a_video_for_all_and_pictures_for_some_are_read_in_their_usual_order(recognizer):
    together = recognizer.transcribe(CLIPS[:2], image=[picture(), None], video=video())
    alone = [
        recognizer.transcribe(CLIPS[0], image=picture(), video=video()),
        recognizer.transcribe(CLIPS[1], video=video()),
    ]
    assert [*map(essence, together)] == [*map(essence, alone)]


def test_the_spans_of_a_long_input_all_use_the_picture(recognizer, monkeypatch):
    seen = []
    original = recognizer._hear

    def hear(batch, how):
        seen.extend(piece.seen["image"] for piece in batch)
        return original(batch, how)

    monkeypatch.setattr(recognizer, "_hear", hear)
    transcript = recognizer.transcribe(noise(45), image=picture())
    assert len(transcript.segments) == len(seen) > 2
    expected = look(recognizer.bundle.model, Sight(picture()), recognizer.device).vectors["image"]
    assert all(torch.equal(vectors, expected) for vectors in seen)
    assert transcript.context == ("image",)


def test_silence_with_a_picture_stays_empty_and_the_language_model_is_not_asked(recognizer):
    alone = recognizer.transcribe(SILENCE, image=picture())
    assert (alone.text, alone.status, alone.llm_forwards) == ("", "empty", 0)
    assert alone.context == ("image",)
    spoken, silent = recognizer.transcribe([CLIPS[0], SILENCE], image=picture())
    assert spoken.llm_forwards > 0
    assert essence(silent) == essence(alone)


def test_drafts_change_no_answer_with_pictures(bundle):
    seen = [
        look(bundle.model, sight, torch.device("cpu")).vectors
        for sight in (Sight(picture()), Sight(), Sight(picture(1), video()))
    ]
    waveforms = torch.zeros(3, 2 * SAMPLE_RATE)
    lengths = torch.tensor([SAMPLE_RATE, 2 * SAMPLE_RATE, 20_000])
    for row, length in zip(waveforms, lengths.tolist(), strict=True):
        row[:length] = torch.from_numpy(noise(2.0)[0][:length])
    how = Decoding(draft=draft_source(bundle))
    fast, plain = (
        recognise(bundle.model, waveforms, lengths, how, seen=seen, search=search)
        for search in (None, write)
    )
    assert [row.token_ids for row in fast] == [row.token_ids for row in plain]


def test_the_prompt_for_speech_with_a_picture_is_used_and_reported(bundle):
    told = PromptConfig("write", tasks={"transcribe_with_image": "look and write"})
    model = with_prompt(bundle, told)
    recognizer = Recognizer(model)
    usual = recognizer.transcribe(CLIPS[1], image=picture())
    assert "prompt_changed" not in usual.flags
    same = recognizer.transcribe(CLIPS[1], image=picture(), instruction="look and write")
    assert essence(same) == essence(usual)
    assert same.text != Recognizer(bundle).transcribe(CLIPS[1], image=picture()).text
    changed, blind = recognizer.transcribe(CLIPS[1:3], image=[picture(), None], instruction="write")
    assert "prompt_changed" in changed.flags
    assert "prompt_changed" not in blind.flags


def with_prompt(bundle: Bundle, prompt: PromptConfig) -> Bundle:
    """Return the model as if it had been trained with another prompt."""
    config = replace(bundle.model.config, prompt=prompt)
    ids = lay_out(bundle.tokenizer, prompt.instruction)
    model = XLLM(dict(bundle.model.interfaces), bundle.model.language_model, ids, config)
    model.boundaries = bundle.model.boundaries
    return Bundle(model, bundle.tokenizer)


def test_pictures_are_seen_in_half_precision(tmp_path, bundle):
    save_pretrained(bundle, tmp_path / "model")
    recognizer = Recognizer.from_pretrained(tmp_path / "model", device="cpu", dtype="bfloat16")
    first, second = recognizer.transcribe(CLIPS[:2], image=[picture(), None])
    assert (first.context, second.context) == (("image",), ())
    assert recognizer.answer(QUESTION, video=video(), max_new_tokens=4).context == ("video",)
    assert recognizer.bundle.model.image.queries.dtype == torch.float32


def test_beams_and_samples_look_at_pictures(recognizer):
    for search in (SearchOptions(beam_size=2), SearchOptions(temperature=1.0, seed=3)):
        both = recognizer.transcribe(CLIPS[:2], image=[picture(), None], search=search)
        alone = recognizer.transcribe(CLIPS[0], image=picture(), search=search)
        assert essence(both[0]) == essence(alone)


# Wrong pictures and videos


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def sound_only(*, has_track: bool = False) -> bytes:
    """Make a file with sound, and perhaps a video track without frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        if has_track:
            film = container.add_stream("ffv1", rate=8)
            film.width, film.height, film.pix_fmt = 48, 32, "yuv444p"
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        samples = (noise(0.5)[0] * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
    return file.getvalue()


BAD = {
    "text": ("image", lambda: b"this is no picture", "no picture that can be read"),
    "empty": ("image", lambda: b"", "is empty"),
    "animated": ("image", animated, "is animated"),
    "truncated": ("image", lambda: png(picture())[:60], "truncated or damaged"),
    "sound_only": ("video", sound_only, "has no video track"),
    "no_frames": ("video", lambda: sound_only(has_track=True), "no frame that can be decoded"),
    "corrupt": ("video", lambda: b"\x1a\x45\xdf\xa3" + b"rubbish" * 99, "no video that can be"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_seen_is_named_and_fails_alone(recognizer, tmp_path, case):
    modality, make, message = BAD[case]
    path = tmp_path / f"{case}.bin"
    path.write_bytes(make())
    with pytest.raises(MediaError, match=message) as raised:
        recognizer.transcribe(CLIPS[0], **{modality: path})
    assert path.name in str(raised.value)
    with pytest.raises(MediaError, match=message):
        recognizer.answer(QUESTION, **{modality: path})
    good = picture() if modality == "image" else video()
    first, failed, last = recognizer.transcribe(CLIPS[:3], **{modality: [good, path, None]})
    assert (failed.status, failed.text, failed.context) == ("failed", "", ())
    assert path.name in failed.error
    assert "accepted is" in failed.error
    assert essence(first) == essence(recognizer.transcribe(CLIPS[0], **{modality: good}))
    assert essence(last) == essence(recognizer.transcribe(CLIPS[2]))
    answers = recognizer.answer([QUESTION] * 3, max_new_tokens=4, **{modality: [good, path, None]})
    assert [answer.status == "failed" for answer in answers] == [False, True, False]
    assert path.name in answers[1].error


def test_a_picture_of_too_many_pixels_is_named(recognizer, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    path = tmp_path / "huge.png"
    path.write_bytes(png(picture()))
    with pytest.raises(MediaError, match=r"huge\.png.* has 48 x 32 pixels; allowed: 1 to 100"):
        recognizer.transcribe(CLIPS[0], image=path)
    failed, fine = recognizer.transcribe(CLIPS[:2], image=[path, None])
    assert (failed.status, fine.status != "failed") == ("failed", True)


def test_a_missing_picture_is_named(recognizer):
    with pytest.raises(MediaError, match=r"cannot open 'nowhere\.png'"):
        recognizer.transcribe(CLIPS[0], image="nowhere.png")


def test_a_picture_for_all_that_cannot_be_read_raises_before_any_work(recognizer):
    read = []

    def clips():
        read.append(1)
        yield CLIPS[0]

    with pytest.raises(MediaError, match=r"nowhere\.png"):
        recognizer.transcribe_each(clips(), image="nowhere.png")
    assert not read


def test_bad_audio_with_a_good_picture_fails_alone(recognizer):
    with pytest.raises(AudioError):
        recognizer.transcribe(b"no sound", image=picture())
    failed, fine = recognizer.transcribe([b"no sound", CLIPS[0]], image=picture())
    assert failed.status == "failed"
    assert essence(fine) == essence(recognizer.transcribe(CLIPS[0], image=picture()))


def test_a_damaged_video_is_warned_of_and_flagged(recognizer):
    content = video(num_frames=24)
    with pytest.warns(DamagedVideoWarning):
        transcript = recognizer.transcribe(CLIPS[0], video=content[: len(content) * 2 // 3])
    assert "video_damaged" in transcript.flags
    assert transcript.context == ("video",)


@pytest.mark.parametrize("modality", ["image", "video"])
def test_a_model_without_interface_names_the_file_and_what_it_takes(deaf_blind, modality):
    message = rf"{modality} is 'a\.bin', but this model has no {modality} interface.*: speech"
    with pytest.raises(MediaError, match=message):
        deaf_blind.transcribe(CLIPS[0], **{modality: "a.bin"})
    with pytest.raises(MediaError, match=message):
        deaf_blind.transcribe(CLIPS, **{modality: "a.bin"})
    with pytest.raises(MediaError, match=message):
        deaf_blind.answer(QUESTION, **{modality: "a.bin"})
    failed, fine = deaf_blind.transcribe(CLIPS[:2], **{modality: ["a.bin", None]})
    assert failed.error.startswith(f"{modality} is 'a.bin'")
    assert essence(fine) == essence(deaf_blind.transcribe(CLIPS[1]))


@pytest.mark.parametrize("name", ["image", "video"])
def test_lists_of_another_length_are_refused_at_once(recognizer, name):
    with pytest.raises(ValueError, match=rf"{name} is a list of 2; allowed: one for each of 3"):
        recognizer.transcribe(CLIPS[:3], **{name: [None, None]})
    with pytest.raises(ValueError, match=rf"{name} is a list of 3; allowed: one for each of 2"):
        recognizer.answer([QUESTION] * 2, **{name: [None] * 3})


@pytest.mark.parametrize("count", [2, 4])
def test_lists_of_another_length_than_a_stream_are_refused_when_it_shows(recognizer, count):
    with pytest.raises(ValueError, match=rf"image is a list of {count}; allowed: one for each"):
        recognizer.transcribe(iter(CLIPS[:3]), image=[None] * count)


def test_a_list_of_pictures_for_one_input_is_refused(recognizer):
    with pytest.raises(TypeError, match="image is a list"):
        recognizer.transcribe(CLIPS[0], image=[picture()])


# Answers


def test_an_answer_says_what_it_is_about(recognizer):
    about = [
        ({}, ()),
        ({"image": picture()}, ("image",)),
        ({"video": video()}, ("video",)),
        ({"audio": CLIPS[0]}, ("speech",)),
        ({"image": picture(), "video": video(), "audio": CLIPS[0]}, ("image", "video", "speech")),
    ]
    for given, context in about:
        reply = recognizer.answer(QUESTION, max_new_tokens=4, **given)
        assert reply.context == context
        assert reply.status in ("ok", "empty", "truncated")
        assert reply.model == "tiny-sight"
        assert reply.confidence is None or 0 <= reply.confidence <= 1
        values = json.loads(json.dumps(reply.to_dict()))
        assert values["context"] == list(context)


def test_what_is_asked_shown_said_and_asked_before_changes_an_answer(recognizer):
    variants = [
        {"question": QUESTION},
        {"question": "who was there"},
        {"question": QUESTION, "image": picture(0)},
        {"question": QUESTION, "image": picture(1)},
        {"question": QUESTION, "audio": CLIPS[0]},
        {"question": QUESTION, "history": [("who is it", "a bear")]},
        {"question": QUESTION, "history": [("who is it", "a pear")]},
    ]
    texts = [recognizer.answer(max_new_tokens=12, **given).text for given in variants]
    assert len(set(texts)) == len(texts)


def test_a_list_of_questions_gives_what_each_gives_alone(recognizer):
    count = 20
    questions = [f"{QUESTION} {'now ' * (n % 4)}" for n in range(count)]
    shown = [picture(n) if n % 3 else None for n in range(count)]
    spoken = [CLIPS[n % 5] if n % 4 == 0 else None for n in range(count)]
    history = [[("who is it", "a bear")] * (n % 3) for n in range(count)]
    together = recognizer.answer(
        questions, image=shown, audio=spoken, history=history, max_new_tokens=6
    )
    for place in range(count):
        alone = recognizer.answer(
            questions[place], image=shown[place], audio=spoken[place], history=history[place],
            max_new_tokens=6,
        )  # fmt: skip
        found = together[place]
        assert (found.text, found.status, found.context) == (
            alone.text, alone.status, alone.context,
        )  # fmt: skip


def test_no_questions_give_no_answers(recognizer):
    assert recognizer.answer([]) == []


def test_one_picture_and_one_sound_are_for_all_questions(recognizer):
    questions = [QUESTION, "who was there"]
    together = recognizer.answer(questions, image=picture(), audio=CLIPS[0], max_new_tokens=6)
    alone = [
        recognizer.answer(text, image=picture(), audio=CLIPS[0], max_new_tokens=6)
        for text in questions
    ]
    assert [reply.text for reply in together] == [reply.text for reply in alone]


def test_silent_audio_is_left_out_and_told(recognizer):
    reply = recognizer.answer(QUESTION, image=picture(), audio=SILENCE, max_new_tokens=6)
    assert reply.context == ("image",)
    assert reply.flags == ("silence",)
    assert reply.text == recognizer.answer(QUESTION, image=picture(), max_new_tokens=6).text


def test_long_audio_is_heard_span_after_span(recognizer, monkeypatch):
    samples = np.concatenate([noise(15, 1)[0], noise(3, 2)[0], noise(15, 3)[0]])
    device = recognizer.device
    recording = read((samples, SAMPLE_RATE), channel="mix", sample_rate=None)
    together = answers.listen(recognizer.bundle, recording, device).vectors["speech"]
    pieces = cut([recording])
    assert len(pieces) > 1
    alone = [
        answers.listen(recognizer.bundle, recording._replace(waveform=piece.waveform), device)
        for piece in pieces
    ]
    torch.testing.assert_close(together, torch.cat([part.vectors["speech"] for part in alone]))
    monkeypatch.setattr(answers, "LISTEN_SECONDS", 1.0)
    one_by_one = answers.listen(recognizer.bundle, recording, device).vectors["speech"]
    torch.testing.assert_close(one_by_one, together)


def test_bad_audio_of_a_question_raises_alone_and_fails_in_a_list(recognizer):
    with pytest.raises(AudioError):
        recognizer.answer(QUESTION, audio=b"no sound")
    failed, fine = recognizer.answer(
        [QUESTION] * 2, audio=[b"no sound", CLIPS[0]], max_new_tokens=4
    )
    assert (failed.status, failed.finish_reason, failed.text) == ("failed", None, "")
    assert fine.context == ("speech",)


def test_a_prompt_that_is_too_long_raises_alone_and_fails_in_a_list(recognizer):
    message = "the language model reads at most 2048"
    with pytest.raises(ValueError, match=message):
        recognizer.answer(QUESTION, max_new_tokens=2048)
    long = "and " * 3000
    fine, failed = recognizer.answer([QUESTION, long], image=picture(), max_new_tokens=4)
    assert message in failed.error
    assert failed.status == "failed"
    assert fine.text == recognizer.answer(QUESTION, image=picture(), max_new_tokens=4).text


def test_an_answer_at_its_bound_is_truncated(recognizer):
    reply = recognizer.answer(QUESTION, max_new_tokens=2)
    assert (reply.status, reply.finish_reason) == ("truncated", "length")


def test_samples_come_from_their_seed_alone(recognizer):
    def sampled(seed: int, questions=QUESTION):
        search = SearchOptions(temperature=1.0, seed=seed)
        return recognizer.answer(questions, image=picture(), max_new_tokens=8, search=search)

    assert sampled(1).text == sampled(1).text
    assert sampled(1).text != sampled(2).text
    assert sampled(1, ["who was there", QUESTION])[1].text == sampled(1).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"history": ["who is it"]}, r"history has 'who is it'; allowed: \(question, answer\)"),
        ({"history": [("who is it",)]}, r"history has \('who is it',\)"),
        ({"history": [("who is it", 7)]}, r"history has \('who is it', 7\)"),
    ],
)
def test_an_option_of_an_answer_that_is_not_allowed_is_named(recognizer, options, message):
    with pytest.raises(ValueError, match=message):
        recognizer.answer(QUESTION, **options)


def test_there_is_one_history_for_each_question(recognizer):
    with pytest.raises(ValueError, match="history is a list of 1; allowed: one for each of 2"):
        recognizer.answer([QUESTION] * 2, history=[("who is it", "a bear")])


# Folders


def test_a_saved_model_sees_the_same(bundle, tmp_path):
    save_pretrained(bundle, tmp_path / "model", dtype=torch.float32)
    again = Recognizer.from_pretrained(tmp_path / "model", device="cpu")
    assert again.bundle.model.config == bundle.model.config
    assert again.bundle.model.image.trunk is again.bundle.model.video.trunk
    shown = {"image": [picture(), None], "video": [None, video()]}
    before = Recognizer(bundle).transcribe(CLIPS[:2], **shown)
    after = again.transcribe(CLIPS[:2], **shown)
    assert [t.text for t in after] == [t.text for t in before]


def test_what_image_and_video_share_is_stored_once(bundle, tmp_path):
    save_pretrained(bundle, tmp_path / "model")
    names = load_file(tmp_path / "model/model.safetensors").keys()
    assert any(name.startswith("interfaces.image.trunk.vit.") for name in names)
    assert not any(name.startswith("interfaces.video.trunk.") for name in names)
    assert {"interfaces.video.queries", "boundaries.image", "boundaries.video"} <= set(names)


@pytest.mark.parametrize("modality", ["image", "video"])
def test_a_model_may_see_only_pictures_or_only_videos(tmp_path, modality):
    save_pretrained(build(replace(VISION, modalities=(modality,))), tmp_path / "model")
    recognizer = Recognizer.from_pretrained(tmp_path / "model", device="cpu")
    shown = {"image": picture(), "video": video()}
    other = "video" if modality == "image" else "image"
    transcript = recognizer.transcribe(CLIPS[0], **{modality: shown[modality]})
    assert transcript.context == (modality,)
    with pytest.raises(MediaError, match=f"no {other} interface; it takes: speech, {modality}"):
        recognizer.transcribe(CLIPS[0], **shown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("interfaces.image.queries"), "missing weights.*image.queries"),
        (lambda weights: weights.pop("boundaries.video"), "missing weights: boundaries.video"),
        (
            lambda weights: weights.pop("interfaces.image.trunk.norm.weight"),
            "missing weights: interfaces.image.trunk.norm.weight",
        ),
        (
            lambda weights: weights.update({"interfaces.image.extra": torch.zeros(1)}),
            "unexpected weights: interfaces.image.extra",
        ),
        (
            lambda weights: weights.update({"interfaces.video.queries": torch.zeros(1, 32)}),
            r"interfaces.video.queries is \[1, 32\]; config.json asks for \[4, 32\]",
        ),
    ],
)
def test_weights_of_what_sees_are_read_strictly(bundle, tmp_path, change, message):
    save_pretrained(bundle, tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path / "model")


# Language models of other people


@pytest.fixture(scope="module", params=["chatglm1", "chatglm2", "chatglm3"])
def attached(request, bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    shutil.copytree(GOLDEN / request.param, folder)
    for file in (GOLDEN / "tokenizers" / request.param).iterdir():
        if "token" in file.name or file.suffix == ".model":
            shutil.copy(file, folder)
    torch.manual_seed(0)
    return attach_language_model(bundle, folder)


def test_another_language_model_keeps_what_sees_and_gets_new_adaptors(attached, bundle):
    width = attached.model.reader.width
    for name in ("image", "video"):
        new, old = attached.model.interfaces[name], bundle.model.interfaces[name]
        assert new.adaptor.out_features == width
        assert not torch.equal(new.adaptor.weight[0], old.adaptor.weight[0])
        assert torch.equal(new.queries, old.queries)
        assert new.queries is not old.queries
        assert all(
            torch.equal(weight, other)
            for weight, other in zip(new.trunk.parameters(), old.trunk.parameters(), strict=True)
        )
        assert old.adaptor.out_features == bundle.model.reader.width
    assert attached.model.image.trunk is attached.model.video.trunk
    assert attached.model.image.trunk is not bundle.model.image.trunk
    assert attached.model.config.vision.adaptor_width == width


def test_every_layout_sees_alone_as_in_a_batch(attached):
    recognizer = Recognizer(attached)
    shown, films = [picture(), None, picture(1)], [None, None, video()]
    together = recognizer.transcribe(CLIPS[:3], image=shown, video=films)
    alone = [
        recognizer.transcribe(clip, image=image, video=film)
        for clip, image, film in zip(CLIPS, shown, films, strict=False)
    ]
    assert [*map(essence, together)] == [*map(essence, alone)]
    assert [t.context for t in together] == [("image",), (), ("image", "video")]


def test_every_layout_answers_alone_as_in_a_list(attached):
    recognizer = Recognizer(attached)
    given = [
        {"image": picture()},
        {"audio": CLIPS[0]},
        {"image": picture(1), "video": video(), "history": [("who is it", "a bear")]},
    ]
    defaults = {"image": None, "video": None, "audio": None, "history": ()}
    lists = {name: [turn.get(name, no) for turn in given] for name, no in defaults.items()}
    together = recognizer.answer([QUESTION] * 3, max_new_tokens=6, **lists)
    alone = [recognizer.answer(QUESTION, max_new_tokens=6, **turn) for turn in given]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.context for reply in together] == [
        ("image",), ("speech",), ("image", "video"),
    ]  # fmt: skip


def test_drafts_of_another_vocabulary_change_no_answer_with_pictures(attached):
    waveform = torch.from_numpy(CLIPS[1][0])[None]
    lengths = torch.tensor([waveform.shape[1]])
    seen = [look(attached.model, Sight(picture()), torch.device("cpu")).vectors]
    how = Decoding(draft=draft_source(attached))
    fast, plain = (
        recognise(attached.model, waveform, lengths, how, seen=seen, search=search)[0].token_ids
        for search in (None, write)
    )
    assert fast == plain


def test_an_attached_model_that_sees_survives_saving(attached, tmp_path):
    save_pretrained(attached, tmp_path / "model", dtype=torch.float32)
    again = load_pretrained(tmp_path / "model")
    found, expected = (
        Recognizer(model).transcribe(CLIPS[0], image=picture()) for model in (again, attached)
    )
    assert found.text == expected.text


# Real pictures and videos


@pytest.fixture(scope="module")
def rows(data):
    folder = data / "multimodal"
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [
        {**row, "audio": folder / row["audio"], "image": folder / row["image"]} for row in found
    ]


def test_spoken_captions_are_transcribed_with_their_pictures(recognizer, rows):
    captions = [row for row in rows if row["id"].startswith("img-")]
    assert len({row["image"] for row in captions}) == 4
    assert all(load_image(row["image"], size=28).shape == (3, 28, 28) for row in captions)
    with_pictures, again = (
        recognizer.transcribe(
            [row["audio"] for row in captions], image=[row["image"] for row in captions]
        )
        for _ in range(2)
    )
    assert [*map(essence, with_pictures)] == [*map(essence, again)]
    for row, transcript in zip(captions, with_pictures, strict=True):
        assert transcript.status != "failed"
        assert transcript.context == ("image",)
        assert transcript.duration == pytest.approx(row["duration"], abs=0.1)
    alone = recognizer.transcribe(captions[0]["audio"], image=captions[0]["image"])
    assert essence(alone) == essence(with_pictures[0])


def test_films_of_speakers_are_sound_and_sight_at_once(recognizer, rows):
    films = [row["audio"] for row in rows if row["id"].startswith("grid-")]
    assert len(films) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together, again = (recognizer.transcribe(films, video=films) for _ in range(2))
        alone = [recognizer.transcribe(film, video=film) for film in films]
    assert [*map(essence, together)] == [*map(essence, again)] == [*map(essence, alone)]
    for transcript in together:
        assert transcript.status != "failed"
        assert transcript.context == ("video",)
        assert transcript.duration == pytest.approx(3.0, abs=0.2)


def test_real_films_give_a_vector_for_each_query_and_frame(recognizer, rows):
    film = next(row["audio"] for row in rows if row["id"].startswith("grid-"))
    seen = look(recognizer.bundle.model, Sight(video=film), recognizer.device)
    assert seen.vectors["video"].shape == (3 * VISION.num_queries, VISION.adaptor_width)
    assert seen.flags == ()


def test_questions_about_real_pictures_films_and_speech_are_answered(recognizer, rows):
    film = next(row["audio"] for row in rows if row["id"].startswith("grid-"))
    spoken = next(row for row in rows if row["id"].startswith("img-"))
    first, second = (
        recognizer.answer(
            [QUESTION] * 3,
            image=[spoken["image"], None, spoken["image"]],
            video=[None, film, None],
            audio=[None, None, spoken["audio"]],
            max_new_tokens=8,
        )
        for _ in range(2)
    )
    assert [reply.context for reply in first] == [("image",), ("video",), ("image", "speech")]
    assert all(reply.status != "failed" for reply in first)
    assert [reply.text for reply in first] == [reply.text for reply in second]
