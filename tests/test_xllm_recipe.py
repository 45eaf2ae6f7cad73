"""The recipe of X-LLM's three stages, by its own smoke run: what each stage starts from and trains.

The stages run in this process, as `smoke.py` runs them; one more is run by its flags.
"""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Blip2Config, Blip2ForConditionalGeneration

pytest.importorskip("av")
pytest.importorskip("PIL")

from llmasr.models.checkpoint import load_pretrained
from llmasr.models.seeing import with_vision
from llmasr.training.loop import from_command_line
from llmasr.training.stages import QUERIES, TRAINED

RECIPE = Path(__file__).resolve().parents[1] / "recipes/xllm"
MODALITIES = ("speech", "image", "video")
SHORT = {"steps": 2, "warmup": 1, "log_every": 1, "save_every": 1, "rate": 1e-2}
# Softmax does not see what is added to all logits of a query, so these get no gradient to speak of.
BIAS_OF_KEYS = ("attention.key.bias", "attention.attention.key.bias")


@pytest.fixture(scope="module", autouse=True)
def recipe():
    """Let the scripts of the recipe be imported, as they are where they lie."""
    sys.path.insert(0, str(RECIPE))
    yield
    sys.path.remove(str(RECIPE))


@pytest.fixture(scope="module")
def made(tmp_path_factory, recipe):
    """The folder of a smoke run."""
    import smoke

    folder = tmp_path_factory.mktemp("xllm")
    smoke.main(folder)
    return folder


def stage2_recipe(made, modality, **changes):
    import stage2

    start = {"speech": "stage1", "image": "stage2_speech", "video": "stage2_image"}[modality]
    settings = {
        "modality": modality, "init": made / start / "model", "vision": "tiny",
        "manifests": str(made / f"world/{stage2.TASKS[modality]}.jsonl"), "batch_size": 3,
        "language_model": made / "world/language_model", "out": made / f"stage2_{modality}",
    }  # fmt: skip
    return stage2.Recipe(**(SHORT | settings | changes))


def stage3_recipe(made, **changes):
    import stage3

    tasks = sorted(path.stem for path in (made / "world").glob("*.jsonl"))
    manifests = ",".join(str(made / f"world/{task}.jsonl") for task in tasks)
    settings = {"init": made / "stage2_video/model", "manifests": manifests}
    return stage3.Recipe(**(SHORT | settings | changes))


def weights(folder):
    return load_pretrained(folder).model.state_dict()


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not before[name].equal(after[name])}


def begins_with(names, prefixes):
    return {name for name in names if name.startswith(prefixes)}


def logged(folder):
    return [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]


def assert_trained(found, expected):
    """All that changed was to be trained, and all that was to be trained changed."""
    assert found <= expected
    assert all(name.endswith(BIAS_OF_KEYS) for name in expected - found)


def test_the_smoke_run_ends_with_a_model_that_looks_and_hears(made, capsys):
    import smoke

    smoke.use(made / "stage3/model", made / "world")
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("transcript with a picture: ")
    assert told[1].startswith("answer about a video: ")
    assert "failed" not in "".join(told)


def test_stage_1_trains_all_but_the_adaptor(made):
    from presets import SPEECH

    from llmasr.models.language.tokenizer import Tokenizer
    from llmasr.models.speech import build_speech

    vocab_size = len(Tokenizer(made / "stage1/model/tokenizer.model"))
    torch.manual_seed(1)
    before = build_speech(replace(SPEECH["tiny"], vocab_size=vocab_size)).state_dict()
    after = load_file(made / "stage1/model/model.safetensors")
    assert before.keys() - after.keys() == begins_with(before, "adaptor.")
    found = {name for name in after if not after[name].equal(before[name])}
    assert_trained(found, set(after))
    assert logged(made / "stage1")[-1].keys() >= {"loss", "token", "quantity", "ctc"}


@pytest.mark.parametrize("modality", MODALITIES)
def test_stage_2_changes_its_row_of_the_table_and_nothing_else(made, modality):
    import stage2

    settings = stage2_recipe(made, modality)
    torch.manual_seed(settings.seed)
    before = stage2.assemble(settings).model.state_dict()
    after = weights(settings.out / "model")
    expected = begins_with(before, TRAINED[f"align-{modality}"])
    assert expected
    assert_trained(changed(before, after), expected)


