"""A speech interface in front of language models with vocabularies of their own."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmasr import Recognizer, load_audio
from llmasr.api import ASSETS
from llmasr.decoding.drafts import retokenised, spell
from llmasr.decoding.greedy import Decoding, draft_source, recognise, write
from llmasr.decoding.timestamps import times_at, words_from
from llmasr.importers.attach import attach_language_model
from llmasr.models.checkpoint import load_pretrained, save_pretrained
from llmasr.models.language.any_tokenizer import load_tokenizer
from llmasr.text import join

GOLDEN = Path(__file__).parent / "golden"
VOCABULARIES = GOLDEN / "tokenizers"
EXAMPLE = ASSETS / "example.flac"
KINDS = ["chatglm1", "chatglm2", "chatglm3"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Language model folders by kind, each with its tokenizer, as people have them."""
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp("models") / kind
        shutil.copytree(GOLDEN / kind, made[kind])
        for file in (VOCABULARIES / kind).glob("*token*"):
            shutil.copy(file, made[kind])
        for file in (VOCABULARIES / kind).glob("*.model"):
            shutil.copy(file, made[kind])
    return made


@pytest.fixture(scope="module")
def speech():
    return load_pretrained(ASSETS / "tiny-en")


@pytest.fixture(scope="module", params=KINDS)
def attached(request, speech, folders):
    torch.manual_seed(0)
    return attach_language_model(speech, folders[request.param])


@pytest.fixture(scope="module")
def clip():
    waveform = torch.as_tensor(load_audio(EXAMPLE))[None]
    return waveform, torch.tensor([waveform.shape[1]])


def test_a_saved_model_is_the_same_model(attached, clip, tmp_path):
    save_pretrained(attached, tmp_path / "model", dtype=torch.float32)
    again = load_pretrained(tmp_path / "model")
    assert again.speech_tokenizer is not None
    assert type(again.tokenizer) is type(attached.tokenizer)
    assert again.model.prompt == attached.model.prompt
    how = Decoding(draft=draft_source(attached))
    expected, found = (recognise(bundle.model, *clip, how)[0] for bundle in (attached, again))
    assert found.token_ids == expected.token_ids
    assert found.draft_ids == expected.draft_ids


def test_the_speech_interface_hears_what_it_heard_before(attached, speech, clip):
    how = Decoding(draft=draft_source(attached))
    draft = recognise(attached.model, *clip, how)[0].draft_ids
    before = recognise(speech.model, *clip)[0].draft_ids
    assert attached.tokenizer.decode(draft).split() == speech.tokenizer.decode(before).split()


def test_drafts_of_another_vocabulary_change_no_answer(attached, clip):
    how = Decoding(draft=draft_source(attached))
    plain = recognise(attached.model, *clip, how, search=write)[0]
    assert recognise(attached.model, *clip, how)[0].token_ids == plain.token_ids


