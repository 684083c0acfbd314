"""Models, health, the cluster's state and its store-side metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field

from cluster.errors import Unavailable
from cluster.monitoring.families import FAMILIES
from cluster.registry import Model, PriceTable
from deployments.api.schemas import ErrorBody
from deployments.api.services import Caller, Served
from deployments.api.videos import ERRORS

RETRY_S = 2.0
Values = Mapping[tuple[str, ...], float]
router = APIRouter(tags=["cluster"], responses=ERRORS)


class Addresses(BaseModel):
    """How each API names the model; null where it does not."""

    openai: str
    wavespeed: str | None = Field(description="Path below /api/v3/.")
    runware: str | None


class PriceReport(BaseModel):
    """US dollars per second of finished video."""

    per_second_usd: str = Field(description="An exact decimal.")
    resolution: str | None = Field(description="Null = every one.")
    workflow: str | None = Field(description="generate: from text or images, edit: from a video; null = both.")


class ServedModel(BaseModel):
    """A model in OpenAI's shape; fields from `title` on are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "skywork"
    title: str
    task: str
    aliases: list[str]
    resolutions: list[str]
    default_resolution: str
    aspect_ratios: list[str]
    min_seconds: int
    max_seconds: int
    default_seconds: int
    min_images: int
    max_images: int
    max_prompt_chars: int
    max_results: int
    fps: int
    steps: int
    prices: list[PriceReport]
    addresses: Addresses


