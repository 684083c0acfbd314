"""Only the processes of the system at the address are ever hurt."""

from __future__ import annotations

import socket

import pytest

from loadtest.processes import NotHere, Processes


def test_an_address_without_a_serve_proxy_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(NotHere, match="No Serve proxy"):
            Processes(f"http://127.0.0.1:{other.getsockname()[1]}")
