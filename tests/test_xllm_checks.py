"""What X-LLM must do as a whole: splice, masks, positions, stages, sizes, hand-over, mixed tasks.

Interfaces are tested one by one in test_vision.py and test_xllm_speech.py, the first ChatGLM in
test_chatglm1.py. Here they meet: tiny ones, and two language models: one that reads its prompt as a
prefix, and one that reads it as any text.
"""

import itertools
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from transformers import GlmConfig, GlmForCausalLM

from llmasr.config import (
    EncoderConfig,
    ModelConfig,
    QFormerConfig,
    SpeechConfig,
    VisionConfig,
    ViTConfig,
)
from llmasr.decoding.greedy import write
from llmasr.decoding.hypothesis import Request
from llmasr.models.language import chatglm1
from llmasr.models.language.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM
from llmasr.models.language.chatglm1_prefix import find_prefix, two_positions
from llmasr.models.speech import build_speech
from llmasr.models.splice import splice
from llmasr.models.vision import build_vision
from llmasr.models.xllm import XLLM, speech_rows
from llmasr.models.xllm_speech import ContextConfig, FeatureSpeechConfig, build_feature_speech
from llmasr.prompts import PromptIds
from llmasr.training.handover import load_trained, save_trained
from llmasr.training.run import adamw
from llmasr.training.stages import train_stage
from llmasr.training.tasks import Images, Speech, TaskBatch, Videos, task_losses

GMASK, SOP, EOP = 93, 96, 97
VISION = VisionConfig(
    vit=ViTConfig(image_size=28, patch_size=14, width=32, num_blocks=2, num_heads=2, mlp_width=48),
    qformer=QFormerConfig(width=32, num_blocks=2, num_heads=2, mlp_width=48),
    num_queries=4,
    adaptor_width=48,
)
CONFIG = ModelConfig(speech=SpeechConfig(adaptor_width=48), vision=VISION)
FEATURES = FeatureSpeechConfig(
    feature_width=16,
    context=ContextConfig(width=32, num_blocks=2, num_heads=2, mlp_width=48, vocab_size=30),
    adaptor_width=48,
)
PREFIX, CAUSAL = PromptIds([], [5, 6, 7, GMASK, SOP]), PromptIds([1], [5, 6, 7])
BOTH = pytest.mark.parametrize("kind", ["prefix", "causal"])


def prefix_lm():
    return ChatGLM1ForCausalLM(
        ChatGLM1Config(
            vocab_size=100, hidden_size=48, num_layers=2, num_attention_heads=4,
            inner_hidden_size=64, bos_token_id=SOP, eos_token_id=EOP, initializer_range=0.2,
        )
    )  # fmt: skip


def causal_lm():
    return GlmForCausalLM(
        GlmConfig(
            vocab_size=100, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=12, intermediate_size=64, initializer_range=0.2,
            pad_token_id=0, eos_token_id=EOP,
        )
    )  # fmt: skip


def tiny(kind="prefix", seed=0):
    """Return a whole model in eval mode, with weights large enough to tell inputs apart."""
    torch.manual_seed(seed)
    interfaces = {"speech": build_feature_speech(FEATURES), **build_vision(VISION)}
    for name, weight in nn.ModuleDict(interfaces).named_parameters():
        weight.data += 0.2 * torch.randn_like(weight) * ("norm" not in name.lower())
    language_model, prompt = (prefix_lm(), PREFIX) if kind == "prefix" else (causal_lm(), CAUSAL)
    return XLLM(interfaces, language_model, prompt, CONFIG).eval()


@pytest.fixture(scope="module")
def models():
    """Both models, which no test may change."""
    return {kind: tiny(kind) for kind in ("prefix", "causal")}


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def logits(model, row, answer=(), prompt=None):
    """Return the logits at every place of a prompt and its answer, [L, V]."""
    pieces = model.prompt_pieces([row], [prompt or model.prompt])
    length = sum(map(len, pieces[0]))
    embeddings, mask = splice([[*pieces[0], model.embed(list(answer))]])
    return model.reader.read(embeddings, mask, torch.tensor([length]))[0][0]


def embeddings(model, row, prompt=None):
    """Return the prompt as the language model reads it, [L, H]."""
    return torch.cat(model.prompt_pieces([row], [prompt or model.prompt])[0])


# Check 12, videos; test_vision.py has equal frames, their order and what the interface gives.


