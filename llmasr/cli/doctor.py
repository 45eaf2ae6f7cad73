"""`llmasr doctor`: what is installed, and what is broken."""

import typer

from llmasr.cli.common import FINE, INCOMPLETE, app


@app.command("doctor")
def _doctor() -> int:
    """Print what is installed and what is broken.

    Exit code: 0 usable, 2 not.
    """
    from llmasr.doctor import examine

    findings = list(examine())
    for finding in findings:
        typer.echo(str(finding))
    return INCOMPLETE if any(finding.is_fatal for finding in findings) else FINE
