"""Loads jobs under their locks into lifecycles, and writes back what those changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, RowMapping, Table, Update, bindparam, insert, select, update

from cluster.errors import NotFound, StaleEpoch
from cluster.graphs import Source
from cluster.records import Extension, Failure, JobState, Request, StageCall, StageState, decode, encode
from cluster.store import outbox, usage
from cluster.store.database import Transaction
from cluster.store.lifecycle import Lifecycle
from cluster.store.news import Topic, wakes_scheduler
from cluster.store.observer import Ended
from cluster.store.rows import JobRow, StageRow
from cluster.store.schema import events, jobs, results, stages
from cluster.trace import Trace

Values = dict[str, Any]

_WRITTEN_ONLY = frozenset({"outputs", "snapshot"})  # large, and no rule reads them
_JOB_NAMES = tuple(item.name for item in fields(JobRow))
_STAGE_NAMES = tuple(item.name for item in fields(StageRow))
_JOB_COLUMNS = tuple(jobs.c[name] for name in _JOB_NAMES)
_STAGE_COLUMNS = (stages.c.job_id, *(stages.c[name] for name in _STAGE_NAMES if name not in _WRITTEN_ONLY))
_IDS: BindParameter[list[str]] = bindparam("ids", expanding=True)
_FACTS = tuple(jobs.c[name] for name in dict.fromkeys(("ttl_s", "trace", "created_at", *usage.FACTS)))  # never change
_LOCK_JOBS = select(*_JOB_COLUMNS, *_FACTS).where(jobs.c.id.in_(_IDS)).order_by(jobs.c.id).with_for_update()
_LOCK_FREE_JOBS = _LOCK_JOBS.with_for_update(skip_locked=True)
_STAGES = select(*_STAGE_COLUMNS).where(stages.c.job_id.in_(_IDS))
# Nearly every transaction is about one job, and a list of values is made into SQL anew each time.
_LOCK_JOB = select(*_JOB_COLUMNS, *_FACTS).where(jobs.c.id == bindparam("id")).with_for_update()
_STAGES_OF_JOB = select(*_STAGE_COLUMNS).where(stages.c.job_id == bindparam("id"))
_NEW_EVENTS = insert(events)


@dataclass(slots=True)
class Ledger:
    """Some jobs of one write transaction."""

    lives: dict[str, Lifecycle]
    _facts: Mapping[str, RowMapping] = field(default_factory=dict)
    _jobs_before: dict[str, JobRow] = field(default_factory=dict)
    _stages_before: dict[str, list[StageRow]] = field(default_factory=dict)

    def one(self, job_id: str) -> Lifecycle:
        """The lifecycle of a job that must exist. NotFound."""
        life = self.lives.get(job_id)
        if life is None:
            raise missing(job_id)
        return life

    def owner(self, call: StageCall) -> Lifecycle:
        """The lifecycle that a worker wants to write in. StaleEpoch when the job is gone."""
        life = self.lives.get(call.ref.job_id)
        if life is None:
            raise StaleEpoch(f"Job {call.ref.job_id!r} is gone; stop and write nothing.")
        return life

    async def save(self, tx: Transaction) -> None:
        """Writes changed columns and new events."""
        for job_id, life in self.lives.items():
            life.job.last_seq += len(life.events)
            await _update(tx, jobs, _changes(life.job, self._jobs_before[job_id]), {"id": job_id})
            for stage, before in zip(life.stages.values(), self._stages_before[job_id], strict=True):
                key = {"job_id": job_id, "stage": stage.stage, "result": stage.result, "chunk": stage.chunk}
                await _update(tx, stages, _changes(stage, before), key)
            await _write_results(tx, life)
            await write_events(tx, life)
            tx.moments += [*life.ended, *life.retries, *self._end(life)]
        await usage.record(tx, self.lives.values(), self._facts)

    def _end(self, life: Lifecycle) -> Iterable[Ended]:
        """The job's end, if it came in this transaction."""
        job = life.job
        if job.finished_at is not None and self._jobs_before[job.id].finished_at is None:
            facts = self._facts[job.id]
            code = None if job.failure is None else job.failure.code
            created_at = facts["created_at"]
            named = (job.id, facts["tenant_id"], facts["model"])
            yield Ended(*named, job.state, code, created_at, job.finished_at, life.trace)


