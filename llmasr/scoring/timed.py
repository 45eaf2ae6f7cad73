"""Segments and words with times: stm, ctm, and the words of a ctm put into the segments of an stm.

The formats are those of NIST's sclite (SCTK, "Input file formats"). A line is

    stm:  recording channel speaker start end [<label>] word ...
    ctm:  recording channel start duration word [confidence] ...

`;;` starts a comment line, `@` is the null word. Alternates (`{ a / b / @ }`, `<ALT_BEGIN>`) are
refused: a rate that takes whichever reading fits needs a choice that is made before.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from llmasr.scoring.lines import number_of, parse_lines
from llmasr.scoring.utterances import TimedWord, Utterance, check_number, check_span

COMMENT = ";;"
NULL_WORD = "@"
IGNORED = "ignore_time_segment_in_scoring"  # the case differs between corpora
LABEL = re.compile(r"<[^<>\s]*>")
ALTERNATE_WORDS = {"<alt_begin>", "<alt>", "<alt_end>"}
NO_CONFIDENCE = {"na", "-"}

Place = tuple[str | None, str | None]  # a recording and a channel of it


def words_of(text: str) -> list[str]:
    """Return the words of a transcript of sclite without null words; refuse alternates."""
    words = text.split()
    if "{" in words or "}" in words:
        raise ValueError(
            f"found alternates {{ ... / ... }} in {text.strip()!r}; choose one reading"
        )
    return [word for word in words if word != NULL_WORD]


def read_stm(path: Path) -> list[Utterance]:
    """Read the segments of an stm, one utterance each; the group is the speaker.

    The id is `recording-channel-start-end` with times that sort. A label such as `<o,f0,male>` is
    skipped, as sclite does. Segments of IGNORE_TIME_SEGMENT_IN_SCORING are there with `is_ignored`.

    Raises:
        ValueError: a line is malformed, or two segments of one channel overlap.
    """
    lines = parse_lines(path, _parse_segment)
    segments = [(number, segment) for number, segment in lines if segment is not None]
    in_time = sorted(segments, key=lambda item: (*map(str, _place(item[1])), *_span(item[1])))
    for (line, one), (next_line, following) in pairwise(in_time):
        (start, end), (next_start, next_end) = _span(one), _span(following)
        if _place(one) == _place(following) and next_start < end:
            raise ValueError(
                f"{path}, lines {line} and {next_line}: segments {start}-{end} and"
                f" {next_start}-{next_end} of recording {one.recording!r}, channel"
                f" {one.channel!r} overlap; a word could belong to both"
            )
    return [segment for _, segment in segments]


def read_ctm(path: Path) -> list[Utterance]:
    """Read a ctm: one utterance with word times for each channel of each recording.

    The id is the recording, which in Kaldi's use is the utterance; where the file has several
    channels of a recording, it is `recording-channel`. Words are put in order of time.
    """
    words: dict[Place, list[TimedWord]] = {}
    for _, parsed in parse_lines(path, _parse_word):
        if parsed is not None:
            place, word = parsed
            found = words.setdefault(place, [])
            if word.text != NULL_WORD:
                found.append(word)
    channels = Counter(recording for recording, _ in words)
    return [
        _spoken(
            f"{recording}-{channel}" if channels[recording] > 1 else str(recording),
            sorted(found, key=lambda word: word.start),
            recording,
            channel,
        )
        for (recording, channel), found in words.items()
    ]


def pair_segments(stm: Sequence[Utterance], ctm: Sequence[Utterance]) -> list[Utterance]:
    """Put recognised words into the segments that hold their midpoint, as sclite does.

    Args:
        stm: references that are segments, with recording, channel, start and end.
        ctm: words with times, by recording (or an id that is the recording's name) and channel. One
            without channel fits a recording with one channel only.

    Returns:
        One hypothesis with the id of its segment for every segment of a channel that was
        recognised, in the order of the segments; the text is empty where nothing was heard. Then
        the words in no segment, an utterance for each channel, whose id ends in `outside-segments`
        so that a score counts them as insertions. A channel that was not recognised has none.

    Raises:
        ValueError: the channels of a recording have other names on the two sides, a hypothesis
            lacks word times, or a reference lacks times.
    """
    segments: dict[Place, list[Utterance]] = {}
    for segment in sorted(stm, key=_span):
        segments.setdefault(_place(segment), []).append(segment)
    heard: dict[str, list[TimedWord]] = {}
    outside: dict[Place, list[TimedWord]] = {}
    for place, words in _words_by_place(ctm, segments).items():
        there = segments.get(place, [])
        heard.update((segment.id, []) for segment in there)
        for word in sorted(words, key=lambda word: word.start):
            home = _segment_at((word.start + word.end) / 2, there)
            (heard[home.id] if home else outside.setdefault(place, [])).append(word)
    inside = [
        _spoken(segment.id, heard[segment.id], *_place(segment))
        for segment in stm
        if segment.id in heard
    ]
    return inside + [
        _spoken(f"{recording}-{channel}-outside-segments", words, recording, channel)
        for (recording, channel), words in outside.items()
    ]


def _parse_segment(line: str) -> Utterance | None:
    if line.startswith(COMMENT):
        return None
    fields = line.split(maxsplit=5)
    if len(fields) < 5:
        raise ValueError(
            f"found {len(fields)} fields; expected recording, channel, speaker, start, end, words"
        )
    recording, channel, speaker = fields[:3]
    start, end = _seconds("start", fields[3]), _seconds("end", fields[4])
    check_span(start, end)
    text = fields[5] if len(fields) > 5 else ""
    text = LABEL.sub("", text, count=1) if LABEL.match(text) else text
    is_ignored = text.strip().lower() == IGNORED
    return Utterance(
        id=f"{recording}-{channel}-{start:010.3f}-{end:010.3f}",
        text="" if is_ignored else " ".join(words_of(text)),
        group=speaker,
        start=start,
        end=end,
        channel=channel,
        duration=end - start,
        recording=recording,
        is_ignored=is_ignored,
    )


def _parse_word(line: str) -> tuple[Place, TimedWord] | None:
    if line.startswith(COMMENT):
        return None
    fields = line.split()
    if len(fields) < 5:
        raise ValueError(
            f"found {len(fields)} fields; expected recording, channel, start, duration, word"
        )
    recording, channel, _, _, text, *more = fields
    if text.lower() in ALTERNATE_WORDS:
        raise ValueError(f"found alternates {text}; choose one reading")
    start, duration = _seconds("start", fields[2]), _seconds("duration", fields[3])
    confidence = None
    if more and more[0].lower() not in NO_CONFIDENCE:
        confidence = number_of("confidence", more[0])
    return (recording, channel), TimedWord(text, start, start + duration, confidence)


def _words_by_place(
    hypotheses: Iterable[Utterance], known: Iterable[Place]
) -> dict[Place, list[TimedWord]]:
    """Collect words by the place at which the references have them."""
    expected = _channels(known)
    words: dict[Place, list[TimedWord]] = {}
    for hypothesis in hypotheses:
        if hypothesis.text.split() and not hypothesis.words:
            raise ValueError(f"hypothesis {hypothesis.id!r} has no word times to segment it by")
        recording, channel = hypothesis.recording or hypothesis.id, hypothesis.channel
        there = expected.get(recording, [])
        if channel is None and len(there) == 1:
            channel = there[0]
        words.setdefault((recording, channel), []).extend(hypothesis.words)
    for name, found in _channels(words).items():
        if name in expected and not set(found) & set(expected[name]):
            raise ValueError(
                f"recording {name!r} has channels {_listed(found)} in the hypotheses and"
                f" {_listed(expected[name])} in the references; the names must agree"
            )
    return words


def _channels(places: Iterable[Place]) -> dict[str | None, list[str | None]]:
    """Return the channels of every recording."""
    channels: dict[str | None, list[str | None]] = {}
    for recording, channel in places:
        channels.setdefault(recording, []).append(channel)
    return channels


def _segment_at(time: float, segments: Sequence[Utterance]) -> Utterance | None:
    """Find the segment that holds a time; where two touch, the later one."""
    index = bisect_right(segments, time, key=lambda segment: _span(segment)[0]) - 1
    return segments[index] if index >= 0 and time <= _span(segments[index])[1] else None


def _spoken(
    identifier: str, words: Sequence[TimedWord], recording: str | None, channel: str | None
) -> Utterance:
    return Utterance(
        id=identifier,
        text=" ".join(word.text for word in words),
        channel=channel,
        words=tuple(words),
        recording=recording,
    )


def _place(utterance: Utterance) -> Place:
    return utterance.recording, utterance.channel


def _span(utterance: Utterance) -> tuple[float, float]:
    if utterance.start is None or utterance.end is None:
        raise ValueError(f"reference {utterance.id!r} has no start and end; a segment needs both")
    return utterance.start, utterance.end


def _seconds(name: str, text: str) -> float:
    value = number_of(name, text)
    check_number(name, value, lowest=0)
    return value


def _listed(names: Sequence[str | None]) -> str:
    return ", ".join(map(repr, sorted(map(str, names))))
