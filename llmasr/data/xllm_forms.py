"""The JSON forms of X-LLM's training data, and the fields of ours that say the same.

| form | their keys | our fields |
| --- | --- | --- |
| `image-captions` | `CAPTION_KEYS` | image, text (the first caption), captions (if a list) |
| `speech` | `SPEECH_KEYS` | id, feats, feats_length, text |
| `speech-image` | `SPEECH_KEYS`, image | those of `speech`, image |
| `masr` | `DIALOGUE_KEYS` | feats, image, text (the question), answer, history |
| `vsd` | `DIALOGUE_KEYS` | feats, image, text (the answer), question, history |
| `image` | image_id, caption_zh | image, text |
| `video` | image_id, caption_zh | video, text |

A feature file holds one float32 vector a token, [L, 512], and `feats_length` is its L; it is left
out where the original has the word "length" instead. A history becomes a list of
[question, reply]. Here are only mappings of keys; `xllm_json` has the rest.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

Item = Mapping[str, Any]

CAPTION_KEYS = ("image", "caption", "image_id", "dataset")
SPEECH_KEYS = ("utterance_id", "speech_feats_path", "length", "target_text")
DIALOGUE_KEYS = (
    "speech_feats_path", "image_path", "question_text", "answer_text", "history_text"
)  # fmt: skip

# What stands for a length that nobody wrote: two cleaning scripts of X-LLM left it.
NO_LENGTH = "length"

QUESTION, REPLY = "问题：", "回复："
MARKER = re.compile(r"(问题|回复)[：:]")


@dataclass(frozen=True)
class Places:
    """Where media were for X-LLM, and where they are for us.

    Attributes:
        root: folder that is taken off absolute paths; what was under it must lie in the manifest's
            folder in the same way. Empty if no path is absolute.
        folder: where in the manifest's folder images and videos lie that have only an id; may be
            empty.
    """

    root: str
    folder: str


@dataclass(frozen=True)
class Form:
    """One of X-LLM's JSON forms.

    Attributes:
        task: what our manifest calls the work.
        keys: keys that every item has.
        read: our fields, `id` among them, of an item.
        write: an item of our fields, as far as they tell.
    """

    task: str
    keys: tuple[str, ...]
    read: Callable[[Item, Places], dict[str, Any]]
    write: Callable[[Item, Places], dict[str, Any]]


def _text(item: Item, key: str) -> str:
    value = item[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is {value!r:.80}; expected a string")
    return value


def _name(item: Item, key: str) -> str:
    value = item[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{key} is {value!r:.80}; expected a string or a whole number")
    return str(value)


def _path(item: Item, key: str, places: Places) -> str:
    """Return a path of X-LLM relative to the manifest's folder."""
    path = PurePosixPath(_text(item, key))
    if places.root and path.is_relative_to(places.root):
        path = path.relative_to(places.root)
    if path.is_absolute():
        raise ValueError(f"{key} is {str(path)!r}, which is not under root {places.root!r}")
    return _inside(path, key)


def _inside(path: PurePosixPath, key: str) -> str:
    if not path.name or ".." in path.parts:
        raise ValueError(f"{key} gives the path {str(path)!r}; expected one without '..'")
    return str(path)


def _original_path(path: str, places: Places) -> str:
    return f"{places.root.rstrip('/')}/{path}" if places.root else path


def _read_captions(item: Item, places: Places) -> dict[str, Any]:
    captions = item["caption"]
    fields = {
        "id": f"{_name(item, 'dataset')}-{_name(item, 'image_id')}",
        "image": _path(item, "image", places),
    }
    if isinstance(captions, str):
        return {**fields, "text": captions}
    if not isinstance(captions, list) or not captions:
        raise ValueError(f"caption is {captions!r:.80}; expected a string or a list of strings")
    if not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"caption is {captions!r:.80}; every one must be a string")
    return {**fields, "text": captions[0], "captions": captions}


def _write_captions(fields: Item, places: Places) -> dict[str, Any]:
    caption = fields["captions"] if "captions" in fields else fields["text"]
    return {"image": _original_path(fields["image"], places), "caption": caption}


def _read_speech(item: Item, places: Places) -> dict[str, Any]:
    length = item["length"]
    fields = {
        "id": _name(item, "utterance_id"),
        "feats": _path(item, "speech_feats_path", places),
        "text": _text(item, "target_text"),
    }
    if length == NO_LENGTH:
        return fields
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise ValueError(f"length is {length!r:.80}; expected a whole number or {NO_LENGTH!r}")
    return {**fields, "feats_length": length}


