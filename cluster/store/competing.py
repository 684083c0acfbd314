"""How several workers share a table of work without waiting for each other."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Table


def unclaimed(query: Select[Any], limit: int, *, of: Table) -> Select[Any]:
    """At most `limit` rows of `of` for this write transaction alone: those that another one holds are left out.

    Whoever takes a row marks it in the same transaction, so that nobody takes it again after the commit.
    """
    return query.limit(limit).with_for_update(skip_locked=True, of=of)
