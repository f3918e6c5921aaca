"""How the routers of transformers' mixture-of-experts language models score experts, by the router's class.

The outputs of a router do not tell how its logits become scores: weights may be normalized, scaled, or of a masked
softmax. So each class is listed with the function that its ``forward`` applies; a class that is not listed is not read.
Source: the modeling files of transformers 5.23.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Score = Callable[[Any, Float[Tensor, "T E"]], Float[Tensor, "T E"]]
"""The scores of all experts that a router computes from its logits, as shares of their sum."""


def _softmax(_router: Any, logits: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    return logits.softmax(dim=-1)


def _sigmoid(_router: Any, logits: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    return _shares(logits.sigmoid())


def _by_activation(router: Any, logits: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    """The activation that the configuration names (``scoring_func``), such as the root of softplus."""
    return _shares(router.score_fn(logits))


def _by_name(router: Any, logits: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    """Softmax or sigmoid, as the configuration says (``expert_selection_fn``)."""
    return {"softmax": _softmax, "sigmoid": _sigmoid}[router.expert_selection_fn](router, logits)


def _shares(values: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    return values / values.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)


SOFTMAX = [
    "AriaTextTopKRouter",
    "DeepseekOcr2TextTopkRouter",
    "DeepseekV2TopkRouter",
    "Ernie4_5_MoeTopKRouter",
    "Ernie4_5_VLMoeMoeTopKRouter",
    "FlexOlmoTopKRouter",
    "GptOssTopKRouter",
    "GraniteMoeTopKRouter",
    "GraniteMoeSWATopKRouter",
    "GraniteMoeHybridTopKRouter",
    "GraniteMoeSharedTopKRouter",
    "HunYuanMoEV1Gate",
    "JambaTopKRouter",
    "LongcatFlashTopkRouter",
    "MellumTopKRouter",
    "MiniMaxTopKRouter",
    "Mistral4TopkRouter",
    "MistralLarge4TextTopkRouter",
    "MixtralTopKRouter",
    "OlmoeTopKRouter",
    "PhimoeTopKRouter",
    "Qwen2MoeTopKRouter",
    "Qwen3_5MoeTopKRouter",
    "Qwen3MoeTopKRouter",
    "Qwen3NextTopKRouter",
    "Qwen3OmniMoeTextTopKRouter",
    "Qwen3OmniMoeThinkerTextTopKRouter",
    "Qwen3OmniMoeTalkerTextTopKRouter",
    "Qwen3VLMoeTextTopKRouter",
    "Qwen4ExpTextTopKRouter",
    "UnlimitedOcrTextTopkRouter",
]

SIGMOID = [
    "AfmoeTokenChoiceRouter",
    "AXK1TopkRouter",
    "AXK2TopkRouter",
    "BailingHybridTopkRouter",
    "BeamTopKRouter",
    "DeepseekV3TopkRouter",
    "DeepseekV32TopkRouter",
    "Dots1TopkRouter",
    "Dots3NoteTextTopkRouter",
    "ExaoneMoeTopkRouter",
    "FlintTopKRouter",
    "Glm4MoeTopkRouter",
    "Glm4MoeLiteTopkRouter",
    "Glm4vMoeTextTopkRouter",
    "Glm5NextTextTopkRouter",
    "GlmMoeDsaTopkRouter",
    "HYV3TopKRouter",
    "HYV4TopkRouter",
    "InklingTopkRouter",
    "KimiLinearTopkRouter",
    "Kolibri1TopKRouter",
    "LagunaTopKRouter",
    "Lfm2MoeTopKRouter",
    "MiMoV2FlashTopkRouter",
    "MiniMaxM2TopKRouter",
    "MiniMaxM3VLTopKRouter",
    "NemotronHTopkRouter",
    "SolarOpenTopkRouter",
]

SCORES: dict[str, Score] = {
    **dict.fromkeys(SOFTMAX, _softmax),
    **dict.fromkeys(SIGMOID, _sigmoid),
    **dict.fromkeys(("DeepseekV4TopKRouter", "DeepseekV4HashRouter", "Inkling2TopKRouter"), _by_activation),
    "Cohere2MoeTopKRouter": _by_name,
}
"""Routers whose output begins with logits [T E], weights [T K] and experts [T K]."""

RANKED = frozenset({"PhimoeTopKRouter"})
"""Routers whose choices come best first, whatever their weights: PhiMoE's SparseMixer computes the second weight by a
softmax without the first expert, so it may be the greater one."""

UNREAD = {
    "DbrxRouter": "its output has the logits alone",
    "DiffusionGemmaTextRouter": "its output has no logits",
    "Gemma4TextRouter": "its output has no logits",
    "JetMoeTopKGating": "its output is sorted by expert, and it also routes attention heads",
    "Llama4Router": "its output has no list of experts",
    "MuseSparkTopkRouter": "how it scores experts is not known",
    "Step3p7TopKRouter": "how it scores experts is not known",
    "ZayaRouter": "it can skip the experts of a layer",
}
"""Routers whose decisions polyvex does not read, and why."""

ENDINGS = ("Router", "TopKGating", "MoEV1Gate")
"""How the names of transformers' classes of routers end."""


def is_known(module: nn.Module) -> bool:
    """Whether a module is a router of transformers whose scores are known."""
    return type(module).__name__ in SCORES and hasattr(module, "top_k") and hasattr(module, "num_experts")


def why_unread(module: nn.Module) -> str | None:
    """Why the decisions of a router of transformers are not read; None for other modules."""
    name = type(module).__name__
    if is_known(module) or not name.endswith(ENDINGS):
        return None
    return f"{name}: {UNREAD.get(name, 'this version of polyvex does not know it')}"


def probabilities(router: nn.Module, logits: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
    """The scores of all experts as shares of their sum, by the router's own function."""
    return SCORES[type(router).__name__](router, logits)
