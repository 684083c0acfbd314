"""Traces, results and scrapes as Parquet files, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from loadtest.records import JobRow, Outcome, Planned, Sample, Span

TRACE = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("at_s", pa.float64(), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("slo", pa.string(), nullable=False),
        pa.field("limit_s", pa.float64(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("resolution", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("results", pa.int64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("steps", pa.int64()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("priority", pa.int64(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("cancel_after_s", pa.float64()),
    ]
)
SPAN = pa.struct(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("result", pa.int64(), nullable=False),
        pa.field("chunk", pa.int64(), nullable=False),
        pa.field("attempt", pa.int64(), nullable=False),
        pa.field("ready_s", pa.float64(), nullable=False),
        pa.field("began_s", pa.float64(), nullable=False),
        pa.field("ended_s", pa.float64(), nullable=False),
        pa.field("counted", pa.bool_(), nullable=False),
    ]
)
JOBS = pa.schema(
    [
        pa.field("rate_hz", pa.float64(), nullable=False),
        pa.field("run_seed", pa.int64(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("slo", pa.string(), nullable=False),
        pa.field("limit_s", pa.float64(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("resolution", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("results", pa.int64(), nullable=False),
        pa.field("intended_s", pa.float64(), nullable=False),
        pa.field("sent_s", pa.float64(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("accepted_s", pa.float64()),
        pa.field("began_s", pa.float64()),
        pa.field("preview_s", pa.float64()),
        pa.field("ended_s", pa.float64()),
        pa.field("refusals", pa.int64(), nullable=False),
        pa.field("retry_after", pa.bool_()),
        pa.field("status", pa.int64()),
        pa.field("job_id", pa.string()),
        pa.field("error", pa.string()),
        pa.field("nbytes", pa.int64()),
        pa.field("queue_s", pa.float64()),
        pa.field("server_s", pa.float64()),
        pa.field("stage_s", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("spans", pa.list_(SPAN), nullable=False),
    ]
)
SAMPLES = pa.schema(
    [
        pa.field("at_s", pa.float64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("labels", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


class BadFile(Exception):
    """A file that is not there, or holds something else."""


def write_trace(path: Path, requests: Sequence[Planned], facts: Mapping[str, str]) -> None:
    """Planned requests; `facts` says what they were drawn from."""
    _write(path, TRACE.with_metadata(dict(facts)), [asdict(request) for request in requests])


def read_trace(path: Path) -> tuple[Planned, ...]:
    """The requests of a trace. BadFile."""
    return tuple(Planned(**row) for row in _read(path, TRACE))


def facts(path: Path) -> dict[str, str]:
    """What the writer of a trace said about it. BadFile."""
    try:
        found = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise BadFile(f"{path} cannot be read: {error}") from error
    return {key.decode(): value.decode() for key, value in found.items()}


def write_jobs(path: Path, rows: Sequence[JobRow]) -> None:
    """Results."""
    _write(path, JOBS, [job_dict(row) for row in rows])


def read_jobs(path: Path) -> list[JobRow]:
    """The results of a measurement. BadFile."""
    return [job_row(row) for row in _read(path, JOBS)]


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """What scrapes gave."""
    _write(path, SAMPLES, [asdict(sample) for sample in samples])


def read_samples(path: Path) -> list[Sample]:
    """The scrapes of a measurement. BadFile."""
    return [Sample(**{**row, "labels": dict(row["labels"])}) for row in _read(path, SAMPLES)]


def job_dict(row: JobRow) -> dict[str, Any]:
    """A row as JSON can hold it."""
    return asdict(row) | {"outcome": row.outcome.value}


def job_row(data: Mapping[str, Any]) -> JobRow:
    """A row from what `job_dict` gave, or a file."""
    spans = tuple(Span(**span) for span in data["spans"])
    return JobRow(**{**data, "outcome": Outcome(data["outcome"]), "stage_s": dict(data["stage_s"]), "spans": spans})


def _write(path: Path, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> None:
    """A file appears whole or not at all, and stays after a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), partial, compression="zstd")
    durable(partial, path)


def durable(partial: Path, path: Path) -> None:
    """Puts a finished file in its place."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadFile(f"{path} cannot be read: {error}") from error
    if missing := [name for name in schema.names if name not in table.column_names]:
        raise BadFile(f"{path} is no such file: it has no column {missing[0]!r}.")
    rows: list[dict[str, Any]] = table.select(schema.names).to_pylist()
    return rows
