"""A laptop system under load and under attack, watched by a real Prometheus and a real collector of spans."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cluster.monitoring.families import FAMILIES, LABELS, OTHER
from deployments.cli.main import app
from tests.integration.conftest import HASTE, laptop
from tests.integration.system import DATA, System, until
from tests.integration.watching import Collector, Prometheus, Span, collecting, scraping

pytestmark = [pytest.mark.integration, pytest.mark.stress, pytest.mark.timeout(600)]

CHART = Path(__file__).parents[2] / "helm/skyreels"
BALL = "data:image/png;base64," + base64.b64encode((DATA / "ball.png").read_bytes()).decode()
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# Nobody scales here, and the job store is never away.
UNSEEN = {name for name, family in FAMILIES.items() if family.role == "autoscaler"} | {"skyreels_store_outages_total"}


@dataclass
class Watched:
    """The system, and the job that came with a caller's trace."""

    system: System
    collector: Collector
    prometheus: Prometheus | None
    traced: dict[str, Any]

    def server(self) -> Prometheus:
        if self.prometheus is None:
            pytest.skip("needs Prometheus: apt-get install prometheus")
        return self.prometheus


def ask(system: System, headers: dict[str, str] | None = None, **fields: Any) -> str:
    body = {"prompt": "A ball rolls", "images": [BALL], "seconds": "1", **fields}
    answer = system.client.post("/v1/videos", json=body, headers=headers)
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def read(system: System, video: str) -> dict[str, Any]:
    found: dict[str, Any] = system.client.get(f"/v1/videos/{video}").json()
    return found


def ended(system: System, video: str) -> bool:
    return read(system, video)["status"] in {"completed", "failed"}


def attack(system: System) -> None:
    """One job loses its worker and then its input, one a rank; one is cancelled in the middle of its work."""
    worker = system.replica("VaeRoom")
    worker.suspend()
    doomed = ask(system)
    until("its condition call waits", lambda: system.client.get("/v1/status").json()["busy"].get("condition"))
    for path in system.folder.rglob(f"{doomed}/inputs/*"):
        path.unlink()
    worker.kill()
    hurt = ask(system)
    until("it is denoised", lambda: read(system, hurt)["phase"] == "denoise")
    system.ranks()[0].kill()
    until("both have ended", lambda: ended(system, doomed) and ended(system, hurt), timeout_s=200)
    assert read(system, doomed)["status"] == "failed"
    assert read(system, hurt)["status"] == "completed"
    cancelled = ask(system, seconds="5")

    def half() -> bool:
        stages = read(system, cancelled)["stages"]
        return any(stage["stage"] == "denoise" and stage["step"] > 1 for stage in stages)

    until("it has made steps", half)
    system.client.post(f"/v1/videos/{cancelled}/cancel")


@pytest.fixture(scope="module")
def watched(folder: Path) -> Iterator[Watched]:
    with collecting() as collector:
        overrides = {
            **laptop(),
            **HASTE,
            "tracing": {"endpoint": collector.endpoint},
            "media": {"allow_hosts": [f"127.0.0.1:{collector.port}"]},
        }
        with System(folder / "watched", checkpoint="deep-r2v", overrides=overrides) as system:
            target = system.metrics_url.removeprefix("http://").removesuffix("/metrics")
            if shutil.which("prometheus") is None:
                yield Watched(system, collector, None, load(system, collector))
                return
            with scraping(folder / "prometheus", target, CHART / "rules") as prometheus:
                yield Watched(system, collector, prometheus, load(system, collector))


def load(system: System, collector: Collector) -> dict[str, Any]:
    """A few jobs; the one that came with a caller's trace, as it ended."""
    hook = f"http://127.0.0.1:{collector.port}/hook"
    traced = ask(system, {"traceparent": CALLER}, webhook_url=hook)
    others = [ask(system, n=2), ask(system)]
    until("the jobs have ended", lambda: all(ended(system, one) for one in (traced, *others)), timeout_s=250)
    attack(system)
    return read(system, traced)


def connected(spans: list[Span], root: str) -> bool:
    """Every span hangs under another or under the root's caller."""
    known = {span.id for span in spans} | {root}
    return all(span.parent in known for span in spans)


def test_one_connected_trace_of_a_job(watched: Watched) -> None:
    _, trace, parent, _ = CALLER.split("-")
    assert watched.traced["status"] == "completed"
    assert watched.traced["trace_id"] == trace
    expected = {"accept", "job", "send webhook", "denoise on rank 0", "denoise on rank 1"}
    for stage in ("text", "condition", "denoise", "decode"):
        expected |= {stage, f"queue {stage}", f"call {stage}"}
    found = until("the trace is whole", lambda: [*names] if expected <= (names := traced(watched, trace)) else None)
    assert set(found) == expected
    spans = watched.collector.of(trace)
    assert connected(spans, parent)
    assert Counter(span.id for span in spans).most_common(1)[0][1] == 1
    by_name = {span.name: span for span in spans}
    job = by_name["job"]
    assert job.parent == parent
    assert by_name["denoise"].parent == job.id
    assert by_name["denoise on rank 1"].parent == by_name["denoise"].id
    assert by_name["denoise on rank 1"].attributes["steps"] == 8
    assert job.began_ns <= by_name["text"].began_ns <= by_name["decode"].ended_ns <= job.ended_ns + 10**9
    assert {span.role for span in spans} >= {"Api", "Scheduler", "TextEncoder", "VaeRoom", "Courier"}
    assert not any(span.failed for span in spans)
    assert not any("prompt" in key for span in spans for key in span.attributes)


