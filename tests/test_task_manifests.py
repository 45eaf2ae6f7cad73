"""Task manifests: what a line may hold, how steps are drawn, and what becomes of it in a batch."""

import json
import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny_sight import video

from llmasr.api import ASSETS
from llmasr.config import FrameConfig, ModelConfig, PromptConfig, VisionConfig, ViTConfig
from llmasr.data.task_manifests import TASKS, TaskMix, read_task_manifests
from llmasr.data.xllm_forms import FORMS, Places
from llmasr.data.xllm_json import to_manifest
from llmasr.filterbank import FilterBank
from llmasr.media import load_image, load_video
from llmasr.models.checkpoint import load_pretrained
from llmasr.prompts import INSTRUCTIONS, lay_out
from llmasr.training.task_batches import (
    Collator,
    Senses,
    senses_of,
    task_batches,
    usual_instructions,
    varied_instructions,
)

SENSES = Senses(image_size=28, frames=FrameConfig(num_frames=3))
SPOKEN = {"task": "transcribe", "text": "red", "audio": "a.wav"}
SEEN = {"task": "describe_image", "text": "a dog", "image": "p.png"}
MOVING = {"task": "describe_video", "text": "a dog runs", "video": "v.mkv"}
ASKED = {"task": "answer_about_image", "text": "two", "image": "p.png", "question": "how many"}
BOTH = {**SPOKEN, "task": "transcribe_with_image", "image": "p.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Media that manifests name: recordings of 0.2 and 0.3 s, features, a picture, videos."""
    path = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for name, samples in (("a.wav", 3_200), ("b.wav", 4_800), ("short.wav", 300)):
        soundfile.write(path / name, 0.1 * rng.standard_normal(samples), 16_000)
    np.save(path / "f.npy", rng.standard_normal((7, 80)).astype(np.float32))
    np.save(path / "wide.npy", np.zeros((3, 512), np.float32))
    Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path / "p.png")
    (path / "v.mkv").write_bytes(video())
    (path / "brief.mkv").write_bytes(video(1, num_frames=2))
    (path / "broken.png").write_bytes(b"not a picture")
    return path


@pytest.fixture(scope="module")
def bundle():
    return load_pretrained(ASSETS / "tiny-test")


@pytest.fixture
def collate(bundle):
    return Collator(bundle, usual_instructions(bundle.model.config), SENSES)


def write(folder, *entries, name="m.jsonl"):
    lines = [
        entry if isinstance(entry, str) else json.dumps({"id": str(number), **entry})
        for number, entry in enumerate(entries)
    ]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder / name


def read(folder, *entries, split=""):
    return read_task_manifests([write(folder, *entries)], split)


def batch_of(folder, collate, *entries):
    return collate(read(folder, *entries), random.Random(0))


# Reading


def test_the_tasks_are_those_of_the_prompts():
    assert TASKS.keys() == INSTRUCTIONS.keys()


def test_a_line_of_every_task_is_read(folder):
    items = read(folder, SPOKEN, SEEN, MOVING, {**ASKED, "history": [["who", "a dog"]]}, BOTH)
    assert [item.task for item in items] == [e["task"] for e in (SPOKEN, SEEN, MOVING, ASKED, BOTH)]
    spoken, seen, moving, asked, both = items
    assert (spoken.audio, spoken.spoken, spoken.texts) == (folder / "a.wav", "red", ("red",))
    assert (seen.image, seen.spoken, seen.instruction) == (folder / "p.png", None, None)
    assert moving.video == folder / "v.mkv"
    assert (asked.instruction, asked.history) == ("how many", (("who", "a dog"),))
    assert (both.audio, both.image) == (folder / "a.wav", folder / "p.png")


def test_a_spoken_question_is_the_transcript_and_not_the_instruction(folder):
    (item,) = read(folder, {**ASKED, "audio": "a.wav"})
    assert (item.spoken, item.instruction) == ("how many", None)
    (item,) = read(folder, {**ASKED, "audio": "a.wav", "question": None})
    assert item.spoken is None


def test_empty_fields_and_unknown_ones_are_passed_over(folder):
    (item,) = read(folder, {**SPOKEN, "image": None, "history": [], "xllm": {"form": "speech"}})
    assert item.image is None


def test_other_splits_are_passed_over_unread(folder):
    lines = [{**SPOKEN, "split": "test", "audio": "missing.wav"}, {**SPOKEN, "split": "train"}]
    items = read(folder, *lines, SPOKEN, split="train")
    assert [item.id for item in items] == ["1", "2"]