class ServedModels(BaseModel):
    """Everything served here."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


class WorkerReport(BaseModel):
    """One live replica."""

    id: str
    pool: str
    node: str
    pid: int
    slots: dict[str, int]
    loaded: list[str] = Field(description="models that its group of ranks holds on their devices")


class RunningReport(BaseModel):
    """One call that a replica works on; a denoiser group may have several."""

    video_id: str
    stage: str
    result: int
    chunk: int
    worker: str
    attempt: int
    step: int
    steps: int


class ClusterReport(BaseModel):
    """What runs now."""

    profile: str
    topology: str
    auth: str
    jobs: dict[str, int]
    ready: dict[str, int]
    busy: dict[str, int]
    slots: dict[str, int]
    workers: list[WorkerReport]
    running: list[RunningReport]
    misplaced: dict[str, str] = Field(description="pools that no node can take, with the reason")


def served_model(model: Model, prices: PriceTable) -> ServedModel:
    limits = model.limits
    return ServedModel(
        id=model.name,
        title=model.title,
        task=model.task,
        aliases=list(model.aliases),
        resolutions=list(limits.resolutions),
        default_resolution=limits.default_resolution,
        aspect_ratios=list(limits.aspect_ratios),
        min_seconds=limits.min_duration_s,
        max_seconds=limits.max_duration_s,
        default_seconds=limits.default_duration_s,
        min_images=limits.min_images,
        max_images=limits.max_images,
        max_prompt_chars=limits.max_prompt_chars,
        max_results=limits.max_results,
        fps=model.fps,
        steps=model.steps,
        prices=[
            PriceReport(per_second_usd=f"{price.per_s_usd:f}", resolution=price.resolution, workflow=price.workflow)
            for price in prices.prices.get(model.name, ())
        ],
        addresses=Addresses(openai=model.name, wavespeed=model.wavespeed, runware=model.runware),
    )


@router.get("/v1/models")
async def models(services: Served, _caller: Caller) -> ServedModels:
    """The served models with their limits."""
    prices = services.config.price_table
    return ServedModels(data=[served_model(model, prices) for model in services.registry.models.values()])


@router.get("/v1/models/{name:path}", responses={404: {"model": ErrorBody}})
async def model(name: str, services: Served, _caller: Caller) -> ServedModel:
    """One served model, by any of its names."""
    return served_model(services.registry.find(name), services.config.price_table)


@router.get("/healthz")
async def healthz(services: Served) -> dict[str, str]:
    """200 while the job store answers."""
    await services.store.now()
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": ErrorBody}})
async def readyz(services: Served) -> dict[str, str]:
    """200 while every stage has a live slot, except those whose pools are scaled: these start when there is work."""
    state = await services.store.state(worker_ttl_s=services.config.scheduler.lease_ttl_s, ready_limit=1)
    live = set().union(*(worker.slots for worker in state.workers))
    needed = {stage for pool in services.config.pools if not pool.autoscaled for stage in pool.stages}
    if missing := sorted(needed - live):
        raise Unavailable(f"No replica serves {', '.join(missing)} yet; try again.", retry_after_s=RETRY_S)
    return {"status": "ready"}


async def _report(services: Served, tenant: str | None) -> ClusterReport:
    """Of a tenant: its own jobs and calls, and what the cluster offers to everybody; else everything."""
    state = await services.store.state(worker_ttl_s=services.config.scheduler.lease_ttl_s)
    slots: dict[str, int] = {}
    for worker in state.workers:
        for stage, count in worker.slots.items():
            slots[stage] = slots.get(stage, 0) + count
    ready: dict[str, int] = dict.fromkeys(slots, 0)
    for item in state.ready:
        if tenant not in {None, item.tenant_id}:
            continue
        ready[item.ref.stage] = ready.get(item.ref.stage, 0) + 1
    running = await services.store.running(tenant_id=tenant)
    busy = state.busy if tenant is None else Counter(call.ref.stage for call in running)
    return ClusterReport(
        profile=services.config.profile,
        topology=services.config.topology,
        auth=services.config.auth,
        jobs={name.value: count for name, count in (await services.store.count_jobs(tenant)).items()},
        ready=ready,
        busy=dict(busy),
        slots=slots,
        workers=[
            WorkerReport(
                id=worker.id,
                pool=worker.pool,
                node=worker.node,
                pid=worker.pid,
                slots=dict(worker.slots),
                loaded=list(worker.loaded),
            )
            for worker in state.workers
            if tenant is None
        ],
        running=[
            RunningReport(
                video_id=call.ref.job_id,
                stage=call.ref.stage,
                result=call.ref.result,
                chunk=call.ref.chunk,
                worker=call.worker if tenant is None else "",
                attempt=call.attempt,
                step=call.step,
                steps=call.steps,
            )
            for call in running
        ],
        misplaced=dict(await services.misplaced()),
    )


@router.get("/v1/status")
async def status(services: Served, caller: Caller) -> ClusterReport:
    """Jobs by state, and stages with their slots, waiting and running calls and replicas. With a key that is not an
    admin's: the slots, and otherwise only what is the caller's own.
    """
    return await _report(services, None if caller.admin else caller.tenant)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: Served, caller: Caller) -> PlainTextResponse:
    """Gauges of the whole installation, read from the job store; with authentication on, for admin keys. Replica
    metrics are on Ray's metrics port.
    """
    caller.operator()
    report = await _report(services, None)
    backlog = await services.store.backlog()
    registry = CollectorRegistry()
    for name, by_stage in (("ready", report.ready), ("busy", report.busy), ("slots", report.slots)):
        _gauge(registry, f"skyreels_stage_{name}", {(stage,): count for stage, count in by_stage.items()})
    _gauge(registry, "skyreels_jobs", {(state,): count for state, count in report.jobs.items()})
    parcels: Values = {(kind.value, state.value): count for (kind, state), count in backlog.counts.items()}
    _gauge(registry, "skyreels_deliveries", parcels)
    _gauge(registry, "skyreels_delivery_oldest_due_seconds", {(): backlog.oldest_due_s})
    return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4")


def _gauge(registry: CollectorRegistry, name: str, values: Values) -> None:
    """A family of the registry of metrics as it is now, by the values of its labels."""
    family = FAMILIES[name]
    gauge = Gauge(name, family.help, family.labels, registry=registry)
    for key, value in values.items():
        (gauge.labels(*key) if key else gauge).set(value)
