"""Where a component works on a stage call: its inputs as values, and a thread to compute on.

A stage opens handles into values, runs a component, and returns what it produced; the room closes the result into
handles. Components are synchronous: they run on the stage's own thread, so the event loop keeps renewing leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

from cluster.records import Artifact, Extension, Handle
from components.values import Value
from deployments.cache import EncodingCache, key_of
from deployments.call import Call, Result
from deployments.final import final_handle
from deployments.transport import Transport

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V", bound=Value)


@dataclass(frozen=True, slots=True)
class Produced:
    """A component's result: values and files by port, and the finished file of the final stage."""

    values: Mapping[str, Value] = field(default_factory=dict)
    files: Mapping[str, Handle] = field(default_factory=dict)
    artifact: Artifact | None = None
    extension: Extension | None = None


@dataclass(frozen=True, slots=True)
class Room(Call):
    """The surroundings of one stage call that computes in this process."""

    transport: Transport
    executor: Executor
    cache: EncodingCache

    async def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a component's function on the stage's thread."""
        with self.lease.computing():
            return await asyncio.get_running_loop().run_in_executor(self.executor, lambda: function(*args, **kwargs))

    async def open(self, port: str, kind: type[V]) -> V:
        """The value behind an input port."""
        handle = self.work.inputs[port]
        with self.laps.lap("get"):
            value = await self.transport.get(handle, self.hints.get(handle.key))
        if not isinstance(value, kind):
            raise TypeError(f"port {port} holds {value.kind}, not {kind.kind}")
        return value

    async def recall(
        self,
        kind: type[V],
        weights: str,
        inputs: Mapping[str, object],
        compute: Callable[[], Awaitable[V]],
        *,
        private: bool = True,
    ) -> V:
        """What `compute` makes of these inputs with these weights, or what was made of the same before: by this tenant,
        or by anybody where the inputs are not private. `inputs` names everything that the value depends on.
        """
        stage, tenant = self.work.call.ref.stage, self.work.tenant_id if private else None
        value, found = await self.cache.recall(key_of(stage, weights, tenant, {**inputs, "kind": kind.kind}), compute)
        self.metrics.cache.looked_up(stage, found, self.cache.nbytes)
        if not isinstance(value, kind):
            raise TypeError(f"the cache holds {value.kind}, not {kind.kind}")
        return value

    async def close(self, produced: Produced) -> Result:
        """Writes the values; the stage is done only when their durable copies exist."""
        handles = dict(produced.files)
        for port, value in produced.values.items():
            with self.laps.lap("put"):
                handles[port] = await self.transport.put(self.key(f"{port}.safetensors"), value)
        if produced.artifact is not None:
            handles["video"] = final_handle(produced.artifact)
        return Result(handles, produced.artifact, self.transport.lend(handles.values()), produced.extension)


class Computation(Protocol):
    """One stage's code: a component per served model, and how a call of it runs."""

    async def run(self, room: Room) -> Produced:
        """Does the work of one call; raises Revoked from the lease when it must stop."""


@runtime_checkable
class Engine(Protocol):
    """A computation that runs something beside the process."""

    @property
    def ailment(self) -> str | None:
        """Why it cannot work any more, in a sentence; None while it can."""

    def close(self) -> None:
        """Ends what it has started. Blocks."""
