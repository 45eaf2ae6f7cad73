"""Stage 1 of `recipes/scenes_masr`: pictures drawn here, two steps, and what is left of them."""

import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("PIL.Image")

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes/scenes_masr"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
pytestmark = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is missing")
SPLITS = ("train", "dev", "test", "test_unseen_objects", "test_unseen_drawings")


@pytest.fixture(scope="module")
def recipe():
    """The modules of the recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPE))
        import eyes
        import gallery
        import scenes
        import sentences
        import sizes
        import targets

        yield SimpleNamespace(
            eyes=eyes, gallery=gallery, scenes=scenes, sentences=sentences, sizes=sizes,
            targets=targets,
        )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(recipe):
    return recipe.gallery.draw_gallery(8, "test", set())


@pytest.fixture(scope="module")
def runs(recipe, pictures, tmp_path_factory):
    """A data set of one picture a split, a gallery of eight, and the run of two steps on them."""
    folder = tmp_path_factory.mktemp("scenes")
    entries = []
    for seed, split in enumerate(SPLITS):
        scene = recipe.gallery.draw_training_scene(random.Random(seed), set())
        recipe.gallery.photograph(scene).save(folder / f"{split}.jpg")
        things = [{"word": thing.word, "box": recipe.scenes.box(thing)} for thing in scene.things]
        entries.append({"split": split, "image": f"{split}.jpg", "objects": things})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    (folder / "gallery").mkdir()
    torch.save(tuple(pictures), folder / "gallery/0000.pt")
    train(recipe, folder, steps=2)
    return folder


def train(recipe, folder, steps):
    recipe.eyes.main(
        recipe.eyes.Recipe(
            data=folder, runs=folder, steps=steps, batch_size=2, log_every=1, save_every=1,
            check_every=1,
        )
    )  # fmt: skip


def logged(folder):
    lines = (folder / "eyes/log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(folder):
    return torch.load(folder / "eyes/vision.pt", weights_only=True)["model"]


def built(recipe, config=None):
    from llmasr.models.vision import build_vision

    torch.manual_seed(0)
    return build_vision(config or recipe.sizes.VISION)["image"]


def test_the_result_loads_strictly_into_the_interface_that_later_stages_build(recipe, runs):
    image = built(recipe)
    image.load_state_dict(weights(runs))
    vectors = image(torch.zeros(2, 3, 96, 96))
    assert vectors.shape == (2, recipe.targets.CELLS, 256)


def test_all_but_the_adaptor_is_trained(recipe, runs):
    before, after = built(recipe).state_dict(), weights(runs)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {"adaptor.weight", "adaptor.bias"} <= same
    assert (
        not {"queries", "trunk.norm.weight", "trunk.vit.embeddings.patch_embedding.weight"} & same
    )


def test_the_vit_is_frozen_for_later_stages(recipe):
    image = built(recipe).train()
    assert not any(weight.requires_grad for weight in image.trunk.vit.parameters())
    assert not image.trunk.vit.training
    assert image.trunk.qformer.training


def test_the_interface_is_small(recipe):
    assert sum(weight.numel() for weight in built(recipe).parameters()) < 4_000_000


def test_a_run_goes_on_where_it_stopped(recipe, runs):
    train(recipe, runs, steps=3)
    steps = [entry["step"] for entry in logged(runs) if "loss" in entry]
    assert steps == [1, 2, 3]


def test_the_log_and_the_results_tell_how_much_is_seen(runs):
    checks = [entry for entry in logged(runs) if "dev_recall" in entry]
    assert checks
    assert all(0 <= entry["dev_precision"] <= 1 for entry in checks)
    results = json.loads((runs / "eyes/results.json").read_text())
    assert set(results) == {"threshold", "dev", *SPLITS[2:]}


def test_no_gallery_is_an_error_that_says_how_to_draw_one(recipe, tmp_path):
    with pytest.raises(ValueError, match=r"gallery\.py draws them"):
        recipe.gallery.read_gallery(tmp_path)


def test_pictures_of_training_show_only_what_training_may_show(recipe):
    from words import SEEN

    allowed = {drawing for thing in SEEN for drawing in thing.drawings}
    rng = random.Random(0)
    scenes = [recipe.gallery.draw_training_scene(rng, set()) for _ in range(300)]
    assert {thing.drawing for scene in scenes for thing in scene.things} <= allowed
    assert {scene.backgrounds for scene in scenes} == {recipe.gallery.TRAIN_KINDS}
    assert {len(scene.things) for scene in scenes} == {0, 1, 2, 3, 4}


def test_forbidden_combinations_are_not_drawn(recipe):
    def words(scene):
        return frozenset(thing.word for thing in scene.things)

    free = recipe.gallery.draw_training_scene(random.Random(3), set())
    assert len(words(free)) > 1
    other = recipe.gallery.draw_training_scene(random.Random(3), {words(free)})
    assert words(other) != words(free)


def test_cells_are_the_sides_that_sentences_speak_of(recipe):
    rng = random.Random(0)
    for _ in range(200):
        x, y = rng.random(), rng.random()
        thing = recipe.scenes.Placed("bee", "🐝", x, y, 0.3, 0.0, False)
        cell = int(recipe.targets.cells_of(torch.tensor([x, y])))
        across = ["on the left", None, "on the right"][cell % 3]
        down = ["at the top", None, "at the bottom"][cell // 3]
        assert recipe.sentences.sides(thing) == [side for side in (across, down) if side]


def test_every_thing_has_its_cell_and_its_patches(recipe):
    targets, nothing = recipe.targets, recipe.gallery.NOTHING
    words = torch.tensor([[5, 7, -1, -1], [3, 4, -1, -1]])
    boxes = torch.tensor([[0.2, 0.5, 0.3, 0.3], [0.8, 0.2, 0.3, 0.3]] * 2).view(2, 2, 4)
    boxes[1, 1] = boxes[1, 0]
    boxes = torch.cat([boxes, torch.zeros(2, 2, 4)], 1)
    cells, places = targets.cell_targets(words, boxes)
    assert cells[0].tolist() == [nothing, nothing, 7, 5, *[nothing] * 5]
    assert cells[1, 3] == targets.IGNORED
    assert torch.equal(places[0, 3], torch.tensor([0.2, 0.5]))
    patches = targets.patch_targets(words, boxes, 8).view(2, 8, 8)
    assert patches[0, [3, 1, 7], [1, 6, 7]].tolist() == [5, 7, nothing]


def test_varied_pictures_keep_their_things_inside_and_where_the_boxes_say(recipe):
    side = 96
    pixels = torch.zeros(64, 3, side, side, dtype=torch.uint8)
    pixels[:, :, 20:32, 60:72] = 255  # a white square on black, its centre at (66, 26)
    boxes = torch.zeros(64, 4, 4)
    boxes[:, 0] = torch.tensor([66, 26, 12, 12]) / side
    words = torch.full((64, 4), -1)
    words[:, 0] = 1
    gallery = recipe.gallery.Gallery(pixels, words, boxes)
    moved, found = recipe.targets._move(gallery, torch.Generator().manual_seed(0))
    axis = (torch.arange(side) + 0.5) / side
    mass = moved.mean(1)
    for dimension, place in ((1, found[:, 0, 0]), (2, found[:, 0, 1])):
        centre = (mass.sum(dimension) * axis).sum(1) / mass.sum((1, 2))
        torch.testing.assert_close(centre, place, atol=0.01, rtol=0)
    assert found[:, 0, :2].min() >= 0.09
    assert found[:, 0, :2].max() <= 0.91
    assert found[:, 0, 0].unique().numel() > 20


def test_what_is_seen_is_counted_right(recipe):
    gallery, targets, nothing = recipe.gallery, recipe.targets, recipe.gallery.NOTHING
    words = torch.tensor([[5, 7, -1, -1], [3, nothing, -1, -1]])
    boxes = torch.zeros(2, 4, 4)
    boxes[:, 0, :2], boxes[:, 1, :2] = 0.2, 0.8
    shown = gallery.Gallery(torch.zeros(2, 3, 96, 96, dtype=torch.uint8), words, boxes)
    seen = torch.zeros(2, targets.CELLS, nothing + 1)
    seen[..., nothing] = 1
    for row, cell, word in ((0, 0, 5), (1, 0, 4), (1, 8, 9)):
        seen[row, cell, nothing], seen[row, cell, word] = 0, 1
    sight = recipe.eyes.rate_sight(seen, shown, 0.5)
    assert sight.recall == pytest.approx(1 / 3)
    assert sight.precision == pytest.approx(1 / 3)
    assert sight.mean_recall_of_words == pytest.approx(1 / 3)
    assert sight.counted == 0.5


def test_pictures_of_a_split_are_read_with_their_things(recipe, runs):
    split = recipe.gallery.read_split(runs, "test")
    entry = json.loads((runs / "manifest.jsonl").read_text().splitlines()[2])
    assert split.pixels.shape == (1, 3, 96, 96)
    assert (split.words >= 0).sum() == len(entry["objects"])


def test_pixels_are_normalised_as_the_library_reads_pictures(recipe, runs):
    from llmasr.media import load_image

    read = load_image(runs / "test.jpg", size=96)
    pixels = recipe.gallery.read_split(runs, "test").pixels.float() / 255
    torch.testing.assert_close(recipe.eyes.normalised(pixels)[0], read)


def test_a_frozen_copy_and_a_trainable_one_hold_the_same_weights(recipe, runs):
    config = recipe.sizes.VISION
    free = built(recipe, replace(config, vit=replace(config.vit, frozen=False)))
    free.load_state_dict(weights(runs))
    assert all(weight.requires_grad for weight in free.trunk.vit.parameters())
