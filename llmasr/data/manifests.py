"""Manifests to lhotse cuts, and cuts to stored features.

A manifest is a `manifest.jsonl` with one object a line: `id`, `audio` (relative to its folder),
`text`, `lang`, `speaker`, `duration` in seconds, `sample_rate`, `split`.

Features are log-mel [T, 80] float16, made once by the same filterbank that the model uses, so that
training and use agree and an epoch costs no decoding.
"""

import json
import logging
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet, Features, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from tqdm import tqdm

from llmasr.audio import load_audio
from llmasr.filterbank import HOP_SAMPLES, SAMPLE_RATE, FilterBank

log = logging.getLogger(__name__)

FRAME_SECONDS = HOP_SAMPLES / SAMPLE_RATE
JOBS = 2


def read_manifest(path: Path, split: str) -> CutSet:
    """Return the cuts of one split of a manifest, in file order.

    Raises:
        ValueError: a line is no JSON object with the needed keys, or no line has the split.
    """
    cuts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            if entry["split"] == split:
                cuts.append(_cut(entry, path.parent))
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error!r}") from error
    if not cuts:
        raise ValueError(f"{path}: no line has split {split!r}")
    return CutSet.from_cuts(cuts)


def _cut(entry: dict, folder: Path) -> MonoCut:
    rate, seconds = entry["sample_rate"], entry["duration"]
    source = AudioSource("file", [0], str(folder / entry["audio"]))
    recording = Recording(entry["id"], [source], rate, round(seconds * rate), seconds)
    supervision = SupervisionSegment(
        entry["id"], entry["id"], 0.0, seconds,
        text=entry["text"], language=entry["lang"], speaker=entry["speaker"],
    )  # fmt: skip
    return MonoCut(entry["id"], 0.0, seconds, 0, [supervision], recording=recording)


def store_features(cuts: CutSet, folder: Path, speeds: tuple[float, ...] = (1.0,)) -> CutSet:
    """Compute the features of every cut at every speed and return cuts that carry them.

    Speed changes rate and pitch together (Ko et al., 2015). Files that are there are kept, so an
    interrupted run goes on where it stopped; the finished list is `folder/cuts.jsonl.gz`. Clips
    shorter than one window (25 ms) are left out, and the log says how many.
    """
    finished = folder / "cuts.jsonl.gz"
    if finished.exists():
        return CutSet.from_file(finished).to_eager()
    filterbank = FilterBank()
    with ThreadPoolExecutor(JOBS) as pool:
        work = pool.map(lambda cut: _store(cut, folder, speeds, filterbank), cuts)
        progress = tqdm(work, total=len(cuts), unit="clip", mininterval=10, desc=folder.name)
        stored = [cut for found in progress for cut in found]
    if len(stored) < len(cuts) * len(speeds):
        log.warning("%s: %d of %d clips are too short and left out", folder,
                    len(cuts) * len(speeds) - len(stored), len(cuts) * len(speeds))  # fmt: skip
    result = CutSet.from_cuts(stored)
    result.to_file(finished)
    return result


def _store(
    cut: MonoCut, folder: Path, speeds: tuple[float, ...], filterbank: FilterBank
) -> list[MonoCut]:
    waveform = None
    stored = []
    for speed in speeds:
        name = cut.id if speed == 1.0 else f"{cut.id}-sp{speed}"
        key = f"{zlib.crc32(name.encode()) % 256:02x}/{name}.npy"
        path = folder / "features" / key
        if not path.exists():
            if waveform is None:
                waveform = load_audio(cut.recording.sources[0].source)
            features = log_mel(filterbank, change_speed(waveform, speed))
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            with partial.open("wb") as file:
                np.save(file, features)
            partial.replace(path)
        num_frames = np.load(path, mmap_mode="r").shape[0]
        if num_frames:
            stored.append(_with_features(cut, name, folder / "features", key, num_frames))
    return stored


def change_speed(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Resample [samples] so that it plays ``speed`` times faster, by linear interpolation in time.

    Linear interpolation is enough here: it only serves to vary training data.
    """
    if speed == 1.0:
        return waveform
    position = np.arange(0, len(waveform) - 1, speed)
    return np.interp(position, np.arange(len(waveform)), waveform).astype(np.float32)


def log_mel(filterbank: FilterBank, waveform: np.ndarray) -> np.ndarray:
    """Return the features of one waveform [samples], [T, M] float16."""
    lengths = torch.tensor([len(waveform)])
    features, frames = filterbank(torch.from_numpy(waveform)[None], lengths)
    return features[0, : int(frames[0])].half().numpy()


def _with_features(cut: MonoCut, name: str, folder: Path, key: str, num_frames: int) -> MonoCut:
    seconds = num_frames * FRAME_SECONDS
    features = Features(
        type="llmasr-log-mel", num_frames=num_frames, num_features=80, frame_shift=FRAME_SECONDS,
        sampling_rate=SAMPLE_RATE, start=0.0, duration=seconds, storage_type="numpy_files",
        storage_path=str(folder), storage_key=key, recording_id=name, channels=0,
    )  # fmt: skip
    supervision = replace(cut.supervisions[0], duration=seconds)
    return MonoCut(name, 0.0, seconds, 0, [supervision], features=features)