def test_a_line_separator_inside_a_text_ends_no_line(folder):
    line = json.dumps({"id": "0", **SPOKEN, "text": "a\u2028b"}, ensure_ascii=False)
    assert read(folder, line)[0].texts == ("a\u2028b",)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{", "line 2: Expecting property name"),
        ("[1]", r"line 2: is \[1\]; expected an object"),
        ({**SPOKEN, "id": "0"}, "line 2: id is '0', as on a line before"),
        ({**SPOKEN, "id": 3}, "id is 3; expected a string"),
        ({**SPOKEN, "id": ""}, "id is empty"),
        ({"task": "transcribe", "audio": "a.wav"}, "text is missing"),
        ({**SPOKEN, "text": 5}, "text is 5; expected a string"),
        ({"text": "red", "audio": "a.wav"}, "task is missing"),
        ({**SPOKEN, "task": "translate"}, "task is 'translate'; allowed: transcribe, transcribe_w"),
        ({**SPOKEN, "audio": None}, "task 'transcribe' needs speech"),
        ({**SPOKEN, "image": "p.png"}, "task 'transcribe' does not take image"),
        ({**BOTH, "image": None}, "task 'transcribe_with_image' needs image"),
        ({**MOVING, "audio": "a.wav"}, "task 'describe_video' does not take speech"),
        ({**SPOKEN, "feats": "f.npy"}, "audio and feats are given"),
        ({**SPOKEN, "audio": "no.wav"}, "audio is 'no.wav', but .*no.wav is no file"),
        ({**SPOKEN, "audio": "."}, "is no file"),
        ({**SEEN, "image": 4}, "image is 4; expected a string"),
        ({**ASKED, "question": None}, "needs speech, question or prompt"),
        ({**ASKED, "history": "问题：a"}, "history is .*; expected a list of one or more pairs"),
        ({**ASKED, "history": [["a"]]}, "history is .*; expected a list"),
        ({**SEEN, "captions": []}, r"captions is \[\]; expected a list of one or more strings"),
        ({**SPOKEN, "captions": ["a"]}, "an item of task 'transcribe' has one text"),
        ({**SPOKEN, "feats_length": True}, "feats_length is True; expected a whole number"),
    ],
    ids=str,
)
def test_a_bad_line_is_named_with_its_file(folder, entry, message):
    with pytest.raises(ValueError, match=f"m.jsonl, line 2.*{message.removeprefix('line 2: ')}"):
        read(folder, SPOKEN, entry)


def test_nothing_to_read_is_an_error(folder, tmp_path):
    with pytest.raises(ValueError, match=r"m\.jsonl: no line of split 'dev'"):
        read(folder, {**SPOKEN, "split": "train"}, split="dev")
    with pytest.raises(ValueError, match="no manifest: no line"):
        read_task_manifests([])
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_task_manifests([tmp_path / "none.jsonl"])


SPEECH = {"utterance_id": "u", "speech_feats_path": "f.npy", "length": 7, "target_text": "开灯"}
DIALOGUE = {
    "speech_feats_path": "f.npy", "image_path": "p.png", "question_text": "这是什么",
    "answer_text": "狗", "history_text": "问题：几个？回复：两个",
}  # fmt: skip
ORIGINALS = {
    "image-captions": {"image": "p.png", "caption": ["狗", "猫"], "image_id": 1, "dataset": "c"},
    "speech": SPEECH,
    "speech-image": {**SPEECH, "image": "p.png"},
    "masr": DIALOGUE,
    "vsd": DIALOGUE,
    "image": {"image_id": "p", "caption_zh": "狗"},
    "video": {"image_id": "v", "caption_zh": "狗跑"},
}


@pytest.mark.parametrize("form", FORMS)
def test_what_the_converter_writes_is_read(folder, collate, form):
    for made, original in (("p.jpg", "p.png"), ("v.mp4", "v.mkv")):
        (folder / made).write_bytes((folder / original).read_bytes())
    (line,) = to_manifest([ORIGINALS[form]], form, Places("", ""))
    (item,) = read(folder, line.entry)
    assert item.texts[0] == line.entry["text"]
    expected = (("几个？", "两个"),) if form == "vsd" else ()
    assert item.history == expected
    assert len(collate([item], random.Random(0)).tasks) == 1


# Drawing


@pytest.fixture(scope="module")
def items(folder):
    return read(folder, *[SPOKEN] * 5, *[SEEN] * 7, MOVING)


def ids(drawn):
    return [item.id for item in drawn]


