"""Put what was heard in the spans of one input together as a transcript."""

from collections.abc import Sequence

from llmasr.audio import SAMPLE_RATE
from llmasr.decoding import summary
from llmasr.decoding.batching import Recording
from llmasr.decoding.drafts import Speller, spell
from llmasr.decoding.hypothesis import Hypothesis
from llmasr.decoding.timestamps import words_from
from llmasr.text import join
from llmasr.transcript import Alternative, Segment, TextToken, Transcript, Word


def transcript(
    recording: Recording,
    heard: Sequence[summary.Heard],
    tokenizer: Speller,
    *,
    language: str | None,
    model: str,
    flags: Sequence[str] = (),
) -> Transcript:
    """Return the transcript of an input.

    Args:
        recording: the input, or why it could not be read.
        heard: its spans in order of time.
        tokenizer: of the language model.
        language: what is spoken, if that is known.
        model: name of the model.
        flags: what else a reader should know.
    """
    errors = [part.hypothesis.error for part in heard if part.hypothesis.error]
    error = recording.error or next(iter(errors), None)
    if error is not None:
        return Transcript("", language, "failed", None, model=model, error=error)
    segments = [_segment(part, tokenizer) for part in heard]
    reason = summary.finish_reason(heard)
    known = (*summary.flags(recording, reason, heard), *flags)
    text = join(segment.text for segment in segments)
    return Transcript(
        text,
        language=language,
        status=summary.status(text, reason, known),
        finish_reason=reason,
        flags=known,
        segments=tuple(segment for segment in segments if segment.text),
        duration=round(len(recording.waveform) / SAMPLE_RATE, 3),
        timings=summary.timings(recording.seconds, heard),
        model=model,
        llm_forwards=sum(part.hypothesis.llm_forwards for part in heard),
        accepted_rate=summary.accepted_rate(heard),
        context=tuple(recording.seen),
    )


def _segment(heard: summary.Heard, tokenizer: Speller) -> Segment:
    first, last = heard.span.start / SAMPLE_RATE, heard.span.end / SAMPLE_RATE

    def seconds(time_in_span: float) -> float:
        # Clipped before it is rounded, so that neighbouring segments never overlap.
        return round(min(max(first + time_in_span, first), last), 3)

    words = tuple(
        Word(word.text, seconds(word.start), seconds(word.end), round(word.confidence, 4))
        for word in words_from(heard.hypothesis, tokenizer, last - first)
    )
    text = tokenizer.decode(heard.hypothesis.token_ids).strip()
    others = tuple(
        Alternative(tokenizer.decode(list(other.token_ids)).strip(), round(other.score, 4))
        for other in heard.hypothesis.alternatives
    )
    tokens = _tokens(heard.hypothesis, tokenizer)
    return Segment(round(first, 3), round(last, 3), text, words, others, tokens)


def _tokens(hypothesis: Hypothesis, tokenizer: Speller) -> tuple[TextToken, ...]:
    texts = spell(tokenizer, hypothesis.token_ids)
    return tuple(
        TextToken(
            text,
            round(token.log_prob, 4),
            round(token.entropy, 4),
            tuple(
                (tokenizer.decode([other]), round(value, 4)) for other, value in token.alternatives
            ),
        )
        for text, token in zip(texts, hypothesis.tokens, strict=False)
    )
