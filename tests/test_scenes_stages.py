"""Stages 2 and 3 of `recipes/scenes_masr`, one after the other, a step each, and the score."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from llmasr import Recognizer
from llmasr.data.manifests import read_manifest, store_features

pytest.importorskip("PIL.Image")

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes/scenes_masr"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NEEDED = [shutil.which("espeak-ng"), shutil.which("flite"), FONT.exists()]
pytestmark = pytest.mark.skipif(
    not all(NEEDED), reason="espeak-ng, flite or fonts-noto-color-emoji is missing"
)
SETS = (
    *("en_sentences_l2", "en_commands", "en_digits", "en_hotwords", "en_ljspeech", "en_an4_mini"),
    *("noise", "synthetic"),
)
# One process for all: what takes long is to load the libraries.
STAGES = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
folder = Path(sys.argv[2])
where = {"data": folder / "data", "runs": folder}
import joint, listen, prepare, see, sizes, tune
from llmasr.models.vision import build_vision
torch.manual_seed(0)
(folder / "eyes").mkdir()
torch.save({"model": build_vision(sizes.VISION)["image"].state_dict()}, folder / "eyes/vision.pt")
prepare.main(**where)
short = {**where, "steps": 1, "log_every": 1, "save_every": 1}
see.main(see.Recipe(**short, init="tiny-en", batch_size=4))
joint.main(joint.Recipe(**short, speech=folder / "features", speech_seconds=4.0))
listen.main(listen.Recipe(**where, speech=folder / "features", noises=1))
tune.main(tune.Recipe(**short))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of all stages, and beside it plain speech as `recipes/tiny_en` has it."""
    folder = tmp_path_factory.mktemp("scenes")
    sizes = ("--train", "6", "--dev", "1", "--test", "3", "--slices", "1")
    script(RECIPE / "generate.py", "--out", folder / "data", *sizes)
    rng = np.random.default_rng(0)
    for name in SETS:
        (folder / name).mkdir()
        lines = []
        for index in range(4):
            soundfile.write(
                folder / name / f"{index}.wav", 0.1 * rng.standard_normal(16_000), 16_000
            )
            entry = {"id": f"{name}-{index}", "audio": f"{index}.wav", "speaker": "s", "lang": "en"}
            entry |= {"text": "" if name == "noise" else "go left", "duration": 1.0}
            lines.append(json.dumps(entry | {"sample_rate": 16_000, "split": "train"}))
        (folder / name / "manifest.jsonl").write_text("\n".join(lines))
        cuts = read_manifest(folder / name / "manifest.jsonl", "train")
        store_features(cuts, folder / "features" / name)
    script("-c", STAGES, RECIPE, folder)
    return folder


def script(*arguments):
    command = [sys.executable, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def weights(runs, name):
    return Recognizer.from_pretrained(runs / name, device="cpu").bundle.model.state_dict()


def changed(runs, before, after):
    one, other = weights(runs, before), weights(runs, after)
    return {name for name in one if not one[name].equal(other[name])}


def test_stage_2_trains_the_image_interface_alone(runs):
    hearing = Recognizer.from_pretrained("tiny-en", device="cpu").bundle.model.state_dict()
    seeing = weights(runs, "seeing")
    assert hearing.keys() < seeing.keys()
    assert all(seeing[name].equal(value) for name, value in hearing.items() if "image" not in name)


def test_the_vit_is_frozen_from_stage_2_on(runs):
    moved = changed(runs, "seeing", "tuned")
    assert not [name for name in moved if ".vit." in name]
    assert any(name.startswith("language_model.") for name in moved)


def test_stage_3b_leaves_the_ears_alone(runs):
    moved = changed(runs, "joined", "tuned")
    assert moved
    ears = (
        "interfaces.speech.encoder.",
        "interfaces.speech.predictor.",
        "interfaces.speech.cformer.",
    )
    assert not [name for name in moved if name.startswith(ears)]


def test_the_score_has_every_condition(runs):
    report = runs / "RESULTS.md"
    script(
        RECIPE / "evaluate.py", "--model", runs / "tuned", "--data", runs / "data", "--out",
        runs / "hypotheses", "--report", report, "--quick",
    )  # fmt: skip
    table = report.read_text()
    rows = [line for line in table.splitlines() if line.startswith("| `test` | 5 dB")]
    assert [row.split(" | ")[2] for row in rows] == ["none", "right", "wrong", "blank"]
    assert all(f"| `test` | {task} |" in table for task in ("describe", "question", "vsd"))
    kept = (runs / "hypotheses/test-5-right.jsonl").read_text().splitlines()
    assert len(kept) == 3