@BOTH
@torch.no_grad()
def test_frames_that_are_not_there_change_nothing_for_the_language_model(models, kind):
    model = models[kind]
    frames, mask = noise(1, 3, 3, 28, 28), torch.tensor([[True, True, False]])

    def heard(frames, mask):
        vectors, lengths = model.video(frames, mask)
        return logits(model, {"video": vectors[0, : lengths[0]]})

    expected = heard(frames, mask)
    changed = frames.clone()
    changed[0, 2] = float("nan")
    assert torch.equal(heard(changed, mask), expected)
    assert_close(heard(frames[:, :2], mask[:, :2]), expected, atol=1e-4, rtol=1e-4)
    changed = frames.clone()
    changed[0, 1] += 1
    assert (heard(changed, mask) - expected).abs().max() > 1e-2


# Checks 13 and 14, splice


@BOTH
def test_only_what_is_seen_and_heard_stands_where_no_word_does(models, kind):
    model = models[kind]
    image, speech = noise(4, 48), noise(3, 48, seed=2)
    read = embeddings(model, {"image": image, "speech": speech})
    table = model.language_model.get_input_embeddings().weight
    edges = [model.boundaries[name] for name in ("image", "speech")]
    expected = [
        table[model.prompt.before],
        *(edges[0][:1], image, edges[0][1:]),
        *(edges[1][:1], speech, edges[1][1:]),
        table[model.prompt.after],
    ]
    assert torch.equal(read, torch.cat(expected))


@BOTH
def test_tags_are_words_of_the_table(models, kind):
    model = models[kind]
    tags = {"image": ([10, 11], [12]), "speech": ([20], [21, 22])}
    image, speech = noise(4, 48), noise(3, 48, seed=2)
    read = embeddings(model, {"image": image, "speech": speech}, model.prompt._replace(tags=tags))
    table = model.language_model.get_input_embeddings().weight
    expected = [
        table[model.prompt.before],
        *(table[[10, 11]], image, table[[12]]),
        *(table[[20]], speech, table[[21, 22]]),
        table[model.prompt.after],
    ]
    assert torch.equal(read, torch.cat(expected))


def test_reading_leaves_the_table_as_it_is():
    model = tiny()
    before = model.language_model.get_input_embeddings().weight.clone()
    model.losses([{"image": noise(4, 48), "speech": noise(3, 48)}], [[8, EOP]]).sum().backward()
    assert torch.equal(model.language_model.get_input_embeddings().weight, before)


@BOTH
def test_what_a_modality_says_changes_its_own_places_only(models, kind):
    model = models[kind]
    image, speech, other = (noise(4, 48, seed=seed) for seed in range(3))
    first = len(model.prompt.before) + 1
    places = {"image": slice(first, first + 4), "speech": slice(first + 6, first + 10)}
    expected = embeddings(model, {"image": image, "speech": speech})
    for name, place in places.items():
        changed = embeddings(model, {"image": image, "speech": speech} | {name: other})
        assert torch.equal(changed[place], other)
        changed[place] = expected[place]
        assert torch.equal(changed, expected)
    swapped = embeddings(model, {"image": speech, "speech": image})
    assert torch.equal(swapped[places["image"]], expected[places["speech"]])
    assert torch.equal(swapped[places["speech"]], expected[places["image"]])


def test_modalities_stand_in_the_order_in_which_they_are_given(models):
    model = models["causal"]
    image, speech = noise(4, 48), noise(3, 48, seed=2)
    usual = embeddings(model, {"image": image, "speech": speech})
    other = embeddings(model, {"speech": speech, "image": image})
    assert torch.equal(other, torch.cat([usual[:1], usual[7:12], usual[1:7], usual[12:]]))


# Check 15, what sees what


@torch.no_grad()
def test_a_prefix_sees_itself_whole_and_any_other_text_what_comes_before(models):
    row = {"image": noise(4, 48), "speech": noise(3, 48, seed=2)}
    for kind, model in models.items():
        changed = model.prompt._replace(after=[*model.prompt.after[:2], 9, *model.prompt.after[3:]])
        length = len(embeddings(model, row))
        place = length - len(model.prompt.after) + 2
        difference = logits(model, row) - logits(model, row, prompt=changed)
        before = difference[:place].abs().amax(-1)
        assert (before > 1e-4).all() if kind == "prefix" else not before.any()
        assert (difference[place:].abs().amax(-1) > 1e-4).all()


