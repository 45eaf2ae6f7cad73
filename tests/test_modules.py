"""Networks: an utterance gives the same result alone and in any padded batch."""

import pytest
import torch

from llmasr.config import EncoderConfig
from llmasr.models.speech import build_encoder, normalise, spoken_frames
from llmasr.modules.attention import SelfAttention, rotate
from llmasr.modules.cif import CifPredictor, scale_tokens
from llmasr.modules.masks import valid_mask
from llmasr.modules.transformer import TransformerBlock, TransformerEncoder

SMALL = EncoderConfig(width=32, num_blocks=2, num_heads=4, kernel=7, subsampling_channels=4)


def seeded(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.eval()


def rows(count, size, width):
    return torch.randn(count, size, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layers", [2, 3], ids=["40ms", "80ms"])
@pytest.mark.parametrize("length", [1, 7, 8, 50, 96])
def test_the_encoder_gives_the_same_frames_alone_and_padded(length, layers):
    config = EncoderConfig(**{**vars(SMALL), "subsampling_layers": layers})
    encoder = seeded(build_encoder(config))
    features = rows(3, 97, 80)
    features[1, length:] = 1e4  # whatever stands in the padding
    together, lengths, _ = encoder(features, torch.tensor([97, length, 60]))
    alone, alone_lengths, _ = encoder(features[1:2, :length], torch.tensor([length]))
    assert lengths[1] == alone_lengths[0] == -(-length // 2**layers)
    torch.testing.assert_close(together[1, : lengths[1]], alone[0], atol=1e-5, rtol=0)


def test_the_encoder_sees_both_directions():
    encoder = seeded(build_encoder(SMALL))
    features = rows(1, 80, 80)
    changed = features.clone()
    changed[0, 40] += 1.0
    lengths = torch.tensor([80])
    difference = (encoder(features, lengths)[0] - encoder(changed, lengths)[0]).abs().sum(-1)[0]
    assert difference[0] > 0
    assert difference[-1] > 0


def test_attention_ignores_what_is_not_valid():
    attention = seeded(SelfAttention(16, 2, 0.0))
    hidden = rows(2, 9, 16)
    valid = valid_mask(torch.tensor([9, 4]), 9)
    changed = torch.where(valid[..., None], hidden, torch.full_like(hidden, 77.0))
    torch.testing.assert_close(attention(hidden, valid)[valid], attention(changed, valid)[valid])


def test_attention_without_any_valid_position_is_finite():
    attention = seeded(SelfAttention(16, 2, 0.0))
    assert attention(rows(2, 5, 16), torch.zeros(2, 5, dtype=torch.bool)).isfinite().all()
    assert attention(torch.zeros(2, 0, 16), torch.zeros(2, 0, dtype=torch.bool)).shape == (2, 0, 16)


def test_rotary_scores_depend_on_distance_alone():
    query, key = rows(2, 1, 8).view(2, 1, 1, 8)
    scores = [
        (
            rotate(query.expand(1, 1, 9, 8))[0, 0, t + 3] * rotate(key.expand(1, 1, 9, 8))[0, 0, t]
        ).sum()
        for t in range(6)
    ]
    torch.testing.assert_close(torch.stack(scores), scores[0].expand(6), atol=1e-5, rtol=0)


def test_the_cformer_hides_padded_tokens():
    cformer = seeded(TransformerEncoder([TransformerBlock(16, 2, 2, 0.1)], 16).eval())
    tokens = rows(2, 6, 16)
    valid = valid_mask(torch.tensor([6, 2]), 6)
    changed = torch.where(valid[..., None], tokens, torch.full_like(tokens, -50.0))
    torch.testing.assert_close(cformer(tokens, valid)[valid], cformer(changed, valid)[valid])


def test_padding_weighs_nothing_and_targets_set_the_count():
    predictor = seeded(CifPredictor(16, 0.1))
    hidden, lengths = rows(2, 12, 16), torch.tensor([12, 5])
    fired, weights = predictor(hidden, lengths, torch.tensor([4, 3]))
    assert fired.token_lengths.tolist() == [4, 3]
    padding = torch.arange(12) >= lengths[:, None]
    filled = hidden.masked_fill(padding[..., None], torch.nan)
    again, _ = predictor(filled, lengths, torch.tensor([4, 3]))
    assert torch.equal(again.tokens, fired.tokens)
    assert weights[padding].eq(0).all()
    torch.testing.assert_close(weights.sum(1), fired.quantity)


def test_with_places_every_token_weighs_one_and_ends_between_two_places():
    weights = torch.full((2, 24), 0.3)
    places = torch.tensor([[2, 5, 20], [7, -1, -1]])
    valid = valid_mask(torch.tensor([24, 10]), 24)
    scaled = scale_tokens(weights * valid, places, valid)
    assert not scaled[~valid].any()
    # Token 0 ends before frame 4, midway to token 1; that one, and token 2, reach 4 frames.
    spans = [(0, 0, 4), (0, 4, 10), (0, 16, 24), (1, 3, 10)]
    for row, start, end in spans:
        torch.testing.assert_close(scaled[row, start:end].sum(), torch.tensor(1.0))
    assert scaled[0].count_nonzero() == 18
    torch.testing.assert_close(scaled[0, :4], torch.full((4,), 0.25))


def test_a_row_without_places_keeps_its_weights():
    weights = torch.rand(2, 6)
    valid = valid_mask(torch.tensor([6, 6]), 6)
    scaled = scale_tokens(weights, torch.tensor([[1, 4], [-1, -1]]), valid)
    assert torch.equal(scaled[1], weights[1])
    assert not torch.equal(scaled[0], weights[0])


def test_one_uncertain_frame_moves_no_later_token():
    """Counting on, half a token too much in the first would move all later ones."""
    predictor = seeded(CifPredictor(16, 0.0)).eval()
    hidden, lengths = rows(1, 30, 16), torch.tensor([30])
    places = torch.tensor([[3, 12, 24]])
    fired, weights = predictor(hidden, lengths, places=places)
    assert fired.token_lengths.tolist() == [3]
    torch.testing.assert_close(fired.quantity, weights.sum(1))
    changed = hidden.clone()
    changed[:, 1] = 9.0
    again, _ = predictor(changed, lengths, places=places)
    assert not torch.allclose(fired.tokens[:, 0], again.tokens[:, 0])
    torch.testing.assert_close(fired.tokens[:, 1:], again.tokens[:, 1:], atol=1e-5, rtol=1e-5)


def test_weights_learn_from_the_tokens_they_make_up():
    predictor = seeded(CifPredictor(16, 0.0))
    fired, _ = predictor(rows(1, 12, 16), torch.tensor([12]), torch.tensor([2]),
                         torch.tensor([[2, 8]]))  # fmt: skip
    fired.tokens.square().sum().backward()
    assert predictor.weight.weight.grad.abs().sum() > 0


def test_frames_that_ctc_begins_to_say_a_token_in():
    logits = torch.full((3, 7, 4), -9.0)
    for row, said in enumerate(("0013331", "3300222", "3333333")):
        for frame, token in enumerate(said):
            logits[row, frame, int(token)] = 9.0
    lengths = torch.tensor([7, 5, 7])
    assert spoken_frames(logits, lengths).tolist() == [[0, 2, 6], [2, 4, -1], [-1, -1, -1]]
    assert spoken_frames(logits[2:], lengths[2:]).tolist() == [[-1]]


def test_a_row_in_which_ctc_is_sure_of_no_token_has_none():
    logits = torch.zeros(2, 5, 4)
    logits[..., 3] = 9.0
    for row, score in enumerate((0.5, 2.0)):  # 0.45 and 0.79 of the probability
        logits[row, 1, :] = torch.tensor([score, 0.0, 0.0, -9.0])
        logits[row, 3, :] = torch.tensor([0.0, 0.5, 0.0, 0.0])
    assert spoken_frames(logits, torch.tensor([5, 5])).tolist() == [[-1, -1], [1, 3]]


def test_normalised_features_have_no_mean_and_no_padding():
    features = rows(2, 10, 4) + 7
    result = normalise(features, torch.tensor([10, 6]))
    torch.testing.assert_close(result.sum(1), torch.zeros(2, 4), atol=1e-4, rtol=0)
    assert result[1, 6:].eq(0).all()
    louder = normalise(features + 3, torch.tensor([10, 6]))
    torch.testing.assert_close(result, louder, atol=1e-5, rtol=0)
