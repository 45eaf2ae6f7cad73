"""How many calls of the language model, and how much of its time, does draft and verify save?

    python benchmarks/decode.py --data ../shared/data --threads 2

One utterance at a time: `generate` of transformers (greedy), our plain greedy search and our search
with drafts answer the same prompts with the same language model; that all write the same tokens is
asserted. Prompts are made before the clock starts, so the times are those of the language model and
its search. Searches take turns; times are medians over the rounds.

First the bundled model on test clips of each data set, with its CIF hypotheses as drafts; then a
random GLM of 184 million parameters, with its own greedy answers as drafts, of which a share of the
tokens was replaced, removed or preceded by another. Adds lines to `benchmarks/results/decode.csv`.
"""

import argparse
import csv
import json
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import GlmConfig, GlmForCausalLM

from llmasr import Recognizer, load_audio
from llmasr.decoding import greedy
from llmasr.decoding.hypothesis import Answer, Request, max_new_tokens
from llmasr.decoding.verify import draft_and_verify
from llmasr.models.language.base import LanguageModel, as_language_model
from llmasr.models.splice import splice
from llmasr.models.xllm import speech_rows

RESULTS = Path(__file__).parent / "results/decode.csv"
SETS = ["en_commands", "en_digits", "en_hotwords", "en_sentences_l2"]
ERRORS = [0.0, 0.05, 0.1, 0.2]
RANDOM_GLM = GlmConfig(
    vocab_size=8000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=11,
    num_attention_heads=16, num_key_value_heads=4, head_dim=64, max_position_embeddings=2048,
    pad_token_id=0, initializer_range=0.05, eos_token_id=None,
)  # fmt: skip
PROMPT, ANSWER = 60, 40


@dataclass(frozen=True)
class Case:
    """One utterance in front of the language model."""

    embeddings: Tensor  # [1, L, H]
    mask: Tensor  # [1, L]
    request: Request
    seconds: float  # of audio


@dataclass
class Found:
    """What one search did with all cases."""

    ids: list[list[int]] = field(default_factory=list)
    forwards: int = 0
    accepted: int = 0
    rounds: list[float] = field(default_factory=list)  # seconds


def by_generate(reader: LanguageModel, case: Case) -> Answer:
    """Answer as transformers does; every token was a call, and so was the end."""
    calls = []
    hook = reader.model.register_forward_pre_hook(lambda *_: calls.append(None))
    found = reader.generate(
        case.embeddings, case.mask, case.mask.sum(1), do_sample=False, num_beams=1,
        max_new_tokens=case.request.bound,
    )  # fmt: skip
    hook.remove()
    ids = [token for token in found[0].tolist() if token not in reader.stop_ids]
    return Answer(case.request.bound, ids=ids, forwards=len(calls))


def by_greedy(reader: LanguageModel, case: Case) -> Answer:
    return greedy.write(reader, case.embeddings, case.mask, [case.request])[0]


def by_drafts(reader: LanguageModel, case: Case) -> Answer:
    return draft_and_verify(reader, case.embeddings, case.mask, [case.request])[0]


SEARCHES: dict[str, Callable[[LanguageModel, Case], Answer]] = {
    "generate": by_generate,
    "greedy": by_greedy,
    "drafts": by_drafts,
}


@torch.inference_mode()
def measure(reader: LanguageModel, cases: list[Case], rounds: int) -> dict[str, Found]:
    """Let all searches answer all cases in turns; the first round warms up and compares answers."""
    found = {name: Found() for name in SEARCHES}
    for turn in range(rounds + 1):
        for name, search in SEARCHES.items():
            began = time.perf_counter()
            answers = [search(reader, case) for case in cases]
            seconds = time.perf_counter() - began
            if turn:
                found[name].rounds.append(seconds)
                continue
            found[name].ids = [answer.ids for answer in answers]
            found[name].forwards = sum(answer.forwards for answer in answers)
            found[name].accepted = sum(answer.accepted for answer in answers)
    assert all(each.ids == found["generate"].ids for each in found.values()), "answers differ"
    return found