@BOTH
@torch.no_grad()
def test_no_place_of_a_prompt_or_an_answer_sees_the_rest_of_the_answer(models, kind):
    model, row = models[kind], {"image": noise(4, 48), "speech": noise(3, 48, seed=2)}
    first, second = logits(model, row, [20, 21, 22, EOP]), logits(model, row, [20, 21, 40, EOP])
    assert_close(first[:-2], second[:-2], atol=1e-5, rtol=1e-5)
    assert (first[-2:] - second[-2:]).abs().amax(-1).min() > 1e-3


# Checks 16 and 17, positions and labels. test_chatglm1.py has the original's positions for prompts
# of words with either mask token; missing there are soft prompts and an instruction with a [gMASK].


def test_positions_of_a_soft_prompt_are_those_of_the_paper(models, monkeypatch):
    model, seen = models["prefix"], []

    def positions(places, prefix):
        seen.append(two_positions(places, prefix))
        return seen[-1]

    monkeypatch.setattr(chatglm1, "two_positions", positions)
    prompt = PREFIX._replace(tags={"speech": ([10], [11])})
    model.losses([{"speech": noise(2, 48)}], [[20, 21, EOP]], [prompt])
    first, second = seen[0][0].T.tolist()
    assert first == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7]
    assert second == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]


def test_an_instruction_with_a_mask_token_moves_the_first_position_back():
    config = prefix_lm().config
    ids = torch.tensor([[0, 0, 0, 0, 5, 6, GMASK, GMASK, SOP, 20, 21, EOP]])
    prefix = find_prefix(ids, torch.ones_like(ids).bool(), config)
    first, second = two_positions(torch.arange(12)[None], prefix)[0].T.tolist()
    assert first == [0, 1, 2, 3, 4, 5, 6, 7, 6, 6, 6, 6]
    assert second == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]


@BOTH
@torch.no_grad()
def test_only_the_answer_and_its_end_are_learnt(models, kind):
    model = models[kind]
    words, answer = [12, 13], [20, 21, EOP]
    prompt = model.prompt._replace(tags={"speech": ([10], [11])})
    ids = torch.tensor([[*prompt.before, 10, *words, 11, *prompt.after, *answer]])
    scores = model.language_model(input_ids=ids).logits[0, -4:-1].log_softmax(-1)
    expected = -scores.gather(1, torch.tensor(answer)[:, None]).sum()
    said = {"speech": model.embed(words)}
    assert_close(model.losses([said], [answer], [prompt])[0], expected)


@BOTH
@torch.no_grad()
def test_long_speech_and_long_answers_are_not_cut(models, kind):
    model = models[kind]
    vectors, lengths = model.speech(noise(1, 60, 16), torch.tensor([60]))
    row, answer = {"speech": vectors[0, : lengths[0]]}, [*range(10, 70), EOP]
    scores = logits(model, row, answer)[-len(answer) - 1 : -1].log_softmax(-1)
    expected = -scores.gather(1, torch.tensor(answer)[:, None]).sum()
    assert_close(model.losses([row], [answer])[0], expected)
    assert len(embeddings(model, row)) == 60 + 2 + sum(map(len, model.prompt[:2]))


# Check 18, soft padding


@BOTH
@torch.no_grad()
def test_padded_steps_of_speech_change_neither_loss_nor_answer(models, kind):
    model, features, lengths = models[kind], noise(2, 5, 16), torch.tensor([5, 3])
    padded = torch.cat([features, noise(2, 4, 16, seed=3)], 1)

    def read(features, lengths):
        rows = speech_rows(*model.speech(features, lengths))
        losses = model.losses(rows, [[20, 21, EOP], [22, EOP]])
        answers = write(model.reader, *splice(model.prompt_pieces(rows)), [Request([], 6)] * 2)
        return losses, [answer.ids for answer in answers]

    (losses, answers), (again, repeated) = read(features, lengths), read(padded, lengths)
    assert_close(again, losses)
    assert repeated == answers
    shown, _ = read(padded, lengths + 4)  # what X-LLM does: the language model sees the padding
    assert ((shown - losses).abs() > 1e-3).all()


# Check 21, what is frozen

