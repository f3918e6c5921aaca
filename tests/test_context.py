"""What layers are told of the tokens that run."""

import pytest
import torch

from polyvex.context import TokenContext, TokenKinds


def kinds(length: int) -> TokenKinds:
    return TokenKinds(valid=torch.ones(1, length, dtype=torch.bool), source=torch.zeros(1, length, dtype=torch.long))


ONE, TWO = kinds(1), kinds(2)


def test_it_is_told_for_the_length_of_a_block() -> None:
    context = TokenContext()
    assert context.now is None
    with context.telling(ONE):
        assert context.now is ONE
        with context.telling(TWO):
            assert context.now is TWO
        assert context.now is ONE
    assert context.now is None


def test_an_error_leaves_nothing_behind() -> None:
    context = TokenContext()
    with pytest.raises(ZeroDivisionError), context.telling(ONE):
        raise ZeroDivisionError
    assert context.now is None


def test_what_was_known_is_known_again_later() -> None:
    context = TokenContext()
    with context.telling(ONE):
        first, again = context.remembered()
    with first:
        assert context.now is None
    with context.telling(TWO):
        with again:
            assert context.now is ONE
        assert context.now is TWO
