"""The data of `recipes/scenes_masr`: pictures, splits, noise and answers, in a tiny run."""

import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

Image = pytest.importorskip("PIL.Image")

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes/scenes_masr"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NEEDED = [shutil.which("espeak-ng"), shutil.which("flite"), FONT.exists()]
pytestmark = pytest.mark.skipif(
    not all(NEEDED), reason="espeak-ng, flite or fonts-noto-color-emoji is missing"
)
SIZES = ("--train", "6", "--dev", "1", "--test", "2", "--slices", "1")


@pytest.fixture(autouse=True)
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPE))


def generate(out, *flags):
    command = [sys.executable, str(RECIPE / "generate.py"), "--out", str(out), *SIZES, *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    generate(folder)
    return folder


def entries(folder, **wanted):
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [entry for entry in found if all(entry[key] == wanted[key] for key in wanted)]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def drawn_scene(number, seed=0):
    from backgrounds import KINDS
    from scenes import arrange, settle
    from words import SEEN

    rng = random.Random(seed)
    things = rng.sample(SEEN, number)
    drawings = [(thing.word.text, thing.drawings[0]) for thing in things]
    return settle(arrange(rng, drawings, tuple(KINDS)))


def test_one_process_and_two_make_the_same_files(made, tmp_path):
    generate(tmp_path, "--jobs", "1")
    assert contents(tmp_path) == contents(made)


def test_another_seed_makes_other_scenes():
    from generate import Options, plan

    options = Options(train=6, dev=0, test=0, slices=0)
    first, second = plan(options), plan(replace(options, seed=1))
    assert not {item.sentence.scene for item in first} & {item.sentence.scene for item in second}


def test_a_second_run_keeps_what_is_there_and_makes_what_is_lost(made):
    before = contents(made)
    lost = sorted(made.rglob("*.jpg"))[0], sorted(made.rglob("*db-*.flac"))[0]
    kept = sorted(made.rglob("*.jpg"))[1]
    changed = kept.stat().st_mtime_ns
    for path in lost:
        path.unlink()
    generate(made)
    assert contents(made) == before
    assert kept.stat().st_mtime_ns == changed


def test_every_file_of_the_manifest_is_there_and_is_what_it_says(made):
    for entry in entries(made):
        if entry["audio"]:
            info = soundfile.info(made / entry["audio"])
            assert (info.samplerate, info.duration) == (entry["sample_rate"], entry["duration"])
        if entry["image"]:
            assert Image.open(made / entry["image"]).size == (160, 160)
    assert len({entry["id"] for entry in entries(made)}) == len(entries(made))


def test_signal_to_noise_ratios_are_right(made):
    noisy = [entry for entry in entries(made) if entry["snr"] is not None]
    clean = {entry["id"]: entry["audio"] for entry in entries(made, task="masr", snr=None)}
    assert {entry["snr"] for entry in noisy} == {10, 5, 0}
    for entry in noisy:
        speech, _ = soundfile.read(made / clean[entry["id"].rsplit("-", 1)[0]])
        mixture, _ = soundfile.read(made / entry["audio"])
        ratio = 10 * np.log10(np.mean(speech**2) / np.mean((mixture - speech) ** 2))
        assert ratio == pytest.approx(entry["snr"], abs=0.5)


def test_every_clip_is_loud_and_none_is_cut_off(made):
    for entry in entries(made, snr=None):
        if entry["audio"]:
            samples, _ = soundfile.read(made / entry["audio"])
            assert 10 * np.log10(np.mean(samples**2)) == pytest.approx(-26, abs=0.1)
            assert np.abs(samples).max() < 1


def test_each_thing_of_a_scene_differs_from_the_empty_place_and_the_rest_does_not():
    from scenes import SIDE, box, draw_scene

    for number in (1, 2, 3, 4):
        scene = drawn_scene(number, seed=number)
        full = np.asarray(draw_scene(scene), np.float32)
        empty = np.asarray(draw_scene(replace(scene, things=())), np.float32)
        difference = np.abs(full - empty).mean(2)
        outside = np.ones((SIDE, SIDE), bool)
        for thing in scene.things:
            left, top, right, bottom = box(thing)
            inside = difference[max(top, 0) : bottom, max(left, 0) : right]
            assert inside.mean() > 10
            assert (inside > 20).mean() > 0.15
            outside[max(top - 20, 0) : bottom + 30, max(left - 20, 0) : right + 20] = False
        assert difference[outside].max(initial=0) < 3


def test_the_stored_picture_shows_the_things_of_its_entry(made):
    from generate import Options, plan
    from scenes import draw_scene, settle

    options = Options(train=6, dev=1, test=2, slices=1)
    items = {item.id: item for item in plan(options)}
    for entry in entries(made, task="describe"):
        scene = items[entry["id"].rsplit("-", 1)[0]].sentence.scene
        empty = np.asarray(draw_scene(replace(settle(scene), things=())), np.float32)
        stored = np.asarray(Image.open(made / entry["image"]), np.float32)
        assert [thing["word"] for thing in entry["objects"]] == [t.word for t in scene.things]
        for thing in entry["objects"]:
            left, top, right, bottom = thing["box"]
            change = np.abs(stored - empty)[top:bottom, left:right].mean()
            assert change > 6, (entry["id"], thing)


def test_no_voice_is_in_two_splits(made):
    from speech import FLITE_VOICES, TIMBRES

    names = {
        split: {name.lower() for name in (*TIMBRES[split], *FLITE_VOICES[split])}
        for split in TIMBRES
    }
    assert not names["train"] & (names["dev"] | names["test"])
    assert not names["dev"] & names["test"]
    speakers = [
        {entry["speaker"] for entry in entries(made) if entry["split"] == split}
        for split in ("train", "test")
    ]
    assert not (speakers[0] & speakers[1]) - {None}


def test_the_synthesiser_has_every_voice_of_the_list():
    # It speaks with its usual voice, without a word, where it does not know a variant's file.
    from speech import TIMBRES

    listed = subprocess.run(
        ["espeak-ng", "--voices=variant"], check=True, capture_output=True, text=True
    ).stdout
    files = {word[3:] for word in listed.split() if word.startswith("!v/")}
    assert not {name for names in TIMBRES.values() for name in names} - files


def test_no_combination_backgrounds_or_kept_out_drawing_of_the_test_is_in_training():
    from backgrounds import HELD_KINDS
    from generate import Options, plan
    from words import SEEN, UNSEEN

    items = plan(Options(train=600, dev=50, test=100, slices=30))
    train = [item for item in items if item.split == "train" and item.task == "masr"]
    shown = {thing.drawing for item in train for thing in item.sentence.scene.things}
    combinations = {frozenset(item.sentence.scene.words()) for item in train}
    unseen = {thing.word.text for thing in UNSEEN}
    assert not shown & {thing.held for thing in SEEN}
    assert not shown & set("".join(thing.drawings for thing in UNSEEN))
    assert not {kind for item in train for kind in item.sentence.scene.backgrounds} & set(
        HELD_KINDS
    )
    for item in items:
        words = frozenset(item.sentence.scene.words())
        if item.split != "train" and len(words) > 1:
            assert words not in combinations
        assert bool(words & unseen) == (item.split == "test_unseen_objects")


def test_a_sentence_about_the_picture_names_what_is_shown_and_another_does_not():
    from generate import STYLES
    from sentences import draw_sentence
    from words import PLURALS

    singular = {plural: text for text, plural in PLURALS.items()}
    rng = random.Random(0)
    for _ in range(500):
        sentence = draw_sentence(rng, STYLES["train"])
        shown = set(sentence.scene.words())
        named = {singular.get(word, word) for word in sentence.spoken}
        named |= {word[:-1] for word in sentence.spoken if word.endswith("s")}
        assert bool(named & shown) == sentence.about_picture
        assert sentence.focus is None or sentence.focus in sentence.text.split()
        assert all(word in sentence.text.split() for word in sentence.spoken)


def test_without_a_picture_the_spelling_that_cannot_be_drawn_is_the_better_guess():
    from generate import STYLES
    from sentences import draw_sentence
    from words import pairs

    rng = random.Random(0)
    sentences = [draw_sentence(rng, STYLES["train"]) for _ in range(3000)]
    spoken = [word for sentence in sentences for word in sentence.spoken
              if sentence.text.startswith(("look at", "i like", "show me"))]  # fmt: skip
    drawn = sum(spoken.count(thing.word.text) for thing in pairs("definite"))
    alike = sum(spoken.count(thing.alike.text) for thing in pairs("definite"))
    assert 1.0 < alike / drawn < 1.5


def test_descriptions_and_answers_say_what_is_there():
    from questions import draw_question
    from scenes import Placed, Scene
    from sentences import describe

    def placed(word, x):
        return Placed(word, "?", x, 0.5, 0.3, 0.0, False)

    scene = Scene((placed("bread", 0.8), placed("ant", 0.2), placed("bear", 0.5)), ("wall",), 0)
    assert describe(scene) == "an ant a bear and some bread"
    twice = Scene((placed("mouse", 0.2), placed("mouse", 0.8)), ("wall",), 0)
    assert describe(twice) == "two mice"
    rng = random.Random(0)
    answers = {q.text: q.answer for q in (draw_question(rng, scene) for _ in range(300))}
    assert answers["what is on the left"] == "ant"
    assert answers["what is on the right"] == "bread"
    assert answers["how many things are there"] == "three"
    assert answers["is there a bear"] == "yes"
    assert "what is at the top" not in answers


def test_too_many_things_are_refused():
    from scenes import arrange

    with pytest.raises(ValueError, match="5 things; 1 to 4"):
        arrange(random.Random(0), [("bear", "🐻")] * 5, ("wall",))


def test_a_word_beyond_the_vocabulary_is_refused():
    from generate import check_words

    with pytest.raises(ValueError, match="cannot be spelt"):
        check_words(["a bear", "ein bär"])


def test_a_missing_font_is_said_with_the_way_to_install_it():
    from scenes import glyph

    with pytest.raises(SystemExit, match="apt-get install fonts-noto-color-emoji"):
        glyph("🐻", Path("/nowhere/font.ttf"))


def test_every_drawing_is_in_the_font():
    from scenes import glyph
    from words import THINGS

    for thing in THINGS.values():
        for character in thing.drawings + thing.held:
            assert min(glyph(character).size) > 20
