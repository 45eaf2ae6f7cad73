"""BLIP-2 checkpoints into image interfaces, strictly: as LAVIS and as transformers lay them out.

LAVIS (github.com/salesforce/LAVIS) publishes files `{"model": weights}`. They lack what was frozen
in training: the language model, and in most files the ViT, which is in a file of its own
(`eva_vit_g.pth`). The names are those of its `blip2_models` and `eva_vit.py`; how they correspond
to transformers' names is in transformers' converter, `convert_blip_2_original_to_pytorch.py`.

Of the Q-Former only the path of the queries is taken. Whatever else is left out is listed here by
name; any other weight that has no place is an error, and so is one that is missing.
"""

import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from llmasr.config import QFormerConfig, VisionConfig, ViTConfig
from llmasr.importers.folders import read_config, read_weights
from llmasr.models.vision import ImageInterface, VisualTrunk

# What to replace in our names, in this order, to get theirs.
LAVIS = (
    ("trunk.vit.embeddings.class_embedding", "visual_encoder.cls_token"),
    ("trunk.vit.embeddings.position_embedding", "visual_encoder.pos_embed"),
    ("trunk.vit.embeddings.patch_embedding.", "visual_encoder.patch_embed.proj."),
    ("trunk.vit.encoder.layers.", "visual_encoder.blocks."),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
    (".self_attn.qkv.query_bias", ".attn.q_bias"),
    (".self_attn.qkv.value_bias", ".attn.v_bias"),
    (".self_attn.projection.", ".attn.proj."),
    (".self_attn.", ".attn."),
    ("trunk.norm.", "ln_vision."),
    ("trunk.qformer.layernorm.", "Qformer.bert.embeddings.LayerNorm."),
    ("trunk.qformer.", "Qformer.bert."),
    ("attention.attention.", "attention.self."),
    ("queries", "query_tokens"),
)
TRANSFORMERS = (
    ("trunk.vit.", "vision_model."),
    ("trunk.norm.", "vision_model.post_layernorm."),
    ("trunk.qformer.", "qformer."),
    ("queries", "query_tokens"),
)
# The map to the width of the language model: of OPT, of Vicuna, of FLAN-T5, of transformers.
PROJECTIONS = ("opt_proj", "llm_proj", "t5_proj", "language_projection")
# Of no use here: language models, the text path of the Q-Former, heads of BLIP-2's first stage.
LEFT_OUT = re.compile(
    r"(opt_model|llm_model|t5_model|language_model)\."
    r"|Qformer\.cls\.|Qformer\.bert\.embeddings\.(word_embeddings|position_embeddings|position_ids)"
    r"|(Qformer\.bert|qformer)\.encoder\.layer\.\d+\.(intermediate|output)\."
    r"|embeddings\.(word_embeddings|position_embeddings)\."
    r"|(vision_proj|text_proj|vision_projection|text_projection|itm_head)\.|temp$"
)
# Of EVA: what follows the blocks.
EVA_LEFT_OUT = re.compile(r"(norm|fc_norm|head)\.|mask_token$")
EVA_BLOCK = re.compile(r"blocks\.(\d+)\.")
# Our sizes, and what transformers' configuration calls them.
VIT_FIELDS = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "width": "hidden_size",
    "num_blocks": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "norm_eps": "layer_norm_eps",
}
QFORMER_FIELDS = {
    "width": "hidden_size",
    "num_blocks": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "cross_every": "cross_attention_frequency",
    "dropout": "hidden_dropout_prob",
    "norm_eps": "layer_norm_eps",
}
SHOWN = 5


class Taken(NamedTuple):
    """What a checkpoint had besides norm, Q-Former and queries."""

    vit: bool  # False for most files of LAVIS; see `load_eva`
    projection: bool  # False if there is none, or if it leads to another width than the adaptor's


def load_blip2(path: str | Path, image: ImageInterface) -> Taken:
    """Fill an image interface, and the trunk that it shares, from a BLIP-2 checkpoint.

    Args:
        path: a folder of transformers' `Blip2ForConditionalGeneration` or `Blip2Model`, or a file
            of LAVIS (`.pth`, or the same names as `.safetensors`).
        image: has the sizes of the checkpoint; a ViT for larger pictures gets its positions
            interpolated (bicubic), as LAVIS does. Its dtypes stay.

    Returns:
        What else was taken. What was not keeps the weights it had.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, or a weight is missing, unknown, or of another shape; the
            message has its name as it is in the checkpoint.
    """
    path = Path(path)
    found = _split_biases(_read(path))
    is_lavis = any(name.startswith("Qformer.") for name in found)
    if not is_lavis and not any(name.startswith("qformer.") for name in found):
        raise ValueError(
            f"{path}: no weights of a Q-Former; accepted are BLIP-2 checkpoints of LAVIS"
            " (Qformer.bert...) and of transformers (qformer...)"
        )
    has_vit = any(name.startswith(("visual_encoder.", "vision_model.encoder.")) for name in found)
    own = image.state_dict()
    table = {
        name: _renamed(name, LAVIS if is_lavis else TRANSFORMERS)
        for name in own
        if not name.startswith("adaptor.") and (has_vit or not name.startswith("trunk.vit."))
    }
    projection = _projection(found, own)
    table |= projection
    taken = _take(path, found, own, table)
    image.load_state_dict(taken, strict=False)
    return Taken(has_vit, bool(projection))


