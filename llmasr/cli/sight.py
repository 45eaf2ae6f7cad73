"""Which picture or video goes with which audio file, as the options of `llmasr transcribe` say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What a folder is searched for; a file that is named is read whatever its suffix.
SUFFIXES = {
    "image": (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    "video": (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"),
}


@dataclass(frozen=True)
class Shown:
    """Pictures, or videos, that go with audio files: one with all, or some with one each."""

    for_all: str | None = None
    by_source: Mapping[str, str] | None = None

    def of(self, source: str) -> str | None:
        """Return what goes with a file."""
        return self.for_all if self.by_source is None else self.by_source.get(source)

    def argument(self, sources: Sequence[str]) -> str | list[str | None] | None:
        """Return what `Recognizer.transcribe` takes for these files."""
        return self.for_all if self.by_source is None else [self.of(source) for source in sources]


@dataclass(frozen=True)
class Sights:
    """All that is shown."""

    image: Shown = field(default_factory=Shown)
    video: Shown = field(default_factory=Shown)

    def context(self, source: str) -> list[str]:
        """Name what goes with a file, as `Transcript.context` does."""
        shown = {"image": self.image, "video": self.video}
        return [kind for kind, media in shown.items() if media.of(source) is not None]


def find_shown(kind: str, file: str | None, folder: Path | None, sources: Sequence[str]) -> Shown:
    """Return what goes with each source: one file, or those of a folder by their stems.

    Args:
        kind: "image" or "video".
        file: of --image or --video.
        folder: of --image-dir or --video-dir.
        sources: audio files.

    Raises:
        ValueError: both are given, there is no such folder, or two of its files have the stem of
            the same source.
    """
    if folder is None:
        return Shown(file)
    if file is not None:
        raise ValueError(f"--{kind} and --{kind}-dir are both given; allowed: one of them")
    if not folder.is_dir():
        raise ValueError(f"--{kind}-dir is {folder}; allowed: a folder")
    stems = {source: Path(source).stem for source in sources}
    wanted = set(stems.values())
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.stem in wanted and path.suffix.lower() in SUFFIXES[kind] and path.is_file():
            if path.stem in found:
                raise ValueError(f"{found[path.stem]} and {path} would both go with {path.stem}")
            found[path.stem] = str(path)
    return Shown(None, {source: found[stem] for source, stem in stems.items() if stem in found})
