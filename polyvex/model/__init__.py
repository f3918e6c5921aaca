"""The model class, its configuration and its processor, known to transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from polyvex.model.config import PolyvexConfig
from polyvex.model.modeling import PolyvexForConditionalGeneration
from polyvex.model.output import PolyvexOutput
from polyvex.model.processing import PolyvexProcessor

AutoConfig.register(PolyvexConfig.model_type, PolyvexConfig, exist_ok=True)
AutoModelForImageTextToText.register(PolyvexConfig, PolyvexForConditionalGeneration, exist_ok=True)
AutoProcessor.register(PolyvexConfig, PolyvexProcessor, exist_ok=True)

__all__ = ["PolyvexConfig", "PolyvexForConditionalGeneration", "PolyvexOutput", "PolyvexProcessor"]
