"""Configuration of a polyvex model: the tables of its components and its language model's own configuration."""

from typing import Any

from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig


class PolyvexConfig(PreTrainedConfig):
    """What ``config.json`` of a run holds.

    ``encoders``, ``fusion``, ``positions`` and ``moe`` are tables as in a recipe, with every default written out;
    ``moe`` is None while the language model is dense. ``adapters`` are the language model's (``lora``,
    ``partial_lora``). ``plugins`` gives the distribution of each encoder by its name, and of every other
    component that is not part of polyvex by its kind and ``use``. ``loss`` weighs the auxiliary losses.
    ``separator_ids`` are the tokens of the text between two encoders' runs, if the fusion's table asks for one.
    ``encoders_included`` is false in checkpoints inside
    a run: their frozen encoders' tokens come from the cache, so these are stored once, with the finished model.
    """

    model_type = "polyvex"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}  # noqa: RUF012

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    encoders: list[dict[str, Any]] | None = None
    fusion: dict[str, Any] | None = None
    positions: dict[str, Any] | None = None
    moe: dict[str, Any] | None = None
    adapters: dict[str, Any] | None = None
    loss: dict[str, Any] | None = None
    plugins: dict[str, str] | None = None
    separator_ids: list[int] | None = None
    image_token_id: int = -1
    encoders_included: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        text = self.text_config
        if isinstance(text, PreTrainedConfig):
            self.tie_word_embeddings = bool(getattr(text, "tie_word_embeddings", False))


AutoConfig.register(PolyvexConfig.model_type, PolyvexConfig, exist_ok=True)
