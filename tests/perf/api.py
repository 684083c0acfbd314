"""How fast the HTTP edge answers, beside a plain Serve application in the same cluster. Not a test.

`python -m tests.perf.api [--jobs N] [--seconds S] [--repeats R] [--postgres URL]` prints Markdown for BENCHMARKS.md:
SQLite, and PostgreSQL at the URL, or on a server of its own where Debian's `postgresql` is installed.
The Api runs as in the shipped profiles, alone: no Scheduler and no stage replica works beside it, so jobs that are
created stay queued. The store is filled with copies of one finished job. Client, proxy, Api and yardstick share this
machine.
"""

from __future__ import annotations

import tests.ray_token  # noqa: F401 (before anything imports Ray)

# isort: split

import argparse
import asyncio
import itertools
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from sqlalchemy import Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from cluster.config import Config, parse
from cluster.serve_config import serve_config
from cluster.store import open_store
from cluster.store.schema import METADATA, jobs
from deployments.api.ingress import Api
from loadtest.inputs import picture
from loadtest.local import free_ports
from tests.perf.bench import commit, machine
from tests.postgres import BINARIES, private_server
from tests.unit.cluster.store.play import Play

BATCH = 2000
COPIED = ("stages", "results", "events")  # what a finished job has beside its own row
AT_ONCE = (1, 8, 32)
HELLO = "hello world"
BODY = {"prompt": "A red ball rolls", "images": [picture(200, 30, 30)], "aspect_ratio": "16:9", "seed": 1}
Call = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


@dataclass(frozen=True, slots=True)
class Round:
    """One operation for some seconds."""

    rate: float  # answers per second
    p50_ms: float
    p99_ms: float


class Idle:
    """Stands where the Scheduler and the Courier are: nothing of what is created shall run."""

    async def wake(self) -> None:
        return None


def hello() -> serve.Application:
    """The yardstick: what Serve and FastAPI cost by themselves."""
    app = FastAPI()

    @serve.deployment
    @serve.ingress(app)
    class Hello:
        @app.get("/")
        async def greet(self) -> dict[str, str]:
            return {"hello": "world"}

    built: serve.Application = Hello.options(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.1}).bind()
    return built


