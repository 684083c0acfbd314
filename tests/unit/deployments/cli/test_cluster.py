"""`skyreels cluster` as an operator types it, against an API server over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from cluster.errors import ConfigError, SkyreelsError
from deployments.cli.main import app
from tests.kube.installation import LIVE, NAME, group, ray_cluster, ray_service, serving
from tests.kube.server import KubeServer

Run = Callable[..., str]


@pytest.fixture
def server() -> Iterator[KubeServer]:
    with KubeServer() as server:
        server.install("ray.io_rayservices", "ray.io_rayclusters")
        yield server


@pytest.fixture
def run(server: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    path = tmp_path / "kubeconfig"
    path.write_text(server.kubeconfig())
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def typed(*words: str, stdin: str | None = None, failing: type[SkyreelsError] | None = None) -> str:
        result: Result = runner.invoke(app, ["cluster", *words, "--kubeconfig", str(path)], input=stdin)
        if failing is None:
            assert result.exit_code == 0, (result.output, result.exception)
        else:
            assert isinstance(result.exception, failing), (result.output, result.exception)
            return result.output + str(result.exception)
        return result.output

    return typed


def rendered(*groups: dict[str, object]) -> str:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {}}
    return yaml.safe_dump_all([config_map, ray_service(*groups)])


def test_the_way_of_an_installation(server: KubeServer, run: Run) -> None:
    text = rendered()
    assert run("plan", "-f", "-", stdin=text) == "create: RayService studio, +8 GPUs\n"
    assert run("apply", "-f", "-", stdin=text) == "ConfigMap app applied\nRayService studio applied\n"
    assert run("apply", "-f", "-", stdin=text) == "ConfigMap app unchanged\nRayService studio unchanged\n"
    assert "within 1 s: the operator has not seen" in run("wait", NAME, "--timeout", "1", failing=SkyreelsError)
    server.remove(ray_service())
    serving(server)
    assert run("wait", NAME) == "ready\n"
    upgraded = rendered(group("encode", 1, 8), group("dit", 1, 4, gpus=8))
    assert "by scale-bounds: worker group encode from 1–4 to 1–8" in run("plan", "-f", "-", stdin=upgraded)
    assert run("scale-bounds", NAME, "--group", "encode=1:8") == "encode: 1 to 8 replicas\n"
    assert run("scale-bounds", NAME) == "encode: 1 to 4 replicas\n"
    assert run("drain", NAME) == "draining\n"
    assert "drained" in run("status", NAME)
    assert run("resume", NAME) == "resumed\n"
    assert run("resume", NAME) == "is not drained\n"


def test_status_is_one_screen(server: KubeServer, run: Run) -> None:
    serving(server)
    screen = run("status", NAME)
    assert f"{NAME} in video: ready" in screen
    assert f"cluster {LIVE}" in screen
    for words in (("Denoiser", "UPDATING: 1 of 2"), ("dit", "1", "4", "none")):
        assert any(all(word in line for word in words) for line in screen.splitlines()), screen
    assert len(screen.splitlines()) < 24


def test_preflight_prints_a_line_each_and_fails(server: KubeServer, run: Run) -> None:
    lines = run("preflight", failing=ConfigError).splitlines()
    assert any(line.startswith("pass Kubernetes: v1.33.1") for line in lines)
    assert any(line.startswith("fail KubeRay: no operator → install") for line in lines)
    assert lines[-1] == "1 of 8 checks failed: KubeRay."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("scale-bounds", NAME, "--group", "dit=4"), r"write GROUP=MIN:MAX"),
        (("drain", NAME, "--suspend"), "--suspend needs --url"),
        (("plan", "-f", "missing.yaml"), "missing.yaml cannot be read: No such file"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Run, words: tuple[str, ...], message: str) -> None:
    assert message in run(*words, failing=ConfigError)


def test_a_live_cluster_of_another_shape_is_told(server: KubeServer, run: Run) -> None:
    service = serving(server)
    server.remove(ray_cluster(service))
    assert f"{LIVE}" in run("scale-bounds", NAME, failing=SkyreelsError)
    assert "not shown" in run("status", NAME)
