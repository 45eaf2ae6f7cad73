import base64
import copy
import importlib.util
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from llmasr.data.xllm_forms import FORMS, Places, join_history, split_history
from llmasr.data.xllm_json import from_manifest, read_items, to_manifest
from llmasr.prompts import INSTRUCTIONS

ROOT = "/lab/data"
PLACES = Places(ROOT, "pictures")


def picture(kind="JPEG", size=9):
    file = io.BytesIO()
    Image.effect_noise((size, size), 50).convert("RGB").save(file, kind)
    return file.getvalue()


def embedded(content):
    return base64.urlsafe_b64encode(content).decode()


def spoken(**changes):
    return {
        "utterance_id": "IC0001W0001", "speech_feats_path": f"{ROOT}/feats/IC0001W0001.npy",
        "length": 7, "target_text": "打开客厅的灯",
    } | changes  # fmt: skip


def dialogue(**changes):
    return {
        "speech_feats_path": f"{ROOT}/feats/q1.npy",
        "image_path": f"{ROOT}/train2014/COCO_train2014_000000000009.jpg",
        "question_text": "这是什么？", "answer_text": "一只狗。",
        "history_text": "问题：有几个人？回复：两个。问题：他们在做什么？回复：吃饭。",
    } | changes  # fmt: skip


def captioned(**changes):
    return {
        "image": "val2014/1.jpg", "caption": ["一只狗", "狗在跑"], "image_id": 1, "dataset": "coco",
    } | changes  # fmt: skip


# Items of each form: usual ones, then odd ones.
ITEMS = {
    "image-captions": [
        captioned(),
        captioned(image=f"{ROOT}/cc3m/2.jpg", caption="一只猫", image_id="2", dataset="cc3m"),
        captioned(image=embedded(picture()), image_id="flickr/../3"),
        captioned(image=embedded(picture(size=11)).rstrip("="), image_id=4),
        captioned(image=embedded(picture("PNG"))),
        captioned(caption=["", "一只狗"], split=None),
        captioned(caption=""),
    ],
    "speech": [
        spoken(),
        spoken(length="length"),
        spoken(length=0, target_text="", wav_length=16000),
        spoken(utterance_id=5, speech_feats_path="feats/5.npy"),
        spoken(speech_feats_path=f"{ROOT}//feats/./6.npy", image="not looked at"),
        spoken(target_text="a\u2028b\n\"\\"),
    ],
    "speech-image": [
        spoken(image=f"{ROOT}/val2014/COCO_val2014_000000000042.jpg", length="length"),
        spoken(image="COCO_val2014_000000000042.jpg", wav_length=3.5),
    ],
    "masr": [dialogue(), dialogue(history_text="")],
    "vsd": [
        dialogue(),
        dialogue(history_text=""),
        dialogue(history_text=" \n"),
        dialogue(history_text="问题：有几个人？\n回复：两个。\n问题: 谁？ 回复: 我。\n"),
        dialogue(history_text="问题：有几个人？"),
        dialogue(answer_text=""),
    ],
    "image": [
        {"image_id": "000000000009", "caption_zh": "一只狗。"},
        {"image_id": 9, "caption_zh": ""},
        {"image_id": "a.b/c", "caption_zh": "一只狗", "source": {"model": [1, None]}},
    ],
    "video": [
        {"image_id": "v_QOlSCBRmfWY", "caption_zh": "一个女人在跳舞。"},
        {"image_id": "v_QOlSCBRmfWY", "caption_zh": "又一个。"},
    ],
}  # fmt: skip


def entries(form, items, places=PLACES):
    return [line.entry for line in to_manifest(items, form, places)]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back_without_loss(form):
    lines = list(to_manifest(ITEMS[form], form, PLACES))
    images = {line.entry["image"]: line.image for line in lines if line.image is not None}
    stored = json.loads(json.dumps([line.entry for line in lines]))
    assert list(from_manifest(stored, PLACES, images.__getitem__)) == ITEMS[form]


@pytest.mark.parametrize("form", FORMS)
def test_every_line_has_an_id_of_its_own_a_task_and_relative_paths(form):
    found = entries(form, ITEMS[form])
    assert len({entry["id"] for entry in found}) == len(found)
    for entry in found:
        assert entry["task"] in INSTRUCTIONS
        assert isinstance(entry["text"], str)
        for field in {"feats", "image", "video"} & set(entry):
            assert not entry[field].startswith("/")
            assert ".." not in Path(entry[field]).parts


def test_speech_becomes_features_with_a_length_and_a_text():
    known, unknown = entries("speech", [spoken(), spoken(length="length", wav_length=9)])
    assert known == {
        "id": "IC0001W0001", "feats": "feats/IC0001W0001.npy", "text": "打开客厅的灯",
        "feats_length": 7, "task": "transcribe", "xllm": {"form": "speech", "values": {}},
    }  # fmt: skip
    assert "feats_length" not in unknown
    assert unknown["id"] == "IC0001W0001-2"
    assert unknown["xllm"]["values"] == {"utterance_id": "IC0001W0001", "wav_length": 9}


