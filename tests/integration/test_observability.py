"""Whole systems watched and scaled: what is left of one story (`tests.integration.elastic`)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.monitoring.alert import Alert
from cluster.monitoring.families import FAMILIES, LABELS, OTHER
from cluster.monitoring.write import ALERTS
from tests.integration.elastic import CALLER, ELASTIC, SCALED, Story, elastic
from tests.integration.system import until
from tests.integration.watching import CHART, Span

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

TRACE, PARENT = CALLER.split("-")[1:3]
MOST_SERIES = 800  # of ours that one process may have


@pytest.fixture(scope="module")
def story(folder: Path) -> Iterator[Story]:
    with elastic(folder) as story:
        yield story


# -- the story ---------------------------------------------------------------------------------------------------
def test_what_was_asked_for_was_done(story: Story) -> None:
    ends = {part: (job["status"], (job["error"] or {}).get("code")) for part, job in story.jobs.items()}
    assert ends.pop("doomed") == ("failed", "generation_failed")
    assert "input" in story.jobs["doomed"]["error"]["message"]
    assert ends.pop("cancelled") == ("failed", "cancelled")
    assert set(ends.values()) == {("completed", None)}


# -- scaling -----------------------------------------------------------------------------------------------------
def steps(story: Story, pool: str) -> list[tuple[int, str]]:
    """What a pool was scaled to, and why, in order, as the policy tells it in the logs of Serve's controller."""
    lines = [json.loads(line) for line in story.logs() if '"message": "scaling ' in line]
    found = []
    for line in sorted(lines, key=lambda line: str(line["time"])):
        if line["pool"] == pool:
            match = re.match(rf"scaling {pool} from \d+ to (\d+): (.+)$", line["message"])
            assert match is not None, line
            found.append((int(match[1]), match[2]))
    return found


@pytest.mark.parametrize("pool", ELASTIC)
def test_a_burst_takes_a_stage_from_nothing_to_its_most_and_back(story: Story, pool: str) -> None:
    assert story.most[pool] == SCALED["max_replicas"]
    until("it is told to be gone", lambda: steps(story, pool)[-1] == (0, "idle"), 60)
    targets = [target for target, _ in steps(story, pool)]
    assert targets[0] > 0, "it began with nothing"
    assert max(targets) == SCALED["max_replicas"], targets
    assert story.system.metric("ray_skyreels_autoscale_decisions_total", pool=pool, direction="up") >= 1
    assert len(story.schedulers) == 1  # to drain and to resume changed live settings


# -- traces ------------------------------------------------------------------------------------------------------
def connected(spans: list[Span], root: str) -> bool:
    """Every span hangs under another or under the root's caller."""
    known = {span.id for span in spans} | {root}
    return all(span.parent in known for span in spans)


def named(span: Span) -> tuple[str, int]:
    return span.name, int(span.attributes.get("chunk", 0))


def test_one_connected_trace_of_a_chain(story: Story) -> None:
    assert story.jobs["chain"]["trace_id"] == TRACE
    expected = {("accept", 0), ("job", 0), ("send webhook", 0)}
    for stage, chunk in (("text", 0), *((name, n) for n in (1, 2) for name in ("condition", "denoise", "decode"))):
        expected |= {(stage, chunk), (f"queue {stage}", chunk), (f"call {stage}", chunk)}
    expected |= {(f"denoise on rank {rank}", chunk) for rank in (0, 1) for chunk in (1, 2)}
    until("its last span has come", lambda: ("job", 0) in map(named, story.collector.of(TRACE)))
    spans = story.collector.of(TRACE)
    assert set(map(named, spans)) == expected
    assert connected(spans, PARENT)
    assert len({span.id for span in spans}) == len(spans)
    by_name = {named(span): span for span in spans}
    job = by_name["job", 0]
    assert job.parent == PARENT
    assert by_name["denoise", 2].parent == job.id
    assert by_name["denoise on rank 1", 2].parent == by_name["denoise", 2].id
    order = [by_name[name].began_ns for name in (("text", 0), ("denoise", 1), ("decode", 1), ("decode", 2))]
    assert [job.began_ns, *order] == sorted([job.began_ns, *order])
    assert by_name["decode", 2].ended_ns <= job.ended_ns + 10**9
    roles = {"Api", "Scheduler", "TextEncoder", "Denoiser", "Denoiser rank 0", "Denoiser rank 1", "VaeRoom", "Courier"}
    assert {span.role for span in spans} == roles
    assert not any(span.failed for span in spans)
    assert not any("prompt" in key for span in spans for key in span.attributes)


