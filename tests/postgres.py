"""A private PostgreSQL server for the tests, or databases on one that the caller names with `--postgres-url`."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, make_url

from loadtest.local import free_ports
from tests.integration.system import until

PASSWORD = "s3cret/@:#%"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))


class Databases:
    """Makes databases on a server."""

    def __init__(self, admin: URL) -> None:
        self.admin = admin

    def sql(self, statement: str, url: str | None = None) -> list[Any]:
        """Runs one statement, or several without rows, on a database; its rows. Not inside an event loop."""

        async def run() -> list[Any]:
            connection = await asyncpg.connect(**self._where(url), timeout=10)
            try:
                if ";" in statement:
                    await connection.execute(statement)
                    return []
                return list(await connection.fetch(statement))
            finally:
                await connection.close()

        with asyncio.Runner() as runner:
            return runner.run(run())

    def new(self) -> str:
        """The URL of a new, empty database."""
        name = f"skyreels_{uuid.uuid4().hex}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        return self.admin.set(drivername="postgresql+asyncpg", database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    def _where(self, url: str | None) -> dict[str, Any]:
        where = self.admin if url is None else make_url(url)
        return {
            "host": where.host,
            "port": where.port,
            "user": where.username,
            "password": where.password,
            "database": where.database or "postgres",
        }


class Server(Databases):
    """A server of our own in a temporary folder, which may be stopped and frozen. `tls` is its certificate and key."""

    def __init__(
        self, folder: Path, binaries: Path, *, durable: bool = False, tls: tuple[bytes, bytes] | None = None
    ) -> None:
        (port,) = free_ports(1)
        super().__init__(URL.create("postgresql", "skyreels", PASSWORD, "127.0.0.1", port, "postgres"))
        self._folder = folder
        self._binaries = binaries
        self._durable = "on" if durable else "off"  # what is measured must survive a power cut, what is tested need not
        self._account = _account()
        self._process: subprocess.Popen[bytes] | None = None
        password = folder / "password"
        password.write_text(PASSWORD)
        for path in (folder, password):
            os.chown(path, self._account.pw_uid, self._account.pw_gid)
        self._run("initdb", "-D", "data", "-U", "skyreels", "-E", "UTF8", "--no-locale", "--no-sync",
                  "-A", "scram-sha-256", "--pwfile", "password").check_returncode()  # fmt: skip
        self._tls: dict[str, str] = {}
        if tls is not None:
            for name, pem in zip(("server.crt", "server.key"), tls, strict=True):
                path = folder / "data" / name
                path.write_bytes(pem)
                path.chmod(0o600)
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
            self._tls = {"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}

    def start(self) -> Server:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.admin.port),
            "unix_socket_directories": "",
            "fsync": self._durable,
            "full_page_writes": self._durable,
            "max_connections": "150",
            "shared_buffers": "32MB",
            **self._tls,
        }
        command = [str(self._binaries / "postgres"), "-D", "data"]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as_account())
        until("PostgreSQL answers", self._answers, 60)
        return self

    def stop(self) -> None:
        """At once, as by a crash of its own: open transactions are lost, committed ones are not."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of the server stands still: connections stay open and nobody answers."""
        assert self._process is not None
        members = [self._process.pid, *_children(self._process.pid)]
        for pid in members:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in members:
                os.kill(pid, signal.SIGCONT)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text()[-3000:]
        try:
            return bool(self.sql("SELECT 1"))
        except (OSError, asyncpg.PostgresError):
            return False

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(self._binaries / program), *arguments], check=False, capture_output=True, **self._as_account()
        )

    def _as_account(self) -> dict[str, Any]:
        """The server refuses to run as root."""
        where: dict[str, Any] = {"cwd": self._folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
        if os.geteuid() == 0:
            where |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return where


@contextmanager
def private_server(*, durable: bool = False, tls: tuple[bytes, bytes] | None = None) -> Iterator[Server]:
    """A running server; skips the test when there are no binaries."""
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql) and --postgres-url is not given")
    folder = Path(tempfile.mkdtemp(prefix="skyreels-postgres-"))
    try:
        server = Server(folder, BINARIES[-1].parent, durable=durable, tls=tls)
        try:
            yield server.start()
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _account() -> pwd.struct_passwd:
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    names = {entry.pw_name for entry in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
