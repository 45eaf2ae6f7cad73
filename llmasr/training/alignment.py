"""The loss of stage 2: what aligns a speech interface with a language model."""

from collections.abc import Sequence

from torch import Tensor

from llmasr.data.batches import Batch
from llmasr.models.xllm import XLLM
from llmasr.training.losses import hear_transcript, quantity_loss, token_loss


def alignment_losses(
    model: XLLM, batch: Batch, answers: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Return the loss of the answers, and the CIF losses that keep the hypothesis good.

    CIF is scaled to the number of tokens of the transcript, so that a badly counted utterance still
    has its right number of vectors.

    Args:
        model: an X-LLM.
        batch: features and, in the vocabulary of the speech interface, transcripts.
        answers: transcripts in the vocabulary of the language model, each with its end id.

    Returns:
        "loss" per token, the sum of "answer", "token" and "quantity".
    """
    speech = model.speech
    frames = speech.encode(batch.features, batch.lengths)
    heard = hear_transcript(speech, frames, batch.tokens, batch.token_lengths)
    width = heard.token_logits.shape[1]
    count = batch.token_lengths.sum().clamp(min=1)
    token = token_loss(heard.token_logits, batch.tokens[:, :width], batch.token_lengths) / count
    quantity = quantity_loss(heard.cif.quantity, batch.token_lengths) / count
    answer = model.loss(speech.adaptor(heard.tokens), heard.cif.token_lengths, answers)
    total = answer + token + quantity
    return {"loss": total, "answer": answer, "token": token, "quantity": quantity}
