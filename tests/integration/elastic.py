"""One story of a laptop system whose stages are scaled with their work: a burst from nothing, an attack, and silence.

It is told once, watched by a real Prometheus and a real collector of spans; the tests look at what is left of it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from cluster.config import load
from cluster.serve_config import serve_config
from components.tiny import write_extension
from deployments.cli.main import app
from tests.integration.conftest import HASTE
from tests.integration.system import System, stage_of, until
from tests.integration.watching import CHART, Collector, Prometheus, collecting, scraping
from tests.unit.deployments.line import film, moving

SCALED = {"min_replicas": 0, "max_replicas": 2, "downscale_delay_s": 6.0}  # none leaves in mid burst
POOLS: dict[str, dict[str, Any]] = {
    "TextEncoder": {"stages": ["text"]},
    "Denoiser": {"stages": ["denoise"], "ranks": 2, **SCALED},
    "VaeRoom": {"stages": ["condition", "source", "decode"], **SCALED},
}
ELASTIC = tuple(name for name, pool in POOLS.items() if "max_replicas" in pool)
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BURST = 5
REPORT_MS = 3000  # Ray's processes report every ten seconds otherwise; what they must say again, they say every five


@dataclass
class Story:
    """What happened, and where."""

    system: System
    collector: Collector
    prometheus: Prometheus | None
    began: float = field(default_factory=time.time)
    most: Counter[str] = field(default_factory=Counter)  # replicas that a pool had at once
    jobs: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))  # as they ended, by their part
    schedulers: set[int] = field(default_factory=set)
    metrics: str = ""  # in the middle of it
    top: str = ""

    def server(self) -> Prometheus:
        if self.prometheus is None:
            pytest.skip("needs Prometheus: apt-get install prometheus")
        return self.prometheus

    def replicas(self) -> Counter[str]:
        """Live ones, as the job store knows them."""
        workers = self.system.client.get("/v1/status").json()["workers"]
        counts = Counter(str(worker["pool"]) for worker in workers)
        self.most |= counts
        return counts

    def live(self) -> tuple[int, ...]:
        counts = self.replicas()
        return tuple(counts[pool] for pool in ELASTIC)

    def logs(self) -> list[str]:
        """Lines of all workers."""
        log = self.system.log
        found = until("it is told where they are", lambda: re.search(r"logs\s+(/\S+)", log.read_text()))
        paths = Path(found[1]).glob("worker-*.err")
        return [line for path in paths for line in path.read_text(errors="replace").splitlines()]

    def ended(self, part: str, video: str) -> bool:
        self.replicas()
        self.jobs[part] = self.system.client.get(f"/v1/videos/{video}").json()
        return self.jobs[part]["status"] in {"completed", "failed"}


def redeploy(system: System, *, paused: bool) -> None:
    """As `skyreels cluster drain` and `resume` do through the operator."""
    body = serve_config(load(system.config))
    for entry in body["applications"][0]["deployments"]:
        if entry["name"] == "Scheduler":
            entry["user_config"]["paused"] = paused
    token = (system.folder / "state" / "ray-token").read_text().strip()
    response = httpx.put(
        f"{system.dashboard_url}/api/serve/applications/",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    )
    assert response.is_success, response.text


def extend(system: System, hook: str) -> str:
    """Asks for a chain of two chunks, with a trace of the caller's and a webhook."""
    fields = {"model": "skyreels-v3-extend", "prompt": "the ball rolls on", "seconds": "6", "webhook_url": hook}
    files = [("video", ("source.mp4", film(moving(30)), "video/mp4"))]
    answer = system.client.post("/v1/videos", data=fields, files=files, headers={"traceparent": CALLER})
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def burst(story: Story) -> None:
    """Jobs that wait for nobody but dispatching; one of them has lost its input when it begins."""
    system = story.system
    assert story.live() == (0, 0)
    story.schedulers.add(system.replica("Scheduler").pid)
    redeploy(system, paused=True)
    paused = '"message": "dispatching is paused"'
    until("dispatching is paused", lambda: any(paused in line for line in story.logs()), period_s=0.2)
    ids = {"chain": extend(system, f"http://127.0.0.1:{story.collector.port}/hook")}
    ids |= {f"burst {number}": system.submit(seed=str(number), n="2")["id"] for number in range(BURST)}
    ids["doomed"] = system.submit(seed="99", aspect_ratio="1:1")["id"]  # so that no encoding of it is kept
    for path in system.folder.rglob(f"{ids['doomed']}/inputs/*"):
        path.unlink()
    # Every pool on the way of the work starts although none of it has begun; with all there, nothing begins.
    until("the pools have started", lambda: all(story.live()), 240, period_s=0.2)
    assert not any(story.ended(part, video) or story.jobs[part]["status"] != "queued" for part, video in ids.items())
    redeploy(system, paused=False)
    for part, video in ids.items():
        until(f"{part} has ended", lambda p=part, v=video: story.ended(p, v), 240, period_s=0.2)
    story.schedulers.add(system.replica("Scheduler").pid)


