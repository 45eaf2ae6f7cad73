"""`llmasr transcribe`: audio files to text, on the screen or as one file each."""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TextIO

import typer

from llmasr.cli.common import FINE, INCOMPLETE, app, usage_errors
from llmasr.cli.sight import Sights, find_shown
from llmasr.files import replace_file
from llmasr.formats import FORMATS

if TYPE_CHECKING:
    from llmasr.api import Recognizer
    from llmasr.decoding.search import SearchOptions
    from llmasr.transcript import Transcript

PROBLEMS = frozenset({"failed", "truncated"})
STDIN = "-"
STATUS_FILE = "status.jsonl"
# What a folder is searched for; a file that is named is read whatever its suffix.
SUFFIXES = (
    *(".aac", ".aif", ".aiff", ".au", ".avi", ".caf", ".flac", ".m4a", ".mkv", ".mov", ".mp3"),
    *(".mp4", ".mpeg", ".mpg", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma"),
)


@app.command("transcribe")
def _transcribe(
    files: Annotated[
        list[str],
        typer.Argument(help="Audio files, folders of audio files, or - for standard input."),
    ],
    model: Annotated[str, typer.Option(help="A bundled model or a folder.")] = "tiny-en",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the language model.")
    ] = "float32",
    quantization: Annotated[
        Literal["int8"] | None, typer.Option(help="Of the language model; saves memory.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="A picture that goes with all files, for models that look.")
    ] = None,
    image_dir: Annotated[
        Path | None, typer.Option(help="Pictures: <stem>.png, .jpg, ... goes with <stem>.wav.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="A video that goes with all files; may be one of them.")
    ] = None,
    video_dir: Annotated[
        Path | None, typer.Option(help="Videos, by their stems; may be the folder of the files.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="What is spoken; one language of the model.")
    ] = None,
    beam_size: Annotated[
        int, typer.Option(help="Hypotheses of a beam search; 1 is greedy, the fastest.")
    ] = 1,
    channel: Annotated[str, typer.Option(help="mix, left, right, 0, 1, ...")] = "mix",
    batch_seconds: Annotated[
        float, typer.Option(help="Audio in a batch; bounds memory, changes no text.")
    ] = 120.0,
    format: Annotated[
        Literal["txt", "json", "srt", "vtt"], typer.Option(help="What is written.")
    ] = "txt",
    output_dir: Annotated[
        Path | None,
        typer.Option(help=f"Write one <stem>.<format> a file, and {STATUS_FILE}."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip what this model has done in the output folder.")
    ] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No bar.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Problems only.")] = False,
) -> int:
    """Turn speech into text.

    Without --output-dir the result goes to standard output: the text of one file as it is; of many
    files one line each, the name, a tab and the text (with json, one object a line). One JSON
    status line for each file goes to standard error, or to status.jsonl in the output folder; its
    "context" names what was looked at. A file without a partner in --image-dir is transcribed
    without a picture.

    Exit code: 0 all fine, 1 usage, 2 some file failed or was truncated.
    """
    with usage_errors():
        sources = _expand(files)
        policy = _parse_channel(channel)
        output = _Folder(output_dir, format) if output_dir else _Screen(format, quiet)
        output.check(sources, resume)
        search = _search(beam_size)
        sights = Sights(
            find_shown("image", image, image_dir, sources),
            find_shown("video", video, video_dir, sources),
        )
        recognizer = _load(model, device, dtype, quantization)
        todo = output.prepare(sources, _Earlier(model, sights) if resume else None)
    statuses = set()
    with _terminal(len(todo), has_bar=not (quiet or no_progress)) as bar:
        with usage_errors():
            transcripts = recognizer.transcribe_each(
                map(_content, todo),
                image=sights.image.argument(todo),
                video=sights.video.argument(todo),
                language=language,
                search=search,
                batch_seconds=batch_seconds,
                channel=policy,
                on_progress=bar.show,
            )
        for source, transcript in zip(todo, transcripts, strict=True):
            output.publish(source, transcript)
            statuses.add(transcript.status)
            bar.count()
    return INCOMPLETE if statuses & PROBLEMS else FINE


class _Earlier(NamedTuple):
    """What an earlier run must have done for its results to stand."""

    model: str
    sights: Sights

    def stands(self, status: Mapping[str, Any]) -> bool:
        """Tell whether a result, by its status line, needs no repetition."""
        # Earlier versions looked at nothing.
        found = (status["model"], status.get("context", []))
        wanted = (self.model, self.sights.context(status["file"]))
        return found == wanted and status["status"] not in PROBLEMS


class _Screen:
    """Results on standard output, status lines on standard error."""

    def __init__(self, format: str, quiet: bool):
        self.format = format
        self.quiet = quiet
        self.has_one = True

    def check(self, sources: Sequence[str], resume: bool) -> None:
        """Refuse results that could not be told apart."""
        self.has_one = len(sources) == 1
        if resume:
            raise ValueError("--resume needs --output-dir")
        if not self.has_one and self.format not in ("txt", "json"):
            raise ValueError(f"--format {self.format} of {len(sources)} files needs --output-dir")

    def prepare(self, sources: Sequence[str], earlier: _Earlier | None) -> list[str]:
        """Return the sources that are to be recognised: all."""
        return list(sources)

    def publish(self, source: str, transcript: "Transcript") -> None:
        """Print one result and its status."""
        if transcript.status != "failed":
            _say(self._content(source, transcript), sys.stdout)
        if transcript.status in PROBLEMS or not self.quiet:
            _say(_status_line(source, transcript) + "\n", sys.stderr)

    def _content(self, source: str, transcript: "Transcript") -> str:
        if self.has_one:
            return FORMATS[self.format](transcript)
        if self.format == "json":
            named = {"file": source, **transcript.to_dict()}
            return json.dumps(named, ensure_ascii=False) + "\n"
        return f"{source}\t{transcript.text}\n"


class _Folder:
    """One file for each input, and one status line for each in a common file."""

    def __init__(self, path: Path, format: str):
        self.path = path
        self.format = format
        self.status_path = path / STATUS_FILE

    def check(self, sources: Sequence[str], resume: bool) -> None:
        """Refuse results that would overwrite one another."""
        source_of: dict[Path, str] = {}
        for source in sources:
            target = self._target(source)
            if target in source_of:
                raise ValueError(
                    f"{source_of[target]} and {source} would both be written to {target}"
                )
            source_of[target] = source

    def prepare(self, sources: Sequence[str], earlier: _Earlier | None) -> list[str]:
        """Make the folder, and return the sources whose results are not in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        done = {} if earlier is None else self._done(earlier)
        kept = [done[source] for source in sources if source in done]
        replace_file(self.status_path, "".join(line + "\n" for line in kept))
        return [source for source in sources if source not in done]

    def publish(self, source: str, transcript: "Transcript") -> None:
        """Write one result and its status."""
        line = _status_line(source, transcript)
        if transcript.status != "failed":
            replace_file(self._target(source), FORMATS[self.format](transcript))
        with self.status_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if transcript.status in PROBLEMS:
            _say(line + "\n", sys.stderr)

    def _target(self, source: str) -> Path:
        stem = "stdin" if source == STDIN else Path(source).stem
        return self.path / f"{stem}.{self.format}"

    def _done(self, earlier: _Earlier) -> dict[str, str]:
        """Return the status lines of an earlier run that need no repetition, by source."""
        done = {}
        text = self.status_path.read_text(encoding="utf-8") if self.status_path.exists() else ""
        for line in text.splitlines():
            try:
                status = json.loads(line)
            except json.JSONDecodeError:  # the line that was being written when the run was killed
                continue
            if earlier.stands(status) and self._target(status["file"]).exists():
                done[status["file"]] = line
        return done


class _Bar:
    """A progress bar in seconds of audio, on a terminal only."""

    def __init__(self, num_files: int, is_shown: bool):
        from tqdm import tqdm

        self.num_files = num_files
        self.num_done = 0
        self.bar = tqdm(unit="s", unit_scale=True, disable=not is_shown, dynamic_ncols=True)

    def show(self, done_seconds: float, known_seconds: float) -> None:
        """Move to so many seconds of audio."""
        self.bar.total = known_seconds
        self.bar.update(done_seconds - self.bar.n)

    def count(self) -> None:
        """Count a file."""
        self.num_done += 1
        self.bar.set_description(f"{self.num_done}/{self.num_files} files")


@contextmanager
def _terminal(num_files: int, *, has_bar: bool) -> Iterator[_Bar]:
    """Show a bar, if there is a terminal, and warnings as plain lines."""

    def show_warning(message: Warning | str, *where: object, **more: object) -> None:
        _say(f"warning: {message}\n", sys.stderr)

    bar = _Bar(num_files, has_bar and sys.stderr.isatty())
    with warnings.catch_warnings(), bar.bar:
        warnings.showwarning = show_warning
        yield bar


def _say(text: str, file: TextIO) -> None:
    """Print without disturbing a progress bar."""
    from tqdm import tqdm

    tqdm.write(text, file=file, end="")


def _load(model: str, device: str, dtype: str, quantization: str | None) -> "Recognizer":
    from llmasr.api import Recognizer

    return Recognizer.from_pretrained(model, device=device, dtype=dtype, quantization=quantization)


def _search(beam_size: int) -> "SearchOptions | None":
    from llmasr.decoding.search import SearchOptions

    return None if beam_size == 1 else SearchOptions(beam_size=beam_size)


def _content(source: str) -> str | bytes:
    return sys.stdin.buffer.read() if source == STDIN else source


def _expand(files: Sequence[str]) -> list[str]:
    """Replace folders by the audio files in them."""
    if files.count(STDIN) > 1:
        raise ValueError(f"{STDIN} stands for standard input and can be given only once")
    sources: list[str] = []
    for file in files:
        if file != STDIN and Path(file).is_dir():
            found = [str(path) for path in sorted(Path(file).iterdir()) if _is_audio(path)]
            if not found:
                raise ValueError(f"folder {file} has no file with one of {', '.join(SUFFIXES)}")
            sources += found
        else:
            sources.append(file)
    return sources


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _parse_channel(text: str) -> str | int:
    if text not in ("mix", "left", "right") and not text.isdecimal():
        raise ValueError(f"--channel is {text!r}; allowed: mix, left, right, 0, 1, ...")
    return int(text) if text.isdecimal() else text


def _status_line(source: str, transcript: "Transcript") -> str:
    seconds = sum(transcript.timings.values())
    status = {
        "file": source,
        "status": transcript.status,
        "error": transcript.error,
        "flags": transcript.flags,
        "context": transcript.context,
        "duration": transcript.duration,
        "rtf": round(seconds / transcript.duration, 4) if transcript.duration else None,
        "model": transcript.model,
    }
    return json.dumps(status, ensure_ascii=False)