def test_stage_2_starts_from_the_folder_of_the_stage_before(made):
    first = load_file(made / "stage1/model/model.safetensors")
    speech = weights(made / "stage2_speech/model")
    kept = {name for name in first if name.startswith(("encoder.", "predictor.", "ctc_head."))}
    assert kept
    assert all(speech[f"interfaces.speech.{name}"].equal(first[name]) for name in kept)
    model = load_file(made / "world/language_model/model.safetensors")
    assert all(speech[f"language_model.{name}"].equal(value) for name, value in model.items())

    for start, result in (("speech", "image"), ("image", "video")):
        before, after = (weights(made / f"stage2_{name}/model") for name in (start, result))
        assert all(after[name].equal(value) for name, value in before.items())
        assert after.keys() - before.keys() == begins_with(
            after, (f"interfaces.{result}.", f"boundaries.{result}")
        )


def test_pictures_and_videos_share_the_trunk_of_the_image_stage(made):
    model = load_pretrained(made / "stage2_video/model").model
    assert model.video.trunk is model.image.trunk
    trained = weights(made / "stage2_image/model")
    for name, value in model.video.trunk.state_dict().items():
        assert value.equal(trained[f"interfaces.image.trunk.{name}"])


def test_stage_3_changes_adaptors_and_boundaries_and_logs_every_task(made):
    before, after = (weights(made / name) for name in ("stage2_video/model", "stage3/model"))
    assert_trained(changed(before, after), begins_with(before, TRAINED["joint"]))
    entry = logged(made / "stage3")[-1]
    tasks = {path.stem for path in (made / "world").glob("*.jsonl")}
    assert len(tasks) == 5
    assert entry["loss"] == pytest.approx(sum(entry[task] for task in tasks), rel=1e-3)


def test_stage_3_trains_the_queries_where_it_is_asked_to_and_weighs_tasks(made, tmp_path):
    import stage3

    counts = {f"count_{task}": 0 for task in ("transcribe", "answer_about_image")}
    settings = {"queries": 1, "weight_describe_video": 0.25, "out": tmp_path, **counts}
    stage3.main(stage3_recipe(made, **settings))
    before, after = (weights(made / "stage2_video/model"), weights(tmp_path / "model"))
    assert_trained(changed(before, after), begins_with(before, (*TRAINED["joint"], *QUERIES)))
    entry = logged(tmp_path)[-1]
    assert not entry.keys() & {"transcribe", "answer_about_image"}
    expected = entry["transcribe_with_image"] + entry["describe_image"]
    assert entry["loss"] == pytest.approx(expected + entry["describe_video"] / 4, rel=1e-3)


@pytest.mark.parametrize("stage", ["stage2", "stage3"])
def test_a_stage_that_was_killed_goes_on_as_if_it_had_not_been(made, tmp_path, monkeypatch, stage):
    import mixed_tasks
    import stage2
    import stage3

    main, settings, whole = {
        "stage2": (stage2.main, stage2_recipe(made, "image", out=tmp_path), "stage2_image"),
        "stage3": (stage3.main, stage3_recipe(made, out=tmp_path), "stage3"),
    }[stage]
    losses, calls = mixed_tasks.task_losses, []

    def killed(*arguments, **options):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return losses(*arguments, **options)

    monkeypatch.setattr(mixed_tasks, "task_losses", killed)
    with pytest.raises(KeyboardInterrupt):
        main(settings)
    assert not (tmp_path / "model").exists()
    main(settings)
    assert [entry["step"] for entry in logged(tmp_path)] == [1, 2]
    assert not changed(weights(made / whole / "model"), weights(tmp_path / "model"))


def test_checkpoints_of_a_run_hold_what_is_trained_and_no_more(made):
    state = torch.load(made / "stage3/run/state.pt", weights_only=True)["model"]
    names = {name.replace("/", ".") for name in state}
    expected = begins_with(weights(made / "stage3/model"), TRAINED["joint"])
    assert names == expected


def test_what_is_frozen_reads_as_in_use(made):
    from llmasr.training.stages import train_stage

    model = load_pretrained(made / "stage2_video/model").model
    train_stage(model, "align-speech")
    model.train()
    speech = model.speech
    assert speech.cformer.training
    assert all(part.training for part in speech.cformer.modules())
    frozen = (speech.encoder, speech.predictor, model.language_model, model.image.trunk)
    assert not any(part.training for whole in frozen for part in whole.modules())


def test_flags_reach_a_stage(made, tmp_path, monkeypatch):
    import stage2

    flags = {
        "modality": "video", "init": made / "stage2_image/model", "out": tmp_path, "steps": 1,
        "manifests": made / "world/describe_video.jsonl", "batch-size": 2, "frames": "xllm",
        "log-every": 1,
    }  # fmt: skip
    arguments = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["stage2.py", *arguments])
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)
    stage2.main(from_command_line(stage2.Recipe, stage2.__doc__))
    frames = load_pretrained(tmp_path / "model").model.config.vision.frames
    assert (frames.sampling, frames.frames_per_second) == ("head", 1.0)
    assert len(logged(tmp_path)) == 1


