"""The benchmark: every utterance counts, only computation is timed, a run can be interrupted."""

import json
import re
import shlex
import sys
import time
import wave
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import transformers

from llmasr.api import ASSETS
from llmasr.bench import (
    Options,
    Setup,
    Sound,
    bench,
    find_system,
    memory,
    read_dataset,
    to_html,
    to_markdown,
    write_json,
)
from llmasr.bench import clock as clocks
from llmasr.bench.clock import StageClock
from llmasr.bench.systems.ours import Ours
from llmasr.cli import main
from llmasr.cli.bench import _bench  # noqa: F401  registers the command

QUICK = Options(batch_size=2, warmup=0, latency=0)
CPU = Setup("cpu")
TEXTS = ["one", "two", "three", "four", "five"]


class Clock:
    """Time that passes when a test says so."""

    seconds = 0.0

    def now(self):
        return self.seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Parrot.clock = Clock()
    monkeypatch.setattr("llmasr.bench.runner.now", clock.now)
    monkeypatch.setattr("llmasr.bench.runner.time", SimpleNamespace(perf_counter=clock.now))
    return clock


class Parrot:
    """Says what it was told to; each sound costs a hundredth of its length."""

    name = "parrot"

    def __init__(self, texts=None, fails=()):
        self.texts = texts or {}
        self.fails = fails
        self.batches = []
        self.loads = 0

    def load(self):
        self.loads += 1

    def describe(self):
        return {"version": 1}

    def transcribe(self, batch):
        self.batches.append([sound.id for sound in batch])
        self.clock.seconds += sum(sound.seconds for sound in batch) / 100
        if any(sound.id in self.fails for sound in batch):
            raise RuntimeError("no idea\nat all")
        return [self.texts.get(sound.id, "") for sound in batch]


@pytest.fixture
def manifest(tmp_path):
    """Five utterances of 0.1 to 0.5 s, the longest in the middle, by two speakers."""
    lines = []
    for index, (text, tenths) in enumerate(zip(TEXTS, [2, 1, 5, 4, 3], strict=True)):
        noise = np.random.default_rng(index).normal(0, 0.1, 1600 * tenths)
        soundfile.write(tmp_path / f"{index}.wav", noise, 16_000)
        entry = {"id": f"u{index}", "audio": f"{index}.wav", "text": text, "split": "test"}
        lines.append(json.dumps({**entry, "speaker": f"s{index % 2}", "duration": tenths / 10}))
    lines.append(json.dumps({"id": "t", "audio": "t.wav", "text": "other", "split": "train"}))
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def dataset(manifest):
    return read_dataset(manifest, split="test")


def right(dataset):
    return dict(dataset.references)


def test_a_perfect_system_has_no_errors_and_batches_sorted_by_length(dataset):
    system = Parrot(right(dataset))
    (result,) = bench([system], [dataset], QUICK)
    assert result.score.rate == 0
    assert result.score.utterances == 5
    assert system.batches == [["u2", "u3"], ["u4", "u0"], ["u1"]]
    assert system.loads == 1


def test_rtfx_is_audio_over_computation(dataset):
    (result,) = bench([Parrot(right(dataset))], [dataset], QUICK)
    assert result.audio_seconds == pytest.approx(1.5)
    assert result.compute_seconds == pytest.approx(0.015)
    assert result.rtfx == pytest.approx(100)


def test_reading_audio_and_warm_up_are_not_timed(dataset, monkeypatch, clock):
    def slow(path):
        clock.seconds += 7
        return np.zeros(16_000, np.float32)

    monkeypatch.setattr("llmasr.bench.runner.load_audio", slow)
    system = Parrot(right(dataset))
    (result,) = bench([system], [dataset], replace(QUICK, warmup=2))
    assert result.load_seconds == 5 * 7
    assert result.compute_seconds == pytest.approx(5 / 100)
    assert system.batches[:2] == system.batches[2:4]
    assert len(system.batches) == 5


