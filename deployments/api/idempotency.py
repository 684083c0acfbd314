"""The Idempotency-Key header: a request that is sent again makes no second video.

The fingerprint is of the request as the caller wrote it, before anything is drawn, fetched or stored: a random seed, a
URL that answers otherwise the second time, or where a file came to lie do not change it. Files count by their content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from cluster.errors import InvalidRequest
from cluster.records import Dialect
from cluster.tenancy import Once

MAX_CHARS = 255


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key, or none."""

    key: str | None = None

    def of(
        self, dialect: Dialect, body: object, files: Sequence[tuple[str, bytes]] = (), *, part: str = ""
    ) -> Once | None:
        """The key with the fingerprint of its request; None without a key. `body` is JSON (a path's parameters go into
        it), `files` are pairs of field and content in their order. One request that makes several jobs names each
        `part`.
        """
        if self.key is None:
            return None
        hashed = [[field, hashlib.sha256(data).hexdigest()] for field, data in files]
        text = json.dumps([dialect.value, body, hashed], sort_keys=True, separators=(",", ":"))
        return Once(f"{self.key}#{part}" if part else self.key, hashlib.sha256(text.encode()).hexdigest())


def _read(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="The same key with the same request within 24 hours is answered with the same job, with "
            f"another request with 409. At most {MAX_CHARS} printable ASCII characters.",
        ),
    ] = None,
) -> IdempotencyKey:
    if key is None:
        return IdempotencyKey()
    if not 1 <= len(key) <= MAX_CHARS or not key.isascii() or not key.isprintable():
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {MAX_CHARS} printable ASCII characters.", param="Idempotency-Key"
        )
    return IdempotencyKey(key)


Idempotent = Annotated[IdempotencyKey, Depends(_read)]
