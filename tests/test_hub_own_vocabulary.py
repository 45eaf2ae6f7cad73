"""Exported models whose language model has a vocabulary of its own say what a `Recognizer` says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_sight
import tokenizers
import torch
import torchaudio
from transformers import (
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    pipeline,
)

from llmasr.api import ASSETS, Recognizer
from llmasr.audio import load_audio
from llmasr.hub import (
    LlmasrConfig,
    LlmasrForConditionalGeneration,
    LlmasrPipeline,
    load_from_transformers,
    save_for_transformers,
)
from llmasr.hub.vocabularies import LANGUAGE_FOLDER, unique_names
from llmasr.importers.attach import attach_language_model
from llmasr.models.checkpoint import load_pretrained
from llmasr.models.language.chatglm1_tokenizer import ChatGLM1Tokenizer

GOLDEN = Path(__file__).parent / "golden"
ASR = "automatic-speech-recognition"
RATE = 16_000
FILES = {"chatglm1": "ice_text.model", "chatglm2": "tokenizer.model", "json": "tokenizer.json"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Spare operations of microseconds the waiting of threads for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=FILES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def recognizer(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("language") / kind
    make = {"json": llama}.get(kind, chatglm)
    make(kind, path)
    speech = load_pretrained(ASSETS / "tiny-test")
    torch.manual_seed(1)  # of models that do not repeat themselves
    return Recognizer(attach_language_model(speech, path))


@pytest.fixture(scope="module")
def folder(recognizer, kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / kind
    save_for_transformers(recognizer, path)
    return path


@pytest.fixture(scope="module")
def stock(folder):
    return pipeline(ASR, model=str(folder), device="cpu")


@pytest.fixture(scope="module")
def ours(folder):
    return pipeline(ASR, model=str(folder), device="cpu", pipeline_class=LlmasrPipeline)


@pytest.fixture(scope="module")
def clip():
    return load_audio(ASSETS / "example.flac")[:24_000]


def chatglm(kind, path):
    """Copy a tiny ChatGLM with its tokenizer, as people have it."""
    shutil.copytree(GOLDEN / kind, path)
    vocabulary = GOLDEN / "tokenizers" / kind
    for file in (*vocabulary.glob("*token*"), *vocabulary.glob("*.model")):
        shutil.copyfile(file, path / file.name)


def llama(_, path):
    """Write a tiny Llama of bytes that answers after a chat template."""
    path.mkdir()
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = {letter: index for index, letter in enumerate(letters)}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, []))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    model.add_special_tokens(["<|end|>", "<|user|>", "<|assistant|>"])
    model.save(str(path / "tokenizer.json"))
    turn = "<|{{ m.role }}|>{{ m.content }}"
    template = "{% for m in messages %}" + turn + "{% endfor %}<|assistant|>"
    (path / "chat_template.jinja").write_text(template)
    config = LlamaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=512,
        bos_token_id=None, eos_token_id=256, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)


def said(recognizer, waveform):
    return transcribed(recognizer, waveform).text


def transcribed(recognizer, waveform):
    transcript = recognizer.transcribe(waveform, sample_rate=RATE)
    assert "repetition" not in transcript.flags, "a Recognizer stops what generate goes on with"
    return transcript


def test_the_stock_pipeline_says_what_the_recognizer_says(stock, recognizer, clip):
    clips = [clip, np.zeros(8000, np.float32), clip[:12_000]]
    texts = [said(recognizer, waveform) for waveform in clips]
    assert all((texts[0], not texts[1], texts[2]))
    assert stock(clip) == {"text": texts[0]}
    assert [result["text"] for result in stock(clips)] == texts
    assert [result["text"] for result in stock(clips, batch_size=3)] == texts
    assert stock(clip, chunk_length_s=30)["text"] == texts[0]
    assert stock(np.tile(clip, 2), chunk_length_s=1.5, stride_length_s=0.25)["text"]


def test_the_stock_pipeline_resamples(stock, recognizer, clip):
    at_8_khz = torchaudio.functional.resample(torch.from_numpy(clip), RATE, 8000)
    back = torchaudio.functional.resample(at_8_khz, 8000, RATE).numpy()
    found = stock({"raw": at_8_khz.numpy(), "sampling_rate": 8000})
    assert found["text"] == said(recognizer, back)


def test_our_pipeline_gives_the_words_of_the_recognizer(ours, recognizer, clip):
    long = np.concatenate([clip, np.zeros(16_000, np.float32), clip[:12_000]])
    transcript = transcribed(recognizer, long)
    assert len(transcript.segments) == 2
    result = ours(long, return_timestamps="word", batch_size=2)
    assert result["text"] == transcript.text
    assert [(c["text"], *c["timestamp"]) for c in result["chunks"]] == [
        (word.text, word.start, word.end) for word in transcript.words
    ]


def test_an_exported_model_comes_back(folder, recognizer, clip):
    again, bundle = load_from_transformers(folder), recognizer.bundle
    assert type(again.tokenizer) is type(bundle.tokenizer)
    assert len(again.tokenizer) == len(bundle.tokenizer)
    assert again.speech_tokenizer.pieces([5, 9]) == bundle.speech_tokenizer.pieces([5, 9])
    assert again.model.prompt == bundle.model.prompt
    assert again.model.config == bundle.model.config
    before, after = bundle.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert said(Recognizer(again), clip) == said(recognizer, clip)


def test_a_model_and_its_processor_survive_saving(folder, tmp_path, kind, recognizer, clip):
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    names = sorted(file.name for file in (folder / LANGUAGE_FOLDER).iterdir())
    assert FILES[kind] in names
    assert sorted(file.name for file in (tmp_path / LANGUAGE_FOLDER).iterdir()) == names
    assert said(Recognizer(load_from_transformers(tmp_path)), clip) == said(recognizer, clip)


def test_vocabularies_and_pictures_and_videos_go_together(tmp_path, clip):
    chatglm("chatglm3", tmp_path / "chatglm3")
    torch.manual_seed(0)
    bundle = attach_language_model(tiny_sight.build(), tmp_path / "chatglm3")
    save_for_transformers(bundle, tmp_path / "hub", dtype=torch.bfloat16)
    again = load_from_transformers(tmp_path / "hub")
    assert type(again.tokenizer) is type(bundle.tokenizer)
    assert again.model.image.trunk is again.model.video.trunk
    pixels = torch.randn(1, 3, 28, 28)
    assert torch.equal(again.model.image(pixels), bundle.model.image(pixels))
    stock = pipeline(ASR, model=str(tmp_path / "hub"), device="cpu")
    assert stock(clip)["text"] == Recognizer(again).transcribe((clip, RATE)).text


def test_a_language_model_may_bring_a_vocabulary_like_ours(tmp_path, clip):
    hearing = load_pretrained(ASSETS / "tiny-test")
    foreign = replace(hearing, speech_tokenizer=hearing.tokenizer)
    save_for_transformers(foreign, tmp_path)
    assert pipeline(ASR, model=str(tmp_path), device="cpu")(clip)["text"] == said(
        Recognizer(hearing), clip
    )
    assert load_from_transformers(tmp_path).speech_tokenizer is not None


def test_another_export_leaves_no_file_of_the_one_before(recognizer, folder, tmp_path):
    names = {file.name for file in (folder / LANGUAGE_FOLDER).iterdir()}
    (tmp_path / LANGUAGE_FOLDER).mkdir()
    for name in {*FILES.values(), "chat_template.jinja"} - names:
        (tmp_path / LANGUAGE_FOLDER / name).write_text("old")
    save_for_transformers(recognizer, tmp_path)
    assert {file.name for file in (tmp_path / LANGUAGE_FOLDER).iterdir()} == names
    save_for_transformers(load_from_transformers(tmp_path), tmp_path)
    assert {file.name for file in (tmp_path / LANGUAGE_FOLDER).iterdir()} == names


def test_a_transcription_request_says_the_same_after_its_prompt(folder, recognizer, clip):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    request = processor.apply_transcription_request([clip, clip[:12_000]], language="en")
    prompt = request["input_ids"].shape[1]
    ids = model.generate(**request)
    text = said(recognizer, clip)
    assert processor.decode(ids[:, prompt:], return_format="transcription_only")[0] == text
    parsed = processor.decode(ids[:, prompt:], return_format="parsed")
    assert parsed[0] == {"language": "en", "transcription": text}
    raw = processor.decode(request["input_ids"][0])
    assert "<audio>" in raw
    assert "write what is said" in raw
    own = model(**processor([clip, clip[:12_000]])).logits
    torch.testing.assert_close(model(**request).logits, own)


def test_the_tokenizer_gives_the_ids_of_the_language_model(folder, recognizer):
    tokenizer, inner = AutoTokenizer.from_pretrained(folder), recognizer.bundle.tokenizer
    for line in ("the red dress", " two  spaces", "ünï 中文\n", "<sop> </s> <|user|> <audio>", ""):
        ids = inner.encode(line)
        assert tokenizer(line)["input_ids"] == [*ids, inner.eos_id]
        assert tokenizer.decode(ids) == inner.decode(ids)
        assert tokenizer.decode([*ids, inner.eos_id], skip_special_tokens=True) == (
            inner.decode(ids).strip()
        )
    assert tokenizer.convert_tokens_to_ids("<audio>") == len(inner) == len(tokenizer) - 1
    assert tokenizer.decode([len(inner) + 3]) == "", "a model may have more rows"


def test_ids_without_a_piece_have_names_of_their_own():
    path = GOLDEN / "tokenizers/chatglm1/ice_text.model"
    shifted = ChatGLM1Tokenizer(path, num_image_tokens=7)
    names = unique_names(shifted)
    assert len(set(names)) == len(names) == len(shifted)
    assert names[7:] == unique_names(ChatGLM1Tokenizer(path))


@pytest.mark.parametrize("load", [AutoProcessor.from_pretrained, AutoModel.from_pretrained])
def test_a_file_that_is_missing_is_named(folder, tmp_path, load):
    own = [f"{LANGUAGE_FOLDER}/{file.name}" for file in (folder / LANGUAGE_FOLDER).iterdir()]
    for name in ["tokenizer.model", *own]:
        shutil.copytree(folder, tmp_path / "model", dirs_exist_ok=True)
        (tmp_path / "model" / name).unlink()
        with pytest.raises(ValueError, match=f"model/{name}: missing"):
            load(tmp_path / "model")


def test_a_pipeline_names_a_file_that_is_missing(folder, tmp_path, kind):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / LANGUAGE_FOLDER / FILES[kind]).unlink()
    with pytest.raises(ValueError, match=f"{FILES[kind]}: missing"):
        pipeline(ASR, model=str(tmp_path), device="cpu")


def test_two_vocabularies_are_not_mistaken_for_one(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["language_files"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="names no language_files"):
        AutoModel.from_pretrained(tmp_path)


def test_a_model_without_folder_does_not_guess_how_long_an_answer_may_be(folder, clip):
    model = LlmasrForConditionalGeneration(LlmasrConfig.from_pretrained(folder))
    with pytest.raises(ValueError, match="draft is None"):
        model.generate(torch.from_numpy(clip)[None])
