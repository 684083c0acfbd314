"""A process of its own that writes: jobs of its own, and snapshots of a stage it shares with others.

Arguments: store URL, a name, how often, the shared stage's epoch.
"""

from __future__ import annotations

import asyncio
import sys

from cluster.records import StageCall, StageRef
from cluster.store import open_store
from tests.unit.cluster.makers import REQUEST, handle
from tests.unit.cluster.store.play import R2V, TENANT


async def write(url: str, name: str, rounds: int, epoch: int) -> None:
    store = open_store(url)
    await store.open()
    call = StageCall(StageRef("shared", "text"), epoch)
    for index in range(rounds):
        await store.create_job(f"{name}-{index}", TENANT, REQUEST, R2V)
        await store.save_snapshot(call, handle(f"{name}.{index}"), index)
    await store.close()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
