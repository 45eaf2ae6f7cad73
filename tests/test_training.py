"""Data plans, augmentation, losses, and runs that go on after a kill."""

import itertools
import json
import math

import numpy as np
import pytest
import soundfile
import torch

from llmasr.config import EncoderConfig, SpeechConfig
from llmasr.data.augment import (
    FLOOR,
    AugmentConfig,
    add_noise,
    augment,
    stretch_time,
    warp_frequency,
)
from llmasr.data.batches import Pool, collate, endless, plan_round
from llmasr.data.forced_alignment import ctc_places
from llmasr.data.manifests import change_speed, read_manifest, store_features
from llmasr.models.speech import build_speech
from llmasr.training.losses import (
    acoustic_losses,
    ctc,
    place_loss,
    quantity_loss,
    token_loss,
    weighted,
)
from llmasr.training.run import Run, adamw, schedule, update

TONES = {"low": 300.0, "middle": 900.0, "high": 2700.0}


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    """Twelve clips of tones, a word each, with stored features."""
    folder = tmp_path_factory.mktemp("tones")
    lines = []
    for index in range(12):
        word = list(TONES)[index % 3]
        seconds = 0.5 + 0.05 * index
        time = np.arange(int(seconds * 16_000)) / 16_000
        soundfile.write(
            folder / f"{index}.wav", 0.3 * np.sin(2 * np.pi * TONES[word] * time), 16_000
        )
        lines.append(json.dumps({
            "id": f"tone-{index}", "audio": f"{index}.wav", "text": word, "lang": "en",
            "speaker": "s", "duration": seconds, "sample_rate": 16_000, "split": "train",
        }))  # fmt: skip
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return store_features(read_manifest(folder / "manifest.jsonl", "train"), folder / "features")


def names(batches):
    return [[cut.id for cut in batch] for batch in batches]


def test_stored_features_equal_those_of_the_model(cuts):
    assert len(cuts) == 12
    cut = cuts["tone-3"]
    assert cut.load_features().shape == (cut.num_frames, 80)
    assert cut.num_frames == 1 + (int(0.65 * 16_000) - 400) // 160


def test_store_features_goes_on_after_an_interruption(cuts, tmp_path):
    folder = tmp_path / "again"
    source = next(iter(cuts)).features.storage_path.rsplit("/features/", 1)[0]
    manifest = read_manifest(type(tmp_path)(source) / "manifest.jsonl", "train")
    first = store_features(manifest, folder, (1.0, 0.9))
    kept = next((folder / "features").rglob("*.npy"))
    stamp = kept.stat().st_mtime_ns
    (folder / "cuts.jsonl.gz").unlink()
    second = store_features(manifest, folder, (1.0, 0.9))
    assert [cut.id for cut in first] == [cut.id for cut in second]
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "line 1"), ('{"id": "a"}', "line 1"), ("[]", "line 1"), ("", "no line has split")],
)
def test_a_bad_manifest_is_an_error_that_names_the_line(tmp_path, line, message):
    (tmp_path / "manifest.jsonl").write_text(line + "\n" if line else "")
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "manifest.jsonl", "train")


def test_speed_changes_the_length():
    assert len(change_speed(np.zeros(1000, np.float32), 0.5)) == pytest.approx(2000, abs=2)


def test_a_round_draws_what_its_pools_say_and_respects_the_budget(cuts):
    plan = plan_round([Pool(cuts, 7)], 2.0, seed=1, number=3)
    assert sum(len(batch) for batch in plan) == 7
    for batch in plan:
        assert len(batch) * max(cut.duration for cut in batch) <= 2.0


def test_a_curriculum_keeps_long_cuts_for_later(cuts):
    early, late = (
        {
            cut.id
            for batch in plan_round([Pool(cuts, 12)], 9.0, 0, number, [(3, 0.8)])
            for cut in batch
        }
        for number in (2, 3)
    )
    assert early == {cut.id for cut in cuts if cut.duration <= 0.8}
    assert len(early) < len(late) == 12


def test_rounds_together_draw_every_cut_equally(cuts):
    drawn = [
        name
        for number in range(12)  # whole turns through the twelve cuts
        for batch in plan_round([Pool(cuts, 5)], 9.0, seed=0, number=number)
        for name in (cut.id for cut in batch)
    ]
    assert sorted(set(drawn)) == sorted(cut.id for cut in cuts)
    assert {drawn.count(name) for name in set(drawn)} == {5}


def test_the_plan_can_be_entered_at_any_step(cuts):
    pools = [Pool(cuts, 5)]
    whole = names(itertools.islice(endless(pools, 2.0, 3, 0), 40))
    late = names(itertools.islice(endless(pools, 2.0, 3, 17), 23))
    assert late == whole[17:]