STAGES = {
    "align-image": {"norm", "qformer", "image queries", "image adaptor", "image edges"},
    "align-video": {"video queries", "video adaptor", "video edges"},
    "align-speech": {"pre", "bert", "speech adaptor", "speech edges"},
    "joint": {f"{name} {part}" for name in ("image", "video", "speech")
              for part in ("adaptor", "edges")},
}  # fmt: skip
QUERIES = {"image queries", "video queries"}
CASES = [(stage, parts, False) for stage, parts in STAGES.items()]
CASES.append(("joint", STAGES["joint"] | QUERIES, True))
EACH_STAGE = pytest.mark.parametrize(
    ("stage", "trained", "queries"), CASES, ids=[*STAGES, "joint with queries"]
)


def parts_of(model):
    """Take a model apart as the table of X-LLM's parameters does."""
    image, video, speech = model.image, model.video, model.speech
    modules = {
        "vit": image.trunk.vit, "norm": image.trunk.norm, "qformer": image.trunk.qformer,
        "image adaptor": image.adaptor, "video adaptor": video.adaptor,
        "pre": speech.cformer.pre, "bert": speech.cformer.bert, "speech adaptor": speech.adaptor,
        "language model": model.language_model,
    }  # fmt: skip
    parts = {name: list(module.parameters()) for name, module in modules.items()}
    parts |= {"image queries": [image.queries], "video queries": [video.queries]}
    return parts | {f"{name} edges": [each] for name, each in model.boundaries.items()}


@EACH_STAGE
def test_a_stage_trains_what_x_llm_trains(stage, trained, queries):
    model = tiny()
    names = train_stage(model, stage, queries=queries)
    parts = parts_of(model)
    assert sum(map(len, parts.values())) == len(list(model.parameters()))
    for name, weights in parts.items():
        assert all(weight.requires_grad == (name in trained) for weight in weights), name
    assert names == [name for name, each in model.named_parameters() if each.requires_grad]


@EACH_STAGE
def test_a_step_changes_what_is_trained_and_not_a_bit_of_the_rest(stage, trained, queries):
    model = tiny()
    train_stage(model, stage, queries=queries)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    optimizer = adamw(model.train(), 0.1)
    batch = examples(*TASKS)
    task_losses(model, batch, dict.fromkeys(TASKS, 1.0))["loss"].backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    # Weights of BERT that X-LLM counts and does not use.
    unused = ("cformer.bert.embeddings.word_embeddings.", "cformer.bert.pooler.")
    for name, each in model.named_parameters():
        is_trained = each.requires_grad and not name.removeprefix("interfaces.speech.").startswith(
            unused
        )
        assert torch.equal(each, before[name]) != is_trained, name


@EACH_STAGE
def test_the_frozen_vit_stays_in_eval_mode_and_the_q_former_while_it_is_frozen(
    stage, trained, queries
):
    model = tiny()
    train_stage(model, stage, queries=queries)
    trunk = model.train().image.trunk
    assert model.training
    assert not any(module.training for module in trunk.vit.modules())
    assert trunk.qformer.training == ("qformer" in trained)


def test_a_shared_trunk_is_trained_whichever_interface_comes_first():
    model = tiny()
    turned = dict(reversed(list(model.interfaces.items())))
    model = XLLM(turned, model.language_model, model.prompt, model.config)
    names = train_stage(model, "align-image")
    assert "interfaces.image.trunk.norm.weight" in names
    assert all(weight.requires_grad for weight in model.image.trunk.qformer.parameters())


def test_a_stage_that_is_unknown_or_has_nothing_to_train_is_refused_and_changes_nothing():
    model = tiny()
    blind = XLLM({"speech": model.speech}, model.language_model, model.prompt, model.config)
    before = [each.requires_grad for each in blind.parameters()]
    with pytest.raises(ValueError, match="stage is 'third'; allowed: align-speech, align-image"):
        train_stage(blind, "third")
    with pytest.raises(ValueError, match="stage is 'align-image', but the model has no such"):
        train_stage(blind, "align-image")
    assert [each.requires_grad for each in blind.parameters()] == before


# Check 22, parameters of the full size

SIZES = {
    "vit": 985_894_528, "norm": 2_816, "qformer": 105_137_664,
    "image queries": 24_576, "image adaptor": 3_149_824,
    "video queries": 24_576, "video adaptor": 3_149_824,
    "pre": 393_984, "bert": 102_267_648, "speech adaptor": 3_149_824,
}  # fmt: skip
LAYERS_OF_CHATGLM = 28 * 201_379_840 + 2 * 4096


