"""`llmasr score-times`: how far word times are off."""

from pathlib import Path
from typing import Annotated

import typer

from llmasr.cli.common import FINE, INCOMPLETE, app, usage_errors


@app.command("score-times")
def _score_times(
    references: Annotated[
        Path, typer.Argument(help="ctm, TextGrid or .jsonl with word times, or a folder of them.")
    ],
    hypotheses: Annotated[Path, typer.Argument(help="The same, or transcripts in json.")],
    norm: Annotated[str, typer.Option(help="Applied to each word of both sides.")] = "raw",
) -> int:
    """Measure how far word times are off, in ms.

    Words are aligned and only equal ones are compared; how many there are is printed, too.

    Exit code: 0 all fine, 1 usage, 2 some id is missing, unknown or repeated.
    """
    from llmasr.scoring.readers import read_pair
    from llmasr.scoring.times import score_times

    with usage_errors():
        pair = read_pair(references, hypotheses)
        result = score_times(pair.references, pair.hypotheses, normalizer=norm)
    typer.echo(str(result))
    listed = (
        ("missing", result.missing),
        ("extra", result.extra),
        ("duplicate", result.duplicates),
    )
    for name, ids in listed:
        for identifier in ids:
            typer.echo(f"{name}: {identifier}", err=True)
    return FINE if result.complete else INCOMPLETE
