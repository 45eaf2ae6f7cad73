"""A tiny world to try the recipe in: tones for words, coloured shapes, clips in which they move.

Made of nothing but a seed: recordings, pictures and videos with manifests of every task, a
SentencePiece vocabulary, and a language model with random weights.
"""

import json
from itertools import product
from pathlib import Path

import av
import numpy as np
import sentencepiece
import soundfile
import tokenizers
from PIL import Image
from transformers import GlmConfig, GlmForCausalLM

RATE = 16_000
SIDE = 32
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}
SHAPES = ("circle", "square")
WORDS = (*COLOURS, *SHAPES, "what", "is", "it", "a", "moves", "right")
SCENES = tuple(product(COLOURS, SHAPES))
QUESTION = "what is it"
SPECIAL = ("<pad>", "<s>", "</s>")


def make_world(folder: Path) -> Path:
    """Write everything into a folder and return it."""
    rng = np.random.default_rng(0)
    entries = [entry for scene in SCENES for entry in _entries(folder, scene, rng)]
    for task in {entry["task"] for entry in entries}:
        lines = [json.dumps(entry) + "\n" for entry in entries if entry["task"] == task]
        (folder / f"{task}.jsonl").write_text("".join(lines), encoding="utf-8")
    texts = sorted({entry["text"] for entry in entries} | {QUESTION})
    write_vocabulary(texts, folder / "tokenizer.model")
    write_language_model(texts, folder / "language_model")
    return folder


def _entries(folder: Path, scene: tuple[str, str], rng: np.random.Generator) -> list[dict]:
    """Make what there is of one thing, and say it in a line for each task."""
    colour, shape = scene
    name, words = f"{colour}-{shape}", f"{colour} {shape}"
    speak(words, folder / f"audio/{name}.flac", rng)
    speak(QUESTION, folder / f"audio/{name}-asked.flac", rng)
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(draw(scene, 0.5)).save(folder / f"images/{name}.png")
    film(scene, folder / f"videos/{name}.mkv")
    heard, seen = {"audio": f"audio/{name}.flac"}, {"image": f"images/{name}.png"}
    asked = {"audio": f"audio/{name}-asked.flac", "question": QUESTION}
    captions = [f"a {words}", f"it is a {words}"]
    shown = {"video": f"videos/{name}.mkv"}
    kinds = [
        {"task": "transcribe", "text": words, **heard},
        {"task": "transcribe_with_image", "text": words, **heard, **seen},
        {"task": "answer_about_image", "text": f"a {words}", **asked, **seen},
        {"task": "describe_image", "text": captions[0], "captions": captions, **seen},
        {"task": "describe_video", "text": f"a {words} moves right", **shown},
    ]
    return [{"id": f"{name}-{kind['task']}", "split": "train", **kind} for kind in kinds]


def speak(text: str, path: Path, rng: np.random.Generator) -> None:
    """Write a tone of 0.2 s for each word, with a little noise."""
    time = np.arange(RATE // 5) / RATE
    tones = [np.sin(2 * np.pi * 220 * 1.3 ** WORDS.index(word) * time) for word in text.split()]
    wave = np.concatenate([tone * np.hanning(len(time)) for tone in tones])
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, 0.3 * wave + 0.003 * rng.standard_normal(len(wave)), RATE)


def draw(scene: tuple[str, str], place: float) -> np.ndarray:
    """Draw a thing at a place, 0 on the left to 1 on the right, [SIDE, SIDE, 3] uint8."""
    colour, shape = scene
    down, across = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    across = across - (place - 0.5) * SIDE / 2
    size = np.hypot(down, across) if shape == "circle" else np.maximum(abs(down), abs(across))
    return np.where(size[..., None] < SIDE / 4, COLOURS[colour], 240).astype(np.uint8)


def film(scene: tuple[str, str], path: Path) -> None:
    """Write a video in which a thing moves to the right, 8 frames in a second."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv444p"
        for place in np.linspace(0, 1, 8):
            frame = av.VideoFrame.from_ndarray(draw(scene, float(place)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_vocabulary(texts: list[str], path: Path) -> None:
    """Train the vocabulary of the speech interface."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(path.with_suffix("")), vocab_size=40,
        model_type="bpe", pad_id=0, bos_id=1, eos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip


def write_language_model(texts: list[str], folder: Path) -> None:
    """Write a language model with random weights, and its tokenizer, as people have them."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    model.train_from_iterator(texts, trainer)
    pad, begin, end = (SPECIAL.index(name) for name in SPECIAL)
    config = GlmConfig(
        vocab_size=model.get_vocab_size(), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        pad_token_id=pad, bos_token_id=begin, eos_token_id=end,
    )  # fmt: skip
    GlmForCausalLM(config).save_pretrained(folder)
    model.save(str(folder / "tokenizer.json"))