@pytest.fixture(scope="module")
def full():
    """X-LLM at its own size, without memory."""
    config = ModelConfig(speech=SpeechConfig(adaptor_width=4096), vision=VisionConfig())
    with torch.device("meta"):
        interfaces = {
            "speech": build_feature_speech(FeatureSpeechConfig()),
            **build_vision(config.vision),
        }
        return XLLM(interfaces, ChatGLM1ForCausalLM(ChatGLM1Config()), PREFIX, config)


def size(weights):
    return sum(weight.numel() for weight in weights)


def test_every_part_has_the_parameters_of_x_llm(full):
    counted = {name: size(weights) for name, weights in parts_of(full).items()}
    assert {name: counted.pop(name) for name in SIZES} == SIZES
    assert counted.pop("language model") == 6_707_929_088
    # Vectors around what a modality says are ours; X-LLM spells tags there.
    assert counted == dict.fromkeys(["image edges", "video edges", "speech edges"], 2 * 4096)


@pytest.mark.parametrize(
    ("vocabulary", "expected"), [(130_528, 6_707_929_088), (150_528, 6_871_769_088)]
)
def test_chatglm_has_its_parameters_with_either_vocabulary(vocabulary, expected):
    config = ChatGLM1Config(vocab_size=vocabulary, bos_token_id=vocabulary - 524)
    with torch.device("meta"):
        model = ChatGLM1ForCausalLM(config)
    assert expected == LAYERS_OF_CHATGLM + 2 * 4096 * vocabulary
    assert size(model.parameters()) == expected


@pytest.mark.parametrize(
    ("stage", "queries", "expected", "edges"),
    [
        ("align-image", False, 2_816 + 105_137_664 + 24_576 + 3_149_824, 1),
        ("align-video", False, 24_576 + 3_149_824, 1),
        ("align-speech", False, 105_811_456, 1),
        ("joint", False, 3 * 3_149_824, 3),
        ("joint", True, 9_498_624, 3),
    ],
)
def test_a_stage_trains_as_many_parameters_as_x_llm_and_our_edges(
    full, stage, queries, expected, edges
):
    train_stage(full, stage, queries=queries)
    trained = {name: each for name, each in full.named_parameters() if each.requires_grad}
    ours = {name: trained.pop(name) for name in list(trained) if name.startswith("boundaries.")}
    assert size(trained.values()) == expected
    assert size(ours.values()) == edges * 2 * 4096


# Check 23, hand-over


def test_the_last_stage_hands_over_less_than_a_percent_of_the_model(full):
    train_stage(full, "joint", queries=True)
    trained = size(each for each in full.parameters() if each.requires_grad)
    assert trained < 0.01 * size(full.parameters())


@EACH_STAGE
def test_what_a_stage_trained_is_all_that_is_saved(tmp_path, stage, trained, queries):
    model = tiny()
    names = train_stage(model, stage, queries=queries)
    save_trained(model, tmp_path / "stage.safetensors")
    saved = load_file(tmp_path / "stage.safetensors")
    assert saved.keys() == set(names)
    assert all(torch.equal(saved[name], model.get_parameter(name)) for name in names)


def shake(model):
    """Change what is trained."""
    for each in model.parameters():
        each.data += 0.1 * torch.randn_like(each) * each.requires_grad


