"""Why a family cannot say what a language model does. Another reason is another function in :func:`reasons`."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from torch import nn
from transformers.activations import ACT2FN

from polyvex.adapters import PartialLoRA
from polyvex.export.families import FAMILIES, Family, dense_layers, expert_layers, gate_of
from polyvex.export.weights import unplaced
from polyvex.moe.experts import GatedExperts
from polyvex.moe.layer import MoEFeedForward

AS_IT_IS = "polyvex.load(RUN).model.lm.save_pretrained(DIR) writes it as it is"
"""The way out for language models that need no other form."""


ALIKE: dict[str, Callable[[MoEFeedForward], Hashable]] = {
    "numbers of experts": lambda layer: layer.router.num_experts,
    "inner widths of experts": lambda layer: layer.experts.inner,
    "experts per token": lambda layer: gate_of(layer.router).k,
    "weights": lambda layer: "of sum one" if gate_of(layer.router).sums_to_one else "raw",
}
"""What a family's configuration says once."""


def reasons(lm: Any, family: Family, *, copy_dense: bool = False) -> list[str]:
    """Every reason why ``family`` cannot express a run's language model, each with a way out; none if it can.

    Args:
        copy_dense: dense layers may become equal experts, where the family has no dense ones.
    """
    found = [
        *_of_kind(lm, family),
        *_of_adapters(lm, family),
        *_of_attention(lm, family),
        *_of_each_layer(lm, family),
        *_of_all_layers(lm, family),
        *_of_dense_layers(lm, family, copy_dense=copy_dense),
    ]
    return found or list(_of_weights(lm, family))


def _of_kind(lm: Any, family: Family) -> Iterator[str]:
    name = type(lm).__name__
    if not expert_layers(lm):
        if any(getattr(lm.config, key, None) for key in ("num_local_experts", "num_experts", "n_routed_experts")):
            yield f"the language model is {name}, a mixture of experts by itself, and not one of polyvex; {AS_IT_IS}"
        else:
            yield (
                f"the language model is dense: no layer has experts, which {family.name} consists of. Train a stage "
                f"with upcycle = true; or {AS_IT_IS}"
            )
    elif type(lm) not in family.sources:
        known = " and ".join(kind.__name__ for kind in family.sources)
        others = [one.name for one in FAMILIES.values() if type(lm) in one.sources]
        way = f"Say --to {others[0]}" if others else "Train with one of those"
        yield f"the language model is {name}; {family.name} computes what {known} compute, no other. {way}"


def _of_adapters(lm: Any, family: Family) -> Iterator[str]:
    if any(isinstance(part, PartialLoRA) for part in lm.modules()):
        yield (
            f"Partial LoRA changes what layers do to visual tokens alone, and {family.name} does the same to all. "
            f"Train without lm.partial_lora; plain lm.lora is merged into the weights"
        )


def _of_attention(lm: Any, family: Family) -> Iterator[str]:
    if type(lm) not in family.sources:
        return
    if family.name == "mixtral" and getattr(lm.config, "attention_bias", False):
        yield (
            "attention has biases (attention_bias = true), which mixtral has not. Train with a language model that has "
            "none"
        )
    if family.name == "qwen3_moe" and len(set(lm.config.layer_types)) > 1:
        slides = [number for number, kind in enumerate(lm.config.layer_types) if kind == "sliding_attention"]
        yield (
            f"{_numbers(slides)} of {lm.config.num_hidden_layers} look through a sliding window, the others do not; "
            f"qwen3_moe has it in all or none. Train with a language model without use_sliding_window"
        )


def _of_each_layer(lm: Any, family: Family) -> Iterator[str]:
    by_reason: dict[str, list[int]] = {}
    for number, layer in expert_layers(lm).items():
        for reason in _of_layer(layer, family):
            by_reason.setdefault(reason, []).append(number)
    for reason, numbers in by_reason.items():
        yield f"{_numbers(numbers)}: {reason}"