def test_pictures_begin_with_the_weights_of_a_blip2_folder(made, tmp_path):
    import stage2

    torch.manual_seed(5)
    config = Blip2Config(
        vision_config={
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
        qformer_config={
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "vocab_size": 9, "max_position_embeddings": 8,
        },
        text_config={
            "model_type": "opt", "vocab_size": 9, "hidden_size": 32, "ffn_dim": 8,
            "num_hidden_layers": 1, "num_attention_heads": 2, "word_embed_proj_dim": 32,
        },
        num_query_tokens=3,
    )  # fmt: skip
    original = Blip2ForConditionalGeneration(config)
    original.save_pretrained(tmp_path)
    model = stage2.assemble(stage2_recipe(made, "image", blip2=str(tmp_path))).model
    assert model.image.queries.equal(original.query_tokens[0])
    assert model.image.adaptor.weight.equal(original.language_projection.weight)
    # transformers also draws its biases; those of keys are dropped, see llmasr.importers.blip2
    found = model.image.trunk.vit.encoder.layers[0].self_attn.qkv.weight
    assert found.equal(original.vision_model.encoder.layers[0].self_attn.qkv.weight)


def error_of(made, case):
    """Run a stage that cannot be run."""
    import stage1_speech
    import stage2
    import stage3

    return {
        "language": lambda: stage1_speech.main(stage1_speech.Recipe(language="fr")),
        "modality": lambda: stage2.main(replace(stage2_recipe(made, "image"), modality="smell")),
        "vision": lambda: stage2.main(stage2_recipe(made, "image", vision="huge")),
        "frames": lambda: stage2.main(stage2_recipe(made, "video", frames="all")),
        "no image": lambda: stage2.main(
            stage2_recipe(made, "video", init=made / "stage2_speech/model")
        ),
        "no stage 1": lambda: stage2.main(
            stage2_recipe(made, "speech", init=made / "stage2_speech/model")
        ),
        "no manifest": lambda: stage3.main(stage3_recipe(made, manifests="")),
        "no item": lambda: stage3.main(
            stage3_recipe(made, manifests=str(made / "world/transcribe.jsonl"))
        ),
        "no split": lambda: stage3.main(stage3_recipe(made, split="dev")),
    }[case]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("language", "language is 'fr'; allowed: zh, en"),
        ("modality", "modality is 'smell'; allowed: speech, image, video"),
        ("vision", "vision is 'huge'; allowed: xllm, tiny"),
        ("frames", "frames is 'all'; allowed: uniform, xllm"),
        ("no image", "init has no image interface"),
        ("no stage 1", "not a folder of stage1_speech.py"),
        ("no manifest", "no manifest: no line"),
        ("no item", "counts asks for transcribe_with_image, .*; allowed: 0"),
        ("no split", "no line of split 'dev'"),
    ],
)
def test_a_stage_that_cannot_begin_says_why(made, case, message):
    with pytest.raises(ValueError, match=message):
        error_of(made, case)()


def test_a_picture_that_cannot_be_read_stops_a_stage_with_its_item(made, tmp_path):
    import stage2

    (tmp_path / "p.png").write_bytes(b"no picture")
    line = {"id": "x", "task": "describe_image", "text": "a", "image": "p.png"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    settings = stage2_recipe(
        made, "image", manifests=str(tmp_path / "m.jsonl"), out=tmp_path / "out"
    )
    with pytest.raises(ValueError, match=r"m\.jsonl, line 1 \(x\): .*p\.png' is no picture"):
        stage2.main(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_queries": 9}, "num_queries is 9; the model has 4"),
        ({"modalities": ("video",)}, "those of the model must be among them: image, video"),
        ({"frame_positions": 3}, "frame_positions is 3; the model has 0"),
    ],
)
def test_vision_of_other_sizes_is_not_put_upon_a_model_that_sees(made, changes, message):
    bundle = load_pretrained(made / "stage2_video/model")
    with pytest.raises(ValueError, match=message):
        with_vision(bundle, replace(bundle.model.config.vision, **changes))


def test_a_model_that_gets_vision_hears_as_before_and_knows_the_instructions(made):
    bundle = load_pretrained(made / "stage2_speech/model")
    vision = load_pretrained(made / "stage2_video/model").model.config.vision
    seeing = with_vision(bundle, replace(vision, frame_positions=3))
    assert seeing.model.boundaries["speech"].equal(bundle.model.boundaries["speech"])
    assert seeing.model.speech is bundle.model.speech
    assert seeing.model.video.positions.shape[0] == 3
    tasks = seeing.model.config.prompt.tasks
    assert tasks.keys() == {
        "transcribe_with_image", "answer_about_image", "describe_image", "describe_video"
    }  # fmt: skip