def test_a_step_has_so_many_items_of_each_task(items):
    mix = TaskMix(items, {"transcribe": 2, "describe_image": 3, "describe_video": 0}, seed=1)
    for step in range(4):
        assert Counter(item.task for item in mix.draw(step)) == {
            "transcribe": 2, "describe_image": 3
        }  # fmt: skip


def test_a_step_can_be_drawn_again_and_depends_on_seed_and_process(items):
    counts = {"transcribe": 2, "describe_image": 3}
    first, again = (TaskMix(items, counts, seed=1) for _ in range(2))
    assert ids(again.draw(6)) == ids([first.draw(step) for step in range(7)][6])
    assert [ids(first.draw(step)) for step in range(3)] != [
        ids(TaskMix(items, counts, seed=2).draw(step)) for step in range(3)
    ]


def test_processes_share_a_round_without_drawing_twice(items):
    mix = TaskMix(items, {"describe_image": 1}, seed=3)
    drawn = [ids(mix.draw(step, rank, 7))[0] for step in range(3) for rank in range(7)]
    rounds = [sorted(drawn[start : start + 7]) for start in (0, 7, 14)]
    assert rounds == [sorted(str(number) for number in range(5, 12))] * 3


def test_a_batch_may_be_larger_than_its_task(items):
    assert ids(TaskMix(items, {"describe_video": 3}, seed=1).draw(0)) == ["12"] * 3


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"transcribe_with_image": 1}, "counts asks for transcribe_with_image"),
        ({"transcribe": -1}, "counts is .*-1.*; allowed: 0 or more"),
        ({"transcribe": 0}, "not 0 for all"),
        ({}, "counts is {}"),
    ],
)
def test_a_mix_that_cannot_be_drawn_is_refused(items, counts, message):
    with pytest.raises(ValueError, match=message):
        TaskMix(items, counts, seed=1)


# Batches


def test_items_have_in_a_batch_what_they_have_and_nothing_else(folder, collate):
    batch = batch_of(folder, collate, SEEN, {**SPOKEN, "audio": "b.wav"}, MOVING, BOTH)
    assert batch.tasks == [e["task"] for e in (SEEN, SPOKEN, MOVING, BOTH)]
    assert batch.speech.rows == [1, 3]
    assert batch.images.rows == [0, 3]
    assert batch.videos.rows == [2]
    only_speech = batch_of(folder, collate, SPOKEN)
    assert only_speech.images is None
    assert only_speech.videos is None
    assert batch_of(folder, collate, SEEN).speech is None


def test_media_are_those_of_use(folder, collate):
    short = {**MOVING, "video": "brief.mkv"}
    batch = batch_of(folder, collate, {**SPOKEN, "audio": "b.wav"}, SPOKEN, SEEN, MOVING, short)
    for row, name in enumerate(("b.wav", "a.wav")):
        wave = torch.from_numpy(soundfile.read(folder / name, dtype="float32")[0])[None]
        features, lengths = FilterBank()(wave, torch.tensor([wave.shape[1]]))
        assert int(batch.speech.lengths[row]) == int(lengths[0])
        heard = batch.speech.features[row]
        torch.testing.assert_close(heard[: lengths[0]], features[0])
        assert not heard[lengths[0] :].any()
    assert torch.equal(batch.images.pixels[0], load_image(folder / "p.png", size=28))
    seen = load_video(folder / "v.mkv", size=28, config=SENSES.frames)
    assert torch.equal(batch.videos.frames[0], seen.frames)
    assert batch.videos.mask.tolist() == [[True, True, True], [True, True, False]]


def test_feature_files_stand_beside_recordings(folder, collate):
    stored = {"task": "transcribe", "text": "red", "feats": "f.npy", "feats_length": 7}
    batch = batch_of(folder, collate, stored, SPOKEN)
    assert batch.speech.lengths.tolist() == [7, 18]
    assert torch.equal(batch.speech.features[0, :7], torch.from_numpy(np.load(folder / "f.npy")))


def test_answers_end_and_transcripts_do_not(folder, collate, bundle):
    batch = batch_of(folder, collate, {**BOTH, "text": ""}, SPOKEN)
    red = bundle.tokenizer.encode("red")
    assert batch.answers == [[bundle.tokenizer.eos_id], [*red, bundle.tokenizer.eos_id]]
    assert batch.speech.transcript_lengths.tolist() == [0, len(red)]
    assert batch.speech.transcripts[1].tolist() == red


def test_without_the_words_of_a_recording_a_batch_has_no_transcripts(folder, collate):
    spoken_question = {**ASKED, "audio": "a.wav", "question": None}
    batch = batch_of(folder, collate, SPOKEN, spoken_question)
    assert batch.speech.transcripts is None
    assert batch.speech.rows == [0, 1]


