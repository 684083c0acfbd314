"""The transport between processes: Ray's object store beside the durable blob.

`put` writes the blob and, at the same time, copies the tensors once into the node's shared memory. The reference to
that memory is the hint. A consumer on the same node maps it without a copy; on another node Ray moves it there.

Who keeps the memory: the producing process owns it and keeps it until `release`; afterwards whoever holds a hint does.
A stage's ack carries its hints to the Scheduler, which holds them in memory until the consumers are done or the job has
ended and sends them along with the consumers' calls. Nothing stores them: with the producer's process or the Scheduler
they are lost, and the blob serves.

A hint may be passed on to other processes (the ranks of a group) inside an argument of an actor call: nested in a
record or mapping, Ray sends the reference instead of the value. Each process has a transport of its own and calls
`await transport.get(handle, hints.get(handle.key))`; all on one node then map the same copy. The sender keeps the hints
until the calls have answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from cluster.config import Config
from cluster.records import Handle
from components.values import VALUE_TYPES, Value
from deployments import blobs
from deployments.artifacts import ArtifactStore
from deployments.hints import Hint, Hints
from deployments.transport import Counters, DurableTransport, Transport, read, staged, write

HINT_TIMEOUT_S = 10.0  # a reference that takes longer costs more than the blob


def open_transport(config: Config, store: ArtifactStore, *, cache_nbytes: int) -> Transport:
    """The transport of a process of this system: the one place where the topology decides it.

    `cache_nbytes` bounds what is kept for other stages in the process where they share one.
    """
    if config.topology == "monolith":
        return DurableTransport(store, cache_nbytes=cache_nbytes)
    return RayTransport(store)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What lies in the object store. NumPy arrays, because their memory stays read-only in every process."""

    key: str
    arrays: Mapping[str, NDArray[Any]]


class RayTransport:
    """The transport of one process that is part of a Ray cluster."""

    def __init__(self, store: ArtifactStore) -> None:
        self.counters = Counters()
        self._store = store
        self._refs: dict[str, Hint] = {}  # by key, from `put` to `release`

    async def put(self, key: str, value: Value) -> Handle:
        """See `Transport.put`. A full object store costs the hint, not the value."""
        kept = await staged(value, self.counters)
        sharing = asyncio.create_task(self._share(key, kept))
        try:
            return await write(self._store, key, kept, self.counters)
        except BaseException:
            await sharing
            self.release(key)
            raise
        finally:
            await sharing

    async def get(self, handle: Handle, hint: Hint | None = None) -> Value:
        """See `Transport.get`: by this process's own reference, else by the hint, else from the blob."""
        ref = self._refs.get(handle.key, hint)
        if ref is not None:
            value = await self._borrow(handle, ref)
            if value is not None:
                self.counters.got("object_store", blobs.size(value))
                return value
            self.counters.lost += 1
        value = await read(self._store, handle, self.counters)
        blobs.check(value, handle)
        return value

    def lend(self, handles: Iterable[Handle]) -> Hints:
        """See `Transport.lend`. Ray counts the references that travel, so the memory lives as long as any of them."""
        return {handle.key: self._refs[handle.key] for handle in handles if handle.key in self._refs}

    def release(self, prefix: str) -> None:
        """See `Transport.release`."""
        for key in [key for key in self._refs if key.startswith(prefix)]:
            del self._refs[key]

    async def drop(self, prefix: str) -> None:
        """See `Transport.drop`."""
        self.release(prefix + "/")
        await self._store.delete_tree(prefix)

    async def _share(self, key: str, value: Value) -> None:
        arrays = {name: blobs.to_array(tensor) for name, tensor in value.tensors().items()}
        try:
            self._refs[key] = await asyncio.to_thread(ray.put, _Shared(key, arrays))
        except RayError:
            return
        self.counters.copies["object_store"] += 1
        self.counters.nbytes["object_store", "write"] += blobs.size(value)

    @staticmethod
    async def _borrow(handle: Handle, ref: Hint) -> Value | None:
        """The value behind a reference; None when it is lost or is not what the handle says."""
        if not isinstance(ref, ray.ObjectRef):
            return None
        try:
            async with asyncio.timeout(HINT_TIMEOUT_S):
                shared = await ref.as_future()
        except (RayError, TimeoutError) as error:
            # Awaiting makes a cycle of future, error and stack, in which the reference would live until a collection.
            error.__traceback__ = None
            return None
        kind = VALUE_TYPES.get(handle.kind)
        if kind is None or not isinstance(shared, _Shared) or shared.key != handle.key:
            return None
        dtypes = {spec.name: spec.dtype for spec in handle.tensors}
        try:
            value = kind.from_tensors(
                {name: blobs.from_array(array, dtypes[name]) for name, array in shared.arrays.items()}
            )
        except (KeyError, TypeError):
            return None
        return value if blobs.specs(value) == handle.tensors else None
