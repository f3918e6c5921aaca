"""Try a language model's class at a small size: whether it trains and generates the way polyvex uses it.

The trial compares two uses of one small random model: with token ids, as transformers uses it, and with embeddings, as
polyvex does. A model that works with ids and fails with embeddings, or gives other results, is refused. If it already
fails with ids, the small configuration is to blame, and nothing is said.
"""

import json
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache

from polyvex.lm.shrink import shrink
from polyvex.model import PolyvexConfig
from polyvex.model.output import PolyvexOutput

LENGTH, NEW = 8, 3
LARGEST = 10_000_000
"""Parameters of the largest model that is tried; what cannot be made smaller is not tried."""


class Embedding(PreTrainedModel, GenerationMixin):
    """A language model that is used as :class:`~polyvex.model.PolyvexForConditionalGeneration` uses it."""

    config_class = PolyvexConfig
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, lm: Any):
        super().__init__(PolyvexConfig(text_config=lm.config.to_dict()))
        self.lm = lm
        self.config.text_config = lm.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> PolyvexOutput:
        """Look up the embeddings, and run the language model on them."""
        outputs = self.lm(
            inputs_embeds=self.lm.get_input_embeddings()(input_ids),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        return PolyvexOutput(
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def trial_problems(lm: Any) -> list[str]:
    """Why polyvex cannot train a language model, or cannot generate with it.

    Args:
        lm: the language model, which may be on ``meta``; only its class and configuration count.

    Returns:
        One sentence, or nothing if the class works or cannot be tried at a small size.
    """
    config = json.dumps(lm.config.to_dict(), sort_keys=True, default=str)
    why = _why(type(lm), config)
    return [f"[lm]: polyvex cannot use {type(lm).__name__}: {why}. Take another language model"] if why else []


@lru_cache(maxsize=32)  # the cells of an ablation share their language model, or a few
def _why(kind: type, config: str) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layers in (True, False):
            small = _small(kind, json.loads(config), layers=layers)
            found = _compare(small) if small is not None else None
            if found is not None:
                return found
    return ""


def _small(kind: Any, values: dict[str, Any], *, layers: bool) -> Any:
    """A small random model of the class, with few layers or all; None if there is none."""
    try:
        config = shrink(kind.config_class.from_dict(values), layers=layers)
        with torch.device("meta"):
            size = sum(weight.numel() for weight in _made(config).parameters())
        if size > LARGEST:
            return None
        lm = _made(config)
    except Exception:  # whatever a configuration's class or a layer raises for sizes that do not fit
        return None
    if type(lm) is not kind:
        return None
    for weight in lm.parameters():
        if weight.ndim > 1:
            weight.data.mul_(4)  # fresh weights are so small that no difference would show
    return lm


def _made(config: Any) -> Any:
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _compare(lm: Any) -> str | None:
    """Why the two uses differ, empty if they do not; None if the small model does not work by itself."""
    ids = torch.arange(LENGTH)[None] + 4
    for name, use in (("a training step", _step), ("generation", _generate)):
        try:
            expected = use(lm, ids)
        except Exception:  # whatever a class raises for sizes that do not fit each other
            return None
        try:
            got = use(Embedding(lm), ids)
        except Exception as error:  # whatever the class raises where it is used in another way
            return f"{name} from embeddings fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        if got.shape != expected.shape or not torch.allclose(got, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
            return f"{name} from embeddings gives other results than from token ids"
    return ""


def _step(model: Any, ids: Tensor) -> Tensor:
    """Logits of a forward pass in evaluation mode, after one in training mode with its backward pass."""
    model.train()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float().sum().backward()
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()


def _generate(model: Any, ids: Tensor) -> Tensor:
    """Scores of each token of a greedy answer."""
    model.eval()
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack(out.logits).float()