def test_a_failed_utterance_is_listed_scored_as_empty_and_spares_its_neighbours(dataset):
    (result,) = bench([Parrot(right(dataset), fails=["u3"])], [dataset], QUICK)
    assert result.failures == {"u3": "RuntimeError: no idea"}
    assert result.hypotheses["u2"] == "three"
    assert result.hypotheses["u3"] == ""
    assert result.score.deletions == 1
    assert result.score.utterances == 5
    assert result.audio_seconds == pytest.approx(1.1)
    # The attempt with both, and each alone.
    assert result.compute_seconds == pytest.approx(0.015 + 0.009)


def test_audio_that_cannot_be_read_is_listed_and_the_run_goes_on(dataset):
    dataset.clips[0].audio.write_bytes(b"no audio")
    dataset.clips[1].audio.unlink()
    (result,) = bench([Parrot(right(dataset))], [dataset], QUICK)
    assert list(result.failures) == ["u0", "u1"]
    assert result.score.deletions == 2


def test_a_wrong_number_of_texts_is_a_failure(dataset):
    system = Parrot(right(dataset))
    system.transcribe = lambda batch: ["a", "b"]
    (result,) = bench([system], [dataset], QUICK)
    assert len(result.failures) == 1
    assert result.hypotheses["u1"] == ""


def test_the_interval_draws_speakers(dataset):
    (result,) = bench([Parrot(right(dataset))], [dataset], QUICK)
    assert result.score.groups == 2


def test_latency_is_measured_with_one_utterance_at_a_time(dataset):
    system = Parrot(right(dataset))
    (result,) = bench([system], [dataset], replace(QUICK, latency=3))
    assert system.batches[-4:] == [["u2"], ["u2"], ["u3"], ["u0"]]
    latency = result.finish.latency
    assert latency.utterances == 3
    assert latency.p50 == pytest.approx(0.004)
    assert latency.p95 == pytest.approx(0.0049)


def test_an_interrupted_run_goes_on_with_the_next_batch_and_keeps_its_times(dataset, tmp_path):
    class Interrupted(Parrot):
        def transcribe(self, batch):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().transcribe(batch)

    with pytest.raises(KeyboardInterrupt):
        bench([Interrupted(right(dataset))], [dataset], QUICK, folder=tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.jsonl")
    kept = path.read_text()
    # Killed in the middle of a line: that batch has to be done again.
    path.write_text(kept[:-30])
    second = Parrot(right(dataset))
    (result,) = bench([second], [dataset], QUICK, folder=tmp_path / "out")
    assert second.batches == [["u4", "u0"], ["u1"]]
    assert result.finish.resumed == 2
    assert result.score.rate == 0
    first = json.loads(kept.splitlines()[0])["seconds"]
    assert json.loads(path.read_text().splitlines()[0])["seconds"] == first
    assert result.compute_seconds == pytest.approx(0.015)


def test_a_finished_run_is_not_repeated_and_can_be_scored_otherwise(dataset, tmp_path):
    (first,) = bench([Parrot(right(dataset))], [dataset], QUICK, folder=tmp_path)
    again = Parrot()
    (second,) = bench([again], [dataset], replace(QUICK, metric="cer"), folder=tmp_path)
    assert again.batches == []
    assert again.loads == 0
    assert second.score.metric == "cer"
    assert (second.rtfx, second.finish) == (first.rtfx, first.finish)


def test_another_option_system_or_dataset_does_not_resume(dataset, manifest, tmp_path):
    class Other(Parrot):
        def describe(self):
            return {"version": 2}

    bench([Parrot()], [dataset], QUICK, folder=tmp_path)
    smaller = read_dataset(manifest, split="test", limit=4)
    for system, data, options in (
        (Parrot(), dataset, replace(QUICK, batch_size=3)),
        (Other(), dataset, QUICK),
        (Parrot(), smaller, QUICK),
    ):
        bench([system], [data], options, folder=tmp_path)
        assert sum(map(len, system.batches)) == len(data.clips)


def test_failures_are_tried_again_by_the_next_run(dataset, tmp_path):
    bench([Parrot(right(dataset), fails=["u1"])], [dataset], QUICK, folder=tmp_path)
    mended = Parrot(right(dataset))
    (result,) = bench([mended], [dataset], QUICK, folder=tmp_path)
    assert mended.batches == [["u1"]]
    assert result.finish.resumed == 4
    assert not result.failures


def test_results_are_written_as_json_and_tables_with_their_run_card(dataset, tmp_path):
    system = Parrot(right(dataset), fails=["u3"])
    system.name = "a|b <i>"
    results = bench([system], [dataset], replace(QUICK, latency=2))
    write_json(tmp_path / "results.json", results)
    (entry,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert entry["score"]["rate"] == 0.2
    assert entry["failures"] == {"u3": "RuntimeError: no idea"}
    assert entry["memory"]["rss_peak"] > 0
    assert {"commit", "load_average", "ended"} <= set(entry)
    card = entry["card"]
    assert card["data_hash"] == dataset.digest
    assert card["machine"]["cpu_count"] >= 1
    assert {"description", "batch_size", "protocol"} <= set(card)
    markdown, page = to_markdown(results), to_html(results)
    assert "a\\|b" in markdown
    assert "20.00 %" in markdown
    assert "u3: RuntimeError" in markdown
    assert "a|b &lt;i&gt;" in page
    assert "<i>" not in page


def test_a_system_is_let_go_before_the_next_is_loaded(dataset):
    events = []

    class Loud(Parrot):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def load(self):
            events.append(f"load {self.name}")

        def unload(self):
            events.append(f"unload {self.name}")

    bench([Loud("a"), Loud("b")], [dataset], QUICK)
    assert events == ["load a", "unload a", "load b", "unload b"]


def test_two_systems_with_one_name_are_refused(dataset):
    with pytest.raises(ValueError, match="systems are"):
        bench([Parrot(), Parrot()], [dataset], QUICK)


def test_options_are_checked_before_the_work():
    with pytest.raises(ValueError, match="batch_size is 0"):
        Options(batch_size=0)
    with pytest.raises(ValueError, match="normalizer"):
        Options(normalizer="nice")
    with pytest.raises(ValueError, match="dtype is 'int3'"):
        Setup(dtype="int3")


def test_a_limit_is_spread_over_the_file(manifest):
    assert [clip.id for clip in read_dataset(manifest, split="test", limit=2).clips] == ["u0", "u2"]


def test_the_hash_of_a_dataset_changes_with_a_reference(manifest):
    before = read_dataset(manifest).digest
    manifest.write_text(manifest.read_text().replace("three", "tree"))
    assert read_dataset(manifest).digest != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "u0", "audio": "a.wav", "text": "x"}', "line 7: id 'u0' occurs twice"),
        ('{"id": "x", "audio": "a.wav"}', "line 7: field 'text' is None"),
        ('{"id": "x", "audio": "a", "text": "x", "duration": "1"}', "field 'duration' is '1'"),
        ('{"id": " ", "audio": "a.wav", "text": "x"}', "line 7: field 'id' is empty"),
        ("not json", "line 7"),
    ],
)
def test_a_broken_manifest_names_the_line(manifest, line, message):
    with manifest.open("a") as file:
        file.write("\n" + line)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_dataset(manifest)


def test_a_split_that_is_not_there_names_those_that_are(manifest):
    with pytest.raises(ValueError, match=r"split 'dev'; its splits: \['test', 'train'\]"):
        read_dataset(manifest, split="dev")


def test_stages_and_the_rest_sum_to_the_wall(dataset):
    class Staged(Parrot):
        def stages(self):
            return {"think": 0.001}

    (result,) = bench([Staged(right(dataset), fails=["u3"])], [dataset], QUICK)
    assert list(result.stages) == ["load", "think", "other"]
    # Three batches; of the first, only one utterance went well, alone.
    assert result.stages["think"] == pytest.approx(0.003)
    assert sum(result.stages.values()) == pytest.approx(result.wall_seconds)


