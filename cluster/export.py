"""The ledger as Parquet: one row per stage attempt with the facts of its job, and one row per charged result.

Moments are UTC microseconds. Seconds of attempts are device-seconds: compute time × the devices that the stage ran on.
The sum of `useful_s` and `wasted_s` is what the attempt kept devices busy for; `wall_s` is longer by whatever it waited
for files and for other jobs on the same devices. Money is exact decimal dollars.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.tenancy import MICRO

_AT = pa.timestamp("us", tz="UTC")
ATTEMPTS = pa.schema(
    [
        ("job_id", pa.string()),
        ("tenant_id", pa.string()),
        ("stage", pa.string()),
        ("chunk", pa.int32()),
        ("result", pa.int32()),
        ("epoch", pa.int32()),
        ("attempt", pa.int32()),
        ("worker", pa.string()),
        ("devices", pa.int32()),
        ("useful_s", pa.float64()),
        ("wasted_s", pa.float64()),
        ("wall_s", pa.float64()),
        ("outcome", pa.string()),  # done, failed, lost, released, cancelled, expired
        ("reason", pa.string()),  # code of the failure
        ("ended_at", _AT),
        ("model", pa.string()),
        ("graph", pa.string()),
        ("state", pa.string()),  # of the job when it was exported, like the two moments below
        ("created_at", _AT),
        ("started_at", _AT),
        ("finished_at", _AT),
        ("deadline_at", _AT),
        ("resolution", pa.string()),
        ("duration_s", pa.int32()),
        ("fps", pa.int32()),
        ("frames", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("steps", pa.int32()),
        ("n", pa.int32()),
        ("priority", pa.int32()),
    ]
)
CHARGES = pa.schema(
    [
        ("job_id", pa.string()),
        ("index", pa.int32()),
        ("tenant_id", pa.string()),
        ("model", pa.string()),
        ("seconds", pa.int32()),
        ("usd", pa.decimal128(18, 6)),
        ("at", _AT),
    ]
)


async def write(path: Path, schema: pa.Schema, pages: AsyncIterator[Sequence[Mapping[str, Any]]]) -> int:
    """Writes pages of rows to a file, which is there whole or not at all; returns the number of rows. OSError."""
    part = path.with_name(f".{path.name}.part")
    rows = 0
    try:
        with pq.ParquetWriter(part, schema) as writer:
            async for page in pages:
                writer.write_table(pa.Table.from_pylist([dict(row) for row in page], schema=schema))
                rows += len(page)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return rows


async def in_dollars(pages: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[list[dict[str, Any]]]:
    """Charges with their amount as the schema has it."""
    async for page in pages:
        yield [row | {"usd": Decimal(row["micro_usd"]) / MICRO} for row in page]
