"""Convert X-LLM's JSON files to our manifests, and back without loss.

    python tools/convert_xllm.py to-manifest train.json data/train.jsonl \\
        --form speech --root /lab/data
    python tools/convert_xllm.py from-manifest data/train.jsonl train.json --root /lab/data

`llmasr/data/xllm_forms.py` lists the forms. Media are looked for beside the manifest: what was
`/lab/data/feats/a.npy` must be `data/feats/a.npy`, and images inside the JSON are written to
`data/images`.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from llmasr.data.xllm_forms import FORMS, Places
from llmasr.data.xllm_json import MEDIA, from_manifest, read_items, to_manifest

NAMED = 5  # missing files that an error names


def write_manifest(source: Path, manifest: Path, form: str, places: Places, *, check: bool) -> int:
    """Write a manifest, images from inside the JSON beside it, and return its number of lines.

    Raises:
        ValueError: the source is not as its form says, or media are missing (if `check`).
    """
    items, entries = read_items(source), []
    try:
        for line in to_manifest(tqdm(items, unit="item"), form, places):
            if line.image is not None:
                path = manifest.parent / line.entry["image"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(line.image)
            entries.append(line.entry)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if check:
        check_media(entries, manifest.parent)
    lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    write(manifest, lines)
    return len(entries)


def check_media(entries: list[dict], folder: Path) -> None:
    paths = (entry[field] for entry in entries for field in MEDIA if field in entry)
    missing = [path for path in paths if not (folder / path).is_file()]
    if missing:
        names = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise ValueError(
            f"{len(missing)} files are not in {folder}: {names}"
            " (--unchecked converts without looking for them)"
        )


def write_items(manifest: Path, target: Path, places: Places) -> int:
    """Write X-LLM's JSON array of a manifest and return its number of items.

    Raises:
        ValueError: the manifest is not one that was made of X-LLM's items, or lacks an image.
    """

    def load_image(path: str) -> bytes:
        file = manifest.parent / path
        if not file.is_file():
            raise ValueError(f"image {file} is missing")
        return file.read_bytes()

    try:
        items = list(from_manifest(tqdm(read_lines(manifest), unit="line"), places, load_image))
    except ValueError as error:
        raise ValueError(f"{manifest}: {error}") from error
    write(target, [json.dumps(items, ensure_ascii=False, indent=1), "\n"])
    return len(items)


def read_lines(manifest: Path) -> list[dict]:
    entries = []
    with manifest.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            if not isinstance(entry, dict):
                raise ValueError(f"line {number}: is {entry!r:.80}; expected an object")
            entries.append(entry)
    return entries


def write(path: Path, parts: Iterable[str]) -> None:
    """Write all of a file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(parts)
    partial.replace(path)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    forward = commands.add_parser("to-manifest", help="X-LLM's JSON to our JSON lines")
    forward.add_argument("--form", required=True, choices=FORMS, help="what the JSON holds")
    forward.add_argument(
        "--unchecked", action="store_true", help="do not look whether the media are there"
    )
    backward = commands.add_parser("from-manifest", help="our JSON lines to X-LLM's JSON")
    for command in (forward, backward):
        command.add_argument("source", type=Path)
        command.add_argument("target", type=Path)
        command.add_argument("--root", default="", help="folder that X-LLM's absolute paths share")
        command.add_argument(
            "--folder", default="",
            help="where images and videos lie that have only an id, beside the manifest",
        )  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    chosen = parse_arguments(arguments)
    places = Places(chosen.root, chosen.folder)
    try:
        if chosen.command == "to-manifest":
            count = write_manifest(
                chosen.source, chosen.target, chosen.form, places, check=not chosen.unchecked
            )
        else:
            count = write_items(chosen.source, chosen.target, places)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{count} items: {chosen.target}")


if __name__ == "__main__":
    main()
