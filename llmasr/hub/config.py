"""The configuration of a model in the layout of transformers."""

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec

from llmasr.config import ModelConfig, from_dict, to_dict
from llmasr.models.language.chatglm1 import ChatGLM1Config


class LlmasrConfig(PreTrainedConfig):
    """What `LlmasrForConditionalGeneration` is built from.

    Values of generation do not belong here; they are in `generation_config.json`.

    Args:
        asr_config: our `ModelConfig` as a dictionary; see `llmasr.config`.
        text_config: the configuration of the language model.
        prompt_before, prompt_after: token ids around the speech, so that a model can be asked
            without a tokenizer.
        prompt_tags: token ids before and after each modality, where the prompt spells them.
        audio_token_id: stands in `input_ids` where the speech goes; no row of the vocabulary.
        own_vocabulary: whether the language model has another vocabulary than the CIF hypothesis.
    """

    model_type = "llmasr"
    # Only an instance without arguments, which transformers makes for comparison, uses this type.
    sub_configs_defaults: ClassVar = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="glm")
    }

    asr_config: dict[str, Any] | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    prompt_before: list[int] | None = None
    prompt_after: list[int] | None = None
    prompt_tags: dict[str, Any] | None = None
    audio_token_id: int | None = None
    own_vocabulary: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what was left out."""
        if self.asr_config is None:
            self.asr_config = to_dict(ModelConfig())
        text = self.text_config
        # Ours, but not registered: later generations share its model type, and would be read as it.
        if isinstance(text, dict) and text.get("model_type") == ChatGLM1Config.model_type:
            self.text_config = ChatGLM1Config(**text)
        super().__post_init__(**kwargs)

    @property
    def model_config(self) -> ModelConfig:
        """Our typed configuration.

        Raises:
            ValueError: `asr_config` has an unknown key, or misses one.
        """
        config: ModelConfig = from_dict(ModelConfig, self.asr_config or {})
        return config


def language_config(language_model: PreTrainedModel) -> dict[str, Any]:
    """Return the configuration of a language model, without the place it came from."""
    values: dict[str, Any] = language_model.config.to_dict()
    values.pop("_name_or_path", None)
    return values
