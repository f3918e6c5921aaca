"""A component that reaches for the network fails, also when it lives with being refused."""

import contextlib
import socket
import urllib.request
from typing import Any

import pytest
from PIL.Image import Image
from torch import Tensor

from polyvex.encoders import EncoderFacts, EncoderOptions, WeightsPlace
from polyvex.testing import check_encoder
from polyvex.testing.network import no_network

from .good import Good, GoodOptions

URL = "http://weights.invalid/model.bin"
"""A name that cannot be of any host: https://www.rfc-editor.org/rfc/rfc2606."""


def fetch() -> None:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(URL, timeout=1)


class FetchesWhenDescribed(Good):
    @classmethod
    def describe(cls, options: EncoderOptions) -> EncoderFacts:
        fetch()
        return super().describe(options)


class FetchesToFindWeights(Good):
    @classmethod
    def weights(cls, options: EncoderOptions) -> WeightsPlace:
        fetch()
        return super().weights(options)


class FetchesWhenBuilt(Good):
    def __init__(self, options: GoodOptions):
        super().__init__(options)
        fetch()


class FetchesInTheTransform(Good):
    def transform(self, image: Image) -> Tensor:
        fetch()
        return super().transform(image)


class FetchesInTheForward(Good):
    def features(self, pixels: Tensor) -> Tensor:
        fetch()
        return super().features(pixels)


class FailsWithoutTheNetwork(Good):
    def features(self, pixels: Tensor) -> Tensor:
        urllib.request.urlopen(URL, timeout=1)
        return super().features(pixels)


CALLS = (
    *(FetchesWhenDescribed, FetchesToFindWeights, FetchesWhenBuilt, FetchesInTheTransform),
    *(FetchesInTheForward, FailsWithoutTheNetwork),
)


@pytest.mark.parametrize("broken", CALLS, ids=lambda broken: broken.__name__)
def test_an_encoder_that_wants_the_network_fails(broken: type[Good]):
    with pytest.raises(AssertionError, match=f"{broken.__name__} wants to reach weights.invalid over the network"):
        check_encoder(broken, GoodOptions())


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_a_bare_address_is_refused_too(method: str):
    with (
        socket.socket() as one,
        pytest.raises(AssertionError, match=r"it wants to reach 192\.0\.2\.1"),
        no_network("it"),
    ):
        getattr(one, method)(("192.0.2.1", 80))


def test_another_error_is_not_covered_up():
    with pytest.raises(KeyError, match="of its own"), no_network("it"):
        raise KeyError("of its own")


def test_processes_of_this_machine_may_talk(tmp_path: Any):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client, no_network("it"):
        server.bind(path)
        server.listen()
        client.connect(path)


def test_the_network_is_open_again_afterwards():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with no_network("it"):
            pass
        socket.create_connection(server.getsockname(), timeout=5).close()

    assert "connect" not in vars(socket.socket)
