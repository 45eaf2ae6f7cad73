"""The part of a report that shows utterances: facts, audio, and reference over hypothesis.

Errors are told by a letter (S, D, I) and by their form, so that colour is a help and not needed.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from llmasr.scoring.alignment import ScoredUtterance
from llmasr.scoring.errors import Score
from llmasr.scoring.report_page import Html, element, join, per_cent
from llmasr.scoring.slices import duration_of
from llmasr.scoring.unit_classes import HAN_LETTER
from llmasr.scoring.utterances import Utterance

# A page much larger than this is slow to open; further alignments are left out and that is said.
MAX_ALIGNMENT_CHARACTERS = 4_000_000
MAX_STEPS = 2000
MAX_EMBEDDED_BYTES = 1_000_000
MAX_EMBEDDED_TOTAL = 30_000_000

# Equal units shown on either side of an error, where the run between two errors is long.
CONTEXT = 15

LETTERS = {"substitute": "S", "delete": "D", "insert": "I"}
SPOKEN = {"substitute": "substitution", "delete": "deletion", "insert": "insertion"}
NOTHING = "\u2205"

AUDIO_TYPES = {
    ".aac": "audio/aac", ".flac": "audio/flac", ".m4a": "audio/mp4", ".mp3": "audio/mpeg",
    ".oga": "audio/ogg", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".wav": "audio/wav",
    ".webm": "audio/webm",
}  # fmt: skip


class Players:
    """Makes audio players for a page: links from its folder, or files put into the page.

    Args:
        folder: that of the page.
        embed: put small files into the page.
    """

    def __init__(self, folder: Path, embed: bool) -> None:
        self._folder = folder
        self._room = MAX_EMBEDDED_TOTAL if embed else 0

    def player(self, utterance: Utterance | None) -> Html:
        """Return a player of the audio of `utterance`, nothing if it has none."""
        if utterance is None or utterance.audio is None:
            return Html()
        if "://" in utterance.audio:  # the page asks for nothing over a network
            return element("p", "audio: ", element("code", utterance.audio), class_="facts")
        source = self._source(Path(utterance.audio)) + _fragment(utterance)
        return element("audio", src=source, controls="controls", preload="none")

    def _source(self, path: Path) -> str:
        kind = AUDIO_TYPES.get(path.suffix.lower())
        if kind and self._room and path.stat().st_size <= min(MAX_EMBEDDED_BYTES, self._room):
            content = path.read_bytes()
            self._room -= len(content)
            return f"data:{kind};base64,{base64.b64encode(content).decode()}"
        return quote(Path(os.path.relpath(path, self._folder)).as_posix(), errors="surrogatepass")


def alignments(
    score: Score,
    metadata: Mapping[str, Utterance],
    baseline: Score | None,
    players: Players,
    shown: int,
) -> Html:
    """Show the worst `shown` utterances: most errors first, then the highest rate, then by id."""
    worst = sorted(score.details, key=_badness)[:shown]
    before = (
        {each.id: each.errors for each in baseline.counted if each.reference} if baseline else {}
    )
    cards: list[Html] = []
    room = MAX_ALIGNMENT_CHARACTERS
    for each in worst:
        if room < 0:
            break
        text = _steps(each, score.metric)
        room -= len(text)
        cards.append(_card(each, metadata.get(each.id), before.get(each.id), players, text))
    wrong = sum(each.errors > 0 for each in score.details)
    note = (
        f"{len(cards):,} of {len(score.details):,} utterances shown, most errors first;"
        f" {wrong:,} have errors."
    )
    return join([_tools(), element("p", note, class_="soft"), *cards])


def _badness(utterance: ScoredUtterance) -> tuple[float, int, str]:
    return -utterance.errors, len(utterance.reference), utterance.id


def _tools() -> Html:
    field = element("input", type="search", id="filter", placeholder="id, speaker, status or text")
    key = [
        _error(letter, said, heard)
        for letter, said, heard in (
            ("substitute", "said", "heard"),
            ("delete", "said", None),
            ("insert", None, "heard"),
        )
    ]
    return element(
        "div",
        element("label", "Filter ", field),
        element("span", id="matches", class_="soft", role="status"),
        element("span", *key),
        class_="tools",
    )


def _card(
    utterance: ScoredUtterance,
    known: Utterance | None,
    before: int | None,
    players: Players,
    text: Html,
) -> Html:
    badge = "" if utterance.status == "scored" else utterance.status.replace("_", " ")
    heading = [element("code", utterance.id)]
    if badge:
        heading += [Html(" "), element("span", badge, class_="badge")]
    return element(
        "article",
        element("h3", *heading),
        element("p", " \u00b7 ".join(_facts(utterance, known, before)), class_="facts"),
        players.player(known),
        element("p", text, class_="steps", dir="auto"),
    )


def _facts(utterance: ScoredUtterance, known: Utterance | None, before: int | None) -> list[str]:
    units = len(utterance.reference)
    facts = [
        f"{utterance.errors} errors in {units} units",
        *([per_cent(utterance.errors / units)] if units else []),
        f"S {utterance.substitutions}, D {utterance.deletions}, I {utterance.insertions}",
    ]
    if before is not None and units:
        facts.append(f"baseline {before} errors")
    group = utterance.group or (known.group if known else None)
    if group:
        facts.append(group)
    seconds = duration_of(known)
    if seconds is not None:
        facts.append(f"{seconds:.2f} s")
    if known and known.snr is not None:
        facts.append(f"{known.snr:.1f} dB")
    return facts


def _steps(utterance: ScoredUtterance, metric: str) -> Html:
    steps = utterance.steps()
    between = Html("" if metric == "cer" else " ")
    parts: list[Html] = []
    for is_equal, run in groupby(steps[:MAX_STEPS], key=lambda step: step.kind == "equal"):
        if is_equal:
            parts += _equal([step.reference or "" for step in run], metric)
        else:
            parts += [_error(step.kind, step.reference, step.hypothesis) for step in run]
    if len(steps) > MAX_STEPS:
        parts.append(_gap(f"the first {MAX_STEPS:,} of {len(steps):,} units are shown"))
    return Html(between.join(parts))


def _equal(units: list[str], metric: str) -> list[Html]:
    if len(units) <= 3 * CONTEXT:
        return [join([_join_units(units, metric)])]
    left_out = f"{len(units) - 2 * CONTEXT:,} equal units"
    first, last = units[:CONTEXT], units[-CONTEXT:]
    return [join([_join_units(first, metric)]), _gap(left_out), join([_join_units(last, metric)])]


def _join_units(units: Iterable[str], metric: str) -> str:
    """Write units as a text: words with spaces between, characters and Han letters without."""
    if metric == "cer":
        return "".join(units)
    text = ""
    for unit in units:
        together = metric == "mer" and HAN_LETTER.match(unit) and HAN_LETTER.match(text[-1:])
        text += unit if together or not text else f" {unit}"
    return text


def _gap(words: str) -> Html:
    return element("span", f"[\u2026 {words} \u2026]", class_="gap")


def _error(kind: str, said: str | None, heard: str | None) -> Html:
    return element(
        "span",
        element("b", LETTERS[kind]),
        element("del", said) if said is not None else element("span", NOTHING, class_="none"),
        element("ins", heard) if heard is not None else element("span", NOTHING, class_="none"),
        class_=f"error {LETTERS[kind]}",
        title=SPOKEN[kind],
    )


def _fragment(utterance: Utterance) -> str:
    """Return the part of the recording to play, as a media fragment; nothing for the whole."""
    if utterance.start is None and utterance.end is None:
        return ""
    end = "" if utterance.end is None else f",{utterance.end:.3f}"
    return f"#t={utterance.start or 0:.3f}{end}"
