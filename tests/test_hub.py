"""Exported models work in the habits of transformers, and say what a `Recognizer` says."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

import llmasr
from llmasr.api import Recognizer
from llmasr.audio import AudioError, load_audio
from llmasr.config import EncoderConfig, ModelConfig, SpeechConfig, to_dict
from llmasr.decoding.hypothesis import max_new_tokens
from llmasr.hub import (
    LlmasrConfig,
    LlmasrFeatureExtractor,
    LlmasrForConditionalGeneration,
    LlmasrPipeline,
    LlmasrProcessor,
    LlmasrTokenizer,
    load_from_transformers,
    save_for_transformers,
)
from llmasr.hub.pipeline import chunks
from llmasr.models.language.chatglm1 import ChatGLM1Config

EXAMPLE = Path(llmasr.__file__).parent / "assets" / "example.flac"
ASR = "automatic-speech-recognition"
RATE = 16_000


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Spare operations of microseconds the waiting of threads for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.from_pretrained("tiny-test", device="cpu")


@pytest.fixture(scope="module")
def folder(recognizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "tiny"
    save_for_transformers(recognizer, path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForSpeechSeq2Seq.from_pretrained(folder)


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def stock(folder):
    return pipeline(ASR, model=str(folder), device="cpu")


@pytest.fixture(scope="module")
def ours(folder):
    return pipeline(ASR, model=str(folder), device="cpu", pipeline_class=LlmasrPipeline)


@pytest.fixture(scope="module")
def clip():
    return load_audio(EXAMPLE)[:24_000]


@pytest.fixture(scope="module")
def text(recognizer, clip):
    return said(recognizer, clip)


def said(recognizer, waveform):
    return recognizer.transcribe(waveform, sample_rate=RATE).text


def test_the_stock_pipeline_says_what_the_recognizer_says(stock, clip, text):
    assert text
    assert stock(clip) == {"text": text}
    assert stock({"raw": clip, "sampling_rate": RATE})["text"] == text
    assert stock({"array": clip, "sampling_rate": RATE})["text"] == text


def test_the_stock_pipeline_takes_a_list_and_a_batch(stock, recognizer, clip):
    clips = [clip, np.zeros(8000, np.float32), clip[:8000], clip[5000:], np.zeros(1, np.float32)]
    expected = [said(recognizer, waveform) for waveform in clips]
    assert expected[1] == expected[4] == ""
    assert [result["text"] for result in stock(clips)] == expected
    assert [result["text"] for result in stock(clips, batch_size=3)] == expected


def test_the_stock_pipeline_resamples(stock, recognizer, clip):
    at_8_khz = torchaudio.functional.resample(torch.from_numpy(clip), RATE, 8000)
    back = torchaudio.functional.resample(at_8_khz, 8000, RATE).numpy()
    found = stock({"raw": at_8_khz.numpy(), "sampling_rate": 8000})
    assert found["text"] == said(recognizer, back)


def test_the_stock_pipeline_takes_long_audio_in_chunks(stock, clip, text):
    assert stock(clip, chunk_length_s=30)["text"] == text
    long = np.concatenate([clip, clip])
    assert stock(long, chunk_length_s=1.5, stride_length_s=0.25, batch_size=2)["text"]


def test_the_stock_pipeline_searches_greedily_unless_it_is_told_otherwise(stock, model, clip):
    beams = stock(clip, generate_kwargs={"num_beams": 3, "max_new_tokens": 5})["text"]
    ids = model.generate(torch.from_numpy(clip)[None], num_beams=3, max_new_tokens=5)
    assert beams == stock.tokenizer.decode(ids[0], skip_special_tokens=True)


def test_our_pipeline_gives_the_words_of_the_recognizer(ours, recognizer):
    example = load_audio(EXAMPLE)
    long = np.concatenate([example[:20_000], np.zeros(16_000, np.float32), example[:30_000]])
    transcript = recognizer.transcribe(long, sample_rate=RATE)
    assert len(transcript.segments) == 2
    result = ours(long, return_timestamps="word", batch_size=2)
    assert result["text"] == transcript.text
    assert [(c["text"], *c["timestamp"]) for c in result["chunks"]] == [
        (word.text, word.start, word.end) for word in transcript.words
    ]


def test_our_pipeline_reads_files_and_other_rates(ours, recognizer, clip):
    assert ours(str(EXAMPLE))["text"] == recognizer.transcribe(EXAMPLE).text
    at_8_khz = clip[::2]
    expected = recognizer.transcribe((at_8_khz, 8000)).text
    found = ours([{"raw": at_8_khz, "sampling_rate": 8000, "id": "a"}])
    assert found == [{"text": expected, "id": ["a"]}]


def test_our_pipeline_hears_nothing_in_silence(ours, clip, text):
    inputs = [np.zeros(16_000, np.float32), clip, np.zeros(0, np.float32)]
    results = ours(inputs, return_timestamps="word", batch_size=3)
    assert [result["text"] for result in results] == ["", text, ""]
    assert results[0]["chunks"] == results[2]["chunks"] == []


def test_words_of_chunks_do_not_overlap(ours):
    long = np.tile(load_audio(EXAMPLE)[:30_000], 2)
    result = ours(long, chunk_length_s=2, return_timestamps="word", batch_size=2)
    times = [chunk["timestamp"] for chunk in result["chunks"]]
    assert len(times) > 5
    assert all(0 <= start <= end <= len(long) / RATE for start, end in times)
    middles = [sum(time) / 2 for time in times]
    assert middles == sorted(middles)


@pytest.mark.parametrize("samples", [1, 31_999, 32_000, 32_001, 100_000])
def test_chunks_share_out_all_samples(samples):
    parts = chunks(samples, 2.0, (0.5, 0.25))
    assert (parts[0].first, parts[-1].last) == (0, samples + 1)
    assert all(before.last == after.first for before, after in pairwise(parts))
    assert all(part.start <= part.first < part.last <= part.end + 1 for part in parts)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ({"raw": np.zeros(9)}, {}, "sampling_rate"),
        (np.zeros(9), {"return_timestamps": "char"}, "return_timestamps is 'char'"),
        (np.zeros(9), {"chunk_length_s": 2, "stride_length_s": 1}, "chunk_length_s is 2"),
        (np.full(900, np.nan), {}, "NaN"),
    ],
    ids=["rate", "timestamps", "chunk", "nan"],
)
def test_our_pipeline_names_what_it_refuses(ours, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        ours(inputs, **options)


def test_every_auto_class_knows_the_folder(folder):
    assert type(AutoConfig.from_pretrained(folder)) is LlmasrConfig
    assert type(AutoTokenizer.from_pretrained(folder)) is LlmasrTokenizer
    assert type(AutoFeatureExtractor.from_pretrained(folder)) is LlmasrFeatureExtractor
    assert type(AutoProcessor.from_pretrained(folder)) is LlmasrProcessor
    for auto_class in (AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM):
        assert type(auto_class.from_pretrained(folder)) is LlmasrForConditionalGeneration


def test_the_folder_holds_no_code_no_pickle_and_no_path(folder, recognizer):
    assert not [file for file in folder.iterdir() if file.suffix in {".py", ".bin", ".pt"}]
    config = json.loads((folder / "config.json").read_text())
    assert str(Path(llmasr.__file__).parent) not in json.dumps(config)
    assert not {"num_beams", "max_new_tokens", "do_sample"} & {*config, *config["text_config"]}
    assert json.loads((folder / "generation_config.json").read_text())["num_beams"] == 1
    kept = recognizer.bundle.model.language_model.generation_config
    assert kept.max_new_tokens is None, "exporting changes the model that is exported"


def test_a_model_survives_saving(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    copy = AutoModel.from_pretrained(tmp_path)
    before, after = model.state_dict(), copy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert copy.generation_config.to_dict() == model.generation_config.to_dict()
    filterbank = model.xllm.speech.filterbank, copy.xllm.speech.filterbank
    for name, buffer in filterbank[0].named_buffers():
        assert torch.equal(buffer, filterbank[1].get_buffer(name))
    assert AutoProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()


def test_an_exported_model_comes_back(folder, clip, text):
    assert said(Recognizer(load_from_transformers(folder)), clip) == text


def test_half_precision_is_for_the_language_model(recognizer, tmp_path, clip):
    save_for_transformers(recognizer, tmp_path, dtype=torch.float16)
    stored = load_file(tmp_path / "model.safetensors")
    halves = {name for name, value in stored.items() if value.dtype == torch.float16}
    assert halves == {name for name in stored if not name.startswith("xllm.interfaces.")}
    assert AutoModel.from_pretrained(tmp_path).xllm.language_model.dtype == torch.float32
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.xllm.language_model.dtype == torch.bfloat16
    assert half.xllm.boundaries["speech"].dtype == torch.bfloat16
    assert {p.dtype for p in half.xllm.interfaces.parameters()} == {torch.float32}
    assert half.generate(torch.from_numpy(clip)[None]).shape[0] == 1
    half.save_pretrained(tmp_path / "half")
    again = AutoModel.from_pretrained(tmp_path / "half", dtype="auto")
    assert again.xllm.language_model.dtype == torch.bfloat16
    assert {p.dtype for p in again.xllm.interfaces.parameters()} == {torch.float32}


@pytest.mark.parametrize("case", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_refused(folder, tmp_path, case):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    name = "xllm.interfaces.speech.token_head.bias"
    weights = load_file(folder / "model.safetensors")
    if case == "missing":
        del weights[name]
    else:
        weights["more" if case == "unexpected" else name] = torch.zeros(3)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        (ValueError, RuntimeError), match=r"missing keys|unexpected keys|mismatched"
    ):
        AutoModel.from_pretrained(tmp_path)


def test_generate_builds_its_own_prompt(model, processor, clip, text):
    inputs = processor(clip)
    assert {*inputs} == {"input_features", "attention_mask"}
    ids = model.generate(**inputs)
    assert processor.decode(ids, return_format="transcription_only") == [text]


def test_a_batch_says_what_its_rows_say(model, processor, clip):
    clips = [clip, clip[:8000], np.zeros(4000, np.float32)]
    together = model.generate(**processor(clips))
    for row, waveform in zip(together, clips, strict=True):
        alone = model.generate(**processor(waveform))[0]
        assert processor.decode(row, return_format="transcription_only") == processor.decode(
            alone, return_format="transcription_only"
        )


def test_a_transcription_request_says_the_same_after_its_prompt(model, processor, clip, text):
    request = processor.apply_transcription_request([clip, clip[:8000]], language="en")
    ids = model.generate(**request)
    prompt = request["input_ids"].shape[1]
    assert torch.equal(ids[:, :prompt], request["input_ids"])
    answers = processor.decode(ids[:, prompt:], return_format="transcription_only")
    assert answers[0] == text
    own = model(**processor([clip, clip[:8000]])).logits
    torch.testing.assert_close(model(**request).logits, own)


def test_prompts_of_other_lengths_share_a_batch(model, processor, clip):
    prompts = ["put this into writing, and do it with care", None]
    request = processor.apply_transcription_request([clip, clip], prompts)
    together = model.generate(**request)[:, request["input_ids"].shape[1] :]
    for row, prompt in zip(together, prompts, strict=True):
        alone = processor.apply_transcription_request(clip, prompt)
        ids = model.generate(**alone)[:, alone["input_ids"].shape[1] :]
        assert processor.decode(row, return_format="transcription_only") == processor.decode(
            ids[0], return_format="transcription_only"
        )


def test_beams_samples_and_scores(model, processor, clip):
    inputs = processor(clip)
    beams = model.generate(**inputs, num_beams=3, num_return_sequences=2, max_new_tokens=6)
    assert beams.shape == (2, 6)
    samples = []
    for _ in range(2):
        torch.manual_seed(0)
        samples.append(model.generate(**inputs, do_sample=True, max_new_tokens=6))
    assert torch.equal(*samples)
    output = model.generate(
        **inputs, max_new_tokens=6, return_dict_in_generate=True, output_scores=True
    )
    scores = model.compute_transition_scores(output.sequences, output.scores)
    assert scores.shape == output.sequences.shape == (1, 6)


def test_answers_end_where_fires_end(model, processor, clip):
    inputs = processor([clip, np.zeros(8000, np.float32)])
    fires = model.hear(**inputs).cif.token_lengths.tolist()
    assert fires[0] > 0
    assert fires[1] == 0
    end = model.generation_config.eos_token_id
    for options in ({}, {"num_beams": 2}, {"do_sample": True}):
        ids = model.generate(**inputs, **options).tolist()
        assert ids[0].index(end) <= max_new_tokens(fires[0])
        assert ids[1].index(end) == 0


def test_what_was_heard_can_be_handed_in(model, processor, clip):
    inputs = processor(clip)
    heard = model.hear(**inputs)
    assert torch.equal(model.generate(encoder_outputs=heard), model.generate(**inputs))
    features = model.get_audio_features(inputs["input_features"], inputs["attention_mask"])
    assert len(features.pooler_output) == int(heard.cif.token_lengths)


def test_labels_give_the_loss_of_training(folder, processor, clip):
    model = AutoModel.from_pretrained(folder)
    inputs = processor([clip, clip[:8000]])
    answers = processor(text=["yes", "the red dress"], padding=True)
    labels = answers["input_ids"].masked_fill(answers["attention_mask"] == 0, -100)
    loss = model(**inputs, labels=labels).loss
    heard = model.hear(**inputs)
    vectors = model.xllm.speech.adaptor(heard.tokens)
    ids = [[*processor.tokenizer.inner.encode(t), 2] for t in ("yes", "the red dress")]
    expected = model.xllm.loss(vectors, heard.cif.token_lengths, ids)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input_features is None"),
        ({"input_features": torch.zeros(1, 80, 9)}, r"input_features is \[1, 80, 9\]"),
        (
            {"input_features": torch.zeros(1, 9), "attention_mask": torch.eye(9)[-1:]},
            "padded on the right",
        ),
        (
            {"input_features": torch.zeros(1, 9), "input_ids": torch.ones(1, 3, dtype=torch.int64)},
            "0 places for speech",
        ),
    ],
    ids=["nothing", "shape", "padding", "marker"],
)
def test_the_model_names_what_it_refuses(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs)


def test_a_prompt_that_does_not_fit_is_refused(model, processor, clip):
    request = processor.apply_transcription_request(clip, "again and " * 1100)
    with pytest.raises(ValueError, match="the language model reads"):
        model.generate(**request)


def test_formats_of_decoding(processor):
    ids = [*processor.tokenizer.inner.encode("the red dress"), 2, 0, 0]
    assert processor.decode(ids, return_format="transcription_only") == "the red dress"
    parsed = {"language": "en", "transcription": "the red dress"}
    assert processor.decode(ids, return_format="parsed") == parsed
    assert processor.decode([ids, ids], return_format="parsed") == [parsed, parsed]
    assert processor.batch_decode([ids], skip_special_tokens=True) == ["the red dress"]
    with pytest.raises(ValueError, match=r"return_format is 'json'.*raw, parsed"):
        processor.decode(ids, return_format="json")


def test_the_processor_names_what_it_refuses(processor, clip):
    with pytest.raises(ValueError, match=r"language is 'zh'.*en"):
        processor.apply_transcription_request(clip, language="zh")
    with pytest.raises(ValueError, match="2 instructions for 1 sounds"):
        processor.apply_transcription_request(clip, ["a", "b"])
    with pytest.raises(ValueError, match="both None"):
        processor()
    with pytest.raises(AudioError):
        processor(str(EXAMPLE) + ".missing")


def test_the_feature_extractor_pads_and_resamples(processor, clip):
    extractor = processor.feature_extractor
    batch = extractor([clip, clip[:100], EXAMPLE], return_tensors="pt")
    lengths = [len(clip), 100, len(load_audio(EXAMPLE))]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert not batch["input_features"][1, 100:].any()
    slow = extractor(clip, sampling_rate=8000)["input_features"]
    np.testing.assert_array_equal(slow[0], load_audio((clip, 8000)))
    rows = extractor(np.stack([clip, clip]))["input_features"]
    assert rows.shape == (2, len(clip))
    assert extractor(clip[:500].tolist())["input_features"].shape == (1, 500)
    with pytest.raises(ValueError, match="sampling_rate is 8000"):
        LlmasrFeatureExtractor(sampling_rate=8000)


def test_the_tokenizer_gives_our_ids(folder, recognizer):
    tokenizer, inner = AutoTokenizer.from_pretrained(folder), recognizer.bundle.tokenizer
    for line in ("the red dress", "  two  spaces", "ünïcode 中文", ""):
        assert tokenizer(line)["input_ids"] == [*inner.encode(line), inner.eos_id]
    assert tokenizer.convert_tokens_to_ids("<audio>") == len(inner)
    assert len(tokenizer) == len(inner) + 1


def test_adapters_of_peft_are_saved_and_loaded(folder, processor, clip, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install llmasr[lora]")
    inputs = processor(clip)
    plain = AutoModel.from_pretrained(folder)
    before = plain.generate(**inputs)
    config = peft.LoraConfig(r=2, target_modules=r".*language_model.*\.(q|k|v|o)_proj")
    adapted = peft.get_peft_model(plain, config).eval()
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    after = adapted.generate(**inputs)
    assert not torch.equal(before, after)
    adapted.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(folder), tmp_path).eval()
    assert torch.equal(loaded.generate(**inputs), after)
    native = AutoModel.from_pretrained(folder)
    native.load_adapter(str(tmp_path))
    assert torch.equal(native.generate(**inputs), after)
    native.disable_adapters()
    assert torch.equal(native.generate(**inputs), before)


def test_adapters_of_ours_are_merged_before_an_export(tmp_path):
    pytest.importorskip("peft", reason="PEFT is not installed: pip install llmasr[lora]")
    from llmasr.models.language.lora import add_lora

    adapted = Recognizer.from_pretrained("tiny-test", device="cpu")
    add_lora(adapted.bundle.model)
    with pytest.raises(ValueError, match="merge_and_unload"):
        save_for_transformers(adapted, tmp_path)


def test_chatglm_of_the_first_generation_fits_inside(tmp_path):
    language = ChatGLM1Config(
        vocab_size=60, hidden_size=16, num_layers=2, num_attention_heads=2, inner_hidden_size=32,
        bos_token_id=54, eos_token_id=55,
    )  # fmt: skip
    encoder = EncoderConfig(width=16, num_blocks=1, num_heads=2, subsampling_channels=2)
    speech = SpeechConfig(encoder, vocab_size=60, cformer_blocks=1, adaptor_width=16)
    config = LlmasrConfig(
        asr_config=to_dict(ModelConfig(speech)), text_config=language.to_dict(),
        prompt_before=[], prompt_after=[7, 51, 54], audio_token_id=60,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlmasrForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = 55
    model.save_pretrained(tmp_path)
    copy = AutoModel.from_pretrained(tmp_path)
    assert type(copy.xllm.language_model) is type(model.xllm.language_model)
    noise = torch.randn(2, 16_000)
    ids = model.generate(noise)
    assert ids.shape[1] > 2
    assert torch.equal(copy.generate(noise), ids)


def test_without_a_limit_of_their_own_answers_may_be_as_long_as_fires_allow(recognizer, clip, text):
    bundle = recognizer.bundle
    wrapped = LlmasrForConditionalGeneration.wrap(bundle, len(bundle.tokenizer))
    assert wrapped.generation_config.max_new_tokens is None
    long = np.tile(clip, 3)
    ids = wrapped.generate(torch.from_numpy(long)[None])
    assert ids.shape[1] > 20
    assert bundle.tokenizer.decode(ids[0].tolist()).strip() == said(recognizer, long)