@torch.no_grad()
def test_stages_hand_over_to_each_other_and_the_model_answers_the_same(tmp_path):
    model, again = tiny(), tiny()
    for stage in STAGES:
        train_stage(model, stage)
        shake(model)
        save_trained(model, tmp_path / f"{stage}.safetensors")
    batch, weights = examples(*TASKS), dict.fromkeys(TASKS, 1.0)
    expected = task_losses(model, batch, weights)
    assert task_losses(again, batch, weights) != expected
    for stage in STAGES:
        train_stage(again, stage)
        load_trained(again, tmp_path / f"{stage}.safetensors")
    assert task_losses(again, batch, weights) == expected
    row = {"image": noise(4, 48)}
    assert torch.equal(logits(again, row, [20, 21]), logits(model, row, [20, 21]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop("boundaries.image"), "weights missing: boundaries.image; allowed"),
        (lambda w: w.update(more=torch.ones(1)), "weights unexpected: more; allowed"),
        (
            lambda w: w.update(more=w.pop("boundaries.image")),
            "weights missing: boundaries.image; unexpected: more",
        ),
        (
            lambda w: w.update({"boundaries.image": torch.ones(3, 48)}),
            "weights of another shape: boundaries.image",
        ),
    ],
    ids=["missing", "unexpected", "both", "shape"],
)
def test_a_file_that_does_not_fit_is_refused_whole(tmp_path, edit, message):
    path, model = tmp_path / "stage.safetensors", tiny()
    train_stage(model, "joint")
    save_trained(model, path)
    weights = {name: each + 1 for name, each in load_file(path).items()}
    edit(weights)
    save_file(weights, path)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_trained(model, path)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_a_file_of_another_stage_is_refused(tmp_path):
    model = tiny()
    train_stage(model, "align-video")
    save_trained(model, tmp_path / "stage.safetensors")
    train_stage(model, "joint")
    with pytest.raises(ValueError, match=r"missing: .*unexpected: interfaces\.video\.queries"):
        load_trained(model, tmp_path / "stage.safetensors")


def test_a_damaged_file_and_a_missing_one_are_named(tmp_path):
    (tmp_path / "stage.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"stage\.safetensors: damaged"):
        load_trained(tiny(), tmp_path / "stage.safetensors")
    with pytest.raises(FileNotFoundError, match=r"other\.safetensors"):
        load_trained(tiny(), tmp_path / "other.safetensors")


def test_a_model_of_which_nothing_is_trained_has_nothing_to_hand_over(tmp_path):
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        save_trained(tiny().requires_grad_(False), tmp_path / "stage.safetensors")


# Check 25, batches that mix tasks

# By task: what its examples show and let hear, and their answers.
TASKS = {
    "transcribe": ({"speech"}, [[20, 21, 22, EOP], [23, EOP]]),
    "transcribe_with_image": ({"speech", "image"}, [[24, 25, EOP]]),
    "describe_image": ({"image"}, [[26, 27, 28, 29, EOP]]),
    "answer_about_image": ({"speech", "image"}, [[30, EOP]]),
    "describe_video": ({"video"}, [[31, 32, 33, EOP], [34, 35, EOP]]),
}
WEIGHTS = {
    "transcribe": 1.0, "transcribe_with_image": 0.5, "describe_image": 2.0,
    "answer_about_image": 0.25, "describe_video": 3.0,
}  # fmt: skip
SUBSETS = [
    subset for count in range(6) for subset in itertools.combinations(TASKS, count)
]  # the empty one first


SHAPES = {"speech": (6, 16), "image": (3, 28, 28), "video": (3, 3, 28, 28)}


def examples(*tasks, only=None):
    """Return all examples of some tasks, or one of each; they are the same in every batch."""
    asked = [(task, number) for task in tasks for number in range(len(TASKS[task][1]))]
    asked = [(task, number) for task, number in asked if only in (None, number)]
    answers = [TASKS[task][1][number] for task, number in asked]
    rows, media = {}, {}
    for modality, shape in SHAPES.items():
        rows[modality] = [i for i, (task, _) in enumerate(asked) if modality in TASKS[task][0]]
        seeds = [10 * list(TASKS).index(asked[i][0]) + asked[i][1] for i in rows[modality]]
        media[modality] = [noise(*shape, seed=seed) for seed in seeds]
    speech = images = videos = None
    if rows["speech"]:
        lengths = torch.tensor([4 + len(answers[i]) % 3 for i in rows["speech"]])
        speech = Speech(rows["speech"], torch.stack(media["speech"]), lengths)
    if rows["image"]:
        images = Images(rows["image"], torch.stack(media["image"]))
    if rows["video"]:
        mask = torch.tensor([[True, True, len(answers[i]) > 3] for i in rows["video"]])
        videos = Videos(rows["video"], torch.stack(media["video"]), mask)
    prompts = [PromptIds([], [5, list(TASKS).index(task), GMASK, SOP]) for task, _ in asked]
    return TaskBatch([task for task, _ in asked], prompts, answers, speech, images, videos)


def shown(model, batch):
    """Return what the only example of a batch shows and lets hear, by its interfaces, unpadded."""
    row = {}
    if batch.images:
        row["image"] = model.image(batch.images.pixels)[0]
    if batch.videos:
        frames = batch.videos.frames[batch.videos.mask][None]
        row["video"] = model.video(frames, torch.ones(frames.shape[:2]).bool())[0][0]
    if batch.speech:
        lengths = batch.speech.lengths
        row["speech"] = model.speech(batch.speech.features[:, : lengths[0]], lengths)[0][0]
    return row


@pytest.fixture(scope="module")
@torch.no_grad()
def alone():
    """The loss per token of each task, every example read by itself."""
    model, found = tiny(), {}
    for task, (_, answers) in TASKS.items():
        singles = [examples(task, only=number) for number in range(len(answers))]
        losses = [
            model.losses([shown(model, single)], single.answers, single.prompts)
            for single in singles
        ]
        found[task] = torch.cat(losses).sum() / sum(map(len, answers))
    return found


@pytest.mark.parametrize("tasks", SUBSETS, ids=lambda tasks: "+".join(tasks) or "nothing")
def test_any_mix_of_tasks_is_the_weighted_sum_of_them_and_trains_what_it_used(alone, tasks):
    model = tiny()
    train_stage(model, "joint")
    parts = task_losses(model, examples(*tasks), WEIGHTS)
    assert parts["loss"].isfinite()
    assert parts.keys() == {"loss", *tasks}
    for task in tasks:
        assert_close(parts[task], alone[task], atol=1e-4, rtol=1e-4)
    expected = sum(WEIGHTS[task] * alone[task] for task in tasks) + torch.zeros(())
    assert_close(parts["loss"], expected, atol=1e-4, rtol=1e-4)
    parts["loss"].backward()
    used = set().union(*(TASKS[task][0] for task in tasks))
    for name in ("speech", "image", "video"):
        is_trained = [each.grad is not None for each in model.interfaces[name].adaptor.parameters()]
        assert is_trained == [name in used] * 2, name
        if tasks:
            assert (model.boundaries[name].grad is not None) == (name in used), name


def test_a_batch_of_nothing_moves_nothing():
    model = tiny()
    train_stage(model, "joint")
    loss = task_losses(model, examples(), WEIGHTS)["loss"]
    loss.backward()
    assert loss == 0
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)


