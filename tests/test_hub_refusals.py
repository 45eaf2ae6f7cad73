"""Models that see come back from an export with all they share; what does not fit is refused."""

from dataclasses import replace

import pytest
import tiny_sight
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from llmasr.hub import load_from_transformers, save_for_transformers

SHARED = "trunk.norm.weight"


@pytest.fixture(scope="module")
def bundle():
    return tiny_sight.build()


@pytest.fixture
def folder(bundle, tmp_path):
    save_for_transformers(bundle, tmp_path / "model")
    return tmp_path / "model"


def test_a_model_that_sees_pictures_comes_back_whole(tmp_path):
    bundle = tiny_sight.build(replace(tiny_sight.VISION, modalities=("image",)))
    save_for_transformers(bundle, tmp_path)
    again = load_from_transformers(tmp_path).model
    pixels = torch.randn(1, 3, 28, 28)
    assert torch.equal(again.image(pixels), bundle.model.image(pixels))
    assert again.config == bundle.model.config


def test_what_pictures_and_videos_share_is_stored_once_and_shared_again(bundle, folder):
    stored = load_file(folder / "model.safetensors")
    assert f"xllm.interfaces.image.{SHARED}" in stored
    assert not [name for name in stored if name.startswith("xllm.interfaces.video.trunk")]
    again = load_from_transformers(folder).model
    assert again.image.trunk is again.video.trunk
    before, after = bundle.model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    pixels, frames = torch.randn(1, 3, 28, 28), torch.randn(1, 3, 3, 28, 28)
    mask = torch.tensor([[True, True, False]])
    assert torch.equal(again.image(pixels), bundle.model.image(pixels))
    assert torch.equal(again.video(frames, mask)[0], bundle.model.video(frames, mask)[0])


def test_a_model_with_shared_weights_survives_saving(folder, tmp_path):
    model = AutoModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "copy")
    copy = AutoModel.from_pretrained(tmp_path / "copy", dtype=torch.bfloat16)
    assert copy.xllm.video.trunk is copy.xllm.image.trunk
    assert copy.xllm.image.queries.dtype == torch.float32
    before, after = model.xllm.interfaces.state_dict(), copy.xllm.interfaces.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    assert not any("video.trunk" in name for name in state)
    model.load_state_dict(state)
    assert not any(parameter.any() for parameter in model.parameters())


@pytest.mark.parametrize("case", ["missing keys", "unexpected keys"])
def test_shared_weights_that_are_missing_or_twice_there_are_refused(folder, case):
    weights = load_file(folder / "model.safetensors")
    if case == "missing keys":
        del weights[f"xllm.interfaces.image.{SHARED}"]
    else:
        weights[f"xllm.interfaces.video.{SHARED}"] = torch.zeros(32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{case}: xllm.interfaces.*{SHARED}"):
        AutoModel.from_pretrained(folder)
