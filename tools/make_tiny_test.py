"""Make the bundled model `tiny-test`: random weights, for unit tests only.

    python tools/make_tiny_test.py --tokenizer llmasr/assets/tiny-en/tokenizer.model

Its encoder, CIF, C-Former, adaptor and language model are the real classes at very small sizes, so
that a test of the whole chain takes milliseconds. What it writes is meaningless.
"""

import argparse
from pathlib import Path

import torch
from transformers import GlmConfig, GlmForCausalLM

from llmasr.config import EncoderConfig, ModelConfig, PromptConfig, SpeechConfig
from llmasr.models.checkpoint import Bundle, save_pretrained
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.speech import build_speech
from llmasr.models.xllm import XLLM
from llmasr.prompts import TRANSCRIBE, lay_out


def main(tokenizer_path: Path, out: Path) -> None:
    """Build the model with a fixed seed and save it in half precision."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(tokenizer_path)
    encoder = EncoderConfig(
        width=32, num_blocks=2, num_heads=2, kernel=7, expansion=2, subsampling_channels=4
    )
    speech = SpeechConfig(
        encoder, vocab_size=len(tokenizer), cformer_blocks=1, cformer_expansion=2, adaptor_width=32
    )
    config = ModelConfig(speech, PromptConfig(TRANSCRIBE["en"]))
    language_model = GlmForCausalLM(GlmConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_id, bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    ))  # fmt: skip
    prompt = lay_out(tokenizer, config.prompt.instruction)
    model = XLLM({"speech": build_speech(speech)}, language_model, prompt, config)
    save_pretrained(Bundle(model, tokenizer), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tokenizer", type=Path, default=Path("llmasr/assets/tiny-en/tokenizer.model")
    )
    parser.add_argument("--out", type=Path, default=Path("llmasr/assets/tiny-test"))
    arguments = parser.parse_args()
    main(arguments.tokenizer, arguments.out)
