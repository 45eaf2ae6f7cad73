"""`llmasr answer`: questions about a picture, a video or speech; one, many, or a conversation."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmasr.cli.common import FINE, INCOMPLETE, app, usage_errors

if TYPE_CHECKING:
    from llmasr.api import Recognizer
    from llmasr.reply import Reply

PROBLEMS = frozenset({"failed", "truncated"})
STDIN = "-"
DEFAULT_MODEL = "tiny-en-scenes"

Turns = list[tuple[str, str]]
# Questions, and what was asked before each of them.
Ask = Callable[[list[str], Turns], "list[Reply]"]


@app.command("answer")
def _answer(
    question: Annotated[
        str | None,
        typer.Argument(
            help="What is asked; - for questions on standard input, one a line; nothing, on a"
            " terminal, for a conversation."
        ),
    ] = None,
    image: Annotated[str | None, typer.Option(help="A picture to look at.")] = None,
    video: Annotated[str | None, typer.Option(help="A video to look at.")] = None,
    audio: Annotated[str | None, typer.Option(help="Speech to listen to.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"A bundled model or a folder; {DEFAULT_MODEL} if bundled.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the language model.")
    ] = "float32",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 128,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one object a line: the answer and its status.")
    ] = False,
    history: Annotated[
        Path | None,
        typer.Option(help="JSON: what was asked before, as a list of [question, answer]."),
    ] = None,
) -> int:
    """Answer questions about a picture, a video or speech.

    Answers go to standard output, one for each question; one JSON status line for each that failed
    or was truncated goes to standard error.

    Exit code: 0 all fine, 1 usage, or what was given cannot be looked at or listened to, 2 some
    question failed or its answer was truncated.
    """
    with usage_errors(), _plain_warnings():
        turns = _read_history(history) if history else []
        if question is None and not sys.stdin.isatty():
            raise ValueError(f"question is missing; allowed: words, or {STDIN} for standard input")
        recognizer = _load(_choose(model), device, dtype)

        def ask(questions: list[str], before: Turns) -> "list[Reply]":
            return recognizer.answer(
                questions, image=image, video=video, audio=audio,
                history=[before] * len(questions), max_new_tokens=max_new_tokens,
            )  # fmt: skip

        statuses = set()
        replies = _converse(ask, turns) if question is None else _reply(ask, question, turns)
        for asked, reply in replies:
            _publish(asked, reply, as_json)
            statuses.add(reply.status)
    return INCOMPLETE if statuses & PROBLEMS else FINE


def _reply(ask: Ask, question: str, turns: Turns) -> Iterator[tuple[str, "Reply"]]:
    """Answer one question, or all that stand on standard input."""
    questions = [question]
    if question == STDIN:
        questions = [line.strip() for line in sys.stdin if line.strip()]
    yield from zip(questions, ask(questions, turns), strict=True)


def _converse(ask: Ask, turns: Turns) -> Iterator[tuple[str, "Reply"]]:
    """Answer what is typed until the end of input; each question knows those before it."""
    for question in _typed():
        reply = ask([question], turns)[0]
        yield question, reply
        if reply.status != "failed":
            turns = [*turns, (question, reply.text)]


def _typed() -> Iterator[str]:
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if line:
            yield line


def _publish(question: str, reply: "Reply", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"question": question, **reply.to_dict()}, ensure_ascii=False))
        return
    # Also a question that failed has its line, so that lines match questions.
    typer.echo(" ".join(reply.text.split()))
    if reply.status in PROBLEMS:
        names = ("status", "error", "flags", "context", "model")
        status = {"question": question} | {name: getattr(reply, name) for name in names}
        typer.echo(json.dumps(status, ensure_ascii=False), err=True)


def _choose(model: str | None) -> str:
    """Return the model to use.

    Raises:
        ValueError: none is named, and none that is bundled can look at pictures.
    """
    from llmasr.api import bundled_models

    if model is not None:
        return model
    if DEFAULT_MODEL in bundled_models():
        return DEFAULT_MODEL
    raise ValueError(
        "--model is missing; needed: the folder of a model with an image interface (bundled, and"
        f" without one: {', '.join(bundled_models())})"
    )


def _load(model: str, device: str, dtype: str) -> "Recognizer":
    from llmasr.api import Recognizer

    return Recognizer.from_pretrained(model, device=device, dtype=dtype)


def _read_history(path: Path) -> Turns:
    """Read earlier turns; `Recognizer.answer` checks what they are.

    Raises:
        ValueError: the file is no JSON list.
    """
    try:
        turns = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--history {path} is no JSON: {error}") from error
    if not isinstance(turns, list):
        raise ValueError(f"--history {path} is no list; allowed: [[question, answer], ...]")
    return turns


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings as plain lines."""

    def show(message: Warning | str, *where: object, **more: object) -> None:
        typer.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
