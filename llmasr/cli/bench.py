"""`llmasr bench`: error rates and speed of recognisers, ours and others', side by side."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from llmasr.cli.common import FINE, INCOMPLETE, app, usage_errors


@app.command("bench")
def _bench(
    systems: Annotated[
        list[str],
        typer.Argument(
            help="ours:MODEL, transformers:FOLDER, faster-whisper:FOLDER, funasr:FOLDER,"
            " pocketsphinx, 'command:PROGRAM {audio}', file:HYPOTHESES"
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(help="Manifest: JSON lines with id, audio, text, and speaker if known."),
    ],
    split: Annotated[
        str | None, typer.Option(help="Take only the lines with this split; otherwise all.")
    ] = None,
    norm: Annotated[str, typer.Option(help="Normaliser of both sides.")] = "raw",
    metric: Annotated[
        Literal["wer", "cer", "mer"], typer.Option(help="Words, characters, or mixed.")
    ] = "wer",
    batch_size: Annotated[int, typer.Option(help="Utterances of a call.")] = 16,
    warmup: Annotated[int, typer.Option(help="Batches before the clock starts.")] = 10,
    latency: Annotated[int, typer.Option(help="Utterances that are timed alone; 0 for none.")] = 20,
    limit: Annotated[
        int | None, typer.Option(help="At most so many utterances of each manifest.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the weights.")
    ] = "float32",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results.json, .md and .html, and for hypotheses: a run that was"
            " interrupted goes on from there."
        ),
    ] = None,
) -> int:
    """Measure recognisers on test sets: error rate, speed, latency, memory.

    Speed is audio seconds a second of computation, timed as the Open ASR leaderboard does it. An
    utterance that a system fails on is scored as an empty hypothesis.

    Exit code: 0 all fine, 1 usage, 2 some utterance failed.
    """
    from llmasr.bench import (
        Options,
        Setup,
        bench,
        find_system,
        read_dataset,
        to_html,
        to_markdown,
        write_json,
    )
    from llmasr.files import replace_file

    with usage_errors(), _Progress() as progress:
        options = Options(batch_size, warmup, latency, metric, norm)
        datasets = [read_dataset(path, split=split, limit=limit) for path in data]
        chosen = [find_system(spec, Setup(device, dtype)) for spec in systems]
        results = bench(chosen, datasets, options, folder=output, on_progress=progress.show)
        if output is not None:
            write_json(output / "results.json", results)
            replace_file(output / "results.md", to_markdown(results))
            replace_file(output / "results.html", to_html(results))
    typer.echo(to_markdown(results), nl=False)
    return INCOMPLETE if any(result.failures for result in results) else FINE


class _Progress:
    """A bar for each system and dataset, on a terminal only."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self.bar = tqdm(unit=" utt", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self.shown = ""

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *raised: object) -> None:
        self.bar.close()

    def show(self, system: str, data: str, done: int, total: int) -> None:
        """Move to so many utterances of a dataset."""
        title = f"{system} on {data}"
        if title != self.shown:
            self.shown = title
            self.bar.reset(total)
            self.bar.set_description(title)
        self.bar.update(done - self.bar.n)
