"""The command line: `llmasr transcribe`, `answer`, `score`, `bench`, `doctor`; one file a command.

Exit codes: 0 all fine, 1 usage, 2 some input failed or was truncated, 130 interrupted. Heavy
libraries are imported by the commands that need them, so that `llmasr --help` is quick.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import llmasr
from llmasr.cli import answer, bench, doctor, score, score_times, transcribe
from llmasr.cli.common import FINE, USAGE, app

__all__ = ["answer", "bench", "doctor", "main", "score", "score_times", "transcribe"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # transformers imports torchao where it is installed; 0.18 makes torch 2.14 warn about itself.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    try:
        # Outside standalone mode usage errors arrive here, and their exit code is ours.
        code = app(list(arguments) or ["--help"], prog_name="llmasr", standalone_mode=False)
    except typer.TyperException as error:
        typer.echo(f"Error: {error.format_message()}\nSee: llmasr --help", err=True)
        return USAGE
    return code if isinstance(code, int) else FINE


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(llmasr.__version__)
        raise typer.Exit(FINE)


@app.callback()
def _before_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass
