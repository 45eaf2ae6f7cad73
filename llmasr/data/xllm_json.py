"""X-LLM's JSON files to lines of our manifest and back, without loss.

X-LLM keeps one JSON array a split; `xllm_forms` lists its forms, and which fields become of their
keys. Every line also has `id`, unique in the manifest; `task`, a key of
`llmasr.prompts.INSTRUCTIONS`; and `xllm`: the form, and every value of the original that our fields
do not give back exactly (`image_id`, `dataset`, `wav_length`, keys we do not know ...).

Media paths are relative to the manifest's folder: a root that the originals share is taken off, and
put on again on the way back. Images inside the JSON (URL-safe base64) become files. Feature files
stay as they are. Only `read_items` touches the disk; `tools/convert_xllm.py` does the rest.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmasr.data.xllm_forms import FORMS, Form, Item, Places

# Fields of a manifest that hold paths.
MEDIA = ("audio", "feats", "image", "video")

# The first bytes of an image file, as a pattern, and the end of its name.
IMAGE_KINDS = {
    b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF....WEBP": "webp"
}  # fmt: skip
URL_SAFE_BASE64 = re.compile(r"[\w-]{64,}={0,2}", re.ASCII)
SPELLINGS = ("padded", "unpadded")
# No path is longer, so such a value is meant as an image.
LONGEST_PATH = 1024


class Line(NamedTuple):
    """One line of a manifest, and the file that it needs besides those that are there.

    Attributes:
        entry: the line's object.
        image: bytes of `entry["image"]` if they were inside the JSON.
    """

    entry: dict[str, Any]
    image: bytes | None


def read_items(path: Path) -> list[dict[str, Any]]:
    """Read a JSON array of objects.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        items = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not one JSON array: {error}") from error
    if not isinstance(items, list):
        raise ValueError(f"{path}: holds a {type(items).__name__}; expected a JSON array")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise ValueError(f"{path}: item {number} is {item!r:.80}; expected an object")
    return items


def to_manifest(items: Iterable[Item], form: str, places: Places) -> Iterator[Line]:
    """Convert X-LLM's items, in order.

    Args:
        items: objects of one form.
        form: a key of `FORMS`; keys alone do not tell all forms apart.
        places: where media were and are.

    Raises:
        ValueError: an item (counted from 1) lacks a key, or holds what cannot be converted.
    """
    rule = _rule(form)
    seen: set[str] = set()
    for number, item in enumerate(items, start=1):
        try:
            yield _line(item, number, form, rule, places, seen)
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from error


def from_manifest(
    entries: Iterable[Item], places: Places, load_image: Callable[[str], bytes]
) -> Iterator[dict[str, Any]]:
    """Convert lines that `to_manifest` made back to X-LLM's items, in order.

    Fields that were added since are not looked at.

    Args:
        entries: objects of the manifest's lines.
        places: as in `to_manifest`, or other ones for other machines.
        load_image: gives the bytes of an image path; only called for images that go into the JSON.

    Raises:
        ValueError: a line (counted from 1) lacks a field, has one of a wrong type, or was changed
            so that its fields and what `xllm` keeps of the original disagree.
    """
    for number, entry in enumerate(entries, start=1):
        try:
            yield _item(entry, places, load_image)
        except KeyError as error:
            raise ValueError(f"line {number}: field {error} is missing") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"line {number}: {error}") from error


def _line(item: Item, number: int, form: str, rule: Form, places: Places, seen: set[str]) -> Line:
    _check_keys(item, form, rule)
    image, spelling = None, ""
    if "image" in rule.keys:
        item, image, spelling = _extract_image(item, number)
    fields = rule.read(item, places)
    fields["id"] = _unused(fields["id"], seen)
    told = rule.write(fields, places)
    kept = {key: value for key, value in item.items() if key not in told or told[key] != value}
    original = {"form": form, "values": kept} | ({"image_base64": spelling} if image else {})
    return Line({**fields, "task": rule.task, "xllm": original}, image)


def _item(entry: Item, places: Places, load_image: Callable[[str], bytes]) -> dict[str, Any]:
    original = entry["xllm"]
    if not isinstance(original, dict) or not isinstance(original.get("values"), dict):
        raise ValueError(f"xllm is {original!r:.80}; expected an object with form and values")
    rule = _rule(original.get("form"))
    item = rule.write(entry, places) | original["values"]
    for field, value in rule.read(item, places).items():
        if field != "id" and entry.get(field) != value:
            raise ValueError(
                f"field {field!r} is {entry.get(field)!r:.80}, but by xllm it is {value!r:.80};"
                " it was changed, so change the values in xllm too"
            )
    if "image_base64" in original:
        item["image"] = _base64(load_image(entry["image"]), original["image_base64"])
    return item


def _rule(form: object) -> Form:
    if not isinstance(form, str) or form not in FORMS:
        raise ValueError(f"form is {form!r}; allowed: {', '.join(FORMS)}")
    return FORMS[form]


def _check_keys(item: Item, form: str, rule: Form) -> None:
    lacking = [key for key in rule.keys if key not in item]
    if lacking:
        fitting = [name for name, other in FORMS.items() if all(key in item for key in other.keys)]
        advice = f"; they fit {' or '.join(fitting)}" if fitting else ""
        raise ValueError(
            f"form {form!r} needs {', '.join(lacking)};"
            f" the item has the keys {', '.join(item) or 'none'}{advice}"
        )


def _unused(identifier: str, seen: set[str]) -> str:
    """Return `identifier`, with a number behind it if it is taken, and take it."""
    if not identifier:
        raise ValueError("its id is empty")
    chosen, copies = identifier, 1
    while chosen in seen:
        copies += 1
        chosen = f"{identifier}-{copies}"
    seen.add(chosen)
    return chosen


def _extract_image(item: Item, number: int) -> tuple[Item, bytes | None, str]:
    """Replace an image inside an item by the path that its file will have."""
    value = item["image"]
    content = _decoded(value) if isinstance(value, str) else None
    if content is None:
        return item, None, ""
    spelling = next((name for name in SPELLINGS if _base64(content, name) == value), None)
    if spelling is None:
        raise ValueError("image is base64 whose last letter is not the usual one")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(item.get("image_id", "")))[:80]
    path = f"images/{number:08d}-{name}.{_image_kind(content)}"
    return {**item, "image": path}, content, spelling


def _base64(content: bytes, spelling: str) -> str:
    text = base64.urlsafe_b64encode(content).decode()
    return text.rstrip("=") if spelling == "unpadded" else text


def _decoded(value: str) -> bytes | None:
    """Return the image that `value` is in URL-safe base64, or None if it is a path."""
    content = b""
    if URL_SAFE_BASE64.fullmatch(value) and len(value.rstrip("=")) % 4 != 1:
        bare = value.rstrip("=")
        content = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    if _image_kind(content):
        return content
    if len(value) > LONGEST_PATH:
        raise ValueError(
            f"image is {value!r:.40}..., {len(value)} letters; expected a path, or URL-safe base64"
            f" of a {', '.join(IMAGE_KINDS.values())} file"
        )
    return None


def _image_kind(content: bytes) -> str:
    kinds = (k for start, k in IMAGE_KINDS.items() if re.match(start, content, re.DOTALL))
    return next(kinds, "")
