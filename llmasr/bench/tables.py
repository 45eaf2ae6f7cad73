"""Results as tables for people: Markdown, and one HTML page that needs nothing else."""

import html
from collections.abc import Callable, Sequence
from typing import Any

from llmasr.bench.card import fingerprint
from llmasr.bench.results import Result

MEBIBYTE = 2**20
MISSING = "-"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>llmasr bench</title><style>
body {{ font: 15px/1.5 sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .3em .8em; text-align: left; }}
</style></head><body><h1>llmasr bench</h1>
{body}
</body></html>
"""

Row = Sequence[str]


def summary(results: Sequence[Result]) -> list[Row]:
    """Return a header and a row for each result."""
    header = [name for name, _ in COLUMNS]
    return [header, *([cell(result) for _, cell in COLUMNS] for result in results)]


def stage_rows(results: Sequence[Result]) -> list[Row]:
    """Return a header and a row for each result of a system that knows its stages; [] if none."""
    split = [(result, result.stages) for result in results if result.stages]
    names = list(dict.fromkeys(name for _, stages in split for name in stages))
    header = ["system", "data", "wall s", *(f"{name} %" for name in names)]
    rows = [
        [
            result.system,
            result.data,
            f"{result.wall_seconds:.2f}",
            *(f"{100 * stages.get(name, 0.0) / result.wall_seconds:.1f}" for name in names),
        ]
        for result, stages in split
    ]
    return [header, *rows] if rows else []


def to_markdown(results: Sequence[Result]) -> str:
    """Return the tables, failures and run cards as Markdown."""
    parts = [_markdown_table(summary(results))]
    stages = stage_rows(results)
    if stages:
        parts.append("Seconds by stage, reading of audio included:\n\n" + _markdown_table(stages))
    failures = _failures(results)
    if failures:
        parts.append("Failed, scored as empty:\n\n" + "\n".join(f"- {line}" for line in failures))
    parts.append("Run cards:\n\n" + "\n".join(f"- {line}" for line in _card_lines(results)))
    return "\n\n".join(parts) + "\n"


def to_html(results: Sequence[Result]) -> str:
    """Return the same as one page."""
    parts = [_html_table(summary(results))]
    stages = stage_rows(results)
    if stages:
        parts += ["<h2>Seconds by stage, reading of audio included</h2>", _html_table(stages)]
    failures = _failures(results)
    if failures:
        parts += ["<h2>Failed, scored as empty</h2>", _html_list(failures)]
    parts += ["<h2>Run cards</h2>", _html_list(_card_lines(results))]
    return PAGE.format(body="\n".join(parts))


def _rate(result: Result) -> str:
    found = result.score
    rate = f"{found.metric.upper()} {100 * found.rate:.2f} %" if found.units else "undefined"
    if found.interval is None:
        return rate
    low, high = found.interval
    return f"{rate} [{100 * low:.2f}-{100 * high:.2f}]"


def _milliseconds(result: Result) -> str:
    latency = result.finish.latency
    return MISSING if latency is None else f"{1000 * latency.p50:.0f} / {1000 * latency.p95:.0f}"


def _mebibytes(result: Result, field: str) -> str:
    memory = result.finish.memory
    value = None if memory is None else getattr(memory, field)
    return MISSING if value is None else f"{value / MEBIBYTE:.0f}"


COLUMNS: Sequence[tuple[str, Callable[[Result], str]]] = (
    ("system", lambda result: result.system),
    ("data", lambda result: result.data),
    ("utterances", lambda result: str(result.score.utterances)),
    ("error rate [95 % CI]", _rate),
    ("normaliser", lambda result: result.score.normalizer),
    ("RTFx", lambda result: MISSING if result.rtfx is None else f"{result.rtfx:.1f}"),
    ("latency p50 / p95 ms", _milliseconds),
    ("RSS before MiB", lambda result: _mebibytes(result, "rss_before")),
    ("RSS peak MiB", lambda result: _mebibytes(result, "rss_peak")),
    ("CUDA peak MiB", lambda result: _mebibytes(result, "cuda_peak")),
    ("failed", lambda result: str(len(result.failures))),
)


def _failures(results: Sequence[Result]) -> list[str]:
    return [
        f"{result.system}, {result.data}: {identifier}: {reason}"
        for result in results
        for identifier, reason in result.failures.items()
    ]


def _card_lines(results: Sequence[Result]) -> list[str]:
    """Return a line for each run card, after one with what they share; nested names get dots."""
    cards = [_card(result) for result in results]
    shared = [item for item in cards[0].items() if all(item in card.items() for card in cards)]
    own = [[item for item in card.items() if item not in shared] for card in cards]
    lines = [shared, *own]
    return [", ".join(f"{name}={value}" for name, value in line) for line in lines if line]


def _card(result: Result) -> dict[str, Any]:
    finish = result.finish
    return {
        "system": result.system,
        "data": result.data,
        "fingerprint": fingerprint(result.card),
        "ended": finish.ended,
        "commit": finish.commit,
        "load_average": finish.load_average,
        "resumed": finish.resumed,
        **_flat(result.card),
    }


def _flat(card: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in card.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat


def _markdown_table(rows: Sequence[Row]) -> str:
    header, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _html_table(rows: Sequence[Row]) -> str:
    header, *body = ([html.escape(cell) for cell in row] for row in rows)
    head = "<tr>" + "".join(f"<th>{cell}</th>" for cell in header) + "</tr>"
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return "\n".join(["<table>", head, *lines, "</table>"])


def _html_list(lines: Sequence[str]) -> str:
    return "<ul>" + "\n".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
