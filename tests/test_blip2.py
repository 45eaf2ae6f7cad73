"""BLIP-2 checkpoints of both layouts, with random weights: same numbers, and nothing unnoticed."""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import gelu, interpolate, layer_norm, linear
from torch.testing import assert_close
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

from llmasr.config import QFormerConfig, VisionConfig, ViTConfig
from llmasr.importers.blip2 import Taken, blip2_config, load_blip2, load_eva
from llmasr.models.vision import build_vision

WIDTH, HEADS, DEPTH, MLP = 32, 2, 3, 40  # of the ViT
QWIDTH, QHEADS, QMLP, QUERIES = 24, 2, 36, 4
LM_WIDTH = 16
SIZES = VisionConfig(
    vit=ViTConfig(28, 14, WIDTH, DEPTH, HEADS, MLP),
    qformer=QFormerConfig(QWIDTH, 3, QHEADS, QMLP),
    num_queries=QUERIES,
    adaptor_width=LM_WIDTH,
)
PICTURES = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(7))
EXACT = {"atol": 1e-5, "rtol": 1e-5}


def randomised(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fill with noise, so that no bias is zero and no norm is one."""
    torch.manual_seed(0)
    return {name: torch.randn_like(value) * 0.3 for name, value in weights.items()}


@cache
def original(kind: type) -> torch.nn.Module:
    """Return a tiny BLIP-2 of transformers."""
    config = Blip2Config(
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": MLP, "num_hidden_layers": DEPTH,
            "num_attention_heads": HEADS, "image_size": 28, "patch_size": 14,
        },
        qformer_config={
            "hidden_size": QWIDTH, "intermediate_size": QMLP, "num_hidden_layers": 3,
            "num_attention_heads": QHEADS, "vocab_size": 30, "max_position_embeddings": 8,
            "use_qformer_text_input": kind is Blip2ForImageTextRetrieval,
        },
        text_config={
            "model_type": "opt", "vocab_size": 30, "hidden_size": LM_WIDTH, "ffn_dim": 8,
            "num_hidden_layers": 1, "num_attention_heads": 2, "word_embed_proj_dim": LM_WIDTH,
            "max_position_embeddings": 8,
        },
        num_query_tokens=QUERIES,
    )  # fmt: skip
    model = kind(config)
    model.load_state_dict(randomised(model.state_dict()))
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("blip2") / "model"
    original(Blip2ForConditionalGeneration).save_pretrained(path)
    return path


def lavis_vit(depth: int = DEPTH, side: int = 2) -> dict[str, Tensor]:
    """Return the ViT under the names of EVA and LAVIS."""
    shapes = {
        "cls_token": (1, 1, WIDTH), "pos_embed": (1, side * side + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 14, 14), "patch_embed.proj.bias": (WIDTH,),
    }  # fmt: skip
    for block in range(depth):
        shapes |= {
            f"blocks.{block}.{name}": shape
            for name, shape in {
                "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,),
                "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,),
                "attn.q_bias": (WIDTH,), "attn.v_bias": (WIDTH,),
                "attn.qkv.weight": (3 * WIDTH, WIDTH),
                "attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,),
                "mlp.fc1.weight": (MLP, WIDTH), "mlp.fc1.bias": (MLP,),
                "mlp.fc2.weight": (WIDTH, MLP), "mlp.fc2.bias": (WIDTH,),
            }.items()
        }  # fmt: skip
    return randomised({name: torch.empty(shape) for name, shape in shapes.items()})


def lavis_rest(projection: str = "opt_proj") -> dict[str, Tensor]:
    """Return what a LAVIS file holds of a trained BLIP-2, without what was frozen."""
    shapes = {
        "ln_vision.weight": (WIDTH,), "ln_vision.bias": (WIDTH,),
        "query_tokens": (1, QUERIES, QWIDTH),
        "Qformer.bert.embeddings.LayerNorm.weight": (QWIDTH,),
        "Qformer.bert.embeddings.LayerNorm.bias": (QWIDTH,),
        f"{projection}.weight": (LM_WIDTH, QWIDTH), f"{projection}.bias": (LM_WIDTH,),
    }  # fmt: skip
    for layer in range(3):
        stem = f"Qformer.bert.encoder.layer.{layer}"
        square = (QWIDTH, QWIDTH)
        linears = {f"attention.self.{part}": square for part in ("query", "key", "value")}
        linears |= {
            "attention.output.dense": square,
            "intermediate_query.dense": (QMLP, QWIDTH),
            "output_query.dense": (QWIDTH, QMLP),
        }
        norms = ["attention.output.LayerNorm", "output_query.LayerNorm"]
        if layer % 2 == 0:
            linears |= {
                "crossattention.self.query": (QWIDTH, QWIDTH),
                "crossattention.self.key": (QWIDTH, WIDTH),
                "crossattention.self.value": (QWIDTH, WIDTH),
                "crossattention.output.dense": (QWIDTH, QWIDTH),
            }
            norms.append("crossattention.output.LayerNorm")
        for name, shape in linears.items():
            shapes |= {f"{stem}.{name}.weight": shape, f"{stem}.{name}.bias": shape[:1]}
        for name in norms:
            shapes |= {f"{stem}.{name}.weight": (QWIDTH,), f"{stem}.{name}.bias": (QWIDTH,)}
    return randomised({name: torch.empty(shape) for name, shape in shapes.items()})


def prefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"visual_encoder.{name}": value for name, value in weights.items()}


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Plain softmax attention over [N, L, D]."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    logits = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    return (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)


def lavis_forward(vit: dict[str, Tensor], rest: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """BLIP-2 as its paper and the layout of its weights have it, written out: [N, Q, LM width]."""

    def norm(x: Tensor, weights: dict[str, Tensor], name: str, eps: float) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return layer_norm(x, x.shape[-1:], weight, bias, eps)

    def dense(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    patches = pixels.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).flatten(3)
    weight = vit["patch_embed.proj.weight"].flatten(1)
    x = linear(patches.flatten(1, 2), weight, vit["patch_embed.proj.bias"])
    x = torch.cat([vit["cls_token"].expand(len(x), -1, -1), x], 1) + vit["pos_embed"]
    for block in range(DEPTH):
        stem = f"blocks.{block}"
        no_bias = torch.zeros(WIDTH)
        bias = torch.cat([vit[f"{stem}.attn.q_bias"], no_bias, vit[f"{stem}.attn.v_bias"]])
        both = linear(norm(x, vit, f"{stem}.norm1", 1e-6), vit[f"{stem}.attn.qkv.weight"], bias)
        x = x + dense(attend(*both.chunk(3, -1), HEADS), vit, f"{stem}.attn.proj")
        hidden = gelu(dense(norm(x, vit, f"{stem}.norm2", 1e-6), vit, f"{stem}.mlp.fc1"))
        x = x + dense(hidden, vit, f"{stem}.mlp.fc2")
    seen = norm(x, rest, "ln_vision", 1e-5)

    def sublayer(y: Tensor, stem: str, memory: Tensor) -> Tensor:
        parts = [dense(source, rest, f"{stem}.self.{part}") for source, part in
                 ((y, "query"), (memory, "key"), (memory, "value"))]  # fmt: skip
        mixed = dense(attend(*parts, QHEADS), rest, f"{stem}.output.dense")
        return norm(mixed + y, rest, f"{stem}.output.LayerNorm", 1e-12)

    y = rest["query_tokens"].expand(len(pixels), -1, -1)
    y = norm(y, rest, "Qformer.bert.embeddings.LayerNorm", 1e-12)
    for layer in range(3):
        stem = f"Qformer.bert.encoder.layer.{layer}"
        y = sublayer(y, f"{stem}.attention", y)
        if layer % 2 == 0:
            y = sublayer(y, f"{stem}.crossattention", seen)
        hidden = gelu(dense(y, rest, f"{stem}.intermediate_query.dense"))
        out = dense(hidden, rest, f"{stem}.output_query.dense")
        y = norm(out + y, rest, f"{stem}.output_query.LayerNorm", 1e-12)
    return dense(y, rest, "opt_proj")


def saved(weights: dict[str, Tensor], path: Path) -> Path:
    torch.save({"model": weights, "epoch": 3, "config": {"run": {"seed": 42}}}, path)
    return path


def test_a_folder_of_transformers_gives_its_vectors(folder):
    config = blip2_config(folder, adaptor_width=LM_WIDTH)
    image = build_vision(config)["image"].eval()
    assert load_blip2(folder, image) == Taken(vit=True, projection=True)
    theirs = original(Blip2ForConditionalGeneration)
    with torch.no_grad():
        seen = theirs.vision_model(PICTURES).last_hidden_state
        out = theirs.qformer(theirs.query_tokens.expand(2, -1, -1), encoder_hidden_states=seen)
        expected = theirs.language_projection(out.last_hidden_state)
        assert_close(image.trunk(PICTURES, image.queries), out.last_hidden_state, **EXACT)
        assert_close(image(PICTURES), expected, **EXACT)
        features = theirs.get_image_features(PICTURES).pooler_output
        assert_close(image(PICTURES), features.view_as(expected), **EXACT)


def test_the_text_path_of_a_retrieval_model_is_left_out(tmp_path):
    theirs = original(Blip2ForImageTextRetrieval)
    theirs.save_pretrained(tmp_path)
    image = build_vision(blip2_config(tmp_path, adaptor_width=LM_WIDTH))["image"].eval()
    assert load_blip2(tmp_path, image) == Taken(vit=True, projection=False)
    with torch.no_grad():
        seen = theirs.vision_model(PICTURES).last_hidden_state
        out = theirs.qformer(theirs.query_tokens.expand(2, -1, -1), encoder_hidden_states=seen)
        assert_close(image.trunk(PICTURES, image.queries), out.last_hidden_state, **EXACT)


def test_sizes_come_from_the_folder(folder):
    config = blip2_config(folder, adaptor_width=48)
    assert (config.vit, config.qformer) == (SIZES.vit, SIZES.qformer)
    assert (config.num_queries, config.adaptor_width, config.norm_eps) == (QUERIES, 48, 1e-6)


def test_the_configuration_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(
        ValueError, match=r"config\.json: model_type is 'llama'; accepted is blip-2"
    ):
        blip2_config(tmp_path, adaptor_width=48)


def test_an_activation_that_is_not_ours_is_refused(tmp_path):
    text = '{"model_type": "blip-2", "vision_config": {"hidden_act": "relu"}}'
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="vision_config: hidden_act is 'relu'; accepted is 'gelu'"):
        blip2_config(tmp_path, adaptor_width=48)


@pytest.mark.parametrize("kind", ["pth", "safetensors", "whole"])
def test_files_of_lavis_give_the_vectors_of_the_formulas(tmp_path, kind):
    vit, rest = lavis_vit(), lavis_rest()
    image = build_vision(SIZES)["image"].eval()
    if kind == "whole":
        extra = {"opt_model.model.decoder.embed_tokens.weight": torch.randn(9, 9)}
        path = saved(prefixed(vit) | rest | extra, tmp_path / "whole.pth")
        assert load_blip2(path, image) == Taken(vit=True, projection=True)
    else:
        path = tmp_path / f"blip2.{kind}"
        saved(rest, path) if kind == "pth" else save_file(rest, path)
        assert load_blip2(path, image) == Taken(vit=False, projection=True)
        torch.save(vit, tmp_path / "eva_vit_g.pth")
        load_eva(tmp_path / "eva_vit_g.pth", image.trunk)
    with torch.no_grad():
        assert_close(image(PICTURES), lavis_forward(vit, rest, PICTURES), **EXACT)


def test_what_the_first_stage_of_lavis_has_more_is_left_out(tmp_path):
    rest = {name: value for name, value in lavis_rest().items() if "opt_proj" not in name}
    names = [
        "Qformer.bert.embeddings.word_embeddings.weight", "Qformer.cls.predictions.bias",
        "Qformer.bert.embeddings.position_embeddings.weight", "vision_proj.weight",
        "Qformer.bert.encoder.layer.0.intermediate.dense.weight", "text_proj.bias", "temp",
        "Qformer.bert.encoder.layer.0.output.LayerNorm.weight", "itm_head.weight",
    ]  # fmt: skip
    rest |= {name: torch.zeros(1) for name in names}
    rest["Qformer.bert.embeddings.position_ids"] = torch.arange(8)
    image = build_vision(SIZES)["image"]
    path = saved(rest, tmp_path / "blip2_pretrained.pth")
    assert load_blip2(path, image) == Taken(vit=False, projection=False)
    assert torch.equal(image.queries, rest["query_tokens"][0])


@pytest.mark.parametrize("name", ["opt_proj", "llm_proj", "t5_proj"])
def test_the_projection_becomes_the_adaptor_where_its_width_fits(tmp_path, name):
    rest = lavis_rest(name)
    path = saved(rest, tmp_path / "blip2.pth")
    image = build_vision(SIZES)["image"]
    load_blip2(path, image)
    assert torch.equal(image.adaptor.weight, rest[f"{name}.weight"])


def test_an_adaptor_of_another_width_keeps_its_weights(tmp_path):
    path = saved(lavis_rest(), tmp_path / "blip2.pth")
    image = build_vision(VisionConfig(SIZES.vit, SIZES.qformer, num_queries=4, adaptor_width=20))
    before = image["image"].adaptor.weight.clone()
    assert not load_blip2(path, image["image"]).projection
    assert torch.equal(image["image"].adaptor.weight, before)


def test_a_video_interface_that_shares_the_trunk_gets_its_weights(tmp_path):
    rest = lavis_rest()
    both = build_vision(SIZES)
    load_blip2(saved(rest, tmp_path / "blip2.pth"), both["image"])
    assert torch.equal(both["video"].trunk.norm.weight, rest["ln_vision.weight"])


def test_blocks_of_eva_beyond_ours_are_left_out(tmp_path):
    vit = lavis_vit(depth=DEPTH + 1) | {"norm.weight": torch.ones(1), "head.bias": torch.ones(1)}
    torch.save(vit, tmp_path / "eva.pth")
    trunk = build_vision(SIZES)["image"].trunk
    load_eva(tmp_path / "eva.pth", trunk)
    last = trunk.vit.encoder.layers[-1].mlp.fc1.weight
    assert torch.equal(last, vit[f"blocks.{DEPTH - 1}.mlp.fc1.weight"])


def test_positions_are_stretched_to_another_grid(tmp_path):
    vit = lavis_vit(side=3)
    torch.save(vit, tmp_path / "eva.pth")
    trunk = build_vision(SIZES)["image"].trunk
    load_eva(tmp_path / "eva.pth", trunk)
    found = trunk.vit.embeddings.position_embedding
    grid = vit["pos_embed"][:, 1:].view(1, 3, 3, WIDTH).permute(0, 3, 1, 2)
    expected = interpolate(grid, size=(2, 2), mode="bicubic").flatten(2).transpose(1, 2)
    assert_close(found[:, :1].data, vit["pos_embed"][:, :1])
    assert_close(found[:, 1:].data, expected)


def test_half_precision_is_turned_into_the_dtype_of_the_model(tmp_path):
    rest = {name: value.half() for name, value in lavis_rest().items()}
    image = build_vision(SIZES)["image"]
    load_blip2(saved(rest, tmp_path / "blip2.pth"), image)
    assert image.queries.dtype == torch.float32
    assert torch.equal(image.queries, rest["query_tokens"][0].float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ln_vision.bias": None}, r"1 weights are missing: ln_vision\.bias"),
        ({"query_tokens": None}, "1 weights are missing: query_tokens"),
        (
            {"Qformer.bert.encoder.layer.2.crossattention.self.key.bias": None},
            r"missing: Qformer\.bert\.encoder\.layer\.2\.crossattention\.self\.key\.bias",
        ),
        ({"Qformer.bert.novel.weight": torch.ones(1)}, r"not known: Qformer\.bert\.novel\.weight"),
        ({"ln_vision.bias": torch.ones(5)}, r"ln_vision\.bias is \[5\]; asked for \[32\]"),
        ({"query_tokens": torch.ones(1, 9, 24)}, r"query_tokens is \[9, 24\]; asked for \[4, 24\]"),
        ({"ln_vision.bias": torch.ones(32, dtype=torch.int8)}, r"ln_vision\.bias is torch\.int8"),
        ({"visual_encoder.cls_token": torch.ones(1, 1, 32)}, r"missing: visual_encoder\.blocks\.0"),
    ],
    ids=[
        "norm",
        "queries",
        "layer",
        "unknown",
        "shape",
        "queries-shape",
        "integers",
        "part-of-vit",
    ],
)
def test_a_weight_that_does_not_fit_is_named_as_in_the_file(tmp_path, change, message):
    weights = lavis_rest() | change
    path = saved({k: v for k, v in weights.items() if v is not None}, tmp_path / "blip2.pth")
    image = build_vision(SIZES)["image"]
    before = image.queries.clone()
    with pytest.raises(ValueError, match=rf"blip2\.pth: .*{message}"):
        load_blip2(path, image)
    assert torch.equal(image.queries, before)


def test_a_missing_weight_of_a_folder_is_named(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    del weights["vision_model.post_layernorm.bias"]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 weights are missing: vision_model\.post_layernorm"):
        load_blip2(tmp_path, build_vision(SIZES)["image"])


def test_weights_of_no_blip2_are_refused(tmp_path):
    torch.save({"layer.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no weights of a Q-Former; accepted are BLIP-2"):
        load_blip2(tmp_path / "other.pth", build_vision(SIZES)["image"])


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut"], ids=repr)
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "blip2.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"blip2\.pth: damaged, or no file of weights"):
        load_blip2(path, build_vision(SIZES)["image"])


def test_a_file_with_code_in_it_is_not_run(tmp_path):
    torch.save({"model": {"query_tokens": print}}, tmp_path / "blip2.pth")
    with pytest.raises(ValueError, match="damaged, or no file of weights"):
        load_blip2(tmp_path / "blip2.pth", build_vision(SIZES)["image"])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such file or folder"):
        load_blip2(tmp_path / "absent.pth", build_vision(SIZES)["image"])