def _of_layer(layer: MoEFeedForward, family: Family) -> Iterator[str]:
    if layer.beside is not None:
        kind = "shared" if layer.weigh is None else "residual"
        yield f"a network works beside the experts; {family.name} has none. Train without beside = '{kind}'"
    if type(layer.experts) is not GatedExperts:
        yield (
            f"its experts are {type(layer.experts).__name__}; those of {family.name} are gated and have no biases. "
            f"Train with a language model whose feed-forward networks are as Llama's"
        )
    elif not _is_silu(layer.experts.act):
        act = getattr(layer.experts.act, "__name__", type(layer.experts.act).__name__)
        yield (
            f"its experts use {act}, those of {family.name} silu. Train with a language model whose hidden_act is silu"
        )
    if (capacity := getattr(layer.router.options, "eval_capacity", None)) is not None:
        yield (
            f"eval_capacity = {capacity:g} drops tokens of full experts when it answers, {family.name} drops none. "
            f"Train without eval_capacity (capacity alone does not matter here)"
        )
    try:
        gate = gate_of(layer.router)
    except ValueError as error:
        yield str(error)
        return
    if not gate.sums_to_one and not family.raw_weights:
        yield (
            f"the router weighs {_counted(gate.k, 'expert')} by raw probabilities; {family.name} scales them to sum to "
            f"one. Train with the router top_k and renormalize = true"
        )


def _is_silu(act: Any) -> bool:
    return type(act) is type(ACT2FN["silu"]) or type(act) is nn.SiLU or act is nn.functional.silu


def _of_all_layers(lm: Any, family: Family) -> Iterator[str]:
    """What the configuration says once must be the same in all layers."""
    layers = expert_layers(lm)
    for what, of in ALIKE.items():
        try:
            values = {number: of(layer) for number, layer in layers.items()}
        except (ValueError, AttributeError):
            continue  # of routers or experts that are a reason by themselves
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{value} in layer {number}" for number, value in values.items())
            yield (
                f"layers differ in their {what} ({listed}); {family.name} has one for all. Train with one for "
                f"all layers"
            )


def _of_dense_layers(lm: Any, family: Family, *, copy_dense: bool) -> Iterator[str]:
    layers = expert_layers(lm)
    if type(lm) not in family.sources or not layers:
        return
    dense = dense_layers(lm)
    if copy_dense and (family.dense_layers or not dense):
        why = f"{family.name} has dense layers of its own" if family.dense_layers else "every layer has experts"
        yield f"--copy-dense has no effect: {why}. Leave it out"
    if family.dense_layers or not dense:
        return
    first = next(iter(layers.values()))
    if not copy_dense:
        count = first.router.num_experts
        more = (count - 1) * sum(weight.numel() for network in dense.values() for weight in network.parameters())
        yield (
            f"{_numbers(dense)}: no experts, but every layer of {family.name} has them. Say --copy-dense, which writes "
            f"such a layer as {count} equal experts ({more:,} more parameters), or train with moe.layers = 'dense'"
        )
    if type(first.experts) is not GatedExperts:
        return
    width = first.experts.down_proj.shape[2]
    wide = {number: network.intermediate_size for number, network in dense.items()}
    if any(own != width for own in wide.values()):
        yield (
            f"{_numbers(wide)}: {next(iter(wide.values()))} wide inside, but experts {width}; {family.name} has one "
            f"width for all. Train with granularity = 1, or with moe.layers = 'dense'"
        )


def _of_weights(lm: Any, family: Family) -> Iterator[str]:
    found = list(unplaced(lm, family))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield (
            f"the language model is not built as {type(lm).__name__} and polyvex's experts are: {'; '.join(found[:3])}"
            f"{more}. Take out what was added to it (merge adapters into their weights)"
        )


def _numbers(numbers: Any) -> str:
    numbers = list(numbers)
    return f"{'layer' if len(numbers) == 1 else 'layers'} {', '.join(map(str, numbers))}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
