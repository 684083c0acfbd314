"""Who asks: Bearer keys into identities.

Only hashes are kept, compared and cached, so a secret lives no longer than its request. What the store said of a key is
believed for `fresh_s`: a revoked key stops within that time on every Api replica. Wrong keys are never remembered, so
nobody can push real ones out of the cache.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from cluster.errors import Forbidden, Unauthenticated, Unavailable
from cluster.store.base import JobStore
from cluster.store.keys import SEEN_EVERY_S
from cluster.tenancy import ApiKey, digest

FRESH_S = 2.0
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is. An admin may also see what is everybody's."""

    tenant: str
    admin: bool

    def operator(self) -> Identity:
        """Raises Forbidden unless this is an admin."""
        if not self.admin:
            raise Forbidden("This needs an admin key; ask the operator.")
        return self


class Keys:
    """Identities by their key, over the job store."""

    def __init__(
        self, store: JobStore, *, fresh_s: float = FRESH_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._fresh_s = fresh_s
        self._clock = clock
        self._known: OrderedDict[str, tuple[ApiKey, float]] = OrderedDict()
        self._noted: dict[str, float] = {}

    async def identify(self, authorization: str | None) -> Identity:
        """The owner of the key in an Authorization header.

        Raises:
            Unauthenticated: there is no key, or it opens nothing.
            Unavailable: the store cannot be asked.
        """
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Unauthenticated("Send your API key in the header: Authorization: Bearer sk-….")
        sha256 = digest(secret)
        key = await self._find(sha256)
        if key is None or not hmac.compare_digest(key.sha256, sha256):
            raise Unauthenticated("The API key is wrong or revoked; ask the operator for another.")
        return Identity(key.tenant_id, key.admin)

    async def _find(self, sha256: str) -> ApiKey | None:
        now = self._clock()
        known = self._known.get(sha256)
        if known is not None and now - known[1] < self._fresh_s:
            return known[0]
        key = await self._store.find_key(sha256)
        if key is None:
            self._known.pop(sha256, None)
            return None
        self._known[sha256] = key, now
        self._known.move_to_end(sha256)
        while len(self._known) > _REMEMBERED:
            self._noted.pop(self._known.popitem(last=False)[1][0].id, None)
        if now - self._noted.get(key.id, -SEEN_EVERY_S) >= SEEN_EVERY_S:
            with suppress(Unavailable):  # a store that only reads (a full disk) still lets clients in
                await self._store.key_used(key.id)
                self._noted[key.id] = now
        return key
