"""PostgreSQL over TLS: the certificate is checked as the URL says, and what is wrong is one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import make_url

from cluster.errors import ConfigError
from cluster.store import open_store
from cluster.store.database import Database
from cluster.store.sql import database_at
from tests.certificates import self_signed
from tests.postgres import PASSWORD, Server, private_server

ENCRYPTED = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


class Secured(NamedTuple):
    """A server whose certificate is for 127.0.0.1, one of its databases, and two authorities' files."""

    server: Server
    url: str
    signer: Path  # of the server's certificate
    stranger: Path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("authorities")
    certificate, key = self_signed("127.0.0.1")
    (folder / "signer.pem").write_bytes(certificate)
    (folder / "stranger.pem").write_bytes(self_signed("127.0.0.1")[0])
    with private_server(tls=(certificate, key)) as server:
        yield Secured(server, server.new(), folder / "signer.pem", folder / "stranger.pem")


def at(secured: Secured, host: str = "127.0.0.1", **query: str | Path) -> str:
    """The database's URL with libpq's parameters."""
    url = make_url(secured.url).set(host=host, query={name: str(value) for name, value in query.items()})
    return url.render_as_string(hide_password=False)


async def encrypted(database: Database) -> bool:
    await database.open()
    try:
        async with database.read() as tx:
            ssl, _version = (await tx.conn.exec_driver_sql(ENCRYPTED)).one()
            return bool(ssl)
    finally:
        await database.close()


async def test_a_certificate_of_the_named_authority_is_accepted(secured: Secured) -> None:
    assert await encrypted(database_at(at(secured, sslmode="verify-full", sslrootcert=secured.signer)))
    assert await encrypted(database_at(at(secured, sslmode="verify-ca", sslrootcert=secured.signer, host="localhost")))
    assert await encrypted(database_at(at(secured, sslmode="require")))
    assert not await encrypted(database_at(at(secured, sslmode="disable")))


@pytest.mark.parametrize(
    ("host", "authority", "complaint"),
    [
        ("127.0.0.1", "stranger", "self-signed certificate"),
        ("localhost", "signer", "localhost"),  # the certificate is for the address
    ],
)
async def test_another_certificate_is_refused_in_one_sentence(
    secured: Secured, host: str, authority: str, complaint: str
) -> None:
    url = at(secured, host, sslmode="verify-full", sslrootcert=getattr(secured, authority))
    with pytest.raises(ConfigError, match=r"^store\.url: the server's TLS is not accepted: ") as caught:
        await open_store(url).open()
    assert complaint in caught.value.message
    assert caught.value.message.count(".") == 2  # one sentence, and the dot of store.url
    assert PASSWORD not in caught.value.message


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_an_authority_that_cannot_be_read_is_refused(
    secured: Secured, tmp_path: Path, content: bytes | None
) -> None:
    authority = tmp_path / "ca.pem"
    if content is not None:
        await asyncio.to_thread(authority.write_bytes, content)
    with pytest.raises(ConfigError, match=r"^store\.url: ") as caught:
        await open_store(at(secured, sslmode="verify-full", sslrootcert=authority)).open()
    assert str(authority) in caught.value.message
