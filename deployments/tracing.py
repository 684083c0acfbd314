"""Spans of jobs, sent by OTLP. Off unless the configuration names a collector.

A span is made when its work has ended, from what the process knows then: begin, end, outcome. Its name and its parent's
follow from the job's trace (`cluster.trace`), so no context travels but the trace itself, in the job's row and the
stage's call. OpenTelemetry's batch processor queues spans and sends them on a thread of its own; a collector that
is away costs spans and nothing else.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from cluster.config import Tracing
from cluster.records import JobState
from cluster.store.observer import Ended, Kind, Moment, Observer
from cluster.trace import Trace

SERVICE = "skyreels"
SCOPE = InstrumentationScope("skyreels")
DELAY_MS = 1000  # longest time that a span waits; ranks may be ended without a word
TIMEOUT_S = 5.0  # of one export, its retries included
CLOSE_S = 2.0
Value = str | int | float | bool
Moments = Sequence[Moment]

caller: ContextVar[Trace | None] = ContextVar("caller", default=None)  # as the request's `traceparent` says


def now_ns() -> int:
    """The time in which spans are told."""
    return time.time_ns()


def at_ns(moment: datetime) -> int:
    """The same of the job store's clock."""
    return int(moment.timestamp() * 1e9)


class Tracer:
    """Sends the spans of one process; one that is off does nothing."""

    def __init__(self, settings: Tracing, role: str) -> None:
        """`role` is what the process is: Api, Scheduler, a pool's name …"""
        self._processor: BatchSpanProcessor | None = None
        if settings.endpoint is None:
            return
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # an absent collector is no news
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=TIMEOUT_S)
        self._processor = BatchSpanProcessor(exporter, schedule_delay_millis=DELAY_MS)
        self._resource = Resource(
            {"service.name": SERVICE, "service.instance.id": f"{role}@{platform.node()}", "skyreels.role": role}
        )

    @property
    def on(self) -> bool:
        """Whether spans are sent."""
        return self._processor is not None

    def span(
        self,
        trace: Trace | None,
        what: str,
        name: str,
        began_ns: int,
        *,
        parent: str | None,
        ended_ns: int | None = None,
        error: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Value] | None = None,
    ) -> None:
        """One span that has ended.

        Args:
            trace: of its job; nothing is sent without one, or when it is not sampled.
            what: names the span within its trace, see `Trace.span_id`; the same again is the same span.
            name: for people.
            began_ns: nanoseconds since 1970.
            parent: what the parent span is of; None: the caller's.
            ended_ns: now if left out.
            error: why the work failed, if it did.
            kind: OpenTelemetry's.
            attributes: no prompt and no URL.
        """
        if self._processor is None or trace is None or not trace.sampled:
            return
        parent_id = trace.parent if parent is None else trace.span_id(parent)
        self._processor.on_end(
            ReadableSpan(
                name=name,
                context=_context(trace, trace.span_id(what)),
                parent=None if parent_id is None else _context(trace, parent_id),
                resource=self._resource,
                attributes=dict(attributes or {}),
                kind=kind,
                status=Status(StatusCode.OK) if error is None else Status(StatusCode.ERROR, error),
                start_time=began_ns,
                end_time=now_ns() if ended_ns is None else ended_ns,
                instrumentation_scope=SCOPE,
            )
        )

    def close(self) -> None:
        """Sends what is queued, within CLOSE_S; the rest is lost. Blocks."""
        if self._processor is not None:
            # The processor waits for its collector for as long as that takes.
            last = threading.Thread(target=self._processor.shutdown, daemon=True)
            last.start()
            last.join(CLOSE_S)


OFF = Tracer(Tracing(), "nobody")


class TracedStore:
    """An observer that makes the span of each job that ends, and passes everything on."""

    def __init__(self, tracer: Tracer, inner: Observer) -> None:
        self._tracer = tracer
        self._inner = inner

    def asked(self, kind: Kind, seconds: float, *, answered: bool) -> None:
        """See `Observer`."""
        self._inner.asked(kind, seconds, answered=answered)

    def committed(self, moments: Moments) -> None:
        """See `Observer`."""
        self._inner.committed(moments)
        for moment in moments:
            if isinstance(moment, Ended):
                self._root(moment)

    def _root(self, job: Ended) -> None:
        self._tracer.span(
            job.trace,
            job.job_id,
            "job",
            at_ns(job.created_at),
            parent=None,
            ended_ns=at_ns(job.finished_at),
            error=None if job.state is JobState.DONE else job.code or job.state.value,
            attributes={"job": job.job_id, "tenant": job.tenant_id, "model": job.model, "state": job.state.value},
        )


def _context(trace: Trace, span_id: str) -> SpanContext:
    return SpanContext(int(trace.id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