def traced(watched: Watched, trace: str) -> set[str]:
    return {span.name for span in watched.collector.of(trace)}


def test_every_job_has_a_trace_and_the_logs_name_it(watched: Watched) -> None:
    traces = {span.trace for span in watched.collector.spans}
    jobs = watched.system.client.get("/v1/videos").json()["data"]
    assert {job["trace_id"] for job in jobs} == traces
    assert any(span.failed for span in watched.collector.spans if span.name == "job")  # the one without its input
    logs = Path(re.findall(r"logs (\S+)", watched.system.log.read_text())[-1])
    trace = CALLER.split("-")[1]
    telling = {path.name for path in logs.rglob("*") if path.is_file() and trace in path.read_text(errors="replace")}
    assert len(telling) >= 4  # the Api, the Scheduler, and the stages' replicas


def families(text: str) -> dict[str, list[str]]:
    """The exposition's lines by our families' names."""
    found: dict[str, list[str]] = {name: [] for name in FAMILIES}
    for line in text.splitlines():
        if line.startswith("ray_skyreels_"):
            name = re.sub(r"_(bucket|sum|count)$", "", line.partition("{")[0].removeprefix("ray_"))
            found.setdefault(name, []).append(line)
    return found


def test_every_metric_of_the_registry_appears_and_nothing_else(watched: Watched) -> None:
    wanted = set(FAMILIES) - UNSEEN

    def seen() -> dict[str, list[str]] | None:
        found = families(httpx.get(watched.system.metrics_url, trust_env=False, timeout=30).text)
        missing = sorted(name for name in wanted if not found[name])
        watched.system.log.with_name("missing").write_text(" ".join(missing))
        return None if missing else found

    try:
        found = until("all families have series", seen, timeout_s=60, period_s=1)
    except AssertionError as error:
        raise AssertionError(watched.system.log.with_name("missing").read_text()) from error
    assert set(found) == set(FAMILIES)
    for name, lines in found.items():
        for line in lines:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            for label in FAMILIES[name].labels:
                values = LABELS[label].values
                assert values is None or labels[label] in values | {OTHER}, line
    processes = Counter(re.findall(r'WorkerId="(\w+)"', "\n".join(line for lines in found.values() for line in lines)))
    assert max(processes.values()) < 600


def test_promtool_likes_our_families(watched: Watched) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    text = httpx.get(watched.system.metrics_url, trust_env=False, timeout=30).text
    ours: dict[str, str] = {}  # without Ray's own labels, which have a style of their own, processes share series
    for line in text.splitlines():
        if "ray_skyreels_" in line.partition("{")[0]:
            series, _, value = line.rpartition(" ") if line[0] != "#" else (line, "", "")
            ours[re.sub(r'[A-Z]\w*="[^"]*",?', "", series)] = value
    told = [f"{series} {value}".rstrip() for series, value in ours.items()]
    done = subprocess.run(
        [promtool, "check", "metrics"], input="\n".join(told) + "\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboards_and_every_rule_returns_data(watched: Watched) -> None:
    server = watched.server()
    until("the newest series are scraped", lambda: server.query("ray_skyreels_wasted_seconds_total"), timeout_s=60)
    rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 50
    assert {rule["health"] for rule in rules} == {"ok"}
    records = {rule["name"]: rule["name"] for rule in rules if rule["type"] == "recording"}
    panels = {
        f"{path.stem}: {panel['title']}: {target['expr']}": target["expr"].replace("$__rate_interval", "1m")
        for path in (CHART / "dashboards").glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        if not panel["description"]  # else it needs exporters that are not here
        for target in panel["targets"]
    }
    queries = {
        name: expr
        for name, expr in (records | panels).items()
        if not set(re.findall(r"ray_(skyreels_\w+)", expr)) & UNSEEN
    }
    silent = until(
        "all queries return data",
        lambda: {name for name, expr in queries.items() if not server.query(expr)} or "none",
        timeout_s=1,
    )
    if silent != "none":
        until(f"data for {sorted(silent)}", lambda: all(server.query(queries[name]) for name in silent), timeout_s=40)


def test_top_shows_it_all(watched: Watched) -> None:
    args = ["top", "--metrics", watched.system.metrics_url, "--seconds", "0.5", "--every", "0.3"]
    shown = CliRunner().invoke(app, args)
    assert shown.exit_code == 0, shown.output
    for word in ("denoise", "text", "Denoiser", "skyreels-v3-r2v", "64P", "done"):
        assert word in shown.output
