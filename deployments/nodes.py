"""What Ray says about the nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import ray
from ray.exceptions import RayError

from cluster.placement import Labels, misplaced
from cluster.pools import Pool


def node_labels() -> Sequence[Labels]:
    """The labels of each living node. RayError, or RuntimeError outside of a cluster."""
    return [node["Labels"] for node in ray.nodes() if node["Alive"]]


async def find_misplaced(pools: Iterable[Pool]) -> Mapping[str, str]:
    """See `cluster.placement.misplaced`. Asks nobody when no pool has labels; nothing while Ray does not answer."""
    asking = [pool for pool in pools if pool.labels]
    try:
        return misplaced(asking, await asyncio.to_thread(node_labels)) if asking else {}
    except RayError:
        return {}
