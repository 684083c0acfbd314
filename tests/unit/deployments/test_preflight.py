"""A start that cannot succeed is refused at once, in one sentence."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

from cluster.config import Config, parse
from cluster.errors import CheckpointError, ConfigError
from deployments.preflight import check

PROFILE = """
profile: test
topology: monolith
state_dir: {checkpoint}-state
models: [{{name: skyreels-v3-r2v, checkpoint: {checkpoint}}}]
pools: [{{name: Monolith, stages: [text, condition, denoise, decode]}}]
api: {{port: {port}}}
ray: {{dashboard_port: {other[0]}, metrics_port: {other[1]}}}
"""


def config(checkpoint: str, port: int, *other: int) -> Config:
    return parse(PROFILE.format(checkpoint=checkpoint, port=port, other=other), "test")


@pytest.fixture
def ports() -> list[int]:
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


def test_free_ports_and_a_folder_pass(tmp_path: Path, ports: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(config(str(tmp_path), *ports))
    check(config("Skywork/SkyReels-V3-R2V-14B", *ports))


def test_a_taken_port_is_named(tmp_path: Path, ports: list[int]) -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", ports[0]))
        owner.listen()
        with pytest.raises(ConfigError, match=f"api.port: 127.0.0.1:{ports[0]} is in use"):
            check(config(str(tmp_path), *ports))


def test_a_missing_folder_is_named(tmp_path: Path, ports: list[int]) -> None:
    with pytest.raises(CheckpointError, match="nowhere of skyreels-v3-r2v is not there"):
        check(config(str(tmp_path / "nowhere"), *ports))


def test_a_missing_base_is_named(tmp_path: Path, ports: list[int]) -> None:
    found = config(str(tmp_path), *ports)
    served = found.models[0].model_copy(update={"base": str(tmp_path / "elsewhere")})
    with pytest.raises(CheckpointError, match="elsewhere of skyreels-v3-r2v is not there"):
        check(found.model_copy(update={"models": (served,)}))


def test_a_job_store_of_another_version_is_refused(tmp_path: Path, ports: list[int]) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights-state").mkdir()
    with sqlite3.connect(tmp_path / "weights-state" / "jobs.db") as old:
        old.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        old.execute("INSERT INTO alembic_version VALUES ('0001')")
    old.close()
    with pytest.raises(ConfigError, match=r"store\.url: the database has schema '0001'"):
        check(config(str(tmp_path / "weights"), *ports))


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path, ports: list[int]) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights-state").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"artifacts\.root: .* cannot be written and read back"):
        check(config(str(tmp_path / "weights"), *ports))
