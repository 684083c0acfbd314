"""A process with a transport, as an actor class; its module has a full name, so that workers can import it."""

from __future__ import annotations

import os

from cluster.records import Handle
from deployments.artifacts import ArtifactStore
from deployments.transport import Counters
from deployments.transport_ray import RayTransport
from tests.unit.deployments.transport_contract import condition, latents, same, text


class End:
    def __init__(self, root: str) -> None:
        self._transport = RayTransport(ArtifactStore(root))
        self._kept: list[object] = []

    async def copies(self) -> int:
        return self._transport.counters.copies.total()

    async def put(self, key: str, kind: str) -> tuple[Handle, list[object]]:
        self._transport.counters = Counters()
        value = {"text": text, "condition": condition, "latents": latents}[kind]()
        handle = await self._transport.put(key, value)
        hints = self._transport.lend([handle])
        self._transport.release(key)
        return handle, [hints]

    async def get(self, handle: Handle, hints: list[dict[str, object]]) -> tuple[bool, dict[str, int]]:
        self._transport.counters = Counters()
        value = await self._transport.get(handle, hints[0].get(handle.key))
        wanted = {"TextContext": text, "Condition": condition, "Latents": latents}[value.kind]()
        return same(value, wanted), dict(self._transport.counters.gets)

    async def keep(self, handle: Handle, hints: list[dict[str, object]]) -> None:
        self._kept.append(await self._transport.get(handle, hints[0].get(handle.key)))

    async def forget(self) -> None:
        self._kept.clear()

    async def spoil(self, handle: Handle, hints: list[dict[str, object]]) -> str:
        (ref,) = hints[0].values()
        arrays = (await ref).arrays  # type: ignore[misc, attr-defined]
        try:
            next(iter(arrays.values()))[...] = 1
        except ValueError as error:
            return str(error)
        return "written"

    async def pid(self) -> int:
        return os.getpid()