@torch.inference_mode()
def speech_cases(recognizer: Recognizer, folder: Path, clips: int) -> list[Case]:
    """Make the prompts and drafts of clips spread over the test split of a data set."""
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["split"] == "test"]
    model, cases = recognizer.bundle.model, []
    for entry in entries[:: max(len(entries) // clips, 1)][:clips]:
        wave = torch.from_numpy(load_audio(folder / entry["audio"])).to(recognizer.device)
        heard = model.speech.listen(
            *model.speech.features(wave[None], torch.tensor([len(wave)], device=wave.device))
        )
        fires = int(heard.cif.token_lengths)
        if not fires:
            continue
        prompt = splice(
            model.prompt_pieces(
                speech_rows(model.speech.adaptor(heard.tokens), heard.cif.token_lengths)
            )
        )
        draft = heard.token_logits[0, :fires].argmax(-1).tolist()
        request = Request(draft, max_new_tokens(fires))
        cases.append(Case(*prompt, request, len(wave) / 16_000))
    return cases


def random_cases(reader: LanguageModel, count: int) -> list[Case]:
    """Make random prompts whose drafts are their greedy answers."""
    device = reader.model.device
    generator = torch.Generator().manual_seed(0)
    cases = []
    for _ in range(count):
        ids = torch.randint(3, RANDOM_GLM.vocab_size, (1, PROMPT), generator=generator)
        mask = torch.ones(1, PROMPT, dtype=torch.bool, device=device)
        with torch.inference_mode():
            embeddings = reader.embed(ids.to(device))
        empty = Case(embeddings, mask, Request([], ANSWER), 0.0)
        answer = by_greedy(reader, empty).ids
        cases.append(Case(embeddings, mask, Request(answer, ANSWER), 0.0))
    return cases


def corrupted(cases: list[Case], error: float) -> list[Case]:
    """Replace, remove or precede by another such a share of the draft tokens."""
    draw = random.Random(0)

    def spoil(token: int) -> list[int]:
        if draw.random() >= error:
            return [token]
        other = draw.randrange(3, RANDOM_GLM.vocab_size)
        return draw.choice([[other], [], [other, token]])

    return [
        Case(
            case.embeddings, case.mask,
            Request([new for token in case.request.draft for new in spoil(token)], ANSWER), 0.0,
        )
        for case in cases
    ]  # fmt: skip


def summary(cases: list[Case], found: dict[str, Found]) -> dict[str, object]:
    """Return the columns that were measured."""
    count, audio = len(cases), sum(case.seconds for case in cases)
    generate, plain, drafts = (found[name] for name in SEARCHES)
    seconds = {name: statistics.median(each.rounds) for name, each in found.items()}
    ratios = [one / other for one, other in zip(generate.rounds, drafts.rounds, strict=True)]
    tokens = sum(map(len, drafts.ids))
    return {
        "utterances": count,
        "tokens_per_utterance": round(tokens / count, 2),
        "accepted_rate": round(drafts.accepted / max(tokens, 1), 3),
        "forwards_generate": round(generate.forwards / count, 2),
        "forwards_greedy": round(plain.forwards / count, 2),
        "forwards_drafts": round(drafts.forwards / count, 2),
        "forwards_ratio": round(generate.forwards / drafts.forwards, 2),
        **{f"ms_{name}": round(1000 * value / count, 2) for name, value in seconds.items()},
        "time_ratio": round(statistics.median(ratios), 2),
        "time_ratio_min": round(min(ratios), 2),
        "time_ratio_max": round(max(ratios), 2),
        "rtfx_llm_generate": round(audio / seconds["generate"], 1) if audio else "",
        "rtfx_llm_drafts": round(audio / seconds["drafts"], 1) if audio else "",
    }


def report(case: dict[str, object], numbers: dict[str, object], card: dict[str, object]) -> None:
    """Print a line and append it to the results."""
    row = {**case, **numbers, **card}
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)


def main(arguments: argparse.Namespace) -> None:
    """Measure, print and append to the results."""
    torch.set_num_threads(arguments.threads)
    git = ["git", "describe", "--always", "--dirty"]
    card = {
        "device": arguments.device,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    }
    if arguments.only != "random":
        recognizer = Recognizer.from_pretrained(arguments.model, device=arguments.device)
        for name in arguments.sets:
            cases = speech_cases(recognizer, arguments.data / name, arguments.clips)
            found = measure(recognizer.bundle.model.reader, cases, arguments.rounds)
            case = {"model": arguments.model, "set": name, "draft_error": "CIF"}
            report(case, summary(cases, found), card)
    if arguments.only != "speech":
        torch.manual_seed(0)
        reader = as_language_model(GlmForCausalLM(RANDOM_GLM).eval().to(arguments.device))
        perfect = random_cases(reader, arguments.random_prompts)
        for error in ERRORS:
            cases = corrupted(perfect, error)
            found = measure(reader, cases, arguments.rounds)
            size = sum(weight.numel() for weight in reader.model.parameters())
            case = {"model": f"random GLM {size // 10**6} M", "set": "random", "draft_error": error}
            report(case, summary(cases, found), card)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--clips", type=int, default=100, help="of each set")
    parser.add_argument("--random-prompts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=["speech", "random"])
    main(parser.parse_args())
