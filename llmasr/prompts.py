"""Instructions to the language model, and the one layout in which speech meets them.

    <bos> [boundary] speech vectors [boundary] instruction, answer <eos>

The same function lays a prompt out in training and in use. The instruction that a model was trained
with travels in its configuration.
"""

from typing import NamedTuple, Protocol

TRANSCRIBE = {
    "en": "write what is said",
    "zh": "请忠实地识别该语音",
}


class PromptIds(NamedTuple):
    """Token ids around the speech of one prompt."""

    before: list[int]
    after: list[int]


class Encoder(Protocol):
    """What a prompt needs of a tokenizer."""

    @property
    def bos_id(self) -> int:
        """Return the id that begins a sequence."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` without special ids."""
        ...


def lay_out(tokenizer: Encoder, instruction: str) -> PromptIds:
    """Return the ids before and after the speech; the answer follows the latter directly."""
    return PromptIds([tokenizer.bos_id], tokenizer.encode(instruction))
