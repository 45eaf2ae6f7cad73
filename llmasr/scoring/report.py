"""A score as one HTML file: warnings, tables, plots, and the alignments of the worst utterances.

    write_report(result, "report.html", metadata={u.id: u for u in references})

The file needs nothing beside it but the audio that its players link to, and asks for nothing over
a network. The same input makes the same bytes. However large the test set is, the file stays small
enough to open: what is left out is said where it is left out.
"""

from collections.abc import Mapping
from pathlib import Path

from llmasr.scoring.breakdown import Breakdown, Confusion, breakdown
from llmasr.scoring.compare import compare
from llmasr.scoring.confidence import Calibration
from llmasr.scoring.errors import Score
from llmasr.scoring.hotwords import PhraseCount
from llmasr.scoring.plots import rate_plot, reliability_plot
from llmasr.scoring.report_alignments import Players, alignments
from llmasr.scoring.report_page import Cell, Html, element, join, page, per_cent, sortable
from llmasr.scoring.slices import Slice, Table
from llmasr.scoring.units import UNIT_NAMES
from llmasr.scoring.utterances import Utterance

SHOWN_ALIGNMENTS = 200
SHOWN_IDS = 200
SHOWN_ROWS = 500
SHOWN_CONFUSIONS = 100
SHOWN_BURST_UNITS = 40

PLOTTED = {"length": "Error rate by reference length", "duration": "Error rate by duration"}
PLOTTED["snr"] = "Error rate by signal-to-noise ratio"

Section = tuple[str, str, Html]


def write_report(
    score: Score,
    path: str | Path,
    *,
    metadata: Mapping[str, Utterance] | None = None,
    tables: Breakdown | None = None,
    confidence: Calibration | None = None,
    baseline: Score | None = None,
    title: str = "Recognition errors",
    shown: int = SHOWN_ALIGNMENTS,
    embed_audio: bool = False,
) -> None:
    """Write `score` as a self-contained HTML page to `path`.

    Args:
        score: of one system.
        path: file to write; an old one is replaced.
        metadata: what is known of references, by id: audio, group, duration, snr. A relative path
            of audio is relative to the working directory; the page links to it from its own folder.
        tables: from `breakdown`, e.g. with hotwords; made here if not given.
        confidence: from `calibration`.
        baseline: score of another system on the same references, to compare with.
        title: heading of the page.
        shown: alignments on the page, the worst first.
        embed_audio: put audio files of up to 1 MB into the page, so that it can be sent alone.

    Raises:
        ValueError: `shown` is negative, or `baseline` cannot be compared with `score`.
        OSError: the page cannot be written, or an audio file to embed cannot be read.
    """
    if shown < 0:
        raise ValueError(f"shown is {shown}; expected the number of alignments, 0 or more")
    path, known = Path(path), metadata or {}
    tables = tables or breakdown(score, metadata=known)
    sections = [
        ("warnings", "", _warnings(score)),
        ("score", "Score", _headline(score)),
        *([("baseline", "Against the baseline", _against(score, baseline))] if baseline else []),
        ("plots", "Plots", _plots(tables, confidence)),
        ("tables", "Tables", _tables(tables)),
        *_phrases(tables),
        ("confusions", "Confusions", _confusions(tables)),
        *_bursts(tables),
        (
            "alignments",
            "Alignments",
            alignments(score, known, baseline, Players(path.parent, embed_audio), shown),
        ),
    ]
    # A lone surrogate cannot be written as UTF-8; it is shown by its number.
    path.write_bytes(page(title, sections).encode("utf-8", errors="backslashreplace"))


def _warnings(score: Score) -> Html:
    """What is odd about ids and texts: first what makes a score wrong, then what is unusual."""
    left_out = "left out of the rate (PARTIAL)" if score.allow_partial else "all deletions"
    heard = f"not in the rate; {score.insertions_on_empty:,} units were heard there"
    return join(
        _warning(what, ids, effect, css)
        for what, ids, effect, css in (
            ("References without hypothesis", score.missing, left_out, "warning red"),
            ("Hypotheses of unknown id", score.extra, "all insertions", "warning red"),
            ("Repeated hypotheses", score.duplicates, "all insertions", "warning red"),
            ("Empty hypotheses", score.empty_hypotheses, "all deletions", "warning"),
            ("References that normalise to nothing", score.empty_references, heard, "warning"),
        )
        if ids
    )


def _warning(what: str, ids: tuple[str, ...], effect: str, css: str) -> Html:
    listed = Html(", ").join(element("code", each) for each in ids[:SHOWN_IDS])
    more = f" and {len(ids) - SHOWN_IDS:,} more" if len(ids) > SHOWN_IDS else ""
    summary = element("summary", element("strong", f"{what}: {len(ids):,}"), f" ({effect})")
    listing = element("details", summary, Html(listed), more, open="open")
    return element("div", listing, class_=css, role="alert")


def _headline(score: Score) -> Html:
    low, high = score.interval or (None, None)
    spread = (
        "no interval" if low is None or high is None else f"{per_cent(low)} to {per_cent(high)}"
    )
    units = UNIT_NAMES[score.metric]
    cards = [
        (per_cent(score.rate), f"{score.metric.upper()}, 95 % interval {spread}"),
        (f"{score.substitutions:,} / {score.deletions:,} / {score.insertions:,}", "S / D / I"),
        (f"{score.units:,}", f"reference {units} in {score.utterances:,} utterances"),
        (per_cent(score.sentence_error_rate), f"of utterances wrong ({score.sentence_errors:,})"),
        (score.normalizer, "normaliser"),
    ]
    boxes = [
        element("div", element("b", value), element("span", name, class_="soft"), class_="card")
        for value, name in cards
    ]
    return join(
        [element("div", *boxes, class_="cards"), element("code", str(score), class_="line")]
    )


