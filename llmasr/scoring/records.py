"""Readers of JSON: manifests and results a line each, lhotse supervisions, our own transcripts.

A record is one JSON object. Fields that are not named here are ignored, so that a data manifest is
a reference file as it stands.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmasr.scoring.lines import parse_lines, read_lines, read_text, stem, suffix
from llmasr.scoring.utterances import TimedWord, Utterance, check_number, check_text

# Written by `llmasr transcribe --format json`; a test holds it to `llmasr.transcript`.
TRANSCRIPT_SCHEMA = "llmasr.transcript/1"


def read_jsonl(path: Path) -> list[Utterance]:
    """Read JSON lines: `id` and `text`, and what else is there of the fields of an utterance.

    `speaker`, or else `session`, is the group; "" and null mean unknown. `channel` is a string or a
    number; `audio` is relative to the folder of the file; `duration` and times are in seconds,
    `snr` in dB; `words` is a list of objects with `text`, `start`, `end` and perhaps `confidence`.
    """
    parsed = parse_lines(path, lambda line: utterance_of(_record(line), path.parent))
    return [utterance for _, utterance in parsed]


def read_lhotse(path: Path) -> list[Utterance]:
    """Read lhotse supervisions as JSON lines; the group is the speaker.

    Word times are those of an alignment called "word": lists of symbol, start, duration and
    perhaps score (lhotse, `SupervisionSegment` and `AlignmentItem`). Times are in the recording.
    """
    return [
        utterance for _, utterance in parse_lines(path, lambda line: _supervision(_record(line)))
    ]


def read_transcripts(path: Path) -> list[Utterance]:
    """Read what `llmasr transcribe --format json` made; the id is the stem of the file's name.

    Args:
        path: one `.json` file, which holds one transcript; a folder of them; or the printed lines,
            whose field `file` names the audio.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if suffix(file) == ".json")
        return [utterance for file in files for utterance in read_transcripts(file)]
    if suffix(path) == ".json":
        text = read_text(path)
        try:
            return [_transcript(_record(text), stem(path))]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return [utterance for _, utterance in parse_lines(path, _printed_transcript)]


def format_of_lines(path: Path) -> str:
    """Tell which of the formats here a file of JSON lines has, by its first line."""
    lines = read_lines(path)
    try:
        first = _record(lines[0][1]) if lines else {}
    except ValueError:  # the reader will name the line
        return "jsonl"
    if "schema" in first:
        return "transcript"
    return "lhotse" if "recording_id" in first and "duration" in first else "jsonl"


def utterance_of(record: Mapping[str, Any], folder: Path) -> Utterance:
    """Return the utterance of a record; `folder` is where its audio is looked for."""
    audio = record.get("audio")
    if audio is not None:
        check_text("field 'audio'", audio)
    return Utterance(
        id=_text(record, "id"),
        text=_text(record, "text"),
        group=_name(record, "speaker") or _name(record, "session"),
        start=_number_if_any(record, "start"),
        end=_number_if_any(record, "end"),
        channel=_name(record, "channel"),
        audio=str(folder / audio) if audio else None,
        duration=_number_if_any(record, "duration"),
        snr=_number_if_any(record, "snr"),
        words=tuple(_word(word) for word in _list(record, "words")),
    )


def _record(text: str) -> dict[str, Any]:
    try:
        return _object("the line", json.loads(text))
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def _supervision(record: Mapping[str, Any]) -> Utterance:
    start, duration = _number(record, "start"), _number(record, "duration")
    alignment = _object("field 'alignment'", record.get("alignment") or {})
    return Utterance(
        id=_text(record, "id"),
        text=_text(record, "text"),
        group=_name(record, "speaker"),
        start=start,
        end=round(start + duration, 8),
        channel=_name(record, "channel"),
        duration=duration,
        words=tuple(_aligned_word(item) for item in _list(alignment, "word")),
        recording=_text(record, "recording_id"),
    )


def _aligned_word(item: Any) -> TimedWord:
    if not isinstance(item, list) or len(item) not in (3, 4):
        raise ValueError(f"an alignment is {item!r}; expected [symbol, start, duration, score]")
    symbol, start, duration, *score = item
    check_number("start", start)
    check_number("duration", duration, lowest=0)
    return TimedWord(symbol, start, round(start + duration, 8), score[0] if score else None)


def _printed_transcript(line: str) -> Utterance:
    record = _record(line)
    return _transcript(record, Path(_text(record, "file")).stem)


def _transcript(record: Mapping[str, Any], identifier: str) -> Utterance:
    if record.get("schema") != TRANSCRIPT_SCHEMA:
        raise ValueError(
            f"field 'schema' is {record.get('schema')!r}; this version reads {TRANSCRIPT_SCHEMA!r}"
        )
    segments = [_object("a segment", segment) for segment in _list(record, "segments")]
    return Utterance(
        id=identifier,
        text=_text(record, "text"),
        duration=_number(record, "duration"),
        words=tuple(_word(word) for segment in segments for word in _list(segment, "words")),
    )


def _word(value: Any) -> TimedWord:
    word = _object("a word", value)
    return TimedWord(
        _text(word, "text"), _number(word, "start"), _number(word, "end"), word.get("confidence")
    )


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r}; expected a JSON object")
    return value


def _list(record: Mapping[str, Any], field: str) -> list[Any]:
    found = record.get(field) or []
    if not isinstance(found, list):
        raise ValueError(f"field {field!r} is {found!r}; expected a list")
    return found


def _text(record: Mapping[str, Any], field: str) -> str:
    check_text(f"field {field!r}", record.get(field))
    return record[field]


def _number(record: Mapping[str, Any], field: str) -> float:
    check_number(f"field {field!r}", record.get(field))
    return float(record[field])


def _number_if_any(record: Mapping[str, Any], field: str) -> float | None:
    return None if record.get(field) is None else _number(record, field)


def _name(record: Mapping[str, Any], field: str) -> str | None:
    """Return a name that may be a number, or a list of them for a mixture of channels."""
    value = record.get(field)
    names = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(name, (str, int)) for name in names):
        raise ValueError(f"field {field!r} is {value!r}; expected a string or a whole number")
    return ",".join(map(str, names)) or None
