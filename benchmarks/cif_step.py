"""What does the CIF operator cost in a training step of `tiny-en`?

    python benchmarks/cif_step.py --threads 2

Trains stage 1 of the recipe (`recipes/tiny_en/acoustic.py`: its model, losses and update) on random
features of the lengths that a batch of speech has, with each back-end in turn, the definition
("reference", with which the bundled model was trained) first. The share is the time of the operator
alone, forward and backward on the same frames, over that of the step. Medians of several rounds;
adds lines to `benchmarks/results/cif_step.csv`.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from cif_parts.table import run_card

from llmasr.data.batches import Batch
from llmasr.models.speech import SpeechInterface, build_speech
from llmasr.ops.cif import available_backends, cif_linear, function
from llmasr.training.run import adamw, update

sys.path.append(str(Path(__file__).parents[1] / "recipes/tiny_en"))
from acoustic import SPEECH, losses

RESULTS = Path(__file__).parent / "results/cif_step.csv"
FRAMES_A_SECOND, TOKENS_A_SECOND, PHONES = 100, 4, 70


def random_batch(seconds: float, device: str) -> Batch:
    """Return utterances of 2 to 5 s, ``seconds`` in all, of noise with random transcripts."""
    rng = torch.Generator().manual_seed(0)
    rows = round(seconds / 3.5)
    durations = torch.empty(rows).uniform_(2, 5, generator=rng)
    lengths = (durations * FRAMES_A_SECOND).long()
    token_lengths = (durations * TOKENS_A_SECOND).long()
    phone_lengths = 2 * token_lengths
    return Batch(
        features=torch.randn(rows, int(lengths.max()), SPEECH.encoder.num_bins, generator=rng),
        lengths=lengths,
        tokens=torch.randint(SPEECH.vocab_size, (rows, int(token_lengths.max())), generator=rng),
        token_lengths=token_lengths,
        phones=torch.randint(PHONES - 1, (rows, int(phone_lengths.max())), generator=rng),
        phone_lengths=phone_lengths,
    ).to(device)


def whole_step(model: SpeechInterface, batch: Batch) -> Callable[[], None]:
    """Return a training step: forward, losses, backward, update."""
    optimizer = adamw(model, 0.02)

    def step() -> None:
        losses(model, batch, 1.0).total.backward()
        update(model, optimizer, 1e-6, 2.0)

    return step


def operator_alone(model: SpeechInterface, batch: Batch) -> Callable[[], None]:
    """Return forward and backward of the operator on the frames of the batch."""
    with torch.no_grad():
        frames = model.encode(batch.features, batch.lengths)
    shape, device = frames.hidden.shape, frames.hidden.device
    leaves = [torch.randn(size, device=device) for size in (shape, shape, shape[-1:], (1,))]
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def run() -> None:
        fired, _ = cif_linear(*leaves, frames.lengths, target_lengths=batch.token_lengths)
        gradients = (torch.ones_like(fired.tokens), torch.ones_like(fired.quantity))
        torch.autograd.grad((fired.tokens, fired.quantity), leaves, gradients)

    return run


def clocked(run: Callable[[], None], device: str) -> float:
    """Return the milliseconds of a call."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    began = time.perf_counter()
    run()
    synchronize()
    return 1000 * (time.perf_counter() - began)


def main(seconds: float, rounds: int, threads: int) -> None:
    """Measure, print and append to the results."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_speech(replace(SPEECH, num_phones=PHONES)).to(device).train()
    batch = random_batch(seconds, device)
    runs = {"step": whole_step(model, batch), "operator": operator_alone(model, batch)}
    names = available_backends(device)[::-1]
    found: dict[tuple[str, str], list[float]] = {(n, r): [] for n in names for r in runs}
    for _ in range(rounds + 1):  # the first round warms up
        for name in names:
            with patch.object(function, "_chosen", lambda backend, frames, name=name: name):
                for kind, run in runs.items():
                    found[name, kind].append(clocked(run, device))
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        card = {"batch_seconds": seconds, "rounds": rounds, **run_card(device, threads)}
        if is_new:
            writer.writerow(["backend", "step_ms", "cif_ms", "cif_share_percent", *card])
        for name in names:
            step, alone = (statistics.median(found[name, kind][1:]) for kind in runs)
            row = [name, *(round(n, 2) for n in (step, alone, 100 * alone / step)), *card.values()]
            writer.writerow(row)
            print(*row, sep=", ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.batch_seconds, arguments.rounds, arguments.threads)
