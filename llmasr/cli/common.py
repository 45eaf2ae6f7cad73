"""What all commands share: the application, exit codes, and how errors of usage are reported."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

FINE, USAGE, INCOMPLETE = 0, 1, 2

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Speech recognition with a large language model behind a CIF speech interface.",
)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Report what the user can mend as a message without traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise typer.TyperException(str(error)) from error
    except ImportError as error:
        raise typer.TyperException(f"{error}; `llmasr doctor` says what to repair") from error