def test_a_model_learns_clips_by_heart_and_writes_them_in_one_call(speech, folders, clip):
    torch.manual_seed(0)
    bundle = attach_language_model(speech, folders["chatglm2"])
    text = "the words of the clip"
    model, tokenizer = bundle.model, bundle.tokenizer
    heard = model.speech.listen(*model.speech.features(*clip))
    tokens, lengths = heard.tokens.detach(), heard.cif.token_lengths
    trained = [*model.speech.adaptor.parameters(), *model.language_model.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    answers = [[*tokenizer.encode(text), tokenizer.eos_id]]
    for _ in range(40):
        optimizer.zero_grad()
        loss = model.loss(model.speech.adaptor(tokens), lengths, answers)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    transcript = Recognizer(bundle).transcribe(EXAMPLE, alternatives=2)
    assert transcript.text == text
    assert [word.text for word in transcript.words] == text.split()
    edges = [edge for word in transcript.words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert "".join(token.text for token in transcript.segments[0].tokens) == text
    best = [token.alternatives[0] for token in transcript.segments[0].tokens]
    assert all(value > -0.5 for _, value in best)


def test_a_context_that_is_too_long_fails_alone_in_a_list(speech, folders):
    bundle = attach_language_model(speech, folders["chatglm2"])
    bundle.model.language_model.config.max_position_embeddings = 48
    recognizer = Recognizer(bundle)
    silence = (torch.zeros(16_000).numpy(), 16_000)
    failed, empty = recognizer.transcribe([EXAMPLE, silence])
    assert failed.status == "failed"
    assert "the language model reads at most 48" in failed.error
    assert empty.status == "empty"
    with pytest.raises(ValueError, match="the language model reads at most 48"):
        recognizer.transcribe(EXAMPLE)


def test_a_layout_of_another_tokenizer_is_refused(speech, folders):
    with pytest.raises(ValueError, match=r"no piece 'sop'"):
        attach_language_model(speech, folders["chatglm1"], layout="chatglm2")


def test_a_folder_without_tokenizer_is_named(speech, folders, tmp_path):
    shutil.copytree(folders["chatglm2"], tmp_path / "chatglm2")
    (tmp_path / "chatglm2/tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model: missing; ChatGLM2"):
        attach_language_model(speech, tmp_path / "chatglm2")


# A language model folder inside a model folder that is not what it says.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(hidden_size=64), "language_model: mismatched weights"),
        (lambda c: c.update(num_hidden_layers=3), "language_model: missing weights"),
        (lambda c: c.update(num_hidden_layers=1), "language_model: unexpected weights"),
        (lambda c: c.update(vocab_size=100), "the model has 100 ids|mismatched weights"),
    ],
)
def test_a_language_model_that_does_not_fit_is_named(speech, folders, tmp_path, change, message):
    bundle = attach_language_model(speech, folders["chatglm2"])
    save_pretrained(bundle, tmp_path / "model")
    path = tmp_path / "model/language_model/config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path / "model")


# Spelling and times.


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text("abc 你好, 。", max_size=12))
def test_the_parts_of_a_text_make_up_the_text(kind, text):
    tokenizer = load_tokenizer(VOCABULARIES / kind)
    ids = tokenizer.encode(text)
    parts = spell(tokenizer, ids)
    assert len(parts) == len(ids)
    assert "".join(parts) == tokenizer.decode(ids)


def test_letters_share_the_time_of_their_fire(speech):
    class Letters:
        def encode(self, text):
            return [ord(letter) for letter in text]

        def decode(self, ids):
            return "".join(map(chr, ids))

    words = speech.tokenizer.encode("go left")
    assert len(words) == 2
    heard = retokenised(speech.tokenizer, Letters())(words)
    assert heard.ids == [ord(letter) for letter in "go left"]
    assert heard.ends == pytest.approx([0.5, 1.0, 1.0, 1.4, 1.6, 1.8, 2.0])
    assert times_at(heard.ends, [0.4, 1.4]) == pytest.approx([0.2, 0.4, 0.4, 0.8, 1.0, 1.2, 1.4])


def test_han_pieces_are_words(speech):
    tokenizer = load_tokenizer(VOCABULARIES / "chatglm2")
    ids = tokenizer.encode("你好 go 世界")

    class Heard:
        token_ids = draft_ids = ids
        log_probs = (0.0,) * len(ids)
        draft_times = tuple(map(float, range(1, len(ids) + 1)))

    words = words_from(Heard, tokenizer, 99.0)
    assert "".join(word.text for word in words) == "你好go世界"
    assert "go" in [word.text for word in words]
    assert len(words) >= 3
    assert all(one.end <= two.start for one, two in pairwise(words))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["go", "left"], "go left"),
        (["你好", "世界"], "你好世界"),
        (["你好。", "世界"], "你好。世界"),
        (["你好", "go"], "你好 go"),
        (["", "go", ""], "go"),
    ],
)
def test_segments_are_joined_by_their_script(parts, expected):
    assert join(parts) == expected