def load_eva(path: str | Path, trunk: VisualTrunk) -> None:
    """Fill the ViT from a file of EVA, such as LAVIS's `eva_vit_g.pth`.

    Blocks beyond those of `trunk` are left out, as BLIP-2 leaves out the last of 40.

    Args and errors are those of :func:`load_blip2`.
    """
    path = Path(path)
    found = _read(path)
    own = {f"trunk.vit.{name}": value for name, value in trunk.vit.state_dict().items()}
    depth = trunk.vit.config.num_hidden_layers
    for name in list(found):
        block = EVA_BLOCK.match(name)
        if EVA_LEFT_OUT.match(name) or (block and int(block[1]) >= depth):
            del found[name]
    table = {name: _renamed(name, LAVIS).removeprefix("visual_encoder.") for name in own}
    taken = _take(path, found, own, table)
    trunk.vit.load_state_dict({key.removeprefix("trunk.vit."): v for key, v in taken.items()})


def blip2_config(folder: str | Path, *, adaptor_width: int) -> VisionConfig:
    """Return the sizes of a BLIP-2 folder of transformers. Those of LAVIS are the defaults.

    Args:
        folder: holds `config.json`.
        adaptor_width: H, the width of the language model that will read the vectors.

    Raises:
        FileNotFoundError: the folder or the file is missing.
        ValueError: the file is damaged, or describes another model.
    """
    config = read_config(Path(folder))
    if config.get("model_type") != "blip-2":
        raise ValueError(
            f"{Path(folder) / 'config.json'}: model_type is {config.get('model_type')!r}; "
            "accepted is blip-2"
        )
    vit = _fields(config, "vision_config", ViTConfig(), VIT_FIELDS)
    qformer = _fields(config, "qformer_config", QFormerConfig(), QFORMER_FIELDS)
    return VisionConfig(
        vit=ViTConfig(**vit),
        qformer=QFormerConfig(**qformer),
        norm_eps=vit["norm_eps"],
        num_queries=config.get("num_query_tokens", VisionConfig.num_queries),
        adaptor_width=adaptor_width,
    )


def _fields(
    config: dict[str, Any], part: str, defaults: Any, names: dict[str, str]
) -> dict[str, Any]:
    """Return our sizes of one part; those that are not written are BLIP-2's, as ours are."""
    theirs = config.get(part) or {}
    activation = theirs.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ValueError(f"{part}: hidden_act is {activation!r}; accepted is 'gelu'")
    return {ours: theirs.get(name, getattr(defaults, ours)) for ours, name in names.items()}


def _read(path: Path) -> dict[str, Tensor]:
    """Return tensors by name from a folder or a single file."""
    if path.is_dir():
        return read_weights(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder; nothing is downloaded")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: damaged, or no file of weights: {reason}") from error
    weights = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ValueError(f"{path}: holds no tensors by name; those, or them as 'model', are needed")
    return weights


def _split_biases(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give queries and values of transformers' ViT a bias each, and drop that of the keys.

    It is zero where LAVIS was converted, and changes nothing where it is not: softmax does not see
    what is added to all logits of a query.
    """
    split = dict(found)
    for name in found:
        if name.endswith(".self_attn.qkv.bias"):
            query, _, value = split.pop(name).chunk(3)
            stem = name.removesuffix("bias")
            split |= {f"{stem}query_bias": query, f"{stem}value_bias": value}
    return split


def _renamed(name: str, replacements: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in replacements:
        name = name.replace(ours, theirs)
    return name


def _projection(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, str]:
    """Return where the adaptor's weights are, if there are any of its shape."""
    for stem in PROJECTIONS:
        names = {f"adaptor.{kind}": f"{stem}.{kind}" for kind in ("weight", "bias")}
        fits = [
            ours in own and theirs in found and own[ours].shape == found[theirs].shape
            for ours, theirs in names.items()
        ]
        if all(fits):
            return names
    return {}


def _take(
    path: Path, found: dict[str, Tensor], own: dict[str, Tensor], table: dict[str, str]
) -> dict[str, Tensor]:
    """Return the weights of `table`, our names to theirs, by our names.

    Raises:
        ValueError: one is missing, unknown, of another shape, or no floating point.
    """
    known = set(table.values())
    unknown = {
        name
        for name in found.keys() - known
        if not LEFT_OUT.match(name) and not name.startswith(tuple(f"{p}." for p in PROJECTIONS))
    }
    for problem, names in (("missing", known - found.keys()), ("not known", unknown)):
        if names:
            listed = ", ".join(sorted(names)[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
            raise ValueError(f"{path}: {len(names)} weights are {problem}: {listed}")
    taken = {}
    for ours, theirs in table.items():
        value, shape = found[theirs], own[ours].shape
        if not value.is_floating_point():
            raise ValueError(f"{path}: {theirs} is {value.dtype}; floating point is needed")
        if ours == "queries" and value.dim() == 3:
            value = value[0]  # transformers and LAVIS: [1, Q, D]
        if ours.endswith(".position_embedding") and value.dim() == 3:
            value = _interpolated(value, shape[1])
        if value.shape != shape:
            raise ValueError(f"{path}: {theirs} is {list(value.shape)}; asked for {list(shape)}")
        taken[ours] = value
    return taken


def _interpolated(positions: Tensor, count: int) -> Tensor:
    """Stretch the positions of a square of patches, [1, 1 + patches, C], to [1, count, C]."""
    side, wanted = int((positions.shape[1] - 1) ** 0.5), int((count - 1) ** 0.5)
    if side == wanted or side * side != positions.shape[1] - 1:
        return positions
    grid = positions[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    stretched = interpolate(grid, size=(wanted, wanted), mode="bicubic", align_corners=False)
    patches = stretched.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :1], patches], 1)
