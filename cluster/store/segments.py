"""The finished segments of a job's chunks, result by result, one row each, written by the attempt that owns the stage.

A row is replaced by a newer attempt of its stage and never removed while the job lives: a player may hold the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from sqlalchemy import ColumnElement, Select, and_, delete, insert, or_, select

from cluster.records import Artifact, SegmentFile, StageCall, StageState, decode, encode
from cluster.store.clients import check_visible
from cluster.store.database import Transaction
from cluster.store.ledger import load
from cluster.store.schema import results, segments, stages

_FACTS = ("index", "uri", "init_uri", "nbytes", "first_frame", "frames", "duration_s")


async def add(tx: Transaction, call: StageCall, segment: SegmentFile) -> None:
    """Writes the row and its event. StaleEpoch."""
    ref = call.ref
    ledger = await load(tx, [ref.job_id])
    ledger.owner(call).add_segment(call, segment)
    mine = and_(
        segments.c.job_id == ref.job_id,
        segments.c.result == ref.result,
        segments.c.chunk == ref.chunk,
        segments.c.index == segment.index,
    )
    if (await tx.conn.execute(select(segments.c.epoch).where(mine))).scalar_one_or_none() == call.epoch:
        return  # told already: the worker did not hear the answer
    await tx.conn.execute(delete(segments).where(mine))
    of_stage = {"job_id": ref.job_id, "stage": ref.stage, "result": ref.result, "chunk": ref.chunk}
    await tx.conn.execute(insert(segments).values(encode(segment) | of_stage | {"epoch": call.epoch}))
    await ledger.save(tx)


async def read(tx: Transaction, job_id: str, tenant_id: str, result: int) -> Mapping[int, Sequence[SegmentFile]]:
    """By chunk, in order. NotFound."""
    await check_visible(tx, job_id, tenant_id)
    found: dict[int, list[SegmentFile]] = {}
    query = _valid(job_id).where(segments.c.result == result).order_by(segments.c.chunk, segments.c.index)
    for row in (await tx.conn.execute(query)).mappings():
        found.setdefault(row["chunk"], []).append(SegmentFile(**{name: row[name] for name in _FACTS}))
    return found


async def read_result_uris(tx: Transaction, job_id: str) -> Set[str]:
    """Artifacts with their pictures, segments, init segments."""
    stored = (await tx.conn.execute(select(results.c.artifact).where(results.c.job_id == job_id))).scalars()
    uris = {uri for artifact in stored for uri in decode(Artifact, artifact).uris}
    for row in (await tx.conn.execute(_valid(job_id))).mappings():
        uris |= {row["uri"], row["init_uri"]}
    return uris


async def forget(tx: Transaction, job_id: str) -> None:
    """Removes a job's rows."""
    await tx.conn.execute(delete(segments).where(segments.c.job_id == job_id))


def _valid(job_id: str) -> Select[tuple[object, ...]]:
    """Of a stage that is done, only the attempt that did it."""
    same_stage: ColumnElement[bool] = and_(
        stages.c.job_id == segments.c.job_id,
        stages.c.stage == segments.c.stage,
        stages.c.result == segments.c.result,
        stages.c.chunk == segments.c.chunk,
    )
    current = or_(stages.c.state != StageState.DONE.value, stages.c.epoch == segments.c.epoch)
    columns = (segments.c.chunk, *(segments.c[name] for name in _FACTS))
    return select(*columns).join(stages, same_stage).where(segments.c.job_id == job_id, current)