def test_collate_pads_features_and_targets(cuts):
    batch = collate(
        list(cuts)[:2], lambda text: [len(text), 1], lambda text: list(range(len(text)))
    )
    assert batch.features.shape == (2, int(batch.lengths.max()), 80)
    assert batch.tokens.tolist() == [[3, 1], [6, 1]]
    assert batch.phone_lengths.tolist() == [3, 6]
    assert batch.features[0, batch.lengths[0] :].eq(0).all()


def test_augmentation_depends_on_its_generator_alone():
    features, lengths = torch.randn(2, 60, 80), torch.tensor([60, 40])
    noise, config = torch.randn(500, 80), AugmentConfig(noise_probability=1.0)
    first, second, third = (
        augment(features, lengths, noise, config, torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], third[0])


def test_quiet_is_added_around_the_clip_and_only_there():
    config = AugmentConfig(
        1.0, noise_probability=0.0, band_limit_probability=0.0, warp=0.0, time_masks=0,
        frequency_masks=0,
    )  # fmt: skip
    features, lengths = 10 + torch.randn(1, 40, 80), torch.tensor([30])
    result, longer = augment(features, lengths, features[0], config, torch.Generator())
    assert result.shape == (1, int(longer[0]), 80)
    assert 30 < longer[0] <= 30 + 2 * config.max_quiet
    windows = result[0].unfold(0, 30, 1).transpose(1, 2)
    assert any(window.equal(features[0, :30]) for window in windows)


def test_added_noise_has_the_asked_level():
    speech, noise = torch.zeros(50, 80), torch.full((70, 80), 3.0)
    mixed = add_noise(speech, noise, 10.0, torch.Generator().manual_seed(0))
    expected = torch.tensor(1 + 10 ** (-1.0)).log()
    torch.testing.assert_close(mixed, expected.expand(50, 80), atol=1e-4, rtol=0)


def test_a_warp_of_one_changes_nothing():
    features = torch.randn(9, 80)
    torch.testing.assert_close(warp_frequency(features, 1.0), features)


def test_a_stretch_keeps_what_is_said_in_another_time():
    ramp = torch.arange(20.0)[:, None].expand(20, 80)
    torch.testing.assert_close(stretch_time(ramp, 1.0), ramp)
    longer = stretch_time(ramp, 1.25)
    assert longer.shape == (25, 80)
    torch.testing.assert_close(longer[:24, 0], torch.arange(24.0) / 1.25)
    assert longer[24].eq(19).all()  # the last frame holds
    assert stretch_time(ramp[:1], 0.1).shape == (1, 80)


def test_a_band_limit_empties_the_upper_bins():
    config = AugmentConfig(
        0.0, noise_probability=0.0, band_limit_probability=1.0, warp=0.0, time_masks=0,
        frequency_masks=0,
    )  # fmt: skip
    result, _ = augment(
        torch.zeros(1, 9, 80), torch.tensor([9]), torch.zeros(9, 80), config, torch.Generator()
    )
    assert result[0, :, 63:].eq(FLOOR).all()
    assert result[0, :, :57].eq(0).all()


def test_the_quantity_loss_is_the_distance_to_the_count():
    assert quantity_loss(torch.tensor([2.5, 4.0]), torch.tensor([3, 3])).item() == 1.5


def test_weights_of_zero_leave_a_loss_out():
    sums = tuple(torch.tensor(float(value)) for value in (6, 4, 8, 2, 10))
    parts = weighted(sums, torch.tensor(2), cif_weight=0.0)
    assert parts.total.item() == pytest.approx(0.5 * 1 + 0.3 * 5)


def spoken(frames, length=8, vocabulary=5):
    """CTC logits of one row that says token k of 0, 1, 2, ... in frames[k] and else nothing."""
    logits = torch.zeros(1, length, vocabulary + 1)
    logits[..., -1] = 5.0
    for token, frame in enumerate(frames):
        logits[0, frame, token] = 20.0
    return logits


def test_ctc_says_where_each_token_is():
    logits = spoken([1, 4, 5]).repeat(2, 1, 1)
    tokens = torch.tensor([[0, 1, 2], [0, 0, 0]])
    places = ctc_places(logits, torch.tensor([8, 4]), tokens, torch.tensor([3, 3]))
    # The second row would need five frames: a blank has to stand between equal tokens.
    assert places.tolist() == [[1, 4, 5], [-1, -1, -1]]


def test_ctc_places_depend_on_no_padding():
    logits = torch.randn(1, 12, 6)
    tokens, length = torch.tensor([[3, 1, 1, 4]]), torch.tensor([4])
    alone = ctc_places(logits[:, :9], torch.tensor([9]), tokens, length)
    padded = ctc_places(logits, torch.tensor([9]), torch.cat([tokens, tokens], 1), length)
    assert padded.tolist() == [[*alone[0].tolist(), *[-1] * 4]]


