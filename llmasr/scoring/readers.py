"""Read references and hypotheses from the files that speech tools write.

The format is told by the suffix (`.gz` after it is ignored) and, where that says too little, by the
content; see `find_format`. Every utterance of a file is returned, in file order, repeated ids too:
what they mean is for the score to say. What cannot be read is one ValueError with file and line.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from llmasr.scoring.lines import number_of, parse_lines, read_lines, suffix
from llmasr.scoring.records import (
    format_of_lines,
    read_jsonl,
    read_lhotse,
    read_transcripts,
    utterance_of,
)
from llmasr.scoring.textgrid import read_textgrid
from llmasr.scoring.timed import COMMENT, pair_segments, read_ctm, read_stm, words_of
from llmasr.scoring.utterances import Utterance

__all__ = [
    "FORMATS",
    "Pair",
    "find_format",
    "pair_segments",
    "read_pair",
    "read_utterances",
]

TRN = re.compile(r"(?P<text>.*)\((?P<id>[^()]+)\)\s*")
TSV_COLUMNS = ("id", "text")
TSV_NUMBERS = ("start", "end", "duration", "snr")


@dataclass(frozen=True)
class Pair:
    """Both sides of a score.

    Attributes:
        references: those that are out of bounds among them.
        hypotheses: by the ids of the references.
    """

    references: list[Utterance]
    hypotheses: list[Utterance]

    @property
    def ignored_segments(self) -> int:
        """Number of references that are out of bounds: no score counts them."""
        return sum(reference.is_ignored for reference in self.references)

    @property
    def ignored_words(self) -> int:
        """Number of words heard in them: no score counts them either."""
        ignored = {reference.id for reference in self.references if reference.is_ignored}
        heard = [hypothesis for hypothesis in self.hypotheses if hypothesis.id in ignored]
        return sum(len(hypothesis.text.split()) for hypothesis in heard)


def read_utterances(path: str | Path, *, format: str | None = None) -> list[Utterance]:
    """Read a file of references or hypotheses.

    Args:
        path: a file in one of `FORMATS`, plain or gzip, in UTF-8 (a byte-order mark and any line
            ends are fine; blank lines are skipped); or a folder of transcripts or of TextGrids.
        format: one of `FORMATS`; found by `find_format` if it is not given.

    Raises:
        ValueError: the format is unknown, something in the file is not what the format allows, or
            the file holds no utterance.
        OSError: the file cannot be read.
    """
    path = Path(path)
    name = format or find_format(path)
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; allowed: {', '.join(FORMATS)}")
    utterances = FORMATS[name](path)
    if not utterances:
        raise ValueError(f"{path}: no utterance in it; at least one is needed (format {name})")
    return utterances


def read_pair(
    references: str | Path,
    hypotheses: str | Path,
    *,
    reference_format: str | None = None,
    hypothesis_format: str | None = None,
) -> Pair:
    """Read both sides of a score and bring them to the same ids.

    - The words of a ctm, or of our transcripts, are put into the segments of an stm
      (:func:`pair_segments`).
    - Our transcripts are named after audio files. Where the references name their audio, the
      transcript of `audio/x.flac` gets the id of the one reference whose audio is called `x`.

    Args:
        references: see `read_utterances`.
        hypotheses: see `read_utterances`.
        reference_format: found by `find_format` if it is not given.
        hypothesis_format: the same.
    """
    expected_format = reference_format or find_format(Path(references))
    actual_format = hypothesis_format or find_format(Path(hypotheses))
    expected = read_utterances(references, format=expected_format)
    actual = read_utterances(hypotheses, format=actual_format)
    if expected_format == "stm" and actual_format in ("ctm", "transcript"):
        actual = pair_segments(expected, actual)
    elif actual_format == "transcript":
        actual = _named_by_audio(actual, expected)
    return Pair(expected, actual)


def find_format(path: Path) -> str:
    """Tell the format of a file by its suffix, or by its content where the suffix says too little.

    `.jsonl` may be lhotse supervisions or printed transcripts: the fields of the first line say it.
    `.txt`, `.text` and no suffix are Kaldi text, or trn if every line ends in `(id)`.
    """
    ending = suffix(path)
    if path.is_dir():
        return _format_of_folder(path)
    if ending == ".jsonl":
        return format_of_lines(path)
    if ending in ("", ".txt", ".text"):
        lines = [line for _, line in read_lines(path) if not line.startswith(COMMENT)]
        return "trn" if lines and all(map(TRN.fullmatch, lines)) else "kaldi"
    if ending not in SUFFIXES:
        raise ValueError(
            f"{path}: suffix {ending!r} tells no format; known: .jsonl, .txt (or none),"
            f" {', '.join(SUFFIXES)}, each perhaps with .gz; or give format"
        )
    return SUFFIXES[ending]


def _format_of_folder(path: Path) -> str:
    endings = {suffix(file) for file in path.iterdir()}
    found = [ending for ending in (".json", ".textgrid") if ending in endings]
    if len(found) != 1:
        raise ValueError(
            f"{path}: this folder holds {' and '.join(found) or 'neither .json nor .TextGrid'}"
            " files; expected transcripts (*.json) or word times (*.TextGrid)"
        )
    return SUFFIXES[found[0]]


def _named_by_audio(
    hypotheses: Sequence[Utterance], references: Sequence[Utterance]
) -> list[Utterance]:
    ids = {reference.id for reference in references}
    ids_of: dict[str, list[str]] = {}
    for reference in references:
        if reference.audio is not None:
            ids_of.setdefault(Path(reference.audio).stem, []).append(reference.id)
    return [
        replace(hypothesis, id=ids_of[hypothesis.id][0])
        if hypothesis.id not in ids and len(ids_of.get(hypothesis.id, ())) == 1
        else hypothesis
        for hypothesis in hypotheses
    ]


def _read_kaldi(path: Path) -> list[Utterance]:
    """Read Kaldi text, `id word word ...`; a file `utt2spk` beside it gives the groups."""
    beside = path.with_name("utt2spk")
    speakers = dict(pair for _, pair in parse_lines(beside, _speaker)) if beside.is_file() else {}
    lines = parse_lines(path, _parse_kaldi)
    return [replace(utterance, group=speakers.get(utterance.id)) for _, utterance in lines]


def _parse_kaldi(line: str) -> Utterance:
    identifier, *text = line.split(maxsplit=1)
    return Utterance(identifier, text[0].strip() if text else "")


def _speaker(line: str) -> tuple[str, str]:
    fields = line.split()
    if len(fields) != 2:
        raise ValueError(f"found {len(fields)} fields; expected utterance and speaker")
    return fields[0], fields[1]


def _read_trn(path: Path) -> list[Utterance]:
    """Read sclite's trn, `word word ... (id)`.

    The group is what stands before the first `-` or `_` of the id, its speaker in sclite's use.
    `@` is the null word, `;;` starts a comment line, alternates are refused.
    """
    return [utterance for _, utterance in parse_lines(path, _parse_trn) if utterance is not None]


def _parse_trn(line: str) -> Utterance | None:
    if line.startswith(COMMENT):
        return None
    match = TRN.fullmatch(line)
    if match is None:
        raise ValueError(f"found {line!r}; expected words and then the id in parentheses")
    identifier = match["id"].strip()
    speaker, *rest = re.split("[-_]", identifier, maxsplit=1)
    return Utterance(
        identifier, " ".join(words_of(match["text"])), speaker or None if rest else None
    )


def _read_tsv(path: Path) -> list[Utterance]:
    """Read a table with tabs: a header that names at least `id` and `text`, or these two columns.

    Further columns that a header may name: speaker, session, start, end, channel, audio, duration,
    snr, as in JSON lines. Quotes are ordinary characters.
    """
    first = [line for _, line in read_lines(path)[:1]]
    names = [name.strip().lower() for name in first[0].split("\t")] if first else []
    if not set(TSV_COLUMNS) <= set(names):
        return [row for _, row in parse_lines(path, partial(_parse_row, TSV_COLUMNS, path.parent))]
    return [row for _, row in parse_lines(path, partial(_parse_row, names, path.parent), skip=1)]


def _parse_row(names: Sequence[str], folder: Path, line: str) -> Utterance:
    cells = line.split("\t")
    if len(cells) != len(names):
        raise ValueError(f"found {len(cells)} columns; expected {len(names)}: {', '.join(names)}")
    row = {name: cell for name, cell in zip(names, cells, strict=True) if cell or name == "text"}
    numbers = {name: number_of(name, row[name]) for name in TSV_NUMBERS if name in row}
    return utterance_of({**row, **numbers}, folder)


SUFFIXES = {
    ".trn": "trn",
    ".stm": "stm",
    ".ctm": "ctm",
    ".tsv": "tsv",
    ".json": "transcript",
    ".textgrid": "textgrid",
}
FORMATS: Mapping[str, Callable[[Path], list[Utterance]]] = {
    "jsonl": read_jsonl,
    "kaldi": _read_kaldi,
    "trn": _read_trn,
    "stm": read_stm,
    "ctm": read_ctm,
    "tsv": _read_tsv,
    "lhotse": read_lhotse,
    "transcript": read_transcripts,
    "textgrid": read_textgrid,
}
