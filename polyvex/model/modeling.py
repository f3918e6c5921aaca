"""The model: encoders, fusion, positions and a language model, in one class that transformers can save and load.

Its forward is the way of the data: encode, fuse, splice, assign positions, run the language model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, Real
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.loss.loss_utils import ForCausalLMLoss

from polyvex.context import TokenContext, TokenKinds
from polyvex.data.prompt import IGNORED
from polyvex.encoders.base import VisionEncoder
from polyvex.encoders.tuning import may_learn
from polyvex.encoders.weights import WeightsReport
from polyvex.errors import ContractError, WeightsError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.model.adapting import Adapters, adapt_language_model
from polyvex.model.attention import check_attention, packed_mask
from polyvex.model.components import build_encoders, read_components
from polyvex.model.config import PolyvexConfig
from polyvex.model.generation import GeneratesWithImages
from polyvex.model.output import PolyvexOutput
from polyvex.model.questions import questions
from polyvex.model.seeing import PerEncoder, SeesImages
from polyvex.moe.losses import auxiliary_losses
from polyvex.moe.record import record_routing, routers
from polyvex.moe.upcycle import install_experts
from polyvex.sequence import inputs_of, lay_out
from polyvex.storage import check_readable


# GenerationMixin stands here by name, since transformers looks for it among the direct bases.
class PolyvexForConditionalGeneration(SeesImages, GeneratesWithImages, PreTrainedModel, GenerationMixin):  # type: ignore[override]
    """Answers questions about images that several encoders look at.

    Args:
        lm: a language model that is loaded already; without it a fresh one is made from ``config.text_config``.
        encoders: encoders by name that are loaded already; without them fresh ones are built.
        registries: what the tables of ``config`` may name; the installed plugins if not given.
        connector: where fusion and reducers are made; ``meta`` for a model that is only counted.
    """

    config_class = PolyvexConfig
    config: PolyvexConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012 - as transformers writes it
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = False  # it takes shared positions for packed sequences and cuts attention without a word
    _supports_flex_attn = True

    def __init__(
        self,
        config: PolyvexConfig,
        *,
        lm: PreTrainedModel | None = None,
        encoders: Mapping[str, VisionEncoder] | None = None,
        registries: Registries | None = None,
        connector: torch.device | str = "cpu",
    ):
        super().__init__(config)
        registries = registries or load_registries()
        self.context = TokenContext()
        self.lm: Any = lm
        if lm is None:
            self.lm = AutoModelForCausalLM.from_config(config.text_config, trust_remote_code=False)
        self.lm.config.dtype = self.lm.dtype  # as loading sets it, so that a stored model is the same file again
        # One object, or transformers would read an attention implementation here that the model does not use.
        config.text_config = self.lm.config
        # The components are small next to the language model and may keep buffers or plain tensors that a meta
        # device would lose, so they are made for real even where transformers asks for empty ones.
        with torch.device("cpu"):
            components = read_components(config, registries, dim=self.lm.config.hidden_size, device=connector)
            own = build_encoders(config, registries)[0] if encoders is None else encoders
            self.encoders = nn.ModuleDict(own)
            self.reducers = nn.ModuleDict(components.reducers)
            self.fusion = components.fusion
            self.positions = components.positions
            self.views = components.merge
        self.encoder_names = list(components.tables)
        self.encoder_tables = components.tables
        self.layouts = components.layouts
        self.views_of = components.views
        self._input_shapes = components.shapes
        if config.moe and components.moe:
            install_experts(self.lm, components.moe, components.router, copy=False, context=self.context)
        self.adapt_language_model()
        self.encoders.requires_grad_(False).eval()
        self.post_init()

    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Tensor | None = None,
        position_ids: Real[Tensor, "batch seq"] | None = None,
        past_key_values: Cache | None = None,
        pixel_values: PerEncoder | None = None,
        encoder_tokens: PerEncoder | None = None,
        image_sizes: Int[Tensor, "images 2"] | None = None,
        documents: Int[Tensor, "batch seq"] | None = None,
        asked_mask: Tensor | None = None,
        labels: Int[Tensor, "batch seq"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> PolyvexOutput:
        """Run the whole path.

        Args:
            input_ids: text, with one placeholder (``config.image_token_id``) per visual token.
            attention_mask: [batch seq] with 1 on real tokens, of past and new ones; all real if not given.
            position_ids: left out, they come from the recipe's position scheme; with a cache they must be given.
            pixel_values: for each encoder by name, pixels [tiles 3 height width] of all images of the batch; an
                image without tiling is one tile.
            encoder_tokens: instead of pixels, each encoder's tokens [tiles tokens dim], as the cache keeps them.
            image_sizes: height and width of each image; needed where the tokens depend on them (``layouts.fixed``).
            documents: number of the text that each place belongs to, where several are packed into one row; each then
                has positions from 0 and sees nothing of the others.
            asked_mask: [batch seq], true on what is asked, for a fusion that chooses encoders by the question; without
                it that is all text, or with ``labels`` all that is not learned.
            labels: [batch seq], -100 where nothing is to be learned.

        Raises:
            ContractError: if placeholders and visual tokens differ in number, or positions are missing.
        """
        check_attention(self.lm)
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        mask = (
            attention_mask
            if attention_mask is not None
            else input_ids.new_ones(len(input_ids), past + input_ids.shape[1])
        )
        valid = mask[:, past:].bool() if mask.ndim == 2 else torch.ones_like(input_ids, dtype=torch.bool)
        placeholders = input_ids == self.config.image_token_id
        text = self.lm.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
        question = None
        if self.fusion.routes and (pixel_values is not None or encoder_tokens is not None):
            laid = lay_out(placeholders, valid, self.layouts_of(image_sizes), documents)
            asked = valid & (labels == IGNORED) if labels is not None else valid
            question = questions(text.detach(), laid, asked if asked_mask is None else asked_mask.bool())
        visual = self.see(pixel_values, encoder_tokens, image_sizes, question)
        layouts = visual.layouts if visual is not None else self.layouts.of_all(None)
        inputs = inputs_of(text, placeholders, valid, visual, layouts, documents)
        embeds = inputs.embeds if visual is not None else inputs.embeds + self._nothing()
        if position_ids is None:
            if past:
                raise ContractError(f"position_ids are needed with a cache of {past} tokens; generate() passes them")
            position_ids = self.positions.assign(inputs.layout).ids
        if documents is not None:
            if past or mask.ndim != 2:
                raise ContractError("documents go with a 2-D attention_mask and without a cache")
            mask = packed_mask(self.lm, documents, valid, embeds.dtype)
        kinds = TokenKinds(valid=valid, source=inputs.layout.source)
        with self.context.telling(kinds), record_routing(self.lm) as routings:
            # The mask is always passed on: without one, transformers reads repeated positions as packed sequences.
            outputs = self.lm(
                inputs_embeds=embeds,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **kwargs,
            )
        result = PolyvexOutput(
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        if labels is not None:
            learning = self.training and torch.is_grad_enabled()
            loss = self.config.loss or {}
            aux = auxiliary_losses(
                routings,
                valid,
                counted=loss.get("balance", "first"),
                layers=loss.get("balance_layers", "sum"),
                together=learning,
            )
            self._add_losses(result, labels, aux, num_items_in_batch)
        return result

    def _nothing(self) -> Tensor | float:
        """Zero, through trained weights that only images go through: without any they get gradients too (of zero).

        Otherwise a stage that trains the connector or encoders alone would have nothing to go backward through, and
        processes that train together would fall out of step.
        """
        parts = (self.encoders, self.reducers, self.fusion, self.positions, self.views)
        seeing = [parameter for part in parts for parameter in part.parameters()]
        trained = [parameter for parameter in seeing if parameter.requires_grad]
        if not (self.training and trained and torch.is_grad_enabled()):
            return 0.0
        return 0.0 * torch.stack([parameter.sum() for parameter in trained]).sum()

    def _add_losses(
        self, result: PolyvexOutput, labels: Tensor, aux: dict[str, Tensor], num_items: Tensor | int | None
    ) -> None:
        """Answer loss over labelled tokens, and the weighted total.

        With ``num_items`` (labelled tokens of all accumulated passes) each pass adds its share, so that the sum
        over passes is what one large pass would give; auxiliary losses are shared out in the same proportion.
        """
        vocabulary = self.lm.config.vocab_size
        logits: Any = result.logits
        items: Any = num_items
        answer = ForCausalLMLoss(logits, labels, vocab_size=vocabulary, num_items_in_batch=items)
        share = 1.0 if num_items is None else (labels[:, 1:] != -100).sum() / num_items
        # Where no router learns, a loss for routers would only bend what reaches them.
        learning = any(weight.requires_grad for router in routers(self.lm).values() for weight in router.parameters())
        weights = (self.config.loss or {}) if learning else {}
        result.answer_loss, result.aux = answer, aux
        result.loss = answer + sum((weights.get(name, 0.0) * share * value for name, value in aux.items()), 0.0)

    @property
    def context_length(self) -> int | None:
        """Tokens that the language model's context holds; None if it names no longest one."""
        return getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)

    def may_train(self, parameter: str) -> bool:
        """Whether a stage may train the parameter of this name: not of frozen encoders, nor under their adapters."""
        part, _, rest = parameter.partition(".")
        if part != "encoders":
            return True
        name, _, rest = rest.partition(".")
        return may_learn(rest, self.encoder_tables[name].tune)

    def adapt_language_model(self) -> None:
        """Put the adapters of the configuration into layers of the language model that have none yet."""
        adapters = Adapters.model_validate(self.config.adapters or {})
        adapt_language_model(self.lm, adapters, encoders=len(self.encoder_names), context=self.context)

    def attach_encoders(self, registries: Registries) -> dict[str, WeightsReport]:
        """Build the frozen encoders that a checkpoint inside a run left out, and load their pretrained weights.

        Returns:
            The account of each such encoder's weights, by name.
        """
        config = PolyvexConfig.from_dict({**self.config.to_dict(), "encoders_included": True})
        config.encoders = [table for table in config.encoders or [] if table["name"] not in self.encoders]
        frozen, reports = build_encoders(config, registries, pretrained=True)
        have = {**dict(self.encoders.named_children()), **frozen}
        for encoder in frozen.values():
            encoder.requires_grad_(False).to(self.device)
        self.encoders = nn.ModuleDict({name: have[name] for name in self.encoder_names}).eval()
        self.config.encoders_included = True
        return reports

    def train(self, mode: bool = True) -> "PolyvexForConditionalGeneration":
        """Set training mode; encoders stay in evaluation mode, those that learn too: their norms keep their figures."""
        super().train(mode)
        self.encoders.eval()
        return self

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """As in transformers.

        Raises:
            ContractError: for ``use_reentrant``, which would cut the gradient of the auxiliary losses.
        """
        if (gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            raise ContractError("use_reentrant = True cuts the auxiliary losses' gradient; leave it out, or say False")
        given = {"use_reentrant": False, "context_fn": self.context.remembered, **(gradient_checkpointing_kwargs or {})}
        super().gradient_checkpointing_enable(given, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings."""
        return self.lm.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.lm.get_output_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings."""
        self.lm.set_input_embeddings(value)

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: components make their own weights when they are built, and loading refuses missing keys."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does, but never with random weights.

        Raises:
            WeightsError: if the checkpoint lacks a key, has one too many, or one of another shape.
            StorageError: if this user has no permission to read a file of it.
        """
        wants_report = kwargs.pop("output_loading_info", False)
        kwargs["trust_remote_code"] = False  # a folder may bring code of its own, for generate() too
        kwargs["ignore_mismatched_sizes"] = True  # so that they are told below, together with the other keys
        parent: Any = super()
        path = pretrained_model_name_or_path
        check_readable(Path(path or "") / "")  # a name on the hub is no folder here
        try:
            model, report = parent.from_pretrained(path, *args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise WeightsError(f"the weights in {path} are damaged: {error}. Store or fetch them again") from None
        found = {word: sorted(map(_key, report[f"{word}_keys"])) for word in ("missing", "unexpected", "mismatched")}
        if bad := [f"{word}: {', '.join(keys[:5])}" for word, keys in found.items() if keys]:
            raise WeightsError(
                f"{path} does not hold this model's weights; {'; '.join(bad)}. Load the checkpoint that "
                f"belongs to this config.json"
            )
        return (model, report) if wants_report else model


def _key(entry: Any) -> str:
    """A report's entry as text: a name, or a name with two shapes."""
    if isinstance(entry, str):
        return entry
    name, *shapes = entry
    return f"{name} ({' in the file, '.join(str(tuple(shape)) for shape in shapes)} in the model)"


AutoModelForImageTextToText.register(PolyvexConfig, PolyvexForConditionalGeneration, exist_ok=True)
