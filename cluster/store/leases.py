"""The workers' side of the job store: presence, claims and heartbeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import BindParameter, bindparam, delete, select, update

from cluster.records import Beat, Handle, Request, StageCall, StageRef, StageWork, Verdict, Worker, decode
from cluster.store.database import Transaction
from cluster.store.ledger import load
from cluster.store.news import Topic
from cluster.store.schema import jobs, stages, workers

FORGET_AFTER_S = 24 * 3600.0  # a replica that died without a word; policies ignore it after seconds already
# What a stage works on: its own row, and those whose values it reads.
_CHUNKS: BindParameter[list[int]] = bindparam("chunks", expanding=True)
_PARTS = select(*(stages.c[name] for name in ("stage", "result", "chunk", "outputs", "snapshot"))).where(
    stages.c.job_id == bindparam("of_job"), stages.c.chunk.in_(_CHUNKS)
)
_JOB = select(*(jobs.c[name] for name in ("tenant_id", "request", "created_at", "deadline_at"))).where(
    jobs.c.id == bindparam("of_job")
)


async def register(tx: Transaction, worker: Worker) -> None:
    """Writes the worker's row anew, seen now; rows of replicas long dead go with it."""
    forgotten = workers.c.seen_at < tx.now - timedelta(seconds=FORGET_AFTER_S)
    await tx.conn.execute(delete(workers).where(forgotten))
    row = {
        "id": worker.id,
        "pool": worker.pool,
        "slots": dict(worker.slots),
        "node": worker.node,
        "pid": worker.pid,
        "started_at": worker.started_at,
        "seen_at": tx.now,
        "loaded": list(worker.loaded),
    }
    await tx.insert_new(workers, row)
    await tx.conn.execute(update(workers).where(workers.c.id == worker.id).values(row))
    tx.tell(Topic.WORK)


async def unregister(tx: Transaction, worker_id: str) -> None:
    """Removes the worker's row."""
    await tx.conn.execute(delete(workers).where(workers.c.id == worker_id))


async def claim(tx: Transaction, call: StageCall, worker_id: str, lease_s: float, devices: int) -> StageWork | None:
    """Wins the stage and gathers what it needs, or None."""
    job_id = call.ref.job_id
    ledger = await load(tx, [job_id])
    life = ledger.lives.get(job_id)
    if life is None or not life.claim(call, worker_id, lease_s, devices):
        return None
    await ledger.save(tx)
    mine = life.stages[call.ref.key]
    wanted = {"of_job": job_id, "chunks": sorted({call.ref.chunk, *(s.chunk for s in mine.inputs.values())})}
    rows = {(row.stage, row.result, row.chunk): row for row in await tx.conn.execute(_PARTS, wanted)}
    job = (await tx.conn.execute(_JOB, {"of_job": job_id})).one()
    snapshot = rows[call.ref.key].snapshot
    return StageWork(
        call=call,
        attempt=mine.attempt,
        tenant_id=job.tenant_id,
        request=decode(Request, job.request),
        inputs={port: decode(Handle, rows[s.key].outputs[s.port]) for port, s in mine.inputs.items()},
        snapshot=None if snapshot is None else decode(Handle, snapshot),
        created_at=job.created_at,
        deadline_at=job.deadline_at,
        final=mine.final,
    )


async def heartbeat(
    tx: Transaction, worker_id: str, beats: Sequence[Beat], lease_s: float
) -> Mapping[StageRef, Verdict]:
    """Renews presence and leases of everything the worker still owns."""
    await tx.conn.execute(update(workers).where(workers.c.id == worker_id).values(seen_at=tx.now))
    ledger = await load(tx, {beat.call.ref.job_id for beat in beats})
    verdicts = {}
    for beat in beats:
        life = ledger.lives.get(beat.call.ref.job_id)
        verdicts[beat.call.ref] = Verdict.STALE if life is None else life.beat(beat, worker_id, lease_s)
    await ledger.save(tx)
    return verdicts