def _write_speech(fields: Item, places: Places) -> dict[str, Any]:
    return {
        "utterance_id": fields["id"],
        "speech_feats_path": _original_path(fields["feats"], places),
        "length": fields.get("feats_length", NO_LENGTH),
        "target_text": fields["text"],
    }


def _read_speech_image(item: Item, places: Places) -> dict[str, Any]:
    return {**_read_speech(item, places), "image": _path(item, "image", places)}


def _write_speech_image(fields: Item, places: Places) -> dict[str, Any]:
    return {**_write_speech(fields, places), "image": _original_path(fields["image"], places)}


def _dialogue(task: str, text: str, rest: str, rest_field: str) -> Form:
    """Return the form whose model writes the key `text`; we call the other one `rest_field`."""

    def read(item: Item, places: Places) -> dict[str, Any]:
        feats = _path(item, "speech_feats_path", places)
        return {
            "id": PurePosixPath(feats).stem,
            "feats": feats,
            "image": _path(item, "image_path", places),
            "text": _text(item, text),
            rest_field: _text(item, rest),
            "history": split_history(_text(item, "history_text")),
        }

    def write(fields: Item, places: Places) -> dict[str, Any]:
        return {
            "speech_feats_path": _original_path(fields["feats"], places),
            "image_path": _original_path(fields["image"], places),
            text: fields["text"],
            rest: fields[rest_field],
            "history_text": join_history(fields["history"]),
        }

    return Form(task, DIALOGUE_KEYS, read, write)


def split_history(text: str) -> list[list[str]]:
    """Split a history into turns of question and reply, without white space at their ends.

    A question without reply has the reply "".

    Raises:
        ValueError: the text begins with no marker, or a reply follows no question.
    """
    before, *parts = MARKER.split(text)
    if before.strip():
        raise ValueError(f"history_text begins with {before!r:.40}; expected {QUESTION!r}")
    turns: list[list[str]] = []
    for marker, content in zip(parts[::2], parts[1::2], strict=True):
        if marker == QUESTION[:-1]:
            turns.append([content.strip()])
        elif turns and len(turns[-1]) == 1:
            turns[-1].append(content.strip())
        else:
            raise ValueError(f"history_text has the reply {content!r:.40} to no question")
    return [[*turn, ""][:2] for turn in turns]


def join_history(turns: Iterable[Iterable[str]]) -> str:
    """Write turns as one history, the plainest text that `split_history` splits into them."""
    return "".join(f"{QUESTION}{question}{REPLY}{reply}" for question, reply in turns)


def _by_id(task: str, field: str, ending: str) -> Form:
    def read(item: Item, places: Places) -> dict[str, Any]:
        name = _name(item, "image_id")
        path = PurePosixPath(places.folder, f"{name}{ending}")
        if path.is_absolute():
            raise ValueError(f"image_id is {name!r}; expected no absolute path")
        return {"id": name, field: _inside(path, "image_id"), "text": _text(item, "caption_zh")}

    def write(fields: Item, places: Places) -> dict[str, Any]:
        path = PurePosixPath(fields[field])
        if not path.is_relative_to(places.folder) or path.suffix != ending:
            raise ValueError(
                f"{field} is {str(path)!r}; expected a {ending} file in {places.folder!r}"
            )
        name = str(path.relative_to(places.folder)).removesuffix(ending)
        return {"image_id": name, "caption_zh": fields["text"]}

    return Form(task, ("image_id", "caption_zh"), read, write)


FORMS = {
    "image-captions": Form("describe_image", CAPTION_KEYS, _read_captions, _write_captions),
    "speech": Form("transcribe", SPEECH_KEYS, _read_speech, _write_speech),
    "speech-image": Form(
        "transcribe_with_image", (*SPEECH_KEYS, "image"), _read_speech_image, _write_speech_image
    ),
    "masr": _dialogue("transcribe_with_image", "question_text", "answer_text", "answer"),
    "vsd": _dialogue("answer_about_image", "answer_text", "question_text", "question"),
    "image": _by_id("describe_image", "image", ".jpg"),
    "video": _by_id("describe_video", "video", ".mp4"),
}