def test_one_dialogue_is_two_tasks():
    (masr,), (vsd,) = (entries(form, [dialogue()]) for form in ("masr", "vsd"))
    assert (masr["text"], masr["answer"]) == ("这是什么？", "一只狗。")
    assert (vsd["text"], vsd["question"]) == ("一只狗。", "这是什么？")
    assert (masr["task"], vsd["task"]) == ("transcribe_with_image", "answer_about_image")
    assert masr["image"] == "train2014/COCO_train2014_000000000009.jpg"
    assert vsd["history"] == [["有几个人？", "两个。"], ["他们在做什么？", "吃饭。"]]
    assert vsd["xllm"]["values"] == {}


def test_ids_become_names_of_files():
    assert entries("image", [{"image_id": 9, "caption_zh": "x"}])[0]["image"] == "pictures/9.jpg"
    found = entries("video", [{"image_id": "v_1", "caption_zh": "x"}], Places("", ""))
    assert found[0]["video"] == "v_1.mp4"


def test_an_image_inside_the_json_becomes_a_file_of_its_kind():
    content = picture("PNG")
    item = captioned(image=embedded(content), image_id="a/../b")
    line = next(to_manifest([item], "image-captions", PLACES))
    assert line.image == content
    assert line.entry["image"] == "images/00000001-a_b.png"
    assert line.entry["captions"] == ["一只狗", "狗在跑"]
    assert line.entry["text"] == "一只狗"


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("", []),
        ("  \n", []),
        ("问题：a回复：b", [["a", "b"]]),
        ("问题: a \n回复:b\n问题：c 回复：", [["a", "b"], ["c", ""]]),
        ("问题：a问题：b回复：c", [["a", ""], ["b", "c"]]),
    ],
)
def test_a_history_is_split_into_turns(text, turns):
    assert split_history(text) == turns
    assert split_history(join_history(turns)) == turns


WRONG = [
    ("speech", {"utterance_id": "a"}, "form 'speech' needs speech_feats_path, length, target_text"),
    ("speech", dialogue(), "they fit masr or vsd"),
    ("speech", spoken(length="12"), "length is '12'; expected a whole number or 'length'"),
    ("speech", spoken(length=True), "length is True"),
    ("speech", spoken(length=-1), "length is -1"),
    ("speech", spoken(target_text=None), "target_text is None; expected a string"),
    ("speech", spoken(utterance_id=""), "its id is empty"),
    ("speech", spoken(utterance_id=1.5), "utterance_id is 1.5"),
    ("speech", spoken(speech_feats_path="/other/a.npy"), "is not under root '/lab/data'"),
    ("speech", spoken(speech_feats_path="../a.npy"), "expected one without '..'"),
    ("speech", spoken(speech_feats_path=f"{ROOT}/../a.npy"), "expected one without '..'"),
    ("speech", spoken(speech_feats_path=""), "speech_feats_path gives the path '.'"),
    ("speech-image", spoken(image=3), "image is 3; expected a string"),
    ("image-captions", captioned(caption=[]), r"caption is \[\]"),
    ("image-captions", captioned(caption=["a", 1]), "every one must be a string"),
    ("image-captions", captioned(image="A" * 2000), "2000 letters; expected a path, or URL-safe"),
    (
        "image-captions",
        captioned(image=base64.b64encode(b"\xff\xd8\xff" + 2000 * b"\xfb").decode()),
        "expected a path, or URL-safe",
    ),
    ("vsd", dialogue(history_text="你好 问题：a"), "history_text begins with '你好 '"),
    ("vsd", dialogue(history_text="回复：a"), "the reply 'a' to no question"),
    ("vsd", dialogue(history_text="问题：a回复：b回复：c"), "the reply 'c' to no question"),
    ("video", {"image_id": "../v", "caption_zh": ""}, "expected one without '..'"),
    ("video", {"image_id": "/v", "caption_zh": ""}, "expected no absolute path"),
    ("video", {"image_id": "v", "caption_zh": ["x"]}, r"caption_zh is \['x'\]"),
]


@pytest.mark.parametrize(("form", "item", "message"), WRONG)
def test_a_wrong_item_is_named_with_what_is_wrong(form, item, message):
    with pytest.raises(ValueError, match=f"^item 2: .*{message}"):
        entries(form, [ITEMS[form][0], item])


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form is 'asr'; allowed: image-captions, speech,"):
        entries("asr", [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "holds a dict; expected a JSON array"),
        ('[{"a": 1}, 5]', "item 2 is 5; expected an object"),
        ('{"a": 1}\n{"a": 2}\n', "not one JSON array"),
        ("", "not one JSON array"),
    ],
)
def test_a_file_that_is_no_array_of_objects_is_named(content, message, tmp_path):
    path = tmp_path / "train.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"train\.json: {message}"):
        read_items(path)


