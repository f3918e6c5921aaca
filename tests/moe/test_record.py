"""Reading the routers' decisions while a forward runs."""

import pytest
import torch
from torch import nn

from polyvex.moe import TopKRouter
from polyvex.moe.record import record_routing
from polyvex.moe.routers import TopKOptions


@pytest.fixture
def routers() -> nn.Sequential:
    class Through(nn.Module):
        """A router in the middle of a network: routes, and passes its input on."""

        def __init__(self) -> None:
            super().__init__()
            self.router = TopKRouter(TopKOptions(k=1), dim=4, num_experts=3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            self.router(tokens)
            return tokens + 1

    return nn.Sequential(Through(), Through())


def test_decisions_come_in_the_order_of_the_layers(routers: nn.Sequential) -> None:
    tokens = torch.randn(5, 4)
    with record_routing(routers) as found:
        routers(tokens)
    assert len(found) == 2
    assert torch.equal(found[0].logits, routers[0].router(tokens).logits)
    assert torch.equal(found[1].logits, routers[1].router(tokens + 1).logits)


def test_nothing_is_recorded_outside_the_block(routers: nn.Sequential) -> None:
    with record_routing(routers) as found:
        pass
    routers(torch.randn(5, 4))
    assert found == []


def test_hooks_are_taken_off_after_an_error(routers: nn.Sequential) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), record_routing(routers):
        raise RuntimeError("on purpose")
    assert all(not module._forward_hooks for module in routers.modules())


def test_blocks_may_be_nested(routers: nn.Sequential) -> None:
    with record_routing(routers) as outer:
        routers(torch.randn(5, 4))
        with record_routing(routers) as inner:
            routers(torch.randn(5, 4))
    assert (len(outer), len(inner)) == (4, 2)
