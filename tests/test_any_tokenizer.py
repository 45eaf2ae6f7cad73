"""Which tokenizer a folder has, and tokenizers in `tokenizer.json`."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers

from llmasr.api import ASSETS
from llmasr.models.language.any_tokenizer import copy_tokenizer, encode_inputs, load_tokenizer
from llmasr.models.language.chatglm1_tokenizer import ChatGLM1Tokenizer
from llmasr.models.language.chatglm_tokenizers import ChatGLM2Tokenizer, ChatGLM3Tokenizer
from llmasr.models.language.json_tokenizer import JsonTokenizer
from llmasr.models.language.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden/tokenizers"
KINDS = {1: ChatGLM1Tokenizer, 2: ChatGLM2Tokenizer, 3: ChatGLM3Tokenizer}


def copied(tmp_path, generation):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / f"chatglm{generation}", folder)
    return folder


def edit_config(folder, edit, name="config.json"):
    config = json.loads((folder / name).read_text("utf-8"))
    edit(config)
    (folder / name).write_text(json.dumps(config), "utf-8")


def test_the_image_tokens_of_the_first_release_shift_every_id(tmp_path):
    folder = copied(tmp_path, 1)
    keys = ["bos_token_id", "eos_token_id", "mask_token_id", "gmask_token_id", "pad_token_id"]
    edit_config(folder, lambda c: c.update({key: c[key] + 1000 for key in keys}, vocab_size=1592))
    shifted, plain = load_tokenizer(folder), load_tokenizer(GOLDEN / "chatglm1")
    ids = encode_inputs(shifted, "hello  <eop>", "world\n")
    assert ids == [i + 1000 for i in encode_inputs(plain, "hello  <eop>", "world\n")]
    assert len(shifted) == len(plain) + 1000
    assert shifted.decode([7, 999, *ids]) == plain.decode([i - 1000 for i in ids])
    assert shifted.pieces(ids) == plain.pieces([i - 1000 for i in ids])
    cut = json.loads((GOLDEN / "chatglm1/config.json").read_text("utf-8"))
    assert len(load_tokenizer(folder, config=cut)) == len(plain)


@pytest.mark.parametrize("generation", KINDS)
def test_the_generation_is_found_without_its_name_where_that_is_possible(tmp_path, generation):
    folder, kind = copied(tmp_path, generation), KINDS[generation]
    edit_config(folder, lambda c: c.update(_name_or_path="tuned"))
    assert type(load_tokenizer(folder)) is kind
    edit_config(folder, lambda c: c.pop("name_or_path"), "tokenizer_config.json")
    if generation == 1:
        assert type(load_tokenizer(folder)) is kind
        return
    with pytest.raises(ValueError, match=r"pass generation=2 or generation=3"):
        load_tokenizer(folder)
    assert type(load_tokenizer(folder, generation=generation)) is kind
    edit_config(folder, lambda c: c.update(chatglm_generation=generation, model_type="glm"))
    assert type(load_tokenizer(folder)) is kind


def test_role_tokens_in_its_settings_betray_the_third_generation(tmp_path):
    folder = copied(tmp_path, 3)
    edit_config(folder, lambda c: c.pop("_name_or_path"))
    template = {"name_or_path": "", "chat_template": "<|user|>{{ messages }}"}
    edit_config(folder, lambda c: c.update(template), "tokenizer_config.json")
    assert type(load_tokenizer(folder)) is ChatGLM3Tokenizer


def test_a_converted_folder_keeps_its_tokenizer(tmp_path):
    folder = copied(tmp_path, 3)
    edit_config(folder, lambda c: c.update(model_type="glm", vocab_size=c.pop("padded_vocab_size")))
    tokenizer = load_tokenizer(folder)
    assert type(tokenizer) is ChatGLM3Tokenizer
    saved = tmp_path / "saved"
    saved.mkdir()
    shutil.copyfile(folder / "config.json", saved / "config.json")
    copy_tokenizer(tokenizer, saved)
    copy_tokenizer(tokenizer, folder)
    assert load_tokenizer(saved).encode("hello") == tokenizer.encode("hello")


@pytest.mark.parametrize(
    ("generation", "name"), [(1, "ice_text.model"), (2, "tokenizer.model"), (3, "config.json")]
)
def test_a_missing_file_is_named(tmp_path, generation, name):
    folder = copied(tmp_path, generation)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: missing"):
        load_tokenizer(folder)


def test_files_of_another_generation_are_named(tmp_path):
    folder = copied(tmp_path, 1)
    (folder / "ice_text.model").rename(folder / "tokenizer.model")
    with pytest.raises(FileNotFoundError, match=r"ice_text\.model: missing.*found: tokenizer"):
        load_tokenizer(folder)


def test_a_damaged_file_is_named(tmp_path):
    folder = copied(tmp_path, 2)
    (folder / "tokenizer.model").write_bytes(b"IA== 0")
    with pytest.raises(ValueError, match=r"tokenizer\.model: not a SentencePiece model"):
        load_tokenizer(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json: holds a list"):
        load_tokenizer(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: damaged"):
        load_tokenizer(folder)


def test_a_vocabulary_of_another_generation_is_refused(tmp_path):
    folder = copied(tmp_path, 1)
    shutil.copyfile(GOLDEN / "chatglm2/tokenizer.model", folder / "ice_text.model")
    with pytest.raises(ValueError, match=r"ice_text\.model: no piece '\[MASK\]'"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("generation", "edit", "message"),
    [
        (1, {"gmask_token_id": 1}, r"gmask_token_id is 1; in ice_text\.model it is 570"),
        (2, {"eos_token_id": 459}, r"eos_token_id is 459; in tokenizer\.model it is 2"),
        (3, {"padded_vocab_size": 460}, r"has 460 ids, tokenizer\.model gives 464"),
    ],
)
def test_a_tokenizer_that_does_not_fit_the_model_is_refused(tmp_path, generation, edit, message):
    folder = copied(tmp_path, generation)
    edit_config(folder, lambda config: config.update(edit))
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder)


def test_another_model_with_a_plain_vocabulary_gets_the_plain_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "glm", "vocab_size": 512}')
    shutil.copyfile(ASSETS / "tiny-test/tokenizer.model", tmp_path / "tokenizer.model")
    assert type(load_tokenizer(tmp_path)) is Tokenizer
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model: missing; glm needs it"):
        load_tokenizer(tmp_path)


# tokenizer.json

TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GLM4_SPECIALS = ["<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"]


@pytest.fixture
def glm4(tmp_path):
    """A folder in the shape of GLM-4, with a byte-level vocabulary of a few merges."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello")]
    pieces = [*letters, *("".join(merge) for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    model.add_special_tokens(GLM4_SPECIALS)
    first = len(pieces)
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[("[gMASK]", first + 1), ("<sop>", first + 2)]
    )
    model.save(str(tmp_path / "tokenizer.json"))
    config = {
        "model_type": "chatglm", "_name_or_path": "THUDM/glm-4-9b-chat", "pad_token_id": first,
        "eos_token_id": [first, first + 3], "padded_vocab_size": 320, "multi_query_attention": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = {"tokenizer_class": "ChatGLM4Tokenizer", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize("text", ["", "hello", "hello hello\n", "  你好 🎉", "[gMASK]<sop>hello"])
def test_text_survives_glm4(glm4, text):
    tokenizer = load_tokenizer(glm4)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.specials.values())


def test_glm4_shows_no_special_token_and_no_unknown_id(glm4):
    tokenizer = load_tokenizer(glm4)
    specials = list(tokenizer.specials.values())
    ids = tokenizer.encode("hello hello")
    assert tokenizer.decode([-1, *specials, *ids, *specials, 319, 10**6]) == "hello hello"
    assert tokenizer.pieces([*ids, 10**6]) == ["hello", "▁hello", ""]
    assert tokenizer.decode(tokenizer.encode("🎉")[:-1]) == "\ufffd"


def test_glm4_knows_its_special_ids_and_its_size(glm4):
    tokenizer = load_tokenizer(glm4)
    first = tokenizer.id_of("<|endoftext|>")
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (first, first, first + 2)
    assert len(tokenizer) == first + len(GLM4_SPECIALS)
    assert tokenizer.layout == "glm4"
    with pytest.raises(ValueError, match="no piece '<image>'"):
        tokenizer.id_of("<image>")


def test_a_chat_template_gives_the_ids_around_the_words_of_a_user(glm4):
    tokenizer = load_tokenizer(glm4)
    gmask, sop, user, assistant = map(tokenizer.id_of, GLM4_SPECIALS[1:])
    line = tokenizer.encode("\n")
    asked = tokenizer.encode("go <|user|>")
    assert user not in asked
    assert tokenizer.template_ids("go <|user|>") == (
        [gmask, sop, user, *line], [*asked, assistant]
    )  # fmt: skip


def test_a_chat_template_shows_what_was_said_before(glm4):
    tokenizer = load_tokenizer(glm4)
    user, assistant = map(tokenizer.id_of, GLM4_SPECIALS[3:])
    line = tokenizer.encode("\n")
    before, after = tokenizer.template_ids("go", [("stop", "no")])
    assert before == tokenizer.template_ids("stop")[0]
    said, answered, asked = map(tokenizer.encode, ("stop", "no", "go"))
    assert after == [*said, assistant, *line, *answered, user, *line, *asked, assistant]


def test_a_chat_template_may_lie_in_a_file_or_have_a_name(glm4):
    expected = load_tokenizer(glm4).template_ids("go")
    named = [{"name": "tools", "template": ""}, {"name": "default", "template": TEMPLATE}]
    edit_config(glm4, lambda c: c.update(chat_template=named), "tokenizer_config.json")
    assert load_tokenizer(glm4).template_ids("go") == expected
    edit_config(glm4, lambda c: c.pop("chat_template"), "tokenizer_config.json")
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(glm4).template_ids("go")
    (glm4 / "chat_template.jinja").write_text(TEMPLATE)
    assert load_tokenizer(glm4).template_ids("go") == expected


def test_a_chat_template_without_the_words_of_the_user_is_refused(glm4):
    tokenizer = JsonTokenizer(glm4 / "tokenizer.json", {}, "hello")
    with pytest.raises(ValueError, match="shows 0 of 1 turns"):
        tokenizer.template_ids("go")
    with pytest.raises(ValueError, match="names no eos_token_id"):
        tokenizer.eos_id  # noqa: B018


def test_glm4_needs_its_json_file(glm4):
    (glm4 / "tokenizer.json").rename(glm4 / "tokenizer.model")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json: missing.*found: tokenizer"):
        load_tokenizer(glm4)
    (glm4 / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer\.json"):
        load_tokenizer(glm4)


def test_every_tokenizer_offers_the_same_interface(glm4):
    folders = [*(GOLDEN / f"chatglm{generation}" for generation in KINDS), glm4]
    plain = Tokenizer(ASSETS / "tiny-test/tokenizer.model")
    for tokenizer in [plain, *map(load_tokenizer, folders)]:
        ids = tokenizer.encode("hello")
        around = [tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id]
        assert tokenizer.decode(around) == "hello"
        assert len(tokenizer.pieces(around)) == len(around)
        assert max(around) < len(tokenizer)
        assert tokenizer.path.is_file()
