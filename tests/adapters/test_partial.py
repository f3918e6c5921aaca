"""Partial LoRA by hand: whose tokens are updated, by how much, and that the others are left alone."""

import pytest
import torch
from torch import nn

from polyvex.adapters import PartialLoRA, PartialLoRATable, put_partial_lora
from polyvex.context import TokenContext, TokenKinds
from polyvex.errors import ContractError

SOURCE = torch.tensor([[-1, 0, 0, 1, -1]])


def kinds(source: torch.Tensor) -> TokenKinds:
    return TokenKinds(valid=torch.ones_like(source, dtype=torch.bool), source=source)


def made(*, sources: int = 1, **options: float) -> PartialLoRA:
    torch.manual_seed(0)
    table = PartialLoRATable.model_validate({"rank": 2, "alpha": 6.0, "dropout": 0.0, **options})
    return PartialLoRA(nn.Linear(4, 3), table, sources=sources, context=TokenContext())


def test_nothing_changes_at_first() -> None:
    layer, tokens = made(), torch.randn(1, 5, 4)
    with layer.context.telling(kinds(SOURCE)):
        assert torch.equal(layer(tokens), layer.base_layer(tokens))
    assert layer.plora_A.abs().sum() > 0


def test_visual_tokens_alone_are_updated_by_alpha_over_rank() -> None:
    # alpha 6 over rank 2 scales by 3: W x + b + 3 · B A x.
    layer, tokens = made(), torch.randn(1, 5, 4)
    nn.init.normal_(layer.plora_B)
    with layer.context.telling(kinds(SOURCE)):
        said = layer(tokens)
    plain = layer.base_layer(tokens)
    update = 3 * (tokens @ layer.plora_A[0].T) @ layer.plora_B[0].T
    assert torch.equal(said[:, [0, 4]], plain[:, [0, 4]])
    assert torch.allclose(said[:, 1:4], (plain + update)[:, 1:4], atol=1e-6)


def test_each_encoder_has_its_own_update_if_wished() -> None:
    layer, tokens = made(sources=2), torch.randn(1, 5, 4)
    nn.init.normal_(layer.plora_B)
    with layer.context.telling(kinds(SOURCE)):
        said = layer(tokens) - layer.base_layer(tokens)
    for place, source in ((1, 0), (2, 0), (3, 1)):
        update = 3 * (tokens[0, place] @ layer.plora_A[source].T) @ layer.plora_B[source].T
        assert torch.allclose(said[0, place], update, atol=1e-5)
    assert not said[0, [0, 4]].any()


def test_outside_a_forward_nothing_is_visual() -> None:
    layer, tokens = made(), torch.randn(1, 5, 4)
    nn.init.normal_(layer.plora_B)
    assert torch.equal(layer(tokens), layer.base_layer(tokens))


@pytest.mark.parametrize("sources", [1, 2])
def test_text_alone_gives_gradients_of_zero_and_not_none(sources: int) -> None:
    # None would leave a process waiting whose neighbours had images.
    layer = made(sources=sources)
    with layer.context.telling(kinds(torch.full((1, 5), -1))):
        layer(torch.randn(1, 5, 4)).sum().backward()
    for weight in (layer.plora_A, layer.plora_B):
        assert weight.grad is not None
        assert not weight.grad.any()


def test_what_the_update_reads_is_dropped_while_training_alone() -> None:
    layer, tokens = made(dropout=0.5), torch.randn(1, 5, 4)
    nn.init.normal_(layer.plora_B)
    with layer.context.telling(kinds(SOURCE)):
        assert not torch.equal(layer(tokens), layer(tokens))
        layer.eval()
        assert torch.equal(layer(tokens), layer(tokens))


def test_a_layer_that_sees_other_tokens_says_so() -> None:
    layer = made()
    with layer.context.telling(kinds(SOURCE)), pytest.raises(ContractError, match="got 4 tokens, expected the 5"):
        layer(torch.randn(1, 4, 4))


def test_it_takes_the_place_of_layers_and_shows_their_weights() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    second = block[1]
    table = PartialLoRATable(rank=2)
    put_partial_lora(block, table, layers=["1"], sources=1, context=TokenContext())
    assert type(block[0]) is nn.Linear
    assert isinstance(block[1], PartialLoRA)
    assert block[1].weight is second.weight
    assert block[1].bias is second.bias
    assert block[1].plora_B.shape == (1, 2, 2)