def test_frames_that_weigh_what_ctc_says_have_no_place_loss():
    places = torch.tensor([[1, 4, -1], [-1, -1, -1]])
    right = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [0.5] * 6])
    assert place_loss(right, places).item() == pytest.approx(0.0, abs=1e-4)
    unsure = torch.tensor([[0.0, 0.5, 0.25, 0.0, 1.0, 0.0], [0.5] * 6], requires_grad=True)
    loss = place_loss(unsure, places)
    assert loss.item() == pytest.approx(-math.log(0.5) - math.log(0.75), abs=1e-4)
    loss.backward()
    assert unsure.grad[0, 1] < 0 < unsure.grad[0, 2]
    assert unsure.grad[1].eq(0).all()


def test_token_loss_ignores_padding():
    logits, tokens = torch.randn(1, 4, 9), torch.tensor([[1, 2, 0, 0]])
    changed = logits.clone()
    changed[0, 2:] = 99.0
    lengths = torch.tensor([2])
    assert token_loss(logits, tokens, lengths) == token_loss(changed, tokens, lengths)


def test_ctc_of_a_target_that_does_not_fit_is_zero():
    logits = torch.randn(1, 2, 5, requires_grad=True)
    value = ctc(logits, torch.tensor([2]), torch.tensor([[1, 1, 1]]), torch.tensor([3]))
    assert value.item() == 0.0


def test_the_schedule_warms_up_holds_and_decays():
    values = [schedule(step, 10, 100) for step in (0, 9, 10, 59, 80, 100)]
    assert values == pytest.approx([0.1, 1.0, 1.0, 1.0, 0.5, 0.0], abs=0.01)


SMALL = SpeechConfig(
    EncoderConfig(width=32, num_blocks=2, num_heads=2, kernel=7, expansion=2,
                  subsampling_channels=4, subsampling_layers=2, dropout=0.0),
    vocab_size=8, cformer_blocks=1, cformer_expansion=2, phone_block=1, num_phones=12,
)  # fmt: skip
IDS = {"low": [1, 4], "middle": [2, 5], "high": [3, 6]}


def train(cuts, run, steps, stop):
    """Train until ``stop``, saving every ten steps, and return the losses by step."""
    torch.manual_seed(0)
    model = build_speech(SMALL).train()
    model.adaptor.requires_grad_(False)
    optimizer = adamw(model, 0.0)
    start = run.resume(model, optimizer)
    losses = {}
    batches = endless([Pool(cuts, 12)], 20.0, 0, start)
    for step, drawn in zip(range(start, stop), batches, strict=False):
        batch = collate(drawn, lambda text: IDS[text], lambda text: IDS[text])
        heard = model.listen(batch.features, batch.lengths, batch.token_lengths)
        parts = acoustic_losses(
            model, heard, batch.tokens, batch.token_lengths,
            phones=(batch.phones, batch.phone_lengths),
        )  # fmt: skip
        parts.total.backward()
        update(model, optimizer, 5e-3 * schedule(step, 5, steps), 1.0)
        losses[step] = parts.total.item()
        if (step + 1) % 10 == 0:
            run.save(model, optimizer, step + 1)
    return model, losses


def test_training_goes_on_bit_for_bit_after_a_kill(cuts, tmp_path):
    _, whole = train(cuts, Run(tmp_path / "whole"), 30, 30)
    train(cuts, Run(tmp_path / "killed"), 30, 17)  # seven steps after the last checkpoint
    _, rest = train(cuts, Run(tmp_path / "killed"), 30, 30)
    assert min(rest) == 10
    assert rest == {step: whole[step] for step in rest}


def test_the_acoustic_model_learns_tones_by_heart(cuts, tmp_path):
    model, _ = train(cuts, Run(tmp_path), 150, 150)
    model.eval()
    batch = collate(list(cuts), lambda text: IDS[text], lambda text: IDS[text])
    with torch.no_grad():
        heard = model.listen(batch.features, batch.lengths)
    assert heard.cif.token_lengths.tolist() == [2] * 12
    assert heard.token_logits[:, :2].argmax(-1).tolist() == batch.tokens.tolist()


def test_averaging_takes_the_mean_of_the_kept_checkpoints(tmp_path):
    run = Run(tmp_path, keep=2)
    model = torch.nn.Linear(1, 1)
    optimizer = adamw(model, 0.0)
    for step, value in enumerate([100.0, 1.0, 3.0]):
        torch.nn.init.constant_(model.weight, value)
        run.save(model, optimizer, step)
    assert run.average()["weight"].item() == 2.0
    assert len(list(tmp_path.glob("average-*.pt"))) == 2
