"""Instructions to the language model, and the layouts in which speech and pictures meet them.

A prompt is: ids, then for each modality boundary, vectors, boundary, then ids; the answer follows
directly. Which ids, a named layout says; one is made for each generation of tokenizer. The same
function lays a prompt out in training and in use. The instruction and the layout that a model was
trained with travel in its configuration.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from llmasr.config import PromptConfig

# By task and language; the first of each is the usual one. The Chinese ones are those of X-LLM.
INSTRUCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "transcribe": {
        "zh": (
            "请忠实地识别该语音",
            "请将这段语音转化为文字",
            "请将语音转换成书面文字。",
            "请识别该音频的文本内容",
        ),
        "en": (
            "write what is said",
            "write down every word of this recording",
            "put this speech into writing",
            "what are the words of this audio?",
        ),
    },
    "transcribe_with_image": {
        "zh": ("请根据图片忠实地识别这段语音", "根据图片请忠实地识别该语音"),
        "en": ("write what is said; the picture may help",),
    },
    "answer_about_image": {
        "zh": (
            "请根据图像回答语音中的问题",
            "请利用图像回答语音中的问题",
            "请根据图像直接回答语音中的问题",
            "请利用图片回答语音中的问题",
        ),
        "en": (
            "look at the picture and answer what is asked",
            "reply to the spoken question with what the picture shows",
        ),
    },
    "describe_image": {
        "zh": (
            "请详细描述这张图片。",
            "请查看这张图片并描述您注意到的内容。",
            "请提供这张图片的详细描述",
            "你能为我描述这张图片的内容吗？",
        ),
        "en": ("say in detail what this picture shows", "what is there to see in this picture?"),
    },
    "describe_video": {
        "zh": (
            "请描述这个视频。",
            "请查看这个视频并描述您注意到的内容。",
            "请提供这个视频的描述",
            "你能为我描述这个视频的内容吗？",
        ),
        "en": ("say what happens in this video", "what is there to see in this video?"),
    },
}
TRANSCRIBE = {language: texts[0] for language, texts in INSTRUCTIONS["transcribe"].items()}

CHANGED = "prompt_changed"

# The order of X-LLM: what is seen, then what is said.
MODALITIES = ("image", "video", "speech")


class PromptIds(NamedTuple):
    """Token ids around what a prompt shows and lets hear."""

    before: list[int]
    after: list[int]
    # Ids before and after each modality; None where learnt vectors stand there.
    tags: dict[str, tuple[list[int], list[int]]] | None = None


class ChosenPrompt(NamedTuple):
    """A prompt to decode with, and what a reader of the result should know about it."""

    ids: PromptIds
    flags: tuple[str, ...]  # ("prompt_changed",) unless it is the one of training


# Questions asked before, with their answers.
History = Sequence[tuple[str, str]]


class Encoder(Protocol):
    """What a prompt needs of a tokenizer; some layouts need more of it, and say so."""

    @property
    def bos_id(self) -> int:
        """Return the id that begins a sequence."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` without special ids."""
        ...

    def id_of(self, piece: str) -> int:
        """Return the id of ``piece``; ValueError if the vocabulary does not have it."""
        ...


class InsideEncoder(Encoder, Protocol):
    """A tokenizer that can spell the rest of a line."""

    def encode_inside(self, text: str) -> list[int]:
        """Return the ids of ``text`` without the space that a beginning gets."""
        ...


class ChatEncoder(Encoder, Protocol):
    """A tokenizer that knows how ChatGLM-6B writes a conversation."""

    def chat_prompt(self, query: str, history: History = ()) -> str:
        """Return the text of a conversation that ends with a question."""
        ...


class TemplateEncoder(Encoder, Protocol):
    """A tokenizer with a chat template."""

    def template_ids(self, query: str, history: History = ()) -> tuple[list[int], list[int]]:
        """Return the ids before a user's first words, and those words with all that follows."""
        ...