def attack(story: Story) -> None:
    """One job is cancelled in the middle of its work; another loses ranks, then a worker."""
    system = story.system

    def stepped(video: str) -> bool:
        story.replicas()
        stage = stage_of(system.client.get(f"/v1/videos/{video}").json(), "denoise")
        return bool(stage["step"] > 2)  # its heartbeats have told of some work

    def decoder(video: str) -> int | None:
        """Process of the replica that decodes it now."""
        told = system.client.get("/v1/status").json()
        busy = {call["worker"] for call in told["running"] if (call["video_id"], call["stage"]) == (video, "decode")}
        return next((worker["pid"] for worker in told["workers"] if worker["id"] in busy), None)

    cancelled = system.submit(seconds="8")["id"]
    until("it has made steps", lambda: stepped(cancelled), 240)
    system.client.post(f"/v1/videos/{cancelled}/cancel")
    hurt = system.submit(seconds="8")["id"]
    until("it has made steps", lambda: stepped(hurt), 240)
    for rank in system.ranks():
        with suppress(psutil.NoSuchProcess):  # its group has just been scaled away
            rank.kill()
    os.kill(until("it is decoded", lambda: decoder(hurt), 240), signal.SIGKILL)
    for part, video in {"cancelled": cancelled, "hurt": hurt}.items():
        until(f"{part} has ended", lambda p=part, v=video: story.ended(p, v), 240, period_s=0.2)


def look(story: Story) -> None:
    """What somebody at a terminal sees in the middle of it."""
    story.metrics = httpx.get(story.system.metrics_url, trust_env=False, timeout=30).text
    args = ["top", "--metrics", story.system.metrics_url, "--seconds", "0.5", "--every", "0.3"]
    shown = CliRunner().invoke(app, args)
    assert shown.exit_code == 0, shown.output
    story.top = shown.output


@contextmanager
def elastic(folder: Path) -> Iterator[Story]:
    """The story, told; everything that watches it still runs."""
    write_extension(folder / "tiny-v2v")
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("RAY_metrics_report_interval_ms", str(REPORT_MS))
        collector = stack.enter_context(collecting())
        overrides = {
            **HASTE,
            "denoise": {**HASTE["denoise"], "loaded": 2},
            "topology": "disaggregated",
            "pools": [{"name": name, **pool} for name, pool in POOLS.items()],
            "autoscale": {"backlog_s": 0.2, "period_s": 0.2},
            "models": [
                {"name": "skyreels-v3-r2v", "checkpoint": str(folder / "deep-r2v"), "tiny": True},
                {"name": "skyreels-v3-extend", "checkpoint": str(folder / "tiny-v2v"), "tiny": True},
            ],
            "tracing": {"endpoint": collector.endpoint},
            "media": {"allow_hosts": [f"127.0.0.1:{collector.port}"]},
        }
        system = stack.enter_context(System(folder / "elastic", overrides=overrides))
        target = system.metrics_url.removeprefix("http://").removesuffix("/metrics")
        server = None
        if shutil.which("prometheus") is not None:
            server = stack.enter_context(scraping(folder / "prometheus", target, CHART / "rules"))
        story = Story(system, collector, server)
        burst(story)
        look(story)
        attack(story)
        until("both pools are gone", lambda: story.live() == (0, 0), period_s=0.2)
        yield story
