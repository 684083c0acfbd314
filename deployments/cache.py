"""Encodings kept for the next request with the same input: a text's rows, a portrait's tokens, a prompt's extension.

An entry is named by everything that its value depends on (`key_of`): the stage, the weights' content, device and
dtype, the input itself and, unless the input is nobody's secret, the tenant. It is looked for in this process's memory,
then in the artifact store, which all replicas share; equal calls at once in one process wait for the first of them.
What a stage gets it hands on as a value of its own job, so no job ever depends on an entry: it may be removed at any
time.

A stored entry is one file: a line of JSON (kind, sha256 of the rest), then the value's blob. A file that does not hold
what its line says is no entry.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load

from cluster.config import Cache
from cluster.errors import NotFound, Unavailable
from components.values import VALUE_TYPES, Value
from deployments import blobs
from deployments.artifacts import CACHE, ArtifactStore
from deployments.transport import Counters, staged

Found = Literal["memory", "store", "flight", "nothing"]
RECIPE = 1  # raised whenever a stage makes something else of the same input and weights
_PART = 4  # an entry larger than this part of a tier would push out too much of it


def key_of(stage: str, weights: str, tenant: str | None, inputs: Mapping[str, object]) -> str:
    """The name of an entry. `weights` says which (`Weights.identify`), `inputs` is plain JSON; None is every tenant."""
    parts = [RECIPE, stage, weights, tenant, inputs]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class EncodingCache:
    """The cache of one process. Used from one event loop."""

    def __init__(self, artifacts: ArtifactStore, settings: Cache, log: logging.Logger) -> None:
        self._artifacts = artifacts
        self._log = log
        self._memory_nbytes = settings.memory_nbytes if settings.enabled else 0
        self._store_nbytes = settings.store_nbytes if settings.enabled else 0
        self._kept: OrderedDict[str, Value] = OrderedDict()
        self._flights: dict[str, asyncio.Future[Value | None]] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self.nbytes = 0  # of the values in memory

    async def recall(self, key: str, compute: Callable[[], Awaitable[Value]]) -> tuple[Value, Found]:
        """The value of an entry, on the CPU and read-only by agreement, and where it was found; made where it was not.

        Raises whatever `compute` raises; others that wait for the same then make it themselves.
        """
        while (flight := self._flights.get(key)) is not None:
            if (value := await asyncio.shield(flight)) is not None:
                return value, "flight"
        if (value := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return value, "memory"
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        value = None
        try:
            found: Found = "store"
            if (value := await self._read(key)) is None:
                found = "nothing"
                value = await staged(await compute(), Counters())
                self._write_later(key, value)
            self._keep(key, value)
            return value, found
        finally:
            del self._flights[key]
            flight.set_result(value)

    async def settle(self) -> None:
        """Returns once everything is written that will be."""
        while self._writes:
            await asyncio.wait(self._writes)

    def _keep(self, key: str, value: Value) -> None:
        nbytes = blobs.size(value)
        if nbytes > self._memory_nbytes // _PART:
            return
        self._kept[key] = value
        self.nbytes += nbytes
        while self.nbytes > self._memory_nbytes:
            self.nbytes -= blobs.size(self._kept.popitem(last=False)[1])

    async def _read(self, key: str) -> Value | None:
        """What the store has; None also where that is damaged or cannot be read now."""
        if not self._store_nbytes:
            return None
        try:
            data = await self._artifacts.get_bytes(self._artifacts.uri(_file(key)))
            return await asyncio.to_thread(_parse, data)
        except NotFound:
            return None
        except Unavailable as error:
            self._log.warning("encoding not looked up: %s", error)
        except ValueError as error:
            self._log.warning("encoding left aside: %s", error, extra={"entry": key})
        return None

    def _write_later(self, key: str, value: Value) -> None:
        """The stage does not wait for it: only the next request needs the file."""
        if blobs.size(value) <= self._store_nbytes // _PART:
            task = asyncio.create_task(self._write(key, value))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def _write(self, key: str, value: Value) -> None:
        try:
            await self._artifacts.put_pieces(_file(key), await asyncio.to_thread(_pieces, value))
        except Unavailable as error:
            self._log.warning("encoding not kept: %s", error)


def _file(key: str) -> str:
    return f"{CACHE}/{key[:2]}/{key}"


def _pieces(value: Value) -> list[bytes | memoryview]:
    data = blobs.pieces(value.tensors())
    digest = hashlib.sha256()
    for piece in data:
        digest.update(piece)
    line = json.dumps({"kind": value.kind, "sha256": digest.hexdigest()})
    return [line.encode() + b"\n", *data]


def _parse(data: bytes) -> Value:
    """The value of an entry's file. ValueError when it is damaged."""
    line, _, blob = data.partition(b"\n")
    try:
        head = json.loads(line)
        if head["sha256"] != hashlib.sha256(blob).hexdigest():
            raise ValueError("it does not hold the bytes that were written")
        return VALUE_TYPES[head["kind"]].from_tensors(load(blob))
    except (KeyError, TypeError, SafetensorError) as error:
        raise ValueError("it is no entry") from error