def changed(entry, change):
    entry = copy.deepcopy(entry)
    change(entry)
    return entry


@pytest.mark.parametrize(
    ("form", "item", "change", "message"),
    [
        ("image-captions", 0, lambda e: e.update(text="new"), "field 'text' is 'new', but by xllm"),
        ("vsd", 3, lambda e: e["history"].pop(), "field 'history' is .* it was changed"),
        ("image", 1, lambda e: e.update(image="pictures/8.jpg"), "field 'image' is"),
        ("image", 0, lambda e: e.update(image="other/9.jpg"), "expected a .jpg file in 'pictures'"),
        ("speech", 0, lambda e: e.pop("feats"), "field 'feats' is missing"),
        ("speech", 0, lambda e: e.update(text=5), "target_text is 5"),
        ("speech", 0, lambda e: e.pop("xllm"), "field 'xllm' is missing"),
        ("speech", 0, lambda e: e.update(xllm=[]), r"xllm is \[\]; expected an object"),
        ("speech", 0, lambda e: e["xllm"].update(form="x"), "form is 'x'; allowed"),
        ("vsd", 0, lambda e: e.update(history=3), "not iterable"),
    ],
)
def test_a_line_that_contradicts_what_it_keeps_is_refused(form, item, change, message):
    entry = changed(entries(form, ITEMS[form])[item], change)
    with pytest.raises(ValueError, match=f"^line 1: .*{message}"):
        list(from_manifest([entry], PLACES, {}.__getitem__))


def test_a_corrected_text_and_new_fields_are_taken_back():
    entry = entries("speech", [spoken()])[0] | {"text": "关灯", "duration": 1.5, "lang": "zh"}
    (item,) = from_manifest([entry], Places("/elsewhere/", ""), {}.__getitem__)
    assert item == spoken(target_text="关灯", speech_feats_path="/elsewhere/feats/IC0001W0001.npy")


@pytest.fixture(scope="module")
def tool():
    path = Path(__file__).resolve().parents[1] / "tools" / "convert_xllm.py"
    spec = importlib.util.spec_from_file_location("convert_xllm", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_converts_files_both_ways(tool, tmp_path, capsys):
    source, manifest, back = (tmp_path / name for name in ("a.json", "data/m.jsonl", "b.json"))
    items = ITEMS["image-captions"][2:]
    for item in items[3:]:
        (tmp_path / "data" / item["image"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / item["image"]).write_bytes(picture())
    source.write_text(json.dumps(items), encoding="utf-8")
    tool.main(["to-manifest", str(source), str(manifest), "--form", "image-captions"])
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        Image.open(manifest.parent / line["image"]).load()
    tool.main(["from-manifest", str(manifest), str(back)])
    assert json.loads(back.read_text(encoding="utf-8")) == items
    assert "5 items" in capsys.readouterr().out
    (manifest.parent / lines[0]["image"]).unlink()
    with pytest.raises(SystemExit, match=r"m\.jsonl: line 1: image .*jpg is missing"):
        tool.main(["from-manifest", str(manifest), str(back)])


def test_the_command_names_missing_files_and_writes_nothing(tool, tmp_path):
    source, manifest = tmp_path / "a.json", tmp_path / "m.jsonl"
    items = [
        spoken(speech_feats_path=f"{ROOT}/feats/{n}.npy", utterance_id=f"{n}") for n in range(9)
    ]
    source.write_text(json.dumps(items), encoding="utf-8")
    command = ["to-manifest", str(source), str(manifest), "--form", "speech", "--root", ROOT]
    with pytest.raises(
        SystemExit, match=r"9 files are not in .*: feats/0\.npy, feats/1\.npy, .*\.\.\."
    ):
        tool.main(command)
    assert not manifest.exists()
    tool.main([*command, "--unchecked"])
    assert len(manifest.read_text(encoding="utf-8").splitlines()) == 9


def test_the_command_names_the_file_and_the_item(tool, tmp_path):
    source = tmp_path / "a.json"
    source.write_text(json.dumps([spoken(length="x")]), encoding="utf-8")
    command = ["to-manifest", str(source), str(tmp_path / "m.jsonl"), "--form", "speech"]
    with pytest.raises(SystemExit, match=r"a\.json: item 1: "):
        tool.main(command)
    broken = tmp_path / "m.jsonl"
    broken.write_text("{}\n[]\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"m\.jsonl: line 2: is \[\]; expected an object"):
        tool.main(["from-manifest", str(broken), str(tmp_path / "b.json")])