async def load(tx: Transaction, job_ids: Collection[str], *, wait: bool = True) -> Ledger:
    """Locks the jobs, in the order of their ids so that two transactions never wait for each other, and reads them.

    Unknown ids are left out, and without `wait` those that another transaction has locked.
    """
    if wait and len(job_ids) == 1:
        lock, read = _LOCK_JOB, _STAGES_OF_JOB
        named: Values = {"id": next(iter(job_ids))}
    else:
        lock, read = _LOCK_JOBS if wait else _LOCK_FREE_JOBS, _STAGES
        named = {"ids": list(job_ids)}
    job_rows = {row["id"]: row for row in (await tx.conn.execute(lock, named)).mappings()}
    await tx.locked()
    by_job: dict[str, list[StageRow]] = {job_id: [] for job_id in job_rows}
    for row in (await tx.conn.execute(read, named)).mappings():
        if row["job_id"] in by_job:
            by_job[row["job_id"]].append(_stage(row))
    lives = {
        job_id: Lifecycle(_job(row), by_job[job_id], tx.now, ttl_s=row["ttl_s"], trace=_trace(row["trace"]))
        for job_id, row in job_rows.items()
    }
    return Ledger(
        lives,
        job_rows,
        {job_id: copy(life.job) for job_id, life in lives.items()},
        {job_id: [copy(stage) for stage in life.stages.values()] for job_id, life in lives.items()},
    )


async def write_events(tx: Transaction, life: Lifecycle) -> None:
    """Appends the lifecycle's events, numbered up to the job's `last_seq`, and what they owe to receivers outside."""
    first = life.job.last_seq - len(life.events) + 1
    rows = [
        {"job_id": life.job.id, "seq": seq, "type": kind, "data": data, "at": tx.now}
        for seq, (kind, data) in enumerate(life.events, first)
    ]
    if rows:
        await tx.conn.execute(_NEW_EVENTS, rows)
        await outbox.owe(tx, rows)
        tx.tell(Topic.EVENTS, life.job.id)
    if wakes_scheduler(life.events):
        tx.tell(Topic.WORK)


async def _write_results(tx: Transaction, life: Lifecycle) -> None:
    if not life.published:
        return
    stored = (await tx.conn.execute(select(jobs.c.request).where(jobs.c.id == life.job.id))).scalar_one()
    request = decode(Request, stored)
    rows = [
        {
            "job_id": life.job.id,
            "index": index,
            "seed": request.seed_of(index),
            "artifact": encode(artifact),
            "published_at": tx.now,
        }
        for index, artifact in life.published.items()
    ]
    await tx.conn.execute(insert(results), rows)


def missing(job_id: str) -> NotFound:
    """The error for a job that does not exist, is deleted or belongs to another tenant: all look the same."""
    return NotFound(f"Job {job_id!r} does not exist; check the id.")


def plain(row: JobRow | StageRow) -> Values:
    """A row as column values."""
    return {item.name: _value(getattr(row, item.name)) for item in fields(row)}


def _value(value: object) -> object:
    if isinstance(value, JobState | StageState):
        return value.value
    if isinstance(value, Mapping):
        return {port: _value(item) for port, item in value.items()}
    if isinstance(value, Source):
        return [value.stage, value.chunk, value.port, value.result]
    return encode(value) if hasattr(value, "__dataclass_fields__") else value


def _changes(row: JobRow | StageRow, before: JobRow | StageRow) -> Values:
    """The columns to write: values are replaced, never changed in place."""
    if row == before:
        return {}
    names = _JOB_NAMES if isinstance(row, JobRow) else _STAGE_NAMES
    return {name: _value(getattr(row, name)) for name in names if getattr(row, name) != getattr(before, name)}


async def _update(tx: Transaction, table: Table, values: Values, key: Values) -> None:
    if values:
        named = {f"new_{name}": value for name, value in values.items()} | {f"of_{name}": key[name] for name in key}
        await tx.conn.execute(_change(table, frozenset(values), tuple(key)), named)


@cache
def _change(table: Table, changed: frozenset[str], key: tuple[str, ...]) -> Update:
    """An UPDATE of these columns; few sets of columns ever change together."""
    mine = (table.c[name] == bindparam(f"of_{name}") for name in key)
    return update(table).where(*mine).values({name: bindparam(f"new_{name}") for name in sorted(changed)})


def _job(row: RowMapping) -> JobRow:
    values = {name: row[name] for name in _JOB_NAMES}
    values["state"] = JobState(values["state"])
    for name, kind in (("failure", Failure), ("extension", Extension)):
        values[name] = None if values[name] is None else decode(kind, values[name])
    return JobRow(**values)


def _trace(text: str | None) -> Trace | None:
    return None if text is None else Trace.read(text)


def _stage(row: RowMapping) -> StageRow:
    values = {name: row[name] for name in _STAGE_NAMES if name not in _WRITTEN_ONLY}
    values["state"] = StageState(values["state"])
    values["inputs"] = sources(values["inputs"])
    return StageRow(**values)


def sources(wiring: Mapping[str, Iterable[Any]]) -> dict[str, Source]:
    """The inverse of how a stage's inputs are stored."""
    return {port: Source(*part) for port, part in wiring.items()}