def lay_out(
    tokenizer: Encoder, instruction: str, layout: str = "plain", history: History = ()
) -> PromptIds:
    """Return the ids before and after what is seen and heard; the answer follows directly.

    Args:
        tokenizer: of the language model.
        instruction: what to do with the speech, or a question.
        layout: a key of `LAYOUTS`; the tokenizers of language models name theirs.
        history: questions before this one, with their answers; pictures and speech stand before
            the first of them.

    Raises:
        ValueError: there is no such layout, the tokenizer lacks a token that the layout needs, or
            the instruction contains special tokens.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; allowed: {', '.join(LAYOUTS)}")
    return LAYOUTS[layout](tokenizer, instruction, history)


def choose_prompt(
    tokenizer: Encoder,
    trained: PromptConfig,
    instruction: str | None = None,
    task: str = "transcribe",
) -> ChosenPrompt:
    """Return the prompt that a model was trained with or, flagged, one with another instruction.

    Args:
        tokenizer: of the language model.
        trained: of the model.
        instruction: another one than that of training.
        task: a key of `INSTRUCTIONS`; one that the model was not trained for has the instruction
            of "transcribe".

    Raises:
        ValueError: as for `lay_out`.
    """
    usual = trained.tasks.get(task, trained.instruction)
    changed = instruction is not None and instruction != usual
    text = usual if instruction is None else instruction
    ids = lay_out(tokenizer, text, trained.layout)
    return ChosenPrompt(ids, (CHANGED,) if changed else ())


def _plain(tokenizer: Encoder, instruction: str, history: History) -> PromptIds:
    said = [text for turn in history for text in turn]
    return PromptIds([tokenizer.bos_id], tokenizer.encode(" ".join([*said, instruction])))


def _chatglm(tokenizer: ChatEncoder, instruction: str, history: History) -> PromptIds:
    """Put speech first, inside the part of the prompt whose tokens all see each other."""
    special = [tokenizer.id_of(name) for name in ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")]
    text = tokenizer.chat_prompt(instruction, history) if history else instruction
    ids = tokenizer.encode(text)
    if set(ids) & set(special):
        raise ValueError(f"instruction is {text!r}; it must not contain special tokens")
    return PromptIds([], [*ids, special[1], special[3]])


def _xllm(tokenizer: ChatEncoder, instruction: str, history: History) -> PromptIds:
    """Spell the boundaries as text, as X-LLM does: ordinary words, not tokens of their own."""
    names = {modality: modality.capitalize() for modality in MODALITIES}
    tags = {
        modality: (tokenizer.encode(f"<{name}>"), tokenizer.encode(f"</{name}>"))
        for modality, name in names.items()
    }
    return _chatglm(tokenizer, instruction, history)._replace(tags=tags)


def _xllm_question(tokenizer: ChatEncoder, instruction: str, history: History) -> PromptIds:
    """Ask in the form of X-LLM's last stage of training."""
    return _xllm(tokenizer, instruction if history else f"问：{instruction}\n答：", history)


def _chatglm2(tokenizer: InsideEncoder, instruction: str, history: History) -> PromptIds:
    start = [tokenizer.id_of("[gMASK]"), tokenizer.id_of("sop")]
    said = "".join(
        f"{question}\n\n答：{answer}\n\n[Round {number}]\n\n问："
        for number, (question, answer) in enumerate(history, start=2)
    )
    return PromptIds(
        [*start, *tokenizer.encode("[Round 1]\n\n问：")],
        tokenizer.encode_inside(f"{said}{instruction}\n\n答："),
    )


def _chatglm3(tokenizer: Encoder, instruction: str, history: History) -> PromptIds:
    return _roles(tokenizer, instruction, history, sop="sop")


def _glm4(tokenizer: Encoder, instruction: str, history: History) -> PromptIds:
    return _roles(tokenizer, instruction, history, sop="<sop>")


def _roles(tokenizer: Encoder, instruction: str, history: History, sop: str) -> PromptIds:
    """Let the user speak and then ask; the answer's role has its line, so the answer is next."""
    names = ("[gMASK]", sop, "<|user|>", "<|assistant|>")
    gmask, start, user, assistant = (tokenizer.id_of(name) for name in names)
    line = tokenizer.encode("\n")
    said: list[int] = []
    for question, answer in history:
        said += [*tokenizer.encode(question), assistant, *line]
        said += [*tokenizer.encode(answer), user, *line]
    return PromptIds(
        [gmask, start, user, *line], [*said, *tokenizer.encode(instruction), assistant, *line]
    )


def _template(tokenizer: TemplateEncoder, instruction: str, history: History) -> PromptIds:
    return PromptIds(*tokenizer.template_ids(instruction, history))


LAYOUTS: dict[str, Callable[..., PromptIds]] = {
    "plain": _plain,
    "chatglm": _chatglm,
    "chatglm2": _chatglm2,
    "chatglm3": _chatglm3,
    "glm4": _glm4,
    "template": _template,
    "xllm": _xllm,
    "xllm_question": _xllm_question,
}
