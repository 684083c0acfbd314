"""How values get from one stage to the next: a durable blob, and memory where both run in one process.

A value is one safetensors file in the artifact store; its handle says where and what. The producer's process also
keeps the value itself for a while, so a consumer in the same process gets it by reference. Received tensors are
read-only by agreement: torch cannot enforce it, and they may be shared with other consumers or mapped from the file.

Between processes a *hint* may travel beside a handle: a volatile reference to the value in some memory. A hint that is
missing, lost or wrong costs a read of the durable blob and nothing else. `deployments.transport_ray` has the transport
that makes hints; the one here makes none and ignores them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path as LocalPath
from typing import Literal, Protocol, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from cluster.errors import Damaged, NotFound, StageError, Unavailable
from cluster.records import Handle
from components.values import VALUE_TYPES, Value
from deployments import blobs
from deployments.artifacts import ArtifactStore
from deployments.hints import Hint, Hints

Path: TypeAlias = Literal["memory", "object_store", "file"]
Direction: TypeAlias = Literal["write", "read"]


@dataclass(slots=True)
class Counters:
    """What crossed the seam in this process. A copy is one whole value duplicated in memory.

    Writing the durable file out of the tensors' own memory and mapping it are no copies; staging a value (from a
    device, or of a view) is one into "memory", sharing it one into "object_store", reading it from an object store of
    files one from "file".
    """

    nbytes: Counter[tuple[Path, Direction]] = field(default_factory=Counter)
    copies: Counter[Path] = field(default_factory=Counter)
    gets: Counter[Path] = field(default_factory=Counter)
    lost: int = 0  # hints that could not be used

    def got(self, path: Path, nbytes: int) -> None:
        """One value received by this path."""
        self.gets[path] += 1
        self.nbytes[path, "read"] += nbytes


class Transport(Protocol):
    """Moves values between stages by handle. Used from one event loop; implementations pass one contract suite."""

    counters: Counters

    async def put(self, key: str, value: Value) -> Handle:
        """Writes the value durably; the handle is valid in every process. Unavailable, ValueError (key).

        Keys are written once: a retried stage uses another key, so that no reader mixes two attempts.
        """

    async def get(self, handle: Handle, hint: Hint | None = None) -> Value:
        """The value, on the CPU, read-only by agreement.

        Raises:
            StageError: the blob is gone, damaged or not what the handle says.
            Unavailable: the artifact store cannot be reached.
        """

    def lend(self, handles: Iterable[Handle]) -> Hints:
        """Hints for values put here, to be sent beside their handles; whoever keeps a hint keeps its memory."""

    def release(self, prefix: str) -> None:
        """Stops keeping memory for hints of keys that begin with `prefix`; hints already lent stay good."""

    async def drop(self, prefix: str) -> None:
        """Forgets every value under a folder of keys and removes its blobs; nothing there is fine. Unavailable."""


class DurableTransport:
    """The transport of one process: blobs in the artifact store, recent values in a bounded memory."""

    def __init__(self, store: ArtifactStore, *, cache_nbytes: int) -> None:
        """`cache_nbytes` bounds the tensors kept in memory; 0 keeps none."""
        self.counters = Counters()
        self._store = store
        self._cache = _Recent(cache_nbytes)

    async def put(self, key: str, value: Value) -> Handle:
        """See `Transport.put`. Tensors on a device are copied to the CPU."""
        kept = await staged(value, self.counters)
        handle = await write(self._store, key, kept, self.counters)
        self._cache.keep(handle.uri, kept)
        return handle

    async def get(self, handle: Handle, hint: Hint | None = None) -> Value:
        """See `Transport.get`. Local blobs are mapped, not read."""
        value = self._cache.find(handle.uri)
        if value is None:
            value = await read(self._store, handle, self.counters)
            self._cache.keep(handle.uri, value)
        else:
            self.counters.got("memory", blobs.size(value))
        blobs.check(value, handle)
        return value

    def lend(self, handles: Iterable[Handle]) -> Hints:
        """None: nobody else can reach this memory."""
        return {}

    def release(self, prefix: str) -> None:
        """Nothing: the memory is bounded, and the next stage may run here."""

    async def drop(self, prefix: str) -> None:
        """See `Transport.drop`."""
        self._cache.forget(self._store.uri(prefix) + "/")
        await self._store.delete_tree(prefix)


async def staged(value: Value, counters: Counters) -> Value:
    """The value on the CPU, compact: itself, or a copy."""
    tensors = value.tensors()
    compact = await asyncio.to_thread(blobs.compact, tensors)
    if all(tensor is tensors[name] for name, tensor in compact.items()):
        return value
    counters.copies["memory"] += 1
    return type(value).from_tensors(compact)


async def write(store: ArtifactStore, key: str, value: Value, counters: Counters) -> Handle:
    """Writes a staged value's blob. Unavailable, ValueError (key)."""
    stored = await store.put_pieces(key, blobs.pieces(value.tensors()))
    counters.nbytes["file", "write"] += stored.nbytes
    return Handle(
        key=key,
        kind=value.kind,
        uri=stored.uri,
        nbytes=stored.nbytes,
        tensors=blobs.specs(value),
        sha256=stored.sha256,
    )


async def read(store: ArtifactStore, handle: Handle, counters: Counters) -> Value:
    """The value of a blob, not yet checked against the handle's specs. StageError, Unavailable."""
    kind = VALUE_TYPES.get(handle.kind)
    if kind is None:
        raise StageError(f"A {handle.kind} is not a value that stages exchange.", retryable=False)
    try:
        path = store.local_path(handle.uri)
        if path is None:
            tensors = load(await store.get_bytes(handle.uri, handle.sha256))
            counters.copies["file"] += 1
        else:
            tensors = await asyncio.to_thread(_mapped, path, handle.sha256)
        value = kind.from_tensors(tensors)
    except (FileNotFoundError, NotFound) as error:
        raise StageError(f"The stored {handle.kind} is gone.", retryable=False) from error
    except OSError as error:
        raise Unavailable("The artifact store cannot read a stored value.", retry_after_s=5.0) from error
    except (SafetensorError, TypeError) as error:
        raise StageError(f"The stored {handle.kind} is damaged or of another kind.", retryable=False) from error
    counters.got("file", handle.nbytes)
    return value


def _mapped(path: LocalPath, sha256: str | None) -> dict[str, Tensor]:
    """The tensors in a local file's mapping, once its bytes are known to be those that were written."""
    with path.open("rb") as file:
        if sha256 is not None and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise Damaged(
                "A stored value is damaged: its file does not hold the bytes that were written.", retryable=True
            )
    return blobs.mapped(path)


class _Recent:
    """Values by URI, least recently used first out, bounded by bytes of tensors."""

    def __init__(self, limit_nbytes: int) -> None:
        self._limit = limit_nbytes
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._nbytes = 0

    def find(self, uri: str) -> Value | None:
        value = self._values.get(uri)
        if value is not None:
            self._values.move_to_end(uri)
        return value

    def keep(self, uri: str, value: Value) -> None:
        self._remove(uri)
        self._values[uri] = value
        self._nbytes += blobs.size(value)
        while self._nbytes > self._limit:
            self._remove(next(iter(self._values)))

    def forget(self, prefix: str) -> None:
        for uri in [uri for uri in self._values if uri.startswith(prefix)]:
            self._remove(uri)

    def _remove(self, uri: str) -> None:
        value = self._values.pop(uri, None)
        if value is not None:
            self._nbytes -= blobs.size(value)