def test_every_job_has_a_trace_and_the_logs_name_it(story: Story) -> None:
    jobs = {job["trace_id"] for job in story.jobs.values()}
    until("every job has its span", lambda: {s.trace for s in story.collector.spans if s.name == "job"} == jobs)
    assert {span.trace for span in story.collector.spans} == jobs
    failed = {span.trace for span in story.collector.spans if span.name == "job" and span.failed}
    assert story.jobs["doomed"]["trace_id"] in failed
    telling = {line.partition('"message"')[2] for line in story.logs() if TRACE in line}
    assert len(telling) >= 4


# -- metrics -----------------------------------------------------------------------------------------------------
def test_every_metric_of_the_registry_appears_and_nothing_else(story: Story) -> None:
    server = story.server()
    series = server.get("series", **{"match[]": '{__name__=~"ray_skyreels_.+"}', "start": str(story.began)})
    found: dict[str, list[dict[str, str]]] = {}
    for labels in series:
        name = re.sub(r"_(bucket|sum|count)$", "", labels["__name__"].removeprefix("ray_"))
        found.setdefault(name, []).append(labels)
    assert set(found) == set(FAMILIES)
    for name, every in found.items():
        for labels in every:
            for label in FAMILIES[name].labels:
                values = LABELS[label].values
                assert values is None or labels[label] in values | {OTHER}, labels
    processes = Counter(labels["WorkerId"] for labels in series)
    assert max(processes.values()) < MOST_SERIES


@pytest.mark.parametrize(
    ("family", "labels"),
    [
        ("lost_total", 'stage="decode"'),
        ("retries_total", 'stage="decode", reason="worker_lost"'),
        ("group_rebuilds_total", ""),
        ("watchdog_events_total", 'event="call_lost"'),
        ("job_failures_total", 'code="generation_failed"'),
        ("wasted_seconds_total", 'stage="denoise", reason="cancelled"'),
        ("jobs_total", 'state="cancelled"'),
    ],
)
def test_the_first_of_its_kind_is_seen_by_a_rate(story: Story, family: str, labels: str) -> None:
    server, query = story.server(), f"sum(increase(ray_skyreels_{family}{{{labels}}}[5m])) > 0"
    until(f"{family} has grown", lambda: server.since(story.began, query), 30, period_s=1.0)


def test_every_query_of_the_dashboards_and_every_rule_returns_data(story: Story) -> None:
    server = story.server()
    rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 50
    assert {rule["health"] for rule in rules} == {"ok"}
    queries = {rule["name"]: rule["name"] for rule in rules if rule["type"] == "recording"}
    for path in (CHART / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            if not panel["description"]:  # else it needs exporters that are not here
                for target in panel["targets"]:
                    queries[f"{path.stem}: {panel['title']}: {target['expr']}"] = target["expr"]
    asked = {name: expr.replace("$__rate_interval", "1m") for name, expr in queries.items()}
    assert [name for name, expr in asked.items() if not server.since(story.began, expr)] == []


ALONE = [alert for group in ALERTS.values() for alert in group if not alert.needs]


@pytest.mark.parametrize("alert", ALONE, ids=lambda alert: alert.name)
def test_an_alert_reads_series_that_there_are(story: Story, alert: Alert) -> None:
    for name in re.findall(r"ray_\w+|skyreels:[\w:]+", alert.expr):
        assert story.server().since(story.began, name), name


def test_promtool_likes_our_families(story: Story) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    ours: dict[str, str] = {}  # without Ray's own labels, which have a style of their own, processes share series
    for line in story.metrics.splitlines():
        if "ray_skyreels_" in line.partition("{")[0]:
            series, _, value = line.rpartition(" ") if line[0] != "#" else (line, "", "")
            ours[re.sub(r'[A-Z]\w*="[^"]*",?', "", series)] = value
    told = [f"{series} {value}".rstrip() for series, value in ours.items()]
    done = subprocess.run(
        [promtool, "check", "metrics"], input="\n".join(told) + "\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_top_shows_it_all(story: Story) -> None:
    for word in ("denoise", "text", "Denoiser", "skyreels-v3-r2v", "64P", "done"):
        assert word in story.top
