"""Adapters of a language model: where they go, in which order, and that only visual tokens feel Partial LoRA."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import DeepseekV2Config, PhimoeConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from polyvex.adapters import PartialLoRA
from polyvex.assemble import Built, empty_model
from polyvex.context import TokenContext
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.model.adapting import Adapters, adapt_language_model, block_layers
from polyvex.recipe import Recipe
from polyvex.training.rehearse import rehearse

Make = Callable[..., Built]
TRAINS = [
    {"name": "tune", "trains": ["connector", "lm"], "steps": 1},
    {"name": "experts", "trains": ["lm.moe", "lm.lora", "lm.partial_lora"], "steps": 1, "upcycle": True},
]
LORA, PARTIAL = "lm.lora={rank=2}", "lm.partial_lora={rank=2, dropout=0.0, targets=['q_proj', 'down_proj']}"


def asked(built: Built) -> dict[str, Any]:
    """One row of text alone, one with an image, as the processor makes them."""
    model, prompts = built.model, built.processor.prompts
    plain, seeing = prompts.question("why?", images=0), prompts.question("why?", images=1)
    width = max(len(plain), len(seeing))
    pad = built.processor.tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in (plain, seeing)])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in (plain, seeing)])
    torch.manual_seed(1)
    shapes = zip(model.encoder_names, model.input_shapes, strict=True)
    tokens = {name: torch.randn(1, shape.tokens, shape.dim) for name, shape in shapes}
    return {"input_ids": ids, "attention_mask": mask, "encoder_tokens": tokens}


def partial(model: Any) -> dict[str, PartialLoRA]:
    return {name: part for name, part in model.lm.named_modules() if isinstance(part, PartialLoRA)}


@torch.no_grad()
def test_partial_lora_moves_what_follows_an_image_and_not_text_alone(make_built: Make) -> None:
    built = make_built(PARTIAL, moe=None, stages=TRAINS[:1])
    inputs, model = asked(built), built.model
    said = model(**inputs).logits
    for part in partial(model).values():
        part.plora_B.zero_()
    plain = model(**inputs).logits
    assert torch.equal(said[0], plain[0])
    assert not torch.allclose(said[1], plain[1], atol=1e-3)


def test_an_image_teaches_it_and_text_does_not(make_built: Make) -> None:
    built = make_built(PARTIAL, moe=None, stages=TRAINS[:1])
    inputs, model = asked(built), built.model
    for row, moved in ((0, False), (1, True)):
        model.zero_grad()
        one = {
            **inputs,
            "input_ids": inputs["input_ids"][row:][:1],
            "attention_mask": inputs["attention_mask"][row:][:1],
        }
        model(**(one if moved else {**one, "encoder_tokens": None})).logits.sum().backward()
        gradients = [part.plora_B.grad for part in partial(model).values()]
        assert all(gradient is not None and bool(gradient.any()) is moved for gradient in gradients)


@torch.no_grad()
def test_an_encoder_with_its_own_update_feels_no_other(make_built: Make) -> None:
    built = make_built("lm.partial_lora={rank=2, per_encoder=true}", moe=None, stages=TRAINS[:1])
    model, inputs = built.model, asked(built)
    assert all(len(part.plora_A) == 2 for part in partial(model).values())
    first = next(iter(partial(model).values()))
    seen: list[torch.Tensor] = []
    hook = first.register_forward_hook(lambda _part, args, said: seen.append(said - first.base_layer(args[0])))
    model(**inputs)
    first.plora_B[1].zero_()
    model(**inputs)
    hook.remove()
    source = model.context  # the layout says whose tokens are where
    assert source.now is None
    changed = (seen[0] != seen[1]).any(dim=-1)
    assert int(changed.sum()) == model.input_shapes[1].tokens
    assert int(seen[1].any(dim=-1).sum()) == model.input_shapes[0].tokens


def test_plain_adapters_stand_inside_and_partial_ones_around(make_built: Make) -> None:
    model = make_built(LORA, PARTIAL, moe=None, stages=TRAINS[:1]).model
    layer = model.lm.model.layers[0].self_attn
    assert isinstance(layer.q_proj, PartialLoRA)
    assert "lora_A" in dict(layer.q_proj.base_layer.named_children())
    assert not isinstance(layer.k_proj, PartialLoRA)
    assert "lora_A" in dict(layer.k_proj.named_children())
    assert type(model.lm.lm_head) is nn.Linear
    assert not any(name.endswith("lm_head") for name in block_layers(model.lm))


@pytest.mark.parametrize("experts", [False, True])
def test_a_stored_model_says_the_same(make_built: Make, registries: Registries, tmp_path: Any, experts: bool) -> None:
    changes = (LORA, "lm.partial_lora={rank=2, targets=['q_proj', 'o_proj']}")
    built = make_built(*changes, experts=experts, stages=TRAINS)
    if experts:
        built.model.adapt_language_model()
        names = [name for name, _ in built.model.named_parameters() if ".experts." in name and "lora_" in name]
        assert len(names) == 4  # A and B of gate_up_proj and of down_proj, in the one layer with experts
    built.model.save_pretrained(tmp_path)
    again = PolyvexForConditionalGeneration.from_pretrained(tmp_path, registries=registries).eval()
    inputs = asked(built)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, built.model(**inputs).logits)


@pytest.mark.parametrize(
    ("key", "table", "problem"),
    [
        (
            "lora",
            "{targets=['q_poj']}",
            "the target 'q_poj' fits no layer of LlamaForCausalLM. There are: q_proj, k_proj",
        ),
        ("partial_lora", "{targets=['w1']}", "the target 'w1' fits no layer of LlamaForCausalLM. There are: q_proj"),
        ("partial_lora", "{}", "layer 0 cannot become experts: it has Partial LoRA. Name only layers of attention"),
    ],
)
def test_what_fits_no_layer_is_told_beforehand(
    tiny_recipe: Callable[..., Recipe], registries: Registries, key: str, table: str, problem: str
) -> None:
    stages = [TRAINS[0], {**TRAINS[1], "trains": [f"lm.{key}"]}]
    recipe = tiny_recipe(f"lm.{key}={table}", stages=stages)
    first, *_more = rehearse(recipe, registries, empty_model(recipe, registries))
    assert problem in first


def test_targets_may_fit_before_networks_become_experts_or_after(
    tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    stages = [{**TRAINS[0], "trains": ["lm.lora"]}, {**TRAINS[1], "trains": ["lm.moe"]}]
    moe = {"num_experts": 4, "layers": "dense", "router": {"use": "top_k"}}
    recipe = tiny_recipe("lm.lora={rank=2, targets=['mlp.down_proj']}", stages=stages, moe=moe)
    assert rehearse(recipe, registries, empty_model(recipe, registries)) == []
    wrong = tiny_recipe("lm.lora={rank=2, targets=['nope']}", stages=stages, moe=moe)
    first, _nothing_to_train = rehearse(wrong, registries, empty_model(wrong, registries))
    assert "the target 'nope' fits no layer" in first


def test_dropout_and_sharing_are_what_the_recipe_says(make_built: Make) -> None:
    model = make_built("lm.lora={rank=2, dropout=0.25}", PARTIAL, moe=None, stages=TRAINS[:1]).model
    dropouts = {part.p for name, part in model.lm.named_modules() if "lora_dropout.default" in name}
    assert dropouts == {0.25}
    assert {len(part.plora_A) for part in partial(model).values()} == {1}


def test_what_weighs_a_network_beside_experts_is_not_adapted(make_built: Make) -> None:
    built = make_built(
        LORA, "moe.beside=residual", experts=True, stages=[TRAINS[0], {**TRAINS[1], "trains": ["lm.lora"]}]
    )
    built.model.adapt_language_model()
    assert type(built.model.lm.model.layers[0].mlp.weigh) is nn.Linear


SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "num_experts_per_tok": 2,
}
NATIVE: dict[str, Callable[[], Any]] = {
    "deepseek_v2": lambda: DeepseekV2Config(
        **SMALL,
        n_routed_experts=4,
        n_shared_experts=1,
        moe_intermediate_size=8,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
    ),
    "phimoe": lambda: PhimoeConfig(**SMALL, num_local_experts=4),
}


@pytest.mark.parametrize("targets", [[], ["down_proj"]])
@pytest.mark.parametrize("name", NATIVE)
def test_mixtures_of_transformers_are_adapted_where_they_are_told(name: str, targets: list[str]) -> None:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(NATIVE[name]())
    wanted = {one for one in block_layers(lm) if not targets or one.endswith(".down_proj")}
    fused = [one for one, weight in lm.named_parameters() if weight.ndim == 3 and (not targets or "down" in one)]
    ids = torch.arange(12).reshape(2, 6)
    before = lm.eval()(input_ids=ids).logits
    adapters = Adapters.model_validate({"lora": {"rank": 2, "targets": targets}})
    adapt_language_model(lm, adapters, encoders=1, context=TokenContext())
    places = [one.partition(".lora_A")[0] for one, _ in lm.named_parameters() if ".lora_A" in one]
    linear = {one for one in places if not one.replace(".base_layer", "").endswith(".experts")}
    assert linear == wanted
    assert len(places) - len(linear) == len(fused) > 0
    assert not any(".router" in one or one.endswith(".gate") for one in wanted)
    assert torch.allclose(lm(input_ids=ids).logits, before, atol=1e-6)


def test_targets_may_name_experts_that_are_not_there_yet(
    tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    stages = [TRAINS[0], {**TRAINS[1], "trains": ["lm.lora"]}]
    recipe = tiny_recipe("lm.lora={rank=2, targets=['experts.down_proj']}", stages=stages)
    model = empty_model(recipe, registries)
    assert rehearse(recipe, registries, model) == []
    assert [name for name, _ in model.named_parameters() if "lora_A" in name] == [
        "lm.model.layers.0.mlp.experts.lora_A.default.weight"
    ]


@pytest.mark.parametrize("enable", ["activation_checkpointing_enable", "gradient_checkpointing_enable"])
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_layers_that_run_again_know_visual_tokens_as_the_first_time(make_built: Make, enable: str) -> None:
    built = make_built(PARTIAL, moe=None, stages=TRAINS[:1])
    inputs, model = asked(built), built.model.train()

    def gradients() -> dict[str, torch.Tensor | None]:
        model.zero_grad()
        model(**inputs, use_cache=False).logits.square().sum().backward()
        return {name: weight.grad for name, weight in model.named_parameters() if "plora" in name}

    before = {name: gradient.clone() for name, gradient in gradients().items() if gradient is not None}
    getattr(model, enable)()
    after = gradients()
    assert before.keys() == after.keys()
    assert all(gradient.any() for gradient in before.values())
    assert all(torch.equal(before[name], gradient) for name, gradient in after.items() if gradient is not None)
