"""The name of a job's trace, and of the spans in it.

A trace is named by W3C Trace Context (https://www.w3.org/TR/trace-context/): 16 bytes, 32 hex digits. A span's name is
8 bytes, here derived from the trace and from what the span is of, so that every process can hang its spans under
those of others without a word between them, and a span that is sent twice is the same span.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Self

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NOBODY = "0" * 16
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """One job's trace. `parent` is the caller's span, None when the job is the root; only `sampled` ones are sent."""

    id: str
    parent: str | None = None
    sampled: bool = True

    @classmethod
    def new(cls, *, sampled: bool) -> Self:
        """A trace of its own."""
        return cls(secrets.token_hex(16), None, sampled)

    @classmethod
    def read(cls, traceparent: str) -> Self | None:
        """What a caller's header says; None when it says nothing valid, as the specification asks."""
        found = _TRACEPARENT.fullmatch(traceparent.strip())
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        if version == "ff" or (version == "00" and more) or trace_id == "0" * 32:
            return None
        return cls(trace_id, None if span_id == _NOBODY else span_id, bool(int(flags, 16) & _SAMPLED))

    def __str__(self) -> str:
        """The same as a header's value; `read` is the inverse."""
        return f"00-{self.id}-{self.parent or _NOBODY}-{int(self.sampled):02x}"

    def span_id(self, what: str) -> str:
        """The name of the span of `what`: a job's id, or a stage's name and epoch."""
        return hashlib.sha256(f"{self.id}/{what}".encode()).hexdigest()[:16]
