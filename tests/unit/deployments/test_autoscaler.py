"""The policy as Serve's controller calls it, over a real job store."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.config import profile
from cluster.pools import Pool
from cluster.serve_config import serve_config
from cluster.store import open_store
from cluster.wiring import graph
from deployments.autoscaler import STALE_PERIODS, StagePolicy, WorkloadReader
from deployments.telemetry import logger
from tests.unit.cluster.makers import request, worker

PERIOD_S = 0.02


@dataclass
class Context:
    """The part of Serve's AutoscalingContext that the policy reads."""

    deployment_name: str
    target_num_replicas: int = 0
    capacity_adjusted_min_replicas: int = 0
    capacity_adjusted_max_replicas: int = 3


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"


def fill(store_url: str, *job_ids: str) -> None:
    """Jobs, and a replica of the fixed pool."""

    async def write() -> None:
        store = open_store(store_url)
        await store.open()
        await store.register(worker("w1", text=1))
        for job_id in job_ids:
            await store.create_job(job_id, "t", request(), graph("r2v", 1))
        await store.close()

    asyncio.run(write())


def kwargs_for(store_url: str) -> dict[str, Any]:
    """As the Serve config gives them for a laptop with two scaled pools."""
    config = profile("laptop")
    scaled = {"min_replicas": 0, "max_replicas": 3}
    pools = (
        config.pools[0],
        Pool(name="Denoiser", stages=("denoise",), **scaled),
        Pool(name="VaeRoom", stages=("condition", "decode"), **scaled),
    )
    config = config.model_copy(update={"pools": pools, "store": config.store.model_copy(update={"url": store_url})})
    (application,) = serve_config(config)["applications"]
    kwargs: dict[str, Any] = application["autoscaling_policy"]["policy_kwargs"]
    return kwargs | {"period_s": PERIOD_S}


@pytest.fixture
def policy(store_url: str) -> Iterator[StagePolicy]:
    policy = StagePolicy(**kwargs_for(store_url))
    yield policy
    policy.close()


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """What is logged meanwhile."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger().addHandler(handler)
    yield found
    logger().removeHandler(handler)


@pytest.fixture
def reader(store_url: str) -> Iterator[WorkloadReader]:
    fill(store_url, "a")
    reader = WorkloadReader(store_url, worker_ttl_s=10, period_s=PERIOD_S)
    yield reader
    reader.close()


@contextmanager
def busy(reader: WorkloadReader) -> Iterator[None]:
    """The reader's thread does not come back, as with a store that hangs."""
    gate = threading.Event()
    reader._thread.submit(gate.wait)
    yield
    gate.set()


def contexts(**targets: int) -> dict[str, Context]:
    return {f"id of {name}": Context(name, target) for name, target in targets.items()}


def decided(policy: StagePolicy, found: dict[str, Context], wanted: dict[str, int]) -> dict[Any, int]:
    """What it says once a reading has come, or after a while."""
    deadline = time.monotonic() + 30
    while (answer := policy(found)[0]) != wanted and time.monotonic() < deadline:
        time.sleep(PERIOD_S)
    return answer


def test_until_there_is_a_reading_every_pool_keeps_its_size(policy: StagePolicy, store_url: str) -> None:
    fill(store_url)
    assert policy(contexts(Denoiser=2, VaeRoom=0)) == ({"id of Denoiser": 2, "id of VaeRoom": 0}, {})


def test_work_starts_all_pools_on_its_way_in_one_decision(policy: StagePolicy, store_url: str) -> None:
    fill(store_url, "a", "b")
    wanted = {"id of Denoiser": 1, "id of VaeRoom": 2}  # two conditions wait, two calls are on their way to denoise
    assert decided(policy, contexts(Denoiser=0, VaeRoom=0), wanted) == wanted


def test_no_work_is_nobody_and_who_is_none_is_left_alone(policy: StagePolicy, store_url: str) -> None:
    """Serve would start a replica for the mean of past requests if it were told of a pool that is at nothing."""
    fill(store_url)
    assert decided(policy, contexts(Denoiser=2, VaeRoom=0), {"id of Denoiser": 0}) == {"id of Denoiser": 0}


def test_bounds_are_those_that_serve_has_now(policy: StagePolicy, store_url: str) -> None:
    fill(store_url, *"abcdef")
    found = contexts(Denoiser=0, VaeRoom=0)
    found["id of VaeRoom"].capacity_adjusted_max_replicas = 5
    found["id of Denoiser"].capacity_adjusted_min_replicas = 2
    wanted = {"id of Denoiser": 2, "id of VaeRoom": 5}
    assert decided(policy, found, wanted) == wanted


def test_a_change_of_serves_target_is_told_with_its_reason(
    policy: StagePolicy, store_url: str, lines: list[logging.LogRecord]
) -> None:
    fill(store_url, "a")
    decided(policy, contexts(Denoiser=0, VaeRoom=0), {"id of Denoiser": 1, "id of VaeRoom": 1})
    assert not lines
    policy(contexts(Denoiser=1, VaeRoom=0))
    (line,) = lines
    assert line.getMessage() == "scaling Denoiser from 0 to 1: 0 calls here, 1 on their way"
    assert (vars(line)["pool"], vars(line)["cause"], vars(line)["wanted"]) == ("Denoiser", "coupled", 1)


def test_the_callers_thread_never_waits_for_the_store(reader: WorkloadReader) -> None:
    with busy(reader):
        assert [reader.newest(float(now)) for now in range(5)] == [None] * 5
    deadline = time.monotonic() + 30
    while (newest := reader.newest(5.0)) is None and time.monotonic() < deadline:
        time.sleep(PERIOD_S)
    assert newest is not None
    assert {work.stage: work.ready for work in newest.stages} == {"condition": 1, "text": 1}


def test_an_old_reading_decides_nothing(reader: WorkloadReader) -> None:
    deadline = time.monotonic() + 30
    while reader.newest(0.0) is None and time.monotonic() < deadline:
        time.sleep(PERIOD_S)
    with busy(reader):
        assert reader.newest(STALE_PERIODS * PERIOD_S * 0.9) is not None
        assert reader.newest(STALE_PERIODS * PERIOD_S * 1.1) is None


def test_the_thread_ends_with_its_reader(store_url: str) -> None:
    """Serve makes a new policy with each deployment and just forgets the former one."""
    fill(store_url)
    reader = WorkloadReader(store_url, worker_ttl_s=10, period_s=PERIOD_S)
    reader.newest(0.0)
    (thread,) = reader._thread._threads
    del reader
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_while_the_store_is_away_every_pool_keeps_its_size(store_url: str, lines: list[logging.LogRecord]) -> None:
    policy = StagePolicy(**kwargs_for("postgresql+asyncpg://nobody@127.0.0.1:9/jobs"))
    deadline = time.monotonic() + 30
    while not lines and time.monotonic() < deadline:
        assert policy(contexts(Denoiser=2)) == ({"id of Denoiser": 2}, {})
        time.sleep(PERIOD_S)
    assert lines[0].getMessage().startswith("not scaling: The job store cannot be used now")
    policy.close()