def test_a_task_without_a_weight_is_refused():
    with pytest.raises(ValueError, match="weights lack transcribe; given: describe_image"):
        task_losses(tiny(), examples("transcribe"), {"describe_image": 1.0})


def test_a_picture_for_a_model_without_eyes_is_refused():
    model = tiny()
    blind = XLLM({"speech": model.speech}, model.language_model, model.prompt, model.config)
    with pytest.raises(ValueError, match="image is given; this model takes: speech"):
        task_losses(blind, examples("describe_image"), WEIGHTS)


@torch.no_grad()
def test_what_the_vit_made_of_a_picture_before_is_as_good_as_the_picture():
    model, batch = tiny(), examples("transcribe_with_image", "describe_image")
    patches = model.image.trunk.see(batch.images.pixels)
    seen = replace(batch, images=replace(batch.images, pixels=patches))
    assert_close(task_losses(model, seen, WEIGHTS), task_losses(model, batch, WEIGHTS))


@torch.no_grad()
def test_the_speech_interface_adds_its_own_losses_where_it_has_transcripts():
    torch.manual_seed(0)
    config = SpeechConfig(
        EncoderConfig(16, 16, num_blocks=1, num_heads=2, subsampling_channels=4), 30,
        cformer_blocks=1, adaptor_width=48,
    )  # fmt: skip
    ears = build_speech(config).eval()
    model = XLLM({"speech": ears}, prefix_lm(), PREFIX, replace(CONFIG, speech=config)).eval()
    heard = Speech(
        [0, 1], noise(2, 64, 16), torch.tensor([64, 40]),
        torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2]),
    )  # fmt: skip
    batch = TaskBatch(["transcribe"] * 2, [PREFIX] * 2, [[20, EOP], [21, EOP]], heard)
    parts = task_losses(model, batch, {"transcribe": 2.0}, acoustic=0.5)
    assert_close(parts["loss"], 2 * parts["transcribe"] + 0.5 * parts["acoustic"])
    assert parts["acoustic"] > 0
    plain = task_losses(model, batch, {"transcribe": 2.0})
    assert plain.keys() == {"loss", "transcribe"}
    assert_close(plain["transcribe"], parts["transcribe"])