def test_instructions_are_usual_or_drawn_or_the_items_own(folder, bundle):
    config = ModelConfig(prompt=PromptConfig("usual", tasks={"describe_image": "look"}))
    entries = [SPOKEN, SEEN, {**SEEN, "prompt": "my own"}, {**ASKED, "history": [["who", "dog"]]}]
    items = read(folder, *entries)

    def prompts(instructions, seed=0):
        return Collator(bundle, instructions, SENSES)(items, random.Random(seed)).prompts

    expected = [lay_out(bundle.tokenizer, text) for text in ("usual", "look", "my own")]
    asked = lay_out(bundle.tokenizer, "how many", history=[("who", "dog")])
    assert prompts(usual_instructions(config)) == [*expected, asked]
    drawn = {tuple(prompts(varied_instructions(config), seed)[1].after) for seed in range(20)}
    texts = INSTRUCTIONS["describe_image"]["en"]
    assert drawn == {tuple(lay_out(bundle.tokenizer, text).after) for text in texts}


def test_instructions_in_an_unknown_language_are_refused():
    with pytest.raises(ValueError, match="language is 'fr'; there are instructions in: en, zh"):
        varied_instructions(ModelConfig(languages=("fr",)))


def test_one_of_several_captions_is_drawn(folder, collate, bundle):
    items = read(folder, {**SEEN, "captions": ["a dog", "the dog"]})
    drawn = {tuple(collate(items, random.Random(seed)).answers[0]) for seed in range(20)}
    end = bundle.tokenizer.eos_id
    assert drawn == {(*bundle.tokenizer.encode(text), end) for text in ("a dog", "the dog")}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**SEEN, "image": "broken.png"}, "broken.png' is no picture"),
        ({**MOVING, "video": "a.wav"}, "a.wav' has no video track"),
        ({**SPOKEN, "audio": "broken.png"}, "broken.png"),
        ({**SPOKEN, "audio": "short.wav"}, "short.wav has 300 samples at 16 kHz; allowed: 400"),
        ({**SPOKEN, "audio": None, "feats": "wide.npy"}, r"wide.npy holds float32 \[3, 512\]"),
        ({**SPOKEN, "audio": None, "feats": "p.png"}, "pickle"),
        (
            {**SPOKEN, "audio": None, "feats": "f.npy", "feats_length": 9},
            "feats_length is 9, but .*f.npy has 7 rows",
        ),
    ],
    ids=str,
)
def test_media_that_cannot_be_used_are_an_error_that_names_the_item(
    folder, collate, entry, message
):
    with pytest.raises(ValueError, match=rf"m.jsonl, line 2 \(1\): .*{message}"):
        batch_of(folder, collate, SPOKEN, entry)


def test_a_model_that_reads_features_takes_no_recordings(folder, bundle):
    senses = Senses(num_features=512, reads_audio=False)
    collate = Collator(bundle, usual_instructions(bundle.model.config), senses)
    wide = {"task": "transcribe", "text": "red", "feats": "wide.npy"}
    assert batch_of(folder, collate, wide).speech.features.shape == (1, 3, 512)
    with pytest.raises(ValueError, match="audio is given; this model takes feats only"):
        batch_of(folder, collate, SPOKEN)


def test_senses_are_those_of_the_configuration():
    frames = FrameConfig(num_frames=2)
    vision = VisionConfig(vit=ViTConfig(image_size=56), frames=frames)
    assert senses_of(ModelConfig()) == Senses(80)
    assert senses_of(ModelConfig(vision=vision)) == Senses(80, image_size=56, frames=frames)


def test_batches_go_on_at_any_step(folder, collate):
    entries = [{**SEEN, "text": text} for text in "abcdefg"]
    mix = TaskMix(read(folder, *entries), {"describe_image": 2}, seed=1)
    all_of_them = [batch.answers for batch in islice(task_batches(mix, collate, 0), 5)]
    later = [batch.answers for batch in islice(task_batches(mix, collate, 3), 2)]
    assert later == all_of_them[3:]


def test_an_unreadable_item_stops_the_batches_when_its_turn_comes(folder, collate):
    items = read(folder, SEEN, {**SEEN, "image": "broken.png"})
    drawn = task_batches(TaskMix(items, {"describe_image": 2}, seed=1), collate, 0)
    with pytest.raises(ValueError, match=r"m\.jsonl, line 2"):
        next(drawn)