def test_a_module_that_raises_leaves_no_open_stage():
    class Moody(torch.nn.Module):
        def forward(self, is_bad):
            time.sleep(0.01)
            if is_bad:
                raise RuntimeError

    module = Moody()
    with StageClock() as clock:
        clock.watch(module, lambda: "moody")
        with pytest.raises(RuntimeError):
            module(True)
        module(False)
        assert 0.02 <= clock.seconds()["moody"] < 0.1
        clock.reset()
        assert clock.seconds() == {}
    module(False)
    assert clock.seconds() == {}


def test_on_a_gpu_events_are_read_after_the_work(monkeypatch):
    class Event:
        made = 0

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            Event.made += 1
            self.at = Event.made

        def elapsed_time(self, end):
            return 1000.0 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    linear = torch.nn.Linear(1, 1)
    clock = StageClock(on_gpu=True)
    clock.watch(linear, lambda: "linear")
    linear(torch.zeros(1))
    linear(torch.zeros(1))
    assert clock.seconds() == {"linear": 2.0}


def test_the_clock_waits_for_the_gpu(monkeypatch):
    waits = []
    for name, call in (
        ("is_available", lambda: True),
        ("is_initialized", lambda: True),
        ("synchronize", lambda: waits.append(1)),
    ):
        monkeypatch.setattr(torch.cuda, name, call)
    clocks.now()
    assert waits == [1]


def test_without_a_kernel_that_resets_peaks_the_peak_is_that_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROC", tmp_path / "nowhere")
    assert memory.start() is None
    assert memory.peak(None).rss_peak > 2**20


def test_the_peak_is_that_since_the_start():
    before = memory.start()
    if before is None:
        pytest.skip("the kernel does not reset peaks")
    small = memory.peak(before).rss_peak
    block = np.ones(2**24)
    assert memory.peak(before).rss_peak >= small + block.nbytes // 2
    del block
    memory.start()
    assert memory.peak(before).rss_peak < small + 2**26


# The systems.


def sounds(*seconds):
    generator = np.random.default_rng(0)
    return [
        Sound(str(index), generator.normal(0, 0.1, int(16_000 * length)).astype(np.float32))
        for index, length in enumerate(seconds)
    ]


