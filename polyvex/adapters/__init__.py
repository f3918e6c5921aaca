"""Low-rank updates of linear layers: plain ones through PEFT, and Partial LoRA, which acts on visual tokens alone."""

from polyvex.adapters.lora import ADAPTER, LanguageModelLoRA, LoRA, merged, put_lora
from polyvex.adapters.partial import PARTIAL, PartialLoRA, PartialLoRATable, put_partial_lora

__all__ = [
    "ADAPTER",
    "PARTIAL",
    "LanguageModelLoRA",
    "LoRA",
    "PartialLoRA",
    "PartialLoRATable",
    "merged",
    "put_lora",
    "put_partial_lora",
]
