"""BRAVE's Q-Former: one set of queries, all encoders' tokens."""

from typing import Any

import pytest
import torch

from polyvex.fusion import MultiQFormerFusion, QFormerFusion
from polyvex.fusion.multi_qformer import MultiQFormerOptions
from polyvex.fusion.qformer import QFormerFusionOptions
from polyvex.tokens import Grid, TokenShape, VisualTokens

SMALL: dict[str, Any] = {"queries": 4, "hidden": 16, "layers": 3, "heads": 2, "ffn": 32, "width": 24}
MAP = TokenShape(tokens=6, dim=5, grid=Grid(rows=2, cols=3))
LOOSE = TokenShape(tokens=4, dim=7)


def fuse(*inputs: TokenShape, **options: Any) -> MultiQFormerFusion:
    torch.manual_seed(0)
    return MultiQFormerFusion(MultiQFormerOptions(**{**SMALL, **options}), inputs=inputs, dim=10)


def random_parts(*inputs: TokenShape) -> list[VisualTokens]:
    torch.manual_seed(1)
    return [VisualTokens.on_grid(torch.randn(3, one.tokens, one.dim), one.grid) for one in inputs]


def test_one_encoder_is_qformer() -> None:
    fusion, alone = fuse(MAP), QFormerFusion(QFormerFusionOptions(**SMALL), inputs=[MAP], dim=10)
    alone.qformers[0].load_state_dict(fusion.qformer.state_dict())
    alone.ins[0].load_state_dict(fusion.ins[0].state_dict())
    alone.outs[0].load_state_dict(fusion.out.state_dict())
    with torch.no_grad():
        alone.query_tokens[0].copy_(fusion.query_tokens)
    parts = random_parts(MAP)
    assert torch.equal(fusion(parts).values, alone(parts).values)


def test_an_encoder_cut_in_two_is_the_same_as_whole() -> None:
    # Attention sees a set of tokens: halves that share their first layer are what the whole is.
    whole, cut = fuse(MAP), fuse(TokenShape(tokens=2, dim=5), TokenShape(tokens=4, dim=5))
    cut.qformer.load_state_dict(whole.qformer.state_dict())
    cut.out.load_state_dict(whole.out.state_dict())
    for layer in cut.ins:
        layer.load_state_dict(whole.ins[0].state_dict())
    with torch.no_grad():
        cut.query_tokens.copy_(whole.query_tokens)
    (part,) = random_parts(MAP)
    split = [VisualTokens.on_grid(values, None) for values in part.values.split([2, 4], dim=1)]
    assert torch.allclose(whole([part]).values, cut(split).values, atol=1e-6)


def test_every_token_depends_on_every_encoder() -> None:
    fusion = fuse(MAP, LOOSE)
    parts = random_parts(MAP, LOOSE)
    values = fusion(parts).values
    for index in range(2):
        changed = list(parts)
        changed[index] = VisualTokens(values=parts[index].values + 1, layout=parts[index].layout)
        assert ((fusion(changed).values - values).abs().amax(dim=-1) > 1e-6).all()


def test_the_number_of_tokens_does_not_depend_on_the_encoders() -> None:
    assert fuse(MAP).shapes == fuse(MAP, LOOSE, MAP).shapes == [TokenShape(tokens=4, dim=10)]


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="heads = 5 does not divide hidden = 16"):
        fuse(MAP, heads=5)


def test_braves_number_of_queries() -> None:
    assert MultiQFormerFusion.Options().queries == 160