def test_ours_says_what_the_recogniser_says_and_splits_its_time():
    from llmasr import load_audio, transcribe

    system = find_system("ours:tiny-en", CPU)
    system.load()
    audio = load_audio(ASSETS / "example.flac")
    batch = [Sound("whole", audio), Sound("half", audio[: len(audio) // 2])]
    began = time.perf_counter()
    texts = system.transcribe(batch)
    wall = time.perf_counter() - began
    assert texts == [t.text for t in transcribe([(s.samples, 16_000) for s in batch])]
    stages = system.stages()
    assert list(stages)[:6] == ["features", "encoder", "cif", "cformer", "adaptor", "prefill"]
    assert all(seconds > 0 for seconds in stages.values())
    assert 0.5 * wall < sum(stages.values()) < wall
    system.unload()
    assert system.stages() == {}


def test_each_batch_of_ours_has_one_prefill(monkeypatch):
    system = Ours("tiny-test", CPU)
    system.load()
    calls = []
    monkeypatch.setattr(system, "_lm_calls", 5)
    speech = system.recognizer.bundle.model.speech
    speech.filterbank(torch.zeros(1, 800), torch.tensor([800]))
    calls = [system._lm_stage() for _ in range(3)]
    assert calls == ["prefill", "decode", "decode"]


def test_ours_describes_its_weights_before_it_is_loaded():
    card = find_system("ours:", CPU).describe()
    assert re.fullmatch("[0-9a-f]{8}", card["weights"])
    assert card["device"] == "cpu"
    with pytest.raises(ValueError, match="names no folder"):
        find_system("ours:nobody", CPU).describe()


def test_pocketsphinx_hears_speech_whatever_came_before(data):
    pytest.importorskip("pocketsphinx")
    from llmasr import load_audio

    sentences = read_dataset(data / "en_sentences_l2/manifest.jsonl", split="test", limit=15)
    clip, other = (
        Sound(sentences.clips[index].id, load_audio(sentences.clips[index].audio))
        for index in (3, 1)
    )
    system = find_system("pocketsphinx", CPU)
    system.load()
    empty = Sound("empty", np.zeros(0, np.float32))
    before, text, after, nothing = system.transcribe([other, clip, other, empty])
    assert text == sentences.references[clip.id] == "it makes me feel good about the whole business"
    assert before == after != ""
    assert nothing == ""
    assert system.describe()["pocketsphinx"]


def command(code, place):
    return "command:" + shlex.join([sys.executable, "-c", code, place])


def test_a_command_gets_a_wav_and_its_output_is_the_text():
    code = "import sys, wave; f = wave.open(sys.argv[1]); print(f.getnframes(), f.getframerate())"
    system = find_system(command(code, "{audio}"), CPU)
    assert system.transcribe(sounds(0.1, 0.2)) == ["1600 16000", "3200 16000"]


def test_a_command_can_take_a_batch():
    code = (
        "import os, sys\nfor path in open(sys.argv[1]): print('heard', os.stat(path[:-1]).st_size)"
    )
    system = find_system(command(code, "{list}"), CPU)
    assert system.transcribe(sounds(0.1, 0.2)) == ["heard 3244", "heard 6444"]


def test_a_command_that_fails_says_why():
    system = find_system(command("raise SystemExit('no model')", "{audio}"), CPU)
    with pytest.raises(RuntimeError, match="exit code 1: no model"):
        system.transcribe(sounds(0.1))


def test_samples_survive_the_way_to_a_command(tmp_path):
    kept = tmp_path / "kept.wav"
    code = f"import shutil, sys; shutil.copy(sys.argv[1], {str(kept)!r})"
    (sound,) = sounds(0.1)
    find_system(command(code, "{audio}"), CPU).transcribe([sound])
    with wave.open(str(kept)) as file:
        samples = np.frombuffer(file.readframes(1600), "<i2") / 32_767
    assert np.abs(samples - sound.samples).max() < 1 / 32_000


def test_a_file_of_hypotheses_is_scored_without_a_speed(dataset, tmp_path):
    hypotheses = tmp_path / "hyp.jsonl"
    entries = [{"id": id_, "text": text} for id_, text in dataset.references.items() if id_ != "u1"]
    hypotheses.write_text("\n".join(map(json.dumps, entries)))
    for clip in dataset.clips:
        clip.audio.unlink()
    (result,) = bench([find_system(f"file:{hypotheses}", CPU)], [dataset], QUICK)
    assert result.score.deletions == 1
    assert list(result.failures) == ["u1"]
    assert result.rtfx is result.finish.latency is result.finish.memory is result.stages is None


def test_kept_hypotheses_are_a_file_of_hypotheses(dataset, tmp_path):
    bench([Parrot(right(dataset))], [dataset], QUICK, folder=tmp_path / "out")
    (kept,) = (tmp_path / "out").glob("*.jsonl")
    (result,) = bench([find_system(f"file:{kept}", CPU)], [dataset], QUICK)
    assert result.score.rate == 0
    assert not result.failures


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kaldi:here", "system is 'kaldi:here'; allowed: ours, transformers"),
        ("transformers:nowhere", "transformers:nowhere names no folder"),
        ("faster-whisper:", "faster-whisper: names no folder"),
        ("pocketsphinx:fr", "it takes none"),
        ("command:echo", "either {audio} or {list}"),
        ("command:echo {audio} {list}", "either {audio} or {list}"),
        ("file:nowhere", "names no file"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(spec, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_system(spec, CPU)


@pytest.mark.parametrize(
    ("spec", "module", "package"),
    [
        ("faster-whisper:{}", "faster_whisper", "faster-whisper"),
        ("funasr:{}", "funasr", "funasr"),
        ("pocketsphinx", "pocketsphinx", "pocketsphinx"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_its_command(
    spec, module, package, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, module, None)
    system = find_system(spec.format(tmp_path), CPU)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        system.load()


def test_faster_whisper_is_called_as_documented(monkeypatch, tmp_path):
    class WhisperModel:
        def __init__(
            self, model_size_or_path, device="auto", device_index=0, compute_type="default",
            local_files_only=False,
        ):  # fmt: skip
            assert (model_size_or_path, device) == (str(tmp_path), "cuda")
            assert (device_index, compute_type, local_files_only) == (1, "float16", True)

        def transcribe(self, audio, beam_size=5):
            assert audio.dtype == np.float32
            words = [SimpleNamespace(text=f" {len(audio)}"), SimpleNamespace(text=" samples")]
            return iter(words), SimpleNamespace(language="en")

    stand_in = SimpleNamespace(WhisperModel=WhisperModel)
    monkeypatch.setitem(sys.modules, "faster_whisper", stand_in)
    system = find_system(f"faster-whisper:{tmp_path}", Setup("cuda:1", "float16"))
    system.load()
    assert system.transcribe(sounds(0.1, 0.2)) == ["1600 samples", "3200 samples"]


@pytest.mark.parametrize(("count", "device"), [(0, "cpu"), (2, "cuda")])
def test_faster_whisper_takes_the_gpu_that_its_engine_finds(count, device, monkeypatch, tmp_path):
    engine = SimpleNamespace(get_cuda_device_count=lambda: count)
    monkeypatch.setitem(sys.modules, "ctranslate2", engine)
    system = find_system(f"faster-whisper:{tmp_path}", Setup("auto"))
    assert system.describe()["device"] == device


def test_funasr_is_called_as_documented(monkeypatch, tmp_path):
    class AutoModel:
        def __init__(self, *, model, device, ncpu, disable_update, disable_pbar):
            assert (model, device, disable_update, disable_pbar) == (
                str(tmp_path), "cpu", True, True,
            )  # fmt: skip
            assert ncpu == torch.get_num_threads()

        def generate(self, input, input_len=None, progress_callback=None, **cfg):
            assert cfg == {"batch_size": len(input)}
            return [{"key": "k", "text": f"<|en|><|NEUTRAL|>{len(x)} samples "} for x in input]

    monkeypatch.setitem(sys.modules, "funasr", SimpleNamespace(AutoModel=AutoModel))
    system = find_system(f"funasr:{tmp_path}", CPU)
    system.load()
    assert system.transcribe(sounds(0.1, 0.2)) == ["1600 samples", "3200 samples"]
    with pytest.raises(ValueError, match="allowed for funasr: float32"):
        find_system(f"funasr:{tmp_path}", Setup("cpu", "float16"))


def tiny_whisper(folder):
    """A Whisper that writes the letter h for ever."""
    letters = [*"abcdefghijklmnopqrstuvwxyz", "\u0120", "<|endoftext|>", "<|startoftranscript|>"]
    vocabulary = {
        piece: index for index, piece in enumerate([*letters, "<|transcribe|>", "<|notimestamps|>"])
    }
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=[])
    extractor = transformers.WhisperFeatureExtractor(feature_size=8)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    config = transformers.WhisperConfig(
        vocab_size=len(vocabulary) + 1501, num_mel_bins=8, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, decoder_start_token_id=28, eos_token_id=27,
        bos_token_id=27, pad_token_id=27, suppress_tokens=None, begin_suppress_tokens=None,
        max_target_positions=300,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    decoder = model.model.decoder
    decoder.layer_norm.weight.data.zero_()
    decoder.layer_norm.bias.data = 50 * decoder.embed_tokens.weight.data[7]
    generation = model.generation_config
    generation.no_timestamps_token_id, generation.is_multilingual = 30, False
    generation._from_model_config = False
    model.save_pretrained(folder)


def tiny_wav2vec2(folder):
    """A CTC model that hears h in every frame."""
    pieces = ["<pad>", "|", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.json").write_text(json.dumps({p: index for index, p in enumerate(pieces)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(8,) * 7, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
    )  # fmt: skip
    model = transformers.Wav2Vec2ForCTC(config)
    model.lm_head.bias.data[pieces.index("h")] = 100
    model.save_pretrained(folder)


@pytest.mark.parametrize("build", [tiny_whisper, tiny_wav2vec2])
def test_a_folder_of_transformers_is_loaded_and_heard(build, tmp_path):
    torch.manual_seed(0)
    build(tmp_path)
    system = find_system(f"transformers:{tmp_path}", CPU)
    weights = system.describe()["weights"]
    system.load()
    texts = system.transcribe(sounds(1.0, 0.5))
    assert [set(text) for text in texts] == [{"h"}, {"h"}]
    assert system.describe()["weights"] == weights


def test_whisper_reads_long_audio_to_its_end(tmp_path, monkeypatch):
    tiny_whisper(tmp_path)
    system = find_system(f"transformers:{tmp_path}", CPU)
    system.load()
    given = {}

    def generate(**options):
        given.update(options)
        return torch.tensor([[7]])

    monkeypatch.setattr(system.model, "generate", generate)
    assert system.transcribe(sounds(31.0)) == ["h"]
    assert given["return_timestamps"]
    assert given["input_features"].shape[2] == 3100
    assert given["attention_mask"].sum() == 3100


def test_a_language_model_is_asked_by_its_processor(tmp_path):
    class Inputs(dict):
        def to(self, device, dtype):
            assert (device, dtype) == ("cpu", torch.float32)
            return self

    class Processor:
        def apply_transcription_request(self, audio):
            return Inputs(input_ids=torch.tensor([[1, 2, 3]] * len(audio)))

        def batch_decode(self, ids, skip_special_tokens):
            assert skip_special_tokens
            return [f" {row} " for row in ids.tolist()]

    class Model:
        device, dtype = "cpu", torch.float32

        def generate(self, input_ids, *, max_new_tokens, num_beams, do_sample):
            return torch.cat([input_ids, torch.tensor([[8, 9]] * len(input_ids))], 1)

    system = find_system(f"transformers:{tmp_path}", CPU)
    system.model, system.processor = Model(), Processor()
    assert system.transcribe(sounds(0.1, 0.2)) == ["[8, 9]", "[8, 9]"]


def test_a_folder_without_a_known_class_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["FancyForASR"]}')
    with pytest.raises(ValueError, match="expected a class of transformers"):
        find_system(f"transformers:{tmp_path}", CPU).load()


# The command line.


def test_the_command_writes_its_results_and_says_that_some_failed(manifest, tmp_path, capsys):
    hypotheses = tmp_path / "hyp.txt"
    hypotheses.write_text("u0 one\nu1 two\n")
    arguments = ["bench", f"file:{hypotheses}", "--data", str(manifest), "--split", "test"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert "WER 60.00 %" in capsys.readouterr().out
    assert {path.suffix for path in (tmp_path / "out").glob("results.*")} == {
        ".json", ".md", ".html",
    }  # fmt: skip
    hypotheses.write_text("".join(f"u{index} {text}\n" for index, text in enumerate(TEXTS)))
    assert main(arguments) == 0


def test_the_command_reports_what_the_user_can_mend(manifest, capsys):
    assert main(["bench", "kaldi", "--data", str(manifest)]) == 1
    assert "system is 'kaldi'" in capsys.readouterr().err
    assert main(["bench", "pocketsphinx", "--data", str(manifest), "--limit", "0"]) == 1
    assert "limit is 0" in capsys.readouterr().err
