"""Which models can be exported for transformers, and which are refused with a reason."""

from dataclasses import replace

import pytest
import tiny_sight
import torch

from llmasr.api import ASSETS
from llmasr.hub import load_from_transformers, save_for_transformers
from llmasr.models.checkpoint import load_pretrained


def test_a_model_that_sees_pictures_comes_back_whole(tmp_path):
    bundle = tiny_sight.build(replace(tiny_sight.VISION, modalities=("image",)))
    save_for_transformers(bundle, tmp_path)
    again = load_from_transformers(tmp_path).model
    pixels = torch.randn(1, 3, 28, 28)
    assert torch.equal(again.image(pixels), bundle.model.image(pixels))
    assert again.config == bundle.model.config


def test_weights_that_two_interfaces_share_are_refused(tmp_path):
    with pytest.raises(ValueError, match="image and video share weights"):
        save_for_transformers(tiny_sight.build(), tmp_path)


def test_a_vocabulary_of_its_own_is_refused(tmp_path):
    hearing = load_pretrained(ASSETS / "tiny-test")
    foreign = replace(hearing, speech_tokenizer=hearing.tokenizer)
    with pytest.raises(ValueError, match="a vocabulary of its own"):
        save_for_transformers(foreign, tmp_path)
