"""`llmasr score`: error rates by id, with intervals, comparisons, tables and alignments."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmasr.cli.common import FINE, INCOMPLETE, USAGE, app, usage_errors
from llmasr.cli.score_tables import format_tables

if TYPE_CHECKING:
    from llmasr.scoring import Comparison, Score, Utterance
    from llmasr.scoring.breakdown import Breakdown
    from llmasr.scoring.readers import Pair

ALL = "all"
# Ids of one kind that are printed; --json lists every one.
SHOWN_IDS = 100


@app.command("score")
def _score(
    references: Annotated[
        Path, typer.Argument(help="jsonl, Kaldi text, trn, stm, ctm, tsv, lhotse or transcripts.")
    ],
    hypotheses: Annotated[Path, typer.Argument(help="The same, by the same ids.")],
    metric: Annotated[
        Literal["wer", "cer", "mer"],
        typer.Option(help="Words; characters; or Han characters and words of other scripts."),
    ] = "wer",
    norm: Annotated[
        str,
        typer.Option(help="Normaliser of both sides, package.module:function, or all: one by one."),
    ] = "raw",
    ref_format: Annotated[
        str | None, typer.Option(help="Format of the references; found out by default.")
    ] = None,
    hyp_format: Annotated[
        str | None, typer.Option(help="Format of the hypotheses, the baseline's too.")
    ] = None,
    allow_partial: Annotated[
        bool,
        typer.Option("--allow-partial", help="Leave out references that have no hypothesis."),
    ] = False,
    baseline: Annotated[
        Path | None, typer.Option(help="Hypotheses of another system, to compare with.")
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Print the alignment of every wrong utterance.")
    ] = False,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="Print tables by speaker, length, script, ...")
    ] = False,
    hotwords: Annotated[
        Path | None, typer.Option(help="Phrases for tables and report, one a line.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="HTML page to write: tables, plots, alignments, audio.")
    ] = None,
    sclite: Annotated[
        Path | None, typer.Option(help="Folder to write ref.trn and hyp.trn to, normalised.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="An object of numbers and ids instead of the line.")
    ] = False,
) -> int:
    """Count errors against references, by utterance id.

    Every reference counts: a missing hypothesis is all deletions, what stands under an unknown or
    repeated id is all insertions. Such ids are named on standard error.

    Exit code: 0 all fine, 1 usage, 2 some id is missing, unknown or repeated.
    """
    with usage_errors():
        has_tables = breakdown or report is not None
        if norm == ALL and (has_tables or align or sclite):
            raise ValueError("--align, --breakdown, --report and --sclite need one --norm, not all")
        if as_json and (align or breakdown):
            raise ValueError("--align and --breakdown print text; --json is for numbers alone")
        if hotwords and not has_tables:
            raise ValueError("--hotwords needs --breakdown or --report, which tell about them")
        sides = _read(references, hypotheses, baseline, (ref_format, hyp_format))
        if norm == ALL:
            return _print_each(sides, metric, allow_partial, as_json)
        result = _run(sides, norm, metric, allow_partial)
        typer.echo(result.to_json() if as_json else result.to_text())
        if align:
            _print_alignments(result.score)
        if has_tables:
            tables = _tables(result.score, sides, hotwords)
            if breakdown:
                typer.echo(format_tables(tables, metric))
            if report:
                _write_page(report, result, sides, tables)
        if sclite:
            _write_sclite(sclite, result.score, sides)
    return _name_ids(result)


@dataclass(frozen=True)
class _Sides:
    """What was read."""

    references: "list[Utterance]"
    hypotheses: "list[Utterance]"
    baseline: "list[Utterance] | None"
    baseline_name: str


@dataclass(frozen=True)
class _Result:
    """One score, and its comparison with the baseline if there is one."""

    score: "Score"
    baseline: "Score | None"
    comparison: "Comparison | None"

    def line(self) -> str:
        return self.score.line(self.comparison.paired if self.comparison else None)

    def to_text(self) -> str:
        """Return the line of the score and that of the comparison."""
        return f"{self.line()}\n{self.comparison}" if self.comparison else self.line()

    def to_json(self) -> str:
        """Return all numbers as one line of JSON."""
        numbers = self.score.to_dict()
        if self.baseline and self.comparison:
            numbers |= {"baseline": self.baseline.to_dict()}
            numbers |= {"comparison": self.comparison.to_dict()}
        return json.dumps(numbers, ensure_ascii=False, allow_nan=False)


def _read(
    references: Path,
    hypotheses: Path,
    baseline: Path | None,
    formats: tuple[str | None, str | None],
) -> _Sides:
    from llmasr.scoring import read_pair

    def read(side: Path) -> "Pair":
        return read_pair(
            references, side, reference_format=formats[0], hypothesis_format=formats[1]
        )

    pair = read(hypotheses)
    if baseline is None:
        return _Sides(pair.references, pair.hypotheses, None, "")
    return _Sides(pair.references, pair.hypotheses, read(baseline).hypotheses, baseline.name)


def _run(sides: _Sides, norm: str, metric: str, allow_partial: bool) -> _Result:
    from llmasr.scoring import compare, score

    def scored(hypotheses: "list[Utterance]") -> "Score":
        return score(
            sides.references,
            hypotheses,
            metric=metric,
            normalizer=norm,
            allow_partial=allow_partial,
        )

    system = scored(sides.hypotheses)
    if sides.baseline is None:
        return _Result(system, None, None)
    baseline = scored(sides.baseline)
    return _Result(system, baseline, compare(system, baseline, name=sides.baseline_name))


def _print_each(sides: _Sides, metric: str, allow_partial: bool, as_json: bool) -> int:
    """Print one line for every normaliser; return the exit code."""
    from llmasr.scoring import NORMALIZERS

    code = FINE
    for norm in NORMALIZERS:
        try:
            result = _run(sides, norm, metric, allow_partial)
        except ImportError as error:
            # A library that one normaliser lacks should not take the others with it.
            typer.echo(f"norm={norm}: {error}", err=True)
            code = USAGE
            continue
        typer.echo(result.to_json() if as_json else result.line())
        if norm == "raw":
            found = _name_ids(result)
    return code or found


def _name_ids(result: _Result) -> int:
    """Name on standard error every id that is odd; return the exit code."""
    is_complete = True
    for score, owner in ((result.score, ""), (result.baseline, "baseline ")):
        if score is None:
            continue
        is_complete &= score.complete
        for what, ids in (
            ("missing", score.missing),
            ("empty", score.empty_hypotheses),
            ("duplicate", score.duplicates),
            ("extra", score.extra),
            ("empty reference", score.empty_references),
        ):
            for identifier in ids[:SHOWN_IDS]:
                typer.echo(f"{owner}{what}: {identifier}", err=True)
            if len(ids) > SHOWN_IDS:
                typer.echo(
                    f"{owner}{what}: {len(ids) - SHOWN_IDS:,} more; --json lists all", err=True
                )
    return FINE if is_complete else INCOMPLETE


def _print_alignments(score: "Score") -> None:
    from llmasr.scoring.writing import format_alignment

    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else 100
    colour = is_terminal and "NO_COLOR" not in os.environ
    for each in score.details:
        if each.errors:
            typer.echo("\n" + format_alignment(each, width=width, colour=colour))


def _tables(score: "Score", sides: _Sides, hotwords: Path | None) -> "Breakdown":
    from llmasr.scoring.breakdown import breakdown
    from llmasr.scoring.hotwords import capitalised_words

    phrases = hotwords.read_text(encoding="utf-8-sig").splitlines() if hotwords else []
    return breakdown(
        score,
        metadata={each.id: each for each in sides.references},
        hotwords=[phrase.strip() for phrase in phrases if phrase.strip()],
        names=capitalised_words(each.text for each in sides.references),
    )


def _write_page(path: Path, result: _Result, sides: _Sides, tables: "Breakdown") -> None:
    from llmasr.scoring.confidence import calibration
    from llmasr.scoring.report import write_report

    words = [word for each in sides.hypotheses for word in each.words]
    confidences = [word.confidence for word in words if word.confidence is not None]
    are_probabilities = bool(confidences) and all(0 <= each <= 1 for each in confidences)
    if confidences and not are_probabilities:
        typer.echo(f"{path}: no plot of confidences, for they are not all from 0 to 1", err=True)
    write_report(
        result.score,
        path,
        metadata={each.id: each for each in sides.references},
        tables=tables,
        confidence=calibration(result.score, sides.hypotheses) if are_probabilities else None,
        baseline=result.baseline,
    )


def _write_sclite(folder: Path, score: "Score", sides: _Sides) -> None:
    """Write both sides as trn, and the hypotheses as ctm where all their words have times."""
    from llmasr.scoring.writing import write_ctm, write_trn

    folder.mkdir(parents=True, exist_ok=True)
    foreign = {"duplicate", "extra"} | ({"missing"} if score.allow_partial else set())
    rows = [each for each in score.details if each.status not in foreign]
    write_trn(folder / "ref.trn", rows, "reference")
    write_trn(folder / "hyp.trn", rows, "hypothesis")
    if all(each.words or not each.text.strip() for each in sides.hypotheses):
        write_ctm(folder / "hyp.ctm", sides.hypotheses)
