"""No check may pass by what the network gives: a plugin reads what is on this machine."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def no_network(who: str) -> Iterator[None]:
    """Refuse every connection while the block runs, and fail if one was tried, even if the refusal was caught.

    Sockets of this machine (addresses that are paths) stay open: processes talk to each other by them.

    Raises:
        AssertionError: names ``who``, and the host that was to be reached.
    """
    tried: list[str] = []
    connect = socket.socket.connect

    def refuse(host: object) -> None:
        tried.append(str(host))
        raise OSError(f"no network while a component is checked (wanted: {host})")

    def refuse_address(self: socket.socket, address: Any) -> None:
        return connect(self, address) if isinstance(address, str | bytes) else refuse(address[0])

    def refuse_name(host: object, *_: Any, **__: Any) -> None:
        refuse(host)

    with (
        patch.object(socket.socket, "connect", refuse_address),
        patch.object(socket.socket, "connect_ex", refuse_address),
        patch.object(socket, "getaddrinfo", refuse_name),
    ):
        try:
            yield
        except Exception as error:
            if tried:
                raise AssertionError(_told(who, tried)) from error
            raise
    if tried:
        raise AssertionError(_told(who, tried))


def _told(who: str, tried: list[str]) -> str:
    return (
        f"{who} wants to reach {tried[0]} over the network; "
        "read only what is on this machine, and say in weights() how to get what is not"
    )
