"""The Q-Former fusion is BLIP-2's bridge, for several encoders; weights of BLIP-2 fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from polyvex.assemble import build
from polyvex.encoders import sha256_of
from polyvex.errors import RunError, WeightsError
from polyvex.fusion import QFormerFusion
from polyvex.fusion.qformer import QFormerFusionOptions
from polyvex.hooks.manager import Registries
from polyvex.plan import make_plan
from polyvex.recipe import Recipe
from polyvex.tokens import Grid, TokenShape, VisualTokens
from polyvex.training.stages import train

SMALL: dict[str, Any] = {"queries": 4, "hidden": 16, "layers": 3, "heads": 2, "ffn": 32, "width": 24}
EVA = TokenShape(tokens=9, dim=24, grid=Grid(rows=3, cols=3))  # as wide as the Q-Former wants
OTHER = TokenShape(tokens=5, dim=7)


def fuse(*inputs: TokenShape, dim: int = 10, **options: Any) -> QFormerFusion:
    torch.manual_seed(0)
    return QFormerFusion(QFormerFusionOptions(**{**SMALL, **options}), inputs=inputs, dim=dim)


def reference(*, text: bool = False) -> Blip2QFormerModel:
    """transformers' own, of the same small sizes, with weights that are not all near zero."""
    torch.manual_seed(1)
    config = Blip2QFormerConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        cross_attention_frequency=2,
        encoder_hidden_size=24,
        use_qformer_text_input=text,
    )
    model = Blip2QFormerModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def checkpoint(text: bool = False) -> dict[str, Tensor]:
    """A BLIP-2 checkpoint in small: its bridge, and weights of what stands before and behind it."""
    state = {f"qformer.{key}": value for key, value in reference(text=text).state_dict().items()}
    others = ("vision_model.post_layernorm.weight", "language_projection.weight")
    return {**state, "query_tokens": torch.randn(1, 4, 16), **{key: torch.zeros(2) for key in others}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(checkpoint(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"qformer_config": {"num_attention_heads": 2}}))
    return tmp_path


def test_its_qformer_is_that_of_transformers() -> None:
    model, fusion = reference(), fuse(EVA)
    fusion.qformers[0].load_state_dict(model.state_dict(), strict=True)  # the same names, all of them
    queries, tokens = torch.randn(3, 4, 16), torch.randn(3, 9, 24)
    with torch.no_grad():
        expected = model(query_embeds=queries, encoder_hidden_states=tokens).last_hidden_state
        assert torch.allclose(fusion.qformers[0](queries, tokens), expected, atol=1e-6, rtol=0)


def test_one_encoder_of_the_right_width_is_blip2s_bridge() -> None:
    # BLIP-2: queries → Q-Former over the encoder's tokens → a linear layer to the language model's width.
    model, fusion = reference(), fuse(EVA)
    fusion.qformers[0].load_state_dict(model.state_dict())
    tokens = torch.randn(3, 9, 24)
    with torch.no_grad():
        queries = fusion.query_tokens[0].expand(3, -1, -1)
        found = model(query_embeds=queries, encoder_hidden_states=tokens).last_hidden_state
        expected = nn.functional.linear(found, fusion.outs[0].weight, fusion.outs[0].bias)
        assert torch.allclose(fusion([VisualTokens.on_grid(tokens, EVA.grid)]).values, expected, atol=1e-6)


def test_the_defaults_are_blip2s() -> None:
    config, options = Blip2QFormerConfig(), QFormerFusionOptions()
    assert options.hidden == config.hidden_size
    assert options.layers == config.num_hidden_layers
    assert options.heads == config.num_attention_heads
    assert options.ffn == config.intermediate_size
    assert options.cross_every == config.cross_attention_frequency
    assert options.width == config.encoder_hidden_size


@pytest.mark.parametrize(("share_weights", "qformers"), [(True, 1), (False, 2)])
@pytest.mark.parametrize(("share_queries", "sets"), [(True, 1), (False, 2)])
def test_what_encoders_share(share_weights: bool, qformers: int, share_queries: bool, sets: int) -> None:
    fusion = fuse(EVA, OTHER, share_weights=share_weights, share_queries=share_queries)
    assert (len(fusion.qformers), len(fusion.query_tokens)) == (qformers, sets)
    # An encoder has no first layer where it has the Q-Former to itself and is as wide as that wants.
    assert [isinstance(one, nn.Identity) for one in fusion.ins] == [not share_weights, False]


def test_each_run_depends_on_its_encoder_alone() -> None:
    fusion = fuse(EVA, OTHER)
    parts = [VisualTokens.on_grid(torch.randn(2, one.tokens, one.dim), one.grid) for one in (EVA, OTHER)]
    values = fusion(parts).values
    other = fusion([parts[0], VisualTokens.on_grid(torch.randn(2, 5, 7), None)]).values
    assert fusion.shapes == [TokenShape(tokens=4, dim=10)] * 2
    assert torch.equal(values[:, :4], other[:, :4])
    assert not torch.allclose(values[:, 4:], other[:, 4:])


def test_cross_attention_is_in_every_so_many_layers() -> None:
    layers = fuse(EVA, layers=5, cross_every=3).qformers[0].encoder["layer"]
    assert [layer.crossattention is not None for layer in layers] == [True, False, False, True, False]


def test_heads_that_do_not_divide_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"heads = 3 does not divide hidden = 16\. Use one of 1, 2, 4, 8, 16"):
        fuse(EVA, heads=3)