@contextmanager
def cluster() -> Iterator[str]:
    """Ray and Serve with the yardstick; the URL."""
    (port,) = free_ports(1)
    ray.init(num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        quiet = LoggingConfig(enable_access_log=False)
        serve.run(hello(), name="hello", route_prefix="/hello", logging_config=quiet)
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(config: Config) -> None:
    """The Api as `serve_config` would deploy it, without what works behind it."""
    wanted: list[dict[str, Any]] = serve_config(config)["applications"][0]["deployments"]
    options = next(entry for entry in wanted if entry["name"] == "Api")
    idle = serve.deployment(Idle).bind()
    api = serve.deployment(Api).options(**options).bind(config, idle, idle)
    quiet = LoggingConfig(encoding="JSON", enable_access_log=False)
    serve.run(api, name="skyreels", route_prefix="/", logging_config=quiet)


async def finished_job(url: str, config: Config) -> str:
    """One job, created over HTTP and played to its end on the store; its id."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        job_id: str = (await client.post("/v1/videos", json=BODY)).raise_for_status().json()["id"]
    store = open_store(config.store_url)
    await store.open()
    leadership = await store.lead("benchmark", 60)
    if leadership is None:
        raise RuntimeError("the benchmark's store has another leader")
    play = Play(store, leadership)
    await play.until("", job_id)
    await store.resign(leadership)
    await store.close()
    return job_id


async def fill(connection: AsyncConnection, template: str, size: int) -> None:
    """Copies a finished job until the store holds `size`; rows beside it are copied inside the database."""
    row = dict((await connection.execute(select(jobs).where(jobs.c.id == template))).mappings().one())
    del row["number"]
    held = (await connection.execute(select(func.count()).select_from(jobs))).scalar_one()
    for start in range(held, size, BATCH):
        ids = [f"video_{secrets.token_hex(12)}" for _ in range(min(BATCH, size - start))]
        last = (await connection.execute(select(func.max(jobs.c.number)))).scalar_one()
        await connection.execute(insert(jobs), [row | {"id": job_id} for job_id in ids])
        for name in COPIED:
            await copy(connection, METADATA.tables[name], template, last)
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql("ANALYZE")  # what its own autovacuum would do within minutes


async def copy(connection: AsyncConnection, table: Table, template: str, last: int) -> None:
    """The template's rows of a table for each job behind number `last`."""
    own = {"job_id": jobs.c.id, "job_number": jobs.c.number}
    columns = [own.get(column.name, column) for column in table.columns]
    each = table.join(jobs, jobs.c.number > last)
    source = select(*columns).select_from(each).where(table.c.job_id == template)
    await connection.execute(insert(table).from_select([column.name for column in table.columns], source))


@asynccontextmanager
async def database(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        yield connection
    await engine.dispose()


async def measure(url: str, call: Call, at_once: int, seconds: float) -> Round:
    """`at_once` callers, each asking again as soon as it has its answer."""
    times: list[float] = []
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, limits=limits) as client:
        await asyncio.gather(*(call(client) for _ in range(at_once)))  # opens the connections
        began = time.perf_counter()
        end = began + seconds

        async def caller() -> None:
            while (start := time.perf_counter()) < end:
                (await call(client)).raise_for_status()
                times.append(time.perf_counter() - start)

        await asyncio.gather(*(caller() for _ in range(at_once)))
        took = time.perf_counter() - began
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return Round(len(times) / took, statistics.median(times) * 1e3, p99 * 1e3)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def paging(ids: Sequence[str], size: int) -> dict[str, Call]:
    """The first page, and one behind nine tenths of all jobs."""
    behind = ids[size * 9 // 10]
    return {
        "list, first page of 20": lambda client: client.get("/v1/videos"),
        f"list, page behind {size * 9 // 10:,} jobs": lambda client: client.get("/v1/videos", params={"after": behind}),
    }


def operations(ids: Sequence[str], paths: frozenset[str]) -> dict[str, Call]:
    draw = random.Random(1)
    prompts = itertools.count()
    found: dict[str, Call] = {
        HELLO: lambda client: client.get("/hello/"),
        "get": lambda client: client.get(f"/v1/videos/{draw.choice(ids)}"),
        **paging(ids, len(ids)),
        "create": lambda client: client.post("/v1/videos", json=BODY | {"prompt": f"A ball, take {next(prompts)}"}),
    }
    if "/v1/videos/{video_id}/events" in paths:
        found["events of an ended job (SSE)"] = lambda client: client.get(f"/v1/videos/{draw.choice(ids)}/events")
    return found


async def table(url: str, calls: dict[str, Call], levels: Sequence[int], seconds: float, repeats: int) -> list[str]:
    """Every operation at every level, each repetition beside its own yardstick."""
    rounds: dict[tuple[int, str], list[Round]] = {}
    for _ in range(repeats):
        for at_once in levels:
            for name, call in calls.items():
                rounds.setdefault((at_once, name), []).append(await measure(url, call, at_once, seconds))
    lines = ["| what | at once | answers/s | p50, ms | p99, ms | of hello world's rate |", "|" + "---|" * 6]
    for (at_once, name), found in rounds.items():
        ratios = [one.rate / own.rate for one, own in zip(found, rounds[at_once, HELLO], strict=True)]
        cells = (
            spread([one.rate for one in found], 0),
            spread([one.p50_ms for one in found]),
            spread([one.p99_ms for one in found]),
            spread(ratios, 2),
        )
        lines.append(f"| {name} | {at_once} | {' | '.join(cells)} |")
    return lines


async def backend(url: str, config: Config, options: argparse.Namespace) -> list[str]:
    """Both tables of one database."""
    template = await finished_job(url, config)
    openapi = httpx.get(f"{url}/openapi.json", trust_env=False, timeout=60).raise_for_status().json()
    growth: list[str] = []
    for size in (options.jobs // 100, options.jobs):
        began = time.perf_counter()
        async with database(config.store_url) as connection:
            await fill(connection, template, size)
            newest = select(jobs.c.id).order_by(jobs.c.number.desc())
            ids = list((await connection.execute(newest)).scalars())
        took = time.perf_counter() - began
        calls = {HELLO: operations(ids, frozenset())[HELLO]} | paging(ids, size)
        lines = await table(url, calls, (1,), options.seconds, options.repeats)
        growth += [f"Listing with {size:,} jobs in the store (filled in {took:.0f} s):", "", *lines, ""]
    calls = operations(ids, frozenset(openapi["paths"]))
    lines = await table(url, calls, AT_ONCE, options.seconds, options.repeats)
    return [*growth, f"With {options.jobs:,} jobs in the store:", "", *lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--postgres", metavar="URL", help="postgresql+asyncpg://… of an empty database")
    options = parser.parse_args()
    print(  # noqa: T201 (what it is for)
        f"Machine: {machine()}. Date: {datetime.now(UTC):%Y-%m-%d}. Commit: {commit()}. {options.repeats} rounds of "
        f"{options.seconds:g} s; median (minimum–maximum). Client, proxy and Api share the machine.\n"
    )
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        url = stack.enter_context(cluster())
        stores: list[tuple[str, str | None]] = [("SQLite", None)]
        if options.postgres:
            stores.append(("PostgreSQL", options.postgres))
        elif BINARIES:
            server = stack.enter_context(private_server(durable=True))
            stores.append((f"PostgreSQL {BINARIES[-1].parts[-3]}, on the same machine", server.new()))
        for number, (title, store) in enumerate(stores):
            config = parse(CONFIG.format(folder=Path(name) / str(number)), title)
            config = config.model_copy(update={"store": config.store.model_copy(update={"url": store})})
            config.state_path.mkdir(parents=True)
            deploy(config)
            lines = asyncio.run(backend(url, config, options))
            print("\n".join([f"### {title}", "", *lines]), flush=True)  # noqa: T201


CONFIG = """
profile: benchmark
topology: monolith
state_dir: {folder}
models: [{{name: skyreels-v3-r2v, checkpoint: nowhere, tiny: true}}]
pools: [{{name: Monolith, stages: [text, condition, denoise, decode]}}]
"""

if __name__ == "__main__":
    main()
