"""A small Llama-class language model that starts from random weights, with a tokenizer trained on the data set."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from polyvex.lm.base import LanguageModel, LMOptions

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


class SmallLlamaOptions(LMOptions):
    """Options of the ``small-llama`` language model; the defaults have 1.0 million parameters."""

    hidden_size: int = Field(default=128, ge=8, description="Width of the model.")
    ffn_size: int = Field(default=384, ge=8, description="Width inside the feed-forward networks.")
    layers: int = Field(default=4, ge=1, description="Decoder layers.")
    heads: int = Field(default=4, ge=1, description="Attention heads.")
    kv_heads: int = Field(default=4, ge=1, description="Key and value heads; fewer than heads is grouped attention.")
    vocab_size: int = Field(default=512, ge=264, description="Tokens; 256 bytes, 3 special ones, then learned merges.")
    max_positions: int = Field(default=512, ge=8, description="Context: tokens, and positions, at most.")
    init_std: float = Field(default=0.08, gt=0, description="Deviation of the first weights; small models want more.")
    rope_theta: float = Field(default=10_000.0, gt=0, description="Base of the rotary position embedding.")

    @model_validator(mode="after")
    def _heads_fit(self) -> "SmallLlamaOptions":
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(f"hidden_size {self.hidden_size} must be an even multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self


class SmallLlama(LanguageModel[SmallLlamaOptions]):
    """transformers' ``LlamaForCausalLM`` at small size, with a byte-level BPE trained on the data set's text."""

    Options = SmallLlamaOptions
    summary = "small Llama from random weights; byte-level BPE trained on the data set; trains on a CPU"
    pretrained = False

    def config(self) -> "LlamaConfig":
        """The configuration of the given sizes."""
        from transformers import LlamaConfig

        options = self.options
        return LlamaConfig(
            vocab_size=options.vocab_size,
            hidden_size=options.hidden_size,
            intermediate_size=options.ffn_size,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            num_key_value_heads=options.kv_heads,
            max_position_embeddings=options.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": options.rope_theta},
            initializer_range=options.init_std,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=False,
        )

    def tokenizer(self, texts: Iterable[str]) -> "PreTrainedTokenizerBase":
        """Train byte-level BPE on ``texts``: any text can be written, the data set's words are single tokens."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=self.options.vocab_size,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)

    def load(self, config: "PreTrainedConfig") -> "PreTrainedModel":
        """A fresh model; the weights are transformers' usual random ones."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
