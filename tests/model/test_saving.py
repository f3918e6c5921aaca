"""Saved and loaded: the same logits, through transformers' Auto classes; never with random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LlamaConfig, LlamaForCausalLM

import polyvex.model  # noqa: F401 - makes the Auto classes know the model
from polyvex.assemble import Built
from polyvex.errors import ContractError, PluginError, WeightsError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions
from polyvex.model import PolyvexConfig, PolyvexForConditionalGeneration, PolyvexProcessor

Make = Callable[..., Built]
SIZES = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


def inputs_of(processor: Any) -> dict[str, Any]:
    picture = Image.linear_gradient("L").rotate(30).resize((20, 30))
    return processor(picture, processor.prompt("what?"))


def save(built: Built, path: Path) -> Path:
    built.model.save_pretrained(path)
    built.processor.save_pretrained(path)
    return path


@torch.no_grad()
def logits_of(model: Any, inputs: dict[str, Any]) -> Tensor:
    return model.eval()(**inputs).logits


def change_weights(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    state = load_file(path / "model.safetensors")
    change(state)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("experts", [False, True], ids=["dense", "experts"])
@pytest.mark.parametrize("scheme", ["sequential", "share_all", "share_row", "share_row_col"])
def test_the_auto_classes_bring_back_the_same_logits(
    scheme: str, experts: bool, make_built: Make, tmp_path: Path
) -> None:
    built = make_built(f"positions.use={scheme}", experts=experts)
    path = save(built, tmp_path)
    model, processor = AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)
    assert isinstance(model, PolyvexForConditionalGeneration)
    assert isinstance(processor, PolyvexProcessor)
    inputs = inputs_of(built.processor)
    again = inputs_of(processor)
    assert torch.equal(again["input_ids"], inputs["input_ids"])
    for name, pixels in inputs["pixel_values"].items():
        assert torch.equal(again["pixel_values"][name], pixels)
    assert torch.equal(logits_of(model, again), logits_of(built.model, inputs))


def test_every_weight_comes_back(make_built: Make, tmp_path: Path) -> None:
    built = make_built("positions.use=share_row_col", "moe.layers=dense", experts=True)
    again = AutoModelForImageTextToText.from_pretrained(save(built, tmp_path)).state_dict()
    before = built.model.state_dict()
    assert before.keys() == again.keys()
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_answers_are_the_same_too(make_built: Make, tmp_path: Path) -> None:
    built = make_built()
    model = AutoModelForImageTextToText.from_pretrained(save(built, tmp_path))
    inputs = inputs_of(built.processor)
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **options), built.model.generate(**inputs, **options))
    assert model.generation_config.eos_token_id == built.processor.tokenizer.eos_token_id


def test_saving_twice_changes_nothing(make_built: Make, tmp_path: Path) -> None:
    save(make_built(experts=True), tmp_path / "a")
    AutoModelForImageTextToText.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in "ab"]
    for config in configs:
        config["text_config"].pop("dtype", None)  # transformers writes it once a model has been loaded
    assert configs[0] == configs[1]


def test_the_configuration_tells_every_table_and_where_encoders_came_from(make_built: Make, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(save(make_built(experts=True), tmp_path))
    assert isinstance(config, PolyvexConfig)
    assert config.encoders[0] == {
        "use": "patchify",
        "name": "patchify",
        "image_size": 32,
        "patch_size": 16,
        "dim": 8,
        "seed": 0,
        "tiling": None,
        "precision": "float32",
        "tune": "frozen",
        "lora": None,
        "reduce": None,
        "positions": None,
    }
    assert config.fusion["use"] == "mlp"
    assert config.positions == {"use": "share_row", "base": "sequential"}
    assert config.moe["num_experts"] == 4
    assert config.moe["router"]["use"] == "top_k"
    assert config.plugins["patchify"].startswith("polyvex-basics==")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_precision_can_be_asked_for(dtype: torch.dtype, make_built: Make, tmp_path: Path) -> None:
    built = make_built("positions.use=share_row_col", experts=True)
    model = AutoModelForImageTextToText.from_pretrained(save(built, tmp_path), dtype=dtype)
    assert {parameter.dtype for parameter in model.lm.parameters()} == {dtype}
    inputs = inputs_of(built.processor)
    assert logits_of(model, inputs).isfinite().all()
    pixels = inputs.pop("pixel_values")
    tokens = {name: built.model.encoders[name](pixels[name]).values for name in pixels}  # as the cache has them
    assert logits_of(model, {**inputs, "encoder_tokens": tokens}).isfinite().all()


@pytest.fixture
def without_encoders(make_built: Make, tmp_path: Path, tiny_recipe: Callable[..., Any], registries: Registries) -> Path:
    """A checkpoint as stages write it."""
    from polyvex.assemble import build_model

    built = make_built()
    model, _ = build_model(tiny_recipe(), built.processor, registries, encoders=False)
    state = {name: value for name, value in built.model.state_dict().items() if not name.startswith("encoders.")}
    model.load_state_dict(state)
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_inside_a_run_takes_cached_tokens(
    without_encoders: Path, shared_built: Make, registries: Registries
) -> None:
    model = PolyvexForConditionalGeneration.from_pretrained(without_encoders, registries=registries)
    assert not [name for name in model.state_dict() if name.startswith("encoders.")]
    built = shared_built()
    inputs = inputs_of(built.processor)
    tokens = {name: built.model.encoders[name](pixels).values for name, pixels in inputs["pixel_values"].items()}
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(logits_of(model, {**ids, "encoder_tokens": tokens}), logits_of(built.model, inputs))


def test_a_checkpoint_inside_a_run_refuses_pixels(without_encoders: Path, shared_built: Make) -> None:
    model = PolyvexForConditionalGeneration.from_pretrained(without_encoders)
    with pytest.raises(ContractError) as caught:
        model(**inputs_of(shared_built().processor))
    assert str(caught.value) == (
        "this checkpoint has no encoder 'patchify' (it is one inside a run). Pass its encoder_tokens instead"
    )


def test_encoders_can_be_attached_and_saved(
    without_encoders: Path, shared_built: Make, tmp_path: Path, registries: Registries
) -> None:
    model = PolyvexForConditionalGeneration.from_pretrained(without_encoders, registries=registries)
    reports = model.attach_encoders(registries)
    assert set(reports) == {"patchify", "color-grid"}
    assert not any(parameter.requires_grad for parameter in model.encoders.parameters())
    model.save_pretrained(tmp_path / "whole")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole")
    built = shared_built()
    inputs = inputs_of(built.processor)
    assert torch.equal(logits_of(again, inputs), logits_of(built.model, inputs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("fusion.first.0.weight"), r"missing: fusion\.first\.0\.weight"),
        (
            lambda state: state.pop("lm.model.layers.1.mlp.up_proj.weight"),
            r"missing: lm\.model\.layers\.1\.mlp\.up_proj",
        ),
        (lambda state: state.pop("encoders.patchify.projection"), r"missing: encoders\.patchify\.projection"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda state: state.update({"fusion.first.0.weight": torch.zeros(32, 9)}), r"fusion\.first\.0\.weight"),
    ],
    ids=["fusion", "lm", "encoder", "unexpected", "shape"],
)
def test_weights_that_differ_are_an_error_never_random(
    change: Callable[[dict[str, Tensor]], None], message: str, make_built: Make, tmp_path: Path
) -> None:
    path = save(make_built(), tmp_path)
    change_weights(path, change)
    with pytest.raises(WeightsError, match=message):
        AutoModelForImageTextToText.from_pretrained(path)


def test_truncated_weights_are_an_error_with_the_path(make_built: Make, tmp_path: Path) -> None:
    path = save(make_built(), tmp_path)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=str(path)):
        AutoModelForImageTextToText.from_pretrained(path)


def test_a_missing_plugin_is_named_with_its_distribution(make_built: Make, tmp_path: Path) -> None:
    path = save(make_built(), tmp_path)
    bare = load_registries(third_party=False)
    for kind in (PolyvexForConditionalGeneration, PolyvexProcessor):
        with pytest.raises(PluginError, match=r"unknown encoder 'patchify'.* pip install 'polyvex-basics==0\.1\.0'"):
            kind.from_pretrained(path, registries=bare)


def test_tied_embeddings_stay_tied(make_built: Make, tmp_path: Path) -> None:
    lm = LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2, tie_word_embeddings=True))
    lm.save_pretrained(tmp_path / "lm")
    SmallLlama(SmallLlamaOptions(vocab_size=300)).tokenizer(["some text"]).save_pretrained(tmp_path / "lm")
    built = make_built(lm={"use": "pretrained", "checkpoint": str(tmp_path / "lm")}, moe=None, stages=[
        {"name": "a", "trains": ["connector"], "steps": 1}
    ])  # fmt: skip
    assert built.model.lm.lm_head.weight is built.model.lm.model.embed_tokens.weight
    model = AutoModelForImageTextToText.from_pretrained(save(built, tmp_path / "run"))
    assert model.lm.lm_head.weight is model.lm.model.embed_tokens.weight
    inputs = inputs_of(built.processor)
    assert torch.equal(logits_of(model, inputs), logits_of(built.model, inputs))


def test_a_pretrained_model_starts_with_its_own_weights(
    make_built: Make, tiny_recipe: Callable[..., Any], registries: Registries, tmp_path: Path
) -> None:
    from polyvex.assemble import build

    lm = LlamaForCausalLM(
        LlamaConfig(vocab_size=300, hidden_size=16, intermediate_size=24, num_attention_heads=2, num_hidden_layers=1)
    )
    lm.save_pretrained(tmp_path / "lm")
    SmallLlama(SmallLlamaOptions(vocab_size=300)).tokenizer(["some text"]).save_pretrained(tmp_path / "lm")
    recipe = tiny_recipe(lm={"use": "pretrained", "checkpoint": str(tmp_path / "lm")})
    model = build(recipe, registries=registries).model
    for name, value in lm.state_dict().items():
        assert torch.equal(model.lm.state_dict()[name], value), name
