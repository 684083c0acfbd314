"""Rows of uploaded files. A file is gone for its owner from its deletion or its expiry on; the sweeper comes later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from cluster.errors import Conflict, NotFound
from cluster.files import FileInfo, FilePage, NewFile, UploadedFile
from cluster.records import decode, encode
from cluster.store.database import Transaction
from cluster.store.schema import STORED, files, tenants

_BATCH = 500
_FACTS = ("id", "tenant_id", "filename", "purpose", "uri", "nbytes", "sha256", "created_at", "expires_at")
_QUERY = select(*(files.c[name] for name in _FACTS), files.c.info)


async def create(tx: Transaction, tenant_id: str, file: NewFile) -> UploadedFile:
    """Writes the row. Conflict when the id is taken."""
    await tx.insert_new(tenants, {"id": tenant_id, "created_at": tx.now})
    row: dict[str, Any] = {
        "id": file.id,
        "tenant_id": tenant_id,
        "filename": file.filename,
        "purpose": file.purpose,
        "uri": file.uri,
        "nbytes": file.nbytes,
        "sha256": file.sha256,
        "created_at": tx.now,
        "expires_at": tx.now + timedelta(seconds=file.keep_s),
    }
    try:
        await tx.conn.execute(insert(files).values(**row, info=encode(file.info), swept=False))
    except IntegrityError as error:
        raise Conflict(f"File {file.id!r} exists already; use a new id.") from error
    return UploadedFile(**row, info=file.info)


async def read(tx: Transaction, file_id: str, tenant_id: str) -> UploadedFile:
    """One visible file. NotFound."""
    found = (await tx.conn.execute(_QUERY.where(files.c.id == file_id, _visible(tx, tenant_id)))).mappings().first()
    if found is None:
        raise _missing(file_id)
    return _file(found)


async def read_page(
    tx: Transaction, tenant_id: str, *, after: str | None, limit: int, newest_first: bool, purpose: str | None
) -> FilePage:
    """One page by creation number. A file that is gone may still be `after`: its number stays. NotFound."""
    query = _QUERY.where(_visible(tx, tenant_id))
    if after is not None:
        known = select(files.c.number).where(files.c.id == after, files.c.tenant_id == tenant_id)
        start = (await tx.conn.execute(known)).scalar_one_or_none()
        if start is None:
            raise _missing(after)
        query = query.where(files.c.number < start if newest_first else files.c.number > start)
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    query = query.order_by(files.c.number.desc() if newest_first else files.c.number.asc()).limit(limit + 1)
    found = [_file(row) for row in (await tx.conn.execute(query)).mappings()]
    return FilePage(found[:limit], has_more=len(found) > limit)


async def delete(tx: Transaction, file_id: str, tenant_id: str) -> None:
    """Takes the file out of every listing and gives it to the sweeper. NotFound."""
    mine = update(files).where(files.c.id == file_id, _visible(tx, tenant_id))
    if not (await tx.conn.execute(mine.values(deleted_at=tx.now))).rowcount:
        raise _missing(file_id)


async def read_sweepable(tx: Transaction, limit: int) -> Sequence[str]:
    """Ids of files that nobody sees any more and whose bytes are still there, in the order of their expiry."""
    gone = or_(files.c.expires_at <= tx.now, files.c.deleted_at.is_not(None))
    query = select(files.c.id).where(STORED, gone).order_by(files.c.expires_at).limit(limit)
    return list((await tx.conn.execute(query)).scalars())


async def mark_swept(tx: Transaction, file_id: str) -> None:
    """The bytes are gone; the row stays for listings that continue after it."""
    await tx.conn.execute(update(files).where(files.c.id == file_id).values(swept=True))


async def read_unknown(tx: Transaction, file_ids: Sequence[str]) -> list[str]:
    """The ids without a row, in their order."""
    unknown: list[str] = []
    for start in range(0, len(file_ids), _BATCH):
        batch = file_ids[start : start + _BATCH]
        known = set((await tx.conn.execute(select(files.c.id).where(files.c.id.in_(batch)))).scalars())
        unknown += [file_id for file_id in batch if file_id not in known]
    return unknown


def _visible(tx: Transaction, tenant_id: str) -> ColumnElement[bool]:
    return (files.c.tenant_id == tenant_id) & files.c.deleted_at.is_(None) & (files.c.expires_at > tx.now) & STORED


def _missing(file_id: str) -> NotFound:
    """The error for a file that does not exist, is gone or belongs to another tenant: all look the same."""
    return NotFound(f"File {file_id!r} does not exist (any more); check the id.")


def _file(row: RowMapping) -> UploadedFile:
    return UploadedFile(**{name: row[name] for name in _FACTS}, info=decode(FileInfo, row["info"]))
