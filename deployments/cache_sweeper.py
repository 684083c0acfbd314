"""Keeps the stored encodings within their bounds: those older than allowed go, then the oldest until the rest fits.

No job depends on an entry (`deployments.cache`), so none is asked for.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from cluster.config import Cache
from cluster.errors import Unavailable
from deployments.artifacts import CACHE, ArtifactStore


class Swept(NamedTuple):
    """What a sweep left and took."""

    nbytes: int
    evicted: int


class CacheSweeper:
    """A stateless sweep over the files; an interrupted one is repeated without harm."""

    def __init__(self, artifacts: ArtifactStore, settings: Cache, log: logging.Logger) -> None:
        self._artifacts = artifacts
        self._nbytes = settings.store_nbytes if settings.enabled else 0
        self._keep_s = settings.keep_s
        self._log = log

    async def sweep(self) -> Swept | None:
        """None when the files cannot be reached now."""
        try:
            entries = sorted(await self._artifacts.entries(CACHE), key=lambda entry: entry.age_s)
            left = evicted = 0
            for entry in entries:
                if entry.age_s <= self._keep_s and left + entry.nbytes <= self._nbytes:
                    left += entry.nbytes
                else:
                    await self._artifacts.delete_tree(entry.key)
                    evicted += 1
        except Unavailable as error:
            self._log.warning("encodings not swept: %s", error)
            return None
        return Swept(left, evicted)