def _against(score: Score, baseline: Score) -> Html:
    better = worse = 0
    before = {each.id: each.errors for each in baseline.counted if each.reference}
    for each in score.counted:
        if each.reference and each.id in before:
            better += each.errors < before[each.id]
            worse += each.errors > before[each.id]
    lines = f"{compare(score, baseline, name='baseline')}\nbaseline: {baseline}"
    counts = f"Utterances with fewer errors than the baseline: {better:,}; with more: {worse:,}."
    return join([element("p", counts), element("code", lines, class_="line")])


def _plots(tables: Breakdown, confidence: Calibration | None) -> Html:
    figures = [
        rate_plot(table, caption)
        for name, caption in PLOTTED.items()
        if (table := tables.table(name)) is not None
    ]
    notes: list[str] = []
    if confidence is not None:
        figures.append(reliability_plot(confidence))
        notes.append(element("p", _confidence_line(confidence)))
    if not figures:
        notes.append(
            element("p", "All utterances fall into one bin: nothing to plot.", class_="soft")
        )
    return join([element("div", *figures, class_="grid"), *notes])


def _confidence_line(confidence: Calibration) -> str:
    return (
        f"Confidence of {confidence.words:,} words, {confidence.correct:,} of them correct:"
        f" expected calibration error {per_cent(confidence.expected_calibration_error)},"
        f" normalised cross entropy {confidence.normalised_cross_entropy:.3f}. Not judged:"
        f" {confidence.without_confidence:,} words without confidence, {confidence.unplaced:,} that"
        f" normalisation removed or merged, {confidence.utterances_without_words:,} utterances"
        " without a list of words."
    )


def _tables(tables: Breakdown) -> Html:
    if not tables.tables:
        return element("p", "No question divides these utterances.", class_="soft")
    return element("div", *(_table(table) for table in tables.tables), class_="grid")


def _table(table: Table) -> Html:
    by_utterance = table.total.utterances is not None
    parts, note = table.slices, table.note
    if len(parts) > SHOWN_ROWS:
        parts = tuple(sorted(parts, key=lambda part: -part.errors)[:SHOWN_ROWS])
        note += f" Shown: the {SHOWN_ROWS} with most errors of {len(table.slices):,}."
    headers = [table.name, "utt", "units", "S", "D", "I", "rate", "95 % CI"]
    keep = [i for i, _ in enumerate(headers) if by_utterance or i not in (1, 7)]
    rows = [_row(part) for part in (*parts, table.total)]
    *body, total = [[row[i] for i in keep] for row in rows]
    return element(
        "div",
        element("h3", f"By {table.name}"),
        sortable([headers[i] for i in keep], body, total),
        element("p", note, class_="soft"),
    )


def _row(part: Slice) -> list[Cell]:
    spread = "\u2013"
    if part.interval:
        spread = "\u2013".join(f"{100 * end:.1f}" for end in part.interval)
    counts = (part.units, part.substitutions, part.deletions, part.insertions)
    return [part.name, part.utterances or 0, *counts, part.rate, spread]


def _phrases(tables: Breakdown) -> list[Section]:
    return [
        (name.lower(), name, _phrase_table(counts))
        for name, counts in (("Hotwords", tables.hotwords), ("Names", tables.names))
        if counts
    ]


def _phrase_table(counts: tuple[PhraseCount, ...]) -> Html:
    headers = ["phrase", "said", "recognised", "recall", "heard", "false insertions", "precision"]
    rows = [
        (
            each.phrase,
            each.said,
            each.recognised,
            each.recall,
            each.heard,
            each.false_insertions,
            each.precision,
        )
        for each in sorted(counts, key=lambda each: each.recognised - each.said)[:SHOWN_ROWS]
    ]
    note = (
        f"{len(rows):,} of {len(counts):,} shown, most often missed first. Recognised: all its"
        " units stand. False insertion: heard where the reference does not have it."
    )
    return join([sortable(headers, rows), element("p", note, class_="soft")])


def _confusions(tables: Breakdown) -> Html:
    found = tables.confusions
    return element(
        "div",
        _confusion_table("Substituted", found.substituted, ["said", "heard", "count"]),
        _confusion_table("Deleted", found.deleted, ["said", "count"]),
        _confusion_table("Inserted", found.inserted, ["heard", "count"]),
        class_="grid three",
    )


def _confusion_table(name: str, found: tuple[Confusion, ...], headers: list[str]) -> Html:
    rows = [
        [cell for cell in (each.reference, each.hypothesis, each.count) if cell is not None]
        for each in found[:SHOWN_CONFUSIONS]
    ]
    note = f"{len(rows):,} of {len(found):,} kinds shown, {sum(c.count for c in found):,} errors."
    return element(
        "div", element("h3", name), sortable(headers, rows), element("p", note, class_="soft")
    )


def _bursts(tables: Breakdown) -> list[Section]:
    if not tables.bursts:
        return []
    rows = [
        (
            each.id,
            each.status,
            each.start,
            len(each.units),
            " ".join(each.units[:SHOWN_BURST_UNITS])
            + (" \u2026" if len(each.units) > SHOWN_BURST_UNITS else ""),
        )
        for each in tables.bursts[:SHOWN_ROWS]
    ]
    headers = ["utterance", "status", "place", "length", "inserted"]
    note = f"{len(rows):,} of {len(tables.bursts):,} shown, the longest first."
    content = join([sortable(headers, rows), element("p", note, class_="soft")])
    return [("bursts", "Insertion bursts", content)]