@pytest.mark.parametrize("share", [True, False])
def test_weights_of_blip2_reach_every_qformer_and_every_set_of_queries(folder: Path, share: bool) -> None:
    fusion = fuse(EVA, OTHER, weights=str(folder), share_weights=share, share_queries=share)
    before = [parameter.clone() for parameter in fusion.ins.parameters()]
    report = fusion.load_pretrained()
    state = checkpoint()
    wanted = {key.removeprefix("qformer."): value for key, value in state.items() if key.startswith("qformer.")}
    for qformer in fusion.qformers:
        assert all(torch.equal(value, wanted[key]) for key, value in qformer.state_dict().items())
    assert all(torch.equal(queries, state["query_tokens"]) for queries in fusion.query_tokens)
    assert all(parameter.requires_grad for parameter in fusion.parameters())
    assert all(torch.equal(one, other) for one, other in zip(fusion.ins.parameters(), before, strict=True))
    assert report is not None
    assert len(report.loaded) == len(wanted) + 1
    assert report.unused == ["language_projection.weight", "vision_model.post_layernorm.weight"]


def test_the_branch_that_reads_text_is_left_out_and_told(tmp_path: Path) -> None:
    save_file(checkpoint(text=True), tmp_path / "blip2.safetensors")
    report = fuse(EVA, weights=str(tmp_path / "blip2.safetensors")).load_pretrained()
    assert report is not None
    assert "qformer.encoder.layer.0.intermediate.dense.weight" in report.unused
    assert "qformer.encoder.layer.2.output.LayerNorm.bias" in report.unused


def test_a_checkpoint_in_several_files_is_read_by_its_index(tmp_path: Path) -> None:
    state = checkpoint()
    names = {key: f"{'a' if index % 2 else 'b'}.safetensors" for index, key in enumerate(state)}
    for file in ("a.safetensors", "b.safetensors"):
        save_file({key: value for key, value in state.items() if names[key] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    fusion = fuse(EVA, weights=str(tmp_path))
    assert fusion.load_pretrained() is not None
    assert torch.equal(fusion.query_tokens[0], state["query_tokens"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 5}, r"query_tokens: file has \(1, 4, 16\), model wants \(1, 5, 16\)"),
        ({"layers": 2}, r"unexpected qformer\.encoder\.layer\.2"),
        ({"cross_every": 1}, r"missing qformer\.encoder\.layer\.1\.crossattention"),
        ({"heads": 4}, r"has 2 heads, the fusion 4\. Set heads = 2"),
    ],
)
def test_weights_of_other_sizes_are_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        fuse(EVA, weights=str(folder), **options).load_pretrained()


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights in .*; expected one of model\.safetensors"):
        fuse(EVA, weights=str(tmp_path)).load_pretrained()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_configuration_is_told(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json: not a configuration of BLIP-2"):
        fuse(EVA, weights=str(folder)).load_pretrained()


def blip2(tiny_recipe: Callable[..., Recipe], weights: Path, **sizes: int) -> Recipe:
    fusion = {"use": "qformer", **SMALL, **sizes, "weights": str(weights)}
    return tiny_recipe(fusion=fusion, positions={"use": "sequential"})


def test_a_plan_tells_that_a_checkpoint_is_missing(
    folder: Path, registries: Registries, tiny_recipe: Callable[..., Recipe]
) -> None:
    assert make_plan(blip2(tiny_recipe, folder), registries).missing == []
    (way,) = make_plan(blip2(tiny_recipe, folder / "none"), registries).missing
    assert way == f"fusion qformer: put a BLIP-2 checkpoint in transformers' format at {folder / 'none'}"


@pytest.mark.parametrize(("weights", "sizes"), [("none", {}), (".", {"queries": 5})], ids=["missing", "other sizes"])
def test_training_refuses_a_checkpoint_before_anything_is_encoded(
    weights: str,
    sizes: dict[str, int],
    folder: Path,
    registries: Registries,
    tiny_recipe: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    with pytest.raises(WeightsError, match=r"no weights|1 keys differ"):
        train(blip2(tiny_recipe, folder / weights, **sizes), tmp_path / "run", registries=registries, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_knows_the_checkpoint_that_it_began_with(
    folder: Path, registries: Registries, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe, out = blip2(tiny_recipe, folder), tmp_path / "run"
    train(recipe, out, registries=registries, progress=False, say=lambda _: None)
    (file,) = folder.glob("*.safetensors")
    assert json.loads((out / "lock.json").read_text())["fusion_sha256"] == sha256_of(file)
    file.unlink()  # a run that has got past its first stage needs it no longer
    train(recipe, out, registries=registries, progress=False, say=lambda _: None)
    save_file({**checkpoint(), "more": torch.zeros(1)}, file)
    with pytest.raises(RunError, match="fusion_sha256 is now"):
        train(recipe, out, registries=registries, progress=False, say=lambda _: None)


def test_a_model_that_is_built_starts_from_them(
    folder: Path, registries: Registries, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(fusion={"use": "qformer", **SMALL, "weights": str(folder)}, positions={"use": "sequential"})
    built = build(recipe, registries=registries, texts=["red or blue?"])
    assert len(built.weights["[fusion]"].loaded) > 50
    assert torch.equal(built.model.fusion.query_tokens[0], checkpoint()["query_tokens"])


def test_each_encoder_may_have_queries_of_its_own() -> None:
    fusion = fuse(OTHER, OTHER, share_queries=False)
    fusion.ins[1].load_state_dict(fusion.ins[0].state_dict())
    fusion.outs[1].load_state_dict(fusion.outs[0].state_dict())
    tokens = VisualTokens.on_grid(torch.randn(1, 5, 7), None)
    own = fusion([tokens, tokens]).values
    assert not torch.allclose(own[:, :4], own[:, 4:])
    with torch.no_grad():
        fusion.query_tokens[1].copy_(fusion.query_tokens[0])
    same = fusion([tokens, tokens]).values
    assert torch.allclose(same[:, :4], same[:, 4:], atol=1e-6)
