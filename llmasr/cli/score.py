"""`llmasr score`: count errors against references."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llmasr.cli.common import FINE, INCOMPLETE, app, usage_errors


@app.command("score")
def _score(
    references: Annotated[Path, typer.Argument(help="Kaldi text, or .jsonl with id and text.")],
    hypotheses: Annotated[Path, typer.Argument(help="The same, by the same ids.")],
    metric: Annotated[Literal["wer", "cer"], typer.Option(help="Words or characters.")] = "wer",
    normalizer: Annotated[str, typer.Option(help="Applied to both sides.")] = "raw",
) -> int:
    """Count errors against references.

    A missing hypothesis counts as all errors.

    Exit code: 0 all fine, 1 usage, 2 some id is missing or unknown.
    """
    from llmasr.scoring import read_texts, score

    with usage_errors():
        result = score(
            read_texts(references), read_texts(hypotheses), metric=metric, normalizer=normalizer
        )
    typer.echo(str(result))
    for name, ids in (("missing", result.missing), ("extra", result.extra)):
        for identifier in ids:
            typer.echo(f"{name}: {identifier}", err=True)
    return FINE if result.complete else INCOMPLETE
