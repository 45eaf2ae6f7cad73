"""Our models in the habits of transformers.

Importing this package registers them, so that folders written by `save_for_transformers` work with
`pipeline("automatic-speech-recognition", model=folder)`, `AutoModelForSpeechSeq2Seq`,
`AutoProcessor` and the others. No code is taken from the folder.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES

from llmasr.hub.config import LlmasrConfig
from llmasr.hub.folders import load_from_transformers, save_for_transformers
from llmasr.hub.model import LlmasrForConditionalGeneration
from llmasr.hub.pipeline import LlmasrPipeline
from llmasr.hub.processor import LlmasrFeatureExtractor, LlmasrProcessor
from llmasr.hub.tokenizer import LlmasrTokenizer

__all__ = [
    "LlmasrConfig",
    "LlmasrFeatureExtractor",
    "LlmasrForConditionalGeneration",
    "LlmasrPipeline",
    "LlmasrProcessor",
    "LlmasrTokenizer",
    "load_from_transformers",
    "save_for_transformers",
]

AutoConfig.register(LlmasrConfig.model_type, LlmasrConfig, exist_ok=True)
for auto_class in (AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM):
    auto_class.register(LlmasrConfig, LlmasrForConditionalGeneration, exist_ok=True)
AutoFeatureExtractor.register(LlmasrConfig, LlmasrFeatureExtractor, exist_ok=True)
AutoTokenizer.register(LlmasrConfig, tokenizer_class=LlmasrTokenizer, exist_ok=True)
AutoProcessor.register(LlmasrConfig, LlmasrProcessor, exist_ok=True)
# The stock pipeline tells kinds of models apart by class names in this table alone; a model that
# is not in it is read as CTC, and gives nonsense without an error.
MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES[LlmasrConfig.model_type] = (
    LlmasrForConditionalGeneration.__name__
)
